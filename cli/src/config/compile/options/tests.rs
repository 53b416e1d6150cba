//! One case for each row of the table of `docker run` flags.

use super::super::super::yaml::{SourceMap, read};
use super::*;

#[track_caller]
fn translated(yaml: &str) -> Translated {
    let root = read(yaml, 0, &SourceMap::default()).unwrap().0.unwrap();
    translate(root.as_map().unwrap())
}

/// Checks the engine options, as `config` and `host_config` merged into one JSON object.
#[track_caller]
fn check(yaml: &str, json: Json) {
    let out = translated(yaml);
    assert_eq!(out.problems, [], "{yaml}");
    let mut all = serde_json::Map::new();
    all.extend(out.engine.config.clone());
    all.extend(out.engine.host_config.clone());
    if !out.engine.endpoint.is_empty() {
        all.insert("endpoint".into(), json!(out.engine.endpoint));
    }
    assert_eq!(Json::Object(all), json, "{yaml}");
}

#[track_caller]
fn refused(yaml: &str, cause: &str) {
    let problems = translated(yaml).problems;
    assert!(problems.iter().any(|p| p.cause.contains(cause)), "{yaml}: {problems:?}");
}

#[test]
fn ports_are_bound_and_exposed() {
    check(
        "publish: 80",
        json!({"ExposedPorts": {"80/tcp": {}}, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": ""}]}}),
    );
    check(
        "publish: ['127.0.0.1:8080:80/udp', '[::1]:81:80/udp']",
        json!({"ExposedPorts": {"80/udp": {}}, "PortBindings": {"80/udp": [
            {"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "81"}]}}),
    );
    check(
        "publish: 9000-9001:90-91",
        json!({"ExposedPorts": {"90/tcp": {}, "91/tcp": {}}, "PortBindings": {
            "90/tcp": [{"HostIp": "", "HostPort": "9000"}], "91/tcp": [{"HostIp": "", "HostPort": "9001"}]}}),
    );
    check(
        "publish: published=8080,target=80,protocol=tcp",
        json!({"ExposedPorts": {"80/tcp": {}}, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}),
    );
    check("publish-all: true", json!({"PublishAllPorts": true}));
    check(
        "expose: [3000, 4000-4001/udp]",
        json!({"ExposedPorts": {"3000/tcp": {}, "4000/udp": {}, "4001/udp": {}}}),
    );
    refused("publish: 'a:b'", "no port");
    refused("publish: 80-81:90-92", "differ in length");
}

#[test]
fn memory_and_processors_are_numbers() {
    check("memory: 512m", json!({"Memory": 536_870_912}));
    check("memory-reservation: 1g", json!({"MemoryReservation": 1_073_741_824}));
    check("memory-swap: -1", json!({"MemorySwap": -1}));
    check("shm-size: 64kb", json!({"ShmSize": 65_536}));
    check("cpus: 0.5", json!({"NanoCpus": 500_000_000}));
    check("cpus: 2", json!({"NanoCpus": 2_000_000_000_i64}));
    check("cpu-shares: 512", json!({"CpuShares": 512}));
    check("{cpu-period: 1, cpu-quota: 2}", json!({"CpuPeriod": 1, "CpuQuota": 2}));
    check("{cpuset-cpus: '0-2', cpuset-mems: 0}", json!({"CpusetCpus": "0-2", "CpusetMems": "0"}));
    check(
        "{cpu-rt-period: 1, cpu-rt-runtime: 2}",
        json!({"CpuRealtimePeriod": 1, "CpuRealtimeRuntime": 2}),
    );
    check(
        "{memory-swappiness: 0, oom-kill-disable: true, oom-score-adj: -5, pids-limit: -1}",
        json!({"MemorySwappiness": 0, "OomKillDisable": true, "OomScoreAdj": -5, "PidsLimit": -1}),
    );
    check(
        "ulimit: [nofile=1024:2048, core=-1]",
        json!({"Ulimits": [
        {"Name": "nofile", "Soft": 1024, "Hard": 2048}, {"Name": "core", "Soft": -1, "Hard": -1}]}),
    );
    refused("memory: lots", "no size");
    refused("memory: ''", "no size");
    refused("cpus: many", "processors");
}

#[test]
fn devices_and_gpus_are_requests() {
    let gpu = |count: i64, ids: Json, capabilities: Json| json!({"DeviceRequests": [{"Driver": "", "Count": count, "DeviceIDs": ids, "Capabilities": [capabilities], "Options": {}}]});
    check("gpus: all", gpu(-1, Json::Null, json!(["gpu"])));
    check("gpus: 2", gpu(2, Json::Null, json!(["gpu"])));
    check("gpus: device=0", gpu(0, json!(["0"]), json!(["gpu"])));
    check("gpus: '\"device=0,2\"'", gpu(0, json!(["0", "2"]), json!(["gpu"])));
    check("gpus: 'count=1,capabilities=a,b'", gpu(1, Json::Null, json!(["a", "b", "gpu"])));
    check(
        "device: /dev/x",
        json!({"Devices": [{"PathOnHost": "/dev/x", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]}),
    );
    check(
        "device: /dev/x:/dev/y:r",
        json!({"Devices": [{"PathOnHost": "/dev/x", "PathInContainer": "/dev/y", "CgroupPermissions": "r"}]}),
    );
    check(
        "device: vendor.com/gpu=0",
        json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/gpu=0"]}]}),
    );
    check("device-cgroup-rule: 'c 1:3 mr'", json!({"DeviceCgroupRules": ["c 1:3 mr"]}));
    check(
        "{blkio-weight: 300, device-read-bps: '/dev/sda:1mb', device-write-iops: '/dev/sda:100'}",
        json!({"BlkioWeight": 300, "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1_048_576}],
            "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 100}]}),
    );
}

#[test]
fn mounts_are_parsed() {
    check(
        "mount: type=bind,src=/a,dst=/b,ro,bind-propagation=rshared",
        json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rshared"}}]}),
    );
    check(
        "mount: type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
        json!({"Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 1016}}]}),
    );
    check(
        "tmpfs: ['/run:rw,size=64m', /tmp]",
        json!({"Tmpfs": {"/run": "rw,size=64m", "/tmp": ""}}),
    );
    check(
        "{volumes-from: other, volume-driver: nfs}",
        json!({"VolumesFrom": ["other"], "VolumeDriver": "nfs"}),
    );
    assert_eq!(translated("volume: ['a:/a', /b]").volumes, ["a:/a", "/b"]);
    refused("mount: type=bind,src=./a,dst=/b", "absolute");
}

#[test]
fn names_and_networks_stay_beside_the_fixed_ones() {
    check(
        "add-host: ['a:1.2.3.4', 'b=[::1]', 'c:host-gateway']",
        json!({"ExtraHosts": ["a:1.2.3.4", "b:::1", "c:host-gateway"]}),
    );
    check("network: kamal", json!({}));
    refused("network: [kamal, other]", "one network only");
    check(
        "{network-alias: db, ip: 10.0.0.9, ip6: '::9', mac-address: 'aa:bb', link: x, link-local-ip: 169.254.1.1}",
        json!({"endpoint": {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "::9", "LinkLocalIPs": ["169.254.1.1"]},
            "MacAddress": "aa:bb", "Links": ["x"]}}),
    );
    check(
        "{dns: 1.1.1.1, dns-search: a.b, dns-option: ndots:1}",
        json!({"Dns": ["1.1.1.1"], "DnsSearch": ["a.b"], "DnsOptions": ["ndots:1"]}),
    );
    refused("network: host", "excludes");
}

#[test]
fn health_checks_are_given_in_nanoseconds() {
    check(
        "{health-cmd: 'curl x', health-interval: 1m30s, health-timeout: 500ms, health-start-period: 5s, health-start-interval: 1s, health-retries: 3}",
        json!({"Healthcheck": {"Test": ["CMD-SHELL", "curl x"], "Interval": 90_000_000_000_i64, "Timeout": 500_000_000,
            "StartPeriod": 5_000_000_000_i64, "StartInterval": 1_000_000_000, "Retries": 3}}),
    );
    check("no-healthcheck: true", json!({"Healthcheck": {"Test": ["NONE"]}}));
    refused("health-interval: soon", "no duration");
}

#[test]
fn flags_and_texts_are_handed_on() {
    check(
        "{init: true, privileged: true, read-only: true}",
        json!({"Init": true, "Privileged": true, "ReadonlyRootfs": true}),
    );
    check(
        "{user: app, workdir: /w, domainname: d, hostname: h, stop-signal: SIGINT, stop-timeout: 5}",
        json!({"User": "app", "WorkingDir": "/w", "Domainname": "d", "Hostname": "h", "StopSignal": "SIGINT", "StopTimeout": 5}),
    );
    check("entrypoint: ''", json!({"Entrypoint": [""]}));
    check("{tty: true, interactive: true}", json!({"Tty": true, "OpenStdin": true}));
    check(
        "{pid: host, ipc: host, uts: host, userns: host, cgroupns: private, cgroup-parent: /x, runtime: runc, isolation: default, group-add: [a]}",
        json!({"PidMode": "host", "IpcMode": "host", "UTSMode": "host", "UsernsMode": "host", "CgroupnsMode": "private",
            "CgroupParent": "/x", "Runtime": "runc", "Isolation": "default", "GroupAdd": ["a"]}),
    );
    check(
        "{cap-add: [NET_ADMIN], cap-drop: ALL}",
        json!({"CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"]}),
    );
    check("sysctl: net.core.somaxconn=1024", json!({"Sysctls": {"net.core.somaxconn": "1024"}}));
    check(
        "security-opt: [no-new-privileges, seccomp=unconfined]",
        json!({"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}),
    );
    check("security-opt: systempaths=unconfined", json!({"MaskedPaths": [], "ReadonlyPaths": []}));
    check(
        "{storage-opt: size=10G, annotation: a=b}",
        json!({"StorageOpt": {"size": "10G"}, "Annotations": {"a": "b"}}),
    );
    refused("security-opt: seccomp=/etc/profile.json", "seccomp");
}

#[test]
fn what_dhow_decides_itself_is_taken_out() {
    let out = translated(
        "{restart: 'on-failure:3', log-driver: syslog, log-opt: [tag=x], label: [a=b, c], env: [A=1, B], platform: linux/arm64}",
    );
    assert_eq!(out.problems, []);
    assert_eq!(out.restart, Some(Restart::OnFailure(3)));
    assert_eq!(out.log_driver.as_deref(), Some("syslog"));
    assert_eq!(out.log_options["tag"], "x");
    assert_eq!((out.labels["a"].as_str(), out.labels["c"].as_str()), ("b", ""));
    assert_eq!(out.env[1], EnvVar { name: "B".into(), value: None });
    assert_eq!(out.engine.platform.as_deref(), Some("linux/arm64"));
    assert_eq!(translated("restart: no").restart, Some(Restart::No));
}

#[test]
fn options_of_the_docker_program_are_refused() {
    for option in [
        "rm",
        "pull",
        "cidfile",
        "detach-keys",
        "sig-proxy",
        "quiet",
        "use-api-socket",
        "name",
        "label-file",
        "env-file",
        "frobnicate",
    ] {
        assert_eq!(translated(&format!("{option}: x")).problems.len(), 1, "{option}");
    }
    refused("memory: {a: b}", "map");
    refused("init: maybe", "on or off");
}

/// What the agent lets through is listed in the model; nothing else may come out of here.
#[test]
fn every_key_that_is_handed_on_is_one_the_agent_knows() {
    let (config, host_config) = dhow_proto::model::template::ENGINE_OPTIONS;
    for (flag, key, _) in CONFIG {
        assert!(config.contains(key), "{flag}");
    }
    for (flag, key, _) in HOST_CONFIG {
        assert!(host_config.contains(key), "{flag}");
    }
}
