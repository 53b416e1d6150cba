//! The examples that the old documents give word for word: each is read, and means what they say. The
//! numbers are those under which the project lists them.

use dhow::config::{CompileInput, LoadOptions, SystemOutside, load};
use dhow_proto::model::spec::{RoleSpec, Spec};

const REST: &str = "service: shop\nimage: acme/shop\nregistry: {username: u, password: [P]}\nbuilder: {arch: amd64}\n";

/// The spec and the warnings of a config, or all that is wrong with it.
fn read(text: &str) -> Result<(Spec, String), String> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("deploy.yml");
    std::fs::write(&file, format!("{REST}{text}")).expect("a file can be written");
    let options = LoadOptions { config_file: Some(file), ..LoadOptions::default() };
    let loaded = load(&options, &SystemOutside).map_err(|problems| problems.render(false))?;
    let warned = loaded.warnings.render_warnings(false);
    let compiled = loaded
        .compile(&CompileInput { version: "v1", outside: &SystemOutside })
        .map_err(|problems| problems.render(false))?;
    Ok((compiled.spec, warned + &compiled.warnings.render_warnings(false)))
}

#[track_caller]
fn spec(text: &str) -> Spec {
    read(text).unwrap_or_else(|problems| panic!("{text}\n{problems}")).0
}

/// Clear and secret variables of a host's template.
fn env(role: &RoleSpec, host: &str) -> Vec<String> {
    let at = role.hosts.iter().find(|at| at.host.as_str() == host).expect("the role has the host");
    let template = &role.templates[at.template];
    let clear = template.template.container.env.iter();
    let clear =
        clear.map(|var| format!("{}={}", var.name, var.value.as_deref().unwrap_or_default()));
    let secret =
        template.secret_env.iter().map(|secret| format!("{}:{}", secret.name, secret.secret));
    clear.chain(secret).collect()
}

/// S6: the primary role is behind the proxy, others are not; either can be turned round.
#[test]
fn s6_roles_behind_the_proxy() {
    let proxied = |text: &str| -> Vec<String> {
        let roles = spec(text).roles;
        let behind = roles.iter().filter(|role| role.templates[0].template.proxy.is_some());
        behind.map(|role| role.name.to_string()).collect()
    };
    assert_eq!(proxied("servers: {web: [1.1.1.1], jobs: [1.1.1.2]}\n"), ["web"]);
    assert_eq!(
        proxied(
            "servers: {web: {hosts: [1.1.1.1], proxy: false}, jobs: {hosts: [1.1.1.2], proxy: true}}\n"
        ),
        ["jobs"]
    );
    let merged = spec(
        "servers: {web: [1.1.1.1], api: {hosts: [1.1.1.2], proxy: {app_port: 4000}}}\n\
         proxy: {app_port: 3000, response_timeout: 9}\n",
    );
    let api = merged.roles.iter().find(|role| role.name.as_str() == "api").unwrap();
    let proxy = api.templates[0].template.proxy.as_ref().unwrap();
    assert_eq!((proxy.app_port, proxy.response_timeout_s), (4000, Some(9)));
}

/// S7: timeouts are root keys; the old ones are refused, and what has their place is named.
#[test]
fn s7_old_timeouts_name_their_replacement() {
    for (text, key, instead) in [
        ("stop_wait_time: 30\n", "stop_wait_time", "drain_timeout"),
        ("readiness_timeout: 30\n", "readiness_timeout", "deploy_timeout"),
        ("proxy: {deploy_timeout: 30}\n", "deploy_timeout", "root key `deploy_timeout`"),
        ("proxy: {drain_timeout: 30}\n", "drain_timeout", "root key `drain_timeout`"),
    ] {
        let said = read(&format!("servers: [1.1.1.1]\n{text}")).unwrap_err();
        assert!(said.contains(&format!("unknown key: {key}")) && said.contains(instead), "{said}");
    }
    let spec = spec("servers: [1.1.1.1]\ndeploy_timeout: 41\ndrain_timeout: 42\n");
    let timeouts = &spec.roles[0].templates[0].template.timeouts;
    assert_eq!((timeouts.deploy_s, timeouts.drain_s), (41, 42));
}

/// S9: the transitional form. Only beside `enabled` are `hosts` servers.
#[test]
fn s9_hosts_beside_enabled_are_servers() {
    let (moved, warned) =
        read("servers: [1.1.1.1, 1.1.1.2]\nproxy: {enabled: true, hosts: [1.1.1.1]}\n").unwrap();
    let proxy = moved.roles[0].templates[0].template.proxy.as_ref().unwrap();
    assert!(proxy.hosts.is_empty(), "{:?}", proxy.hosts);
    assert!(warned.contains("1.1.1.2") && warned.contains("Traefik"), "{warned}");
    let (names, warned) =
        read("servers: [1.1.1.1, 1.1.1.2]\nproxy: {hosts: [a.example.com]}\n").unwrap();
    let proxy = names.roles[0].templates[0].template.proxy.as_ref().unwrap();
    assert_eq!(proxy.hosts, ["a.example.com"]);
    assert_eq!(warned, "");
}

/// S14: tags of hosts, with a host listed twice, in both spellings of their env.
#[test]
fn s14_tags_give_a_host_its_env() {
    let servers =
        "servers:\n  - 1.1.1.1\n  - 1.1.1.2: tag1\n  - 1.1.1.2: tag2\n  - 1.1.1.3: [tag1, tag2]\n";
    let tags = "{tag1: {ENV1: one, BOTH: 1}, tag2: {clear: {BOTH: 2}, secret: [SECRET2]}}";
    for env_of_tags in [
        format!("env: {{clear: {{ALL: a}}, tags: {tags}}}\n"),
        format!("env: {{clear: {{ALL: a}}}}\nenv_tags: {tags}\n"),
    ] {
        let spec = spec(&format!("{servers}{env_of_tags}"));
        let web = &spec.roles[0];
        assert_eq!(web.hosts.len(), 3, "{env_of_tags}");
        assert_eq!(env(web, "1.1.1.1"), ["ALL=a"]);
        assert_eq!(env(web, "1.1.1.2"), ["ALL=a", "BOTH=2", "SECRET2:SECRET2"]);
        assert_eq!(env(web, "1.1.1.3"), ["ALL=a", "ENV1=one", "BOTH=2", "SECRET2:SECRET2"]);
    }
}

/// S15: where the app's files are on a host.
#[test]
fn s15_run_directory_is_honoured() {
    let servers = "servers: [1.1.1.1]\n";
    assert_eq!(spec(servers).run_directory, None);
    let spec = spec(&format!("{servers}run_directory: /var/run/kamal/\n"));
    assert_eq!(spec.run_directory.as_deref(), Some("/var/run/kamal/"));
}

/// S2: a folder of error pages; none where it is not set.
#[test]
fn s2_error_pages_come_from_a_folder() {
    assert!(spec("servers: [1.1.1.1]\n").error_pages.is_none());
    assert_eq!(
        spec("servers: [1.1.1.1]\nerror_pages_path: public\n").error_pages,
        Some(Vec::new())
    );
}

/// S28: an alias that has the name of a command is refused; what it does is told by `names.rs`.
#[test]
fn s28_an_alias_is_no_command() {
    let said = read("servers: [1.1.1.1]\naliases: {deploy: app details}\n").unwrap_err();
    assert!(said.contains("Alias 'deploy' conflicts with a built-in command"), "{said}");
    spec(
        "servers: [1.1.1.1]\naliases: {console: app exec -i --reuse -r console \"bin/console\"}\n",
    );
}
