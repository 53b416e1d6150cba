//! The merged tree becomes the typed config.

use super::super::merge::merged;
use super::super::schema::ROOT;
use super::super::yaml::{Map, Node, Value};
use super::{
    Accessory, Boot, BuildCache, Builder, Config, Credential, DhowSettings, Env, HookVerbosity,
    HooksOutput, Logging, Output, PathMount, Placement, Proxy, ProxyRun, Registry, Role, Ssh,
    SshConfig, TaggedHost, Tls,
};

/// Builds the config of a tree; never fails, for wrong types count as absent.
pub(crate) fn build(raw: Map, destination: Option<String>) -> Config {
    let raw = with_text_keys(raw);
    let root = &raw;
    // A name that YAML reads as false counts as none, as for Kamal.
    let name = |key: &str| root.get(key).filter(|node| !node.is_blank()).and_then(scalar);
    let service = name("service").unwrap_or_default();
    let registry = registry(root.get("registry").and_then(Node::as_map));
    let image = name("image");
    let image = image.or_else(|| registry.is_local().then(|| service.clone())).unwrap_or_default();
    let primary_role = text(root, "primary_role").unwrap_or_else(|| "web".into());
    let mut env_tags = tags(map(root, "env_tags"));
    env_tags.extend(tags(map(root, "env").and_then(|env| map(env, "tags"))));
    let transition = map(root, "proxy").filter(|proxy| flag(proxy, "enabled") == Some(true));
    Config {
        roles: roles(root, &primary_role),
        accessories: pairs(map(root, "accessories"))
            .map(|(name, node)| accessory(name, node, &service))
            .collect(),
        labels: text_pairs(map(root, "labels")),
        volumes: text_list(root, "volumes"),
        env: env(root.get("env")),
        env_tags,
        logging: logging(map(root, "logging")),
        proxy: map(root, "proxy").map(proxy),
        proxy_transition: transition.map(|proxy| text_list(proxy, "hosts")),
        boot: boot(map(root, "boot")),
        builder: builder(map(root, "builder")),
        ssh: ssh(map(root, "ssh"), map(root, "sshkit")),
        asset_path: text(root, "asset_path"),
        hooks_path: text(root, "hooks_path").unwrap_or_else(|| ".kamal/hooks".into()),
        hooks_output: hooks_output(root.get("hooks_output")),
        secrets_path: text(root, "secrets_path").unwrap_or_else(|| ".kamal/secrets".into()),
        error_pages_path: text(root, "error_pages_path"),
        retain_containers: int(root, "retain_containers").unwrap_or(5),
        readiness_delay: int(root, "readiness_delay").unwrap_or(7),
        deploy_timeout: int(root, "deploy_timeout").unwrap_or(30),
        drain_timeout: int(root, "drain_timeout").unwrap_or(30),
        stop_timeout: int(root, "stop_timeout"),
        run_directory: text(root, "run_directory"),
        aliases: text_pairs(map(root, "aliases")),
        output: Output {
            otel_endpoint: map(root, "output")
                .and_then(|output| map(output, "otel"))
                .and_then(|otel| text(otel, "endpoint")),
            file_path: map(root, "output")
                .and_then(|output| map(output, "file"))
                .and_then(|file| text(file, "path")),
        },
        dhow: dhow(map(root, "x-dhow")),
        destination,
        service,
        image,
        registry,
        primary_role,
        raw,
    }
}

/// At the root, `:service` is `service`: Kamal turns the keys into symbols there.
pub(crate) fn with_text_keys(mut raw: Map) -> Map {
    for entry in &mut raw.entries {
        if let Value::Symbol(name) = &entry.key.value
            && ROOT.key(name).is_some()
        {
            entry.key.value = Value::String(name.clone());
        }
    }
    raw
}

fn map<'a>(map: &'a Map, key: &str) -> Option<&'a Map> {
    map.get(key).and_then(Node::as_map)
}

fn scalar(node: &Node) -> Option<String> {
    match node.value {
        Value::Null | Value::List(_) | Value::Map(_) => None,
        _ => Some(node.to_text()),
    }
}

fn text(map: &Map, key: &str) -> Option<String> {
    map.get(key).and_then(scalar)
}

fn int(map: &Map, key: &str) -> Option<i128> {
    map.get(key).and_then(Node::as_int)
}

fn flag(map: &Map, key: &str) -> Option<bool> {
    map.get(key).and_then(Node::as_bool)
}

fn text_list(map: &Map, key: &str) -> Vec<String> {
    let items = map.get(key).and_then(Node::as_list);
    items.into_iter().flatten().filter_map(scalar).collect()
}

fn pairs(map: Option<&Map>) -> impl Iterator<Item = (String, &Node)> {
    map.into_iter().flat_map(|map| &map.entries).map(|entry| (entry.key.to_text(), &entry.value))
}

fn text_pairs(map: Option<&Map>) -> Vec<(String, String)> {
    pairs(map).filter_map(|(name, node)| Some((name, scalar(node)?))).collect()
}

fn registry(map: Option<&Map>) -> Registry {
    let Some(map) = map else { return Registry::default() };
    Registry {
        server: text(map, "server").unwrap_or_default(),
        username: map.get("username").and_then(credential),
        password: map.get("password").and_then(credential),
    }
}

fn credential(node: &Node) -> Option<Credential> {
    match &node.value {
        Value::List(items) => items.first().and_then(scalar).map(Credential::Secret),
        _ => scalar(node).filter(|text| !text.is_empty()).map(Credential::Clear),
    }
}

fn roles(root: &Map, primary: &str) -> Vec<Role> {
    let mut roles = match root.get("servers").map(|node| &node.value) {
        Some(Value::List(items)) => vec![role("web", Some(items), None, root, primary)],
        Some(Value::Map(map)) => pairs(Some(map))
            .map(|(name, node)| {
                let hosts = node.as_list().or_else(|| node.as_map()?.get("hosts")?.as_list());
                role(&name, hosts, node.as_map(), root, primary)
            })
            .collect(),
        _ => Vec::new(),
    };
    roles.sort_by(|a, b| a.name.cmp(&b.name));
    roles
}

fn role(name: &str, hosts: Option<&[Node]>, own: Option<&Map>, root: &Map, primary: &str) -> Role {
    let empty = Map::default();
    let own = own.unwrap_or(&empty);
    let own_proxy = own.get("proxy");
    let proxied = match own_proxy.map(|node| &node.value) {
        Some(Value::Bool(on)) => *on,
        Some(Value::Map(_)) => true,
        _ => name == primary,
    };
    Role {
        name: name.to_owned(),
        hosts: tagged_hosts(hosts.unwrap_or_default()),
        cmd: text(own, "cmd"),
        options: map(own, "options").cloned().unwrap_or_default(),
        env: env(own.get("env")),
        labels: text_pairs(map(own, "labels")),
        logging: logging(Some(&merged(root.get("logging"), own.get("logging")))),
        proxy: proxied.then(|| proxy(&merged(root.get("proxy"), own_proxy))),
        asset_path: text(own, "asset_path").or_else(|| text(root, "asset_path")),
        stop_timeout: int(own, "stop_timeout").or_else(|| int(root, "stop_timeout")),
    }
}

/// Hosts with their tags; a host listed twice keeps its first place and gets the last tags.
///
/// Numbers and the like are no hosts (Kamal drops them too).
fn tagged_hosts(items: &[Node]) -> Vec<TaggedHost> {
    let mut hosts: Vec<TaggedHost> = Vec::new();
    for item in items {
        let (host, tags) = match &item.value {
            Value::String(host) => (host.clone(), Vec::new()),
            Value::Map(map) => {
                let Some(entry) = map.entries.first() else { continue };
                let tags = match entry.value.as_list() {
                    Some(items) => items.iter().filter_map(scalar).collect(),
                    None => scalar(&entry.value).into_iter().collect(),
                };
                (entry.key.to_text(), tags)
            }
            _ => continue,
        };
        match hosts.iter_mut().find(|known| known.host == host) {
            Some(known) => known.tags = tags,
            None => hosts.push(TaggedHost { host, tags }),
        }
    }
    hosts
}

fn env(node: Option<&Node>) -> Env {
    let Some(map) = node.and_then(Node::as_map) else { return Env::default() };
    let long = ["clear", "secret", "tags"].iter().any(|key| map.get(key).is_some());
    let clear = if long { self::map(map, "clear") } else { Some(map) };
    let mut env = Env::default();
    for (name, node) in pairs(clear) {
        // A blank value becomes a bare `--env NAME` with Kamal; `false` does not.
        let blank = node.is_blank() && node.as_bool().is_none();
        let value = if blank { None } else { scalar(node) };
        super::put(&mut env.clear, &name, value);
    }
    if long {
        for entry in text_list(map, "secret") {
            let (name, secret) = entry.split_once(':').unwrap_or((&entry, &entry));
            super::put(&mut env.secret, name, secret.to_owned());
        }
    }
    env
}

fn tags(map: Option<&Map>) -> Vec<(String, Env)> {
    pairs(map).map(|(tag, node)| (tag, env(Some(node)))).collect()
}

fn logging(map: Option<&Map>) -> Logging {
    let Some(map) = map else { return Logging::default() };
    Logging {
        driver: text(map, "driver"),
        options: pairs(self::map(map, "options"))
            .map(|(name, node)| (name, node.clone()))
            .collect(),
    }
}

fn boot(map: Option<&Map>) -> Boot {
    let Some(map) = map else { return Boot::default() };
    Boot {
        limit: text(map, "limit"),
        wait: int(map, "wait").unwrap_or(0),
        parallel_roles: flag(map, "parallel_roles").unwrap_or(false),
    }
}

fn builder(map: Option<&Map>) -> Builder {
    let empty = Map::default();
    let map = map.unwrap_or(&empty);
    let arches = match map.get("arch") {
        Some(node) if node.as_list().is_some() => text_list(map, "arch"),
        Some(node) => scalar(node).into_iter().collect(),
        None => Vec::new(),
    };
    Builder {
        arches,
        remote: text(map, "remote").filter(|remote| !remote.trim().is_empty()),
        local: flag(map, "local").unwrap_or(true),
        pack: self::map(map, "pack")
            .map(|pack| (text(pack, "builder").unwrap_or_default(), text_list(pack, "buildpacks"))),
        cache: self::map(map, "cache").map(|cache| BuildCache {
            kind: text(cache, "type").unwrap_or_default(),
            options: text(cache, "options"),
            image: text(cache, "image"),
        }),
        context: text(map, "context"),
        dockerfile: text(map, "dockerfile").unwrap_or_else(|| "Dockerfile".into()),
        target: text(map, "target"),
        args: pairs(self::map(map, "args"))
            .map(|(name, node)| {
                let value = scalar(node).filter(|_| !node.is_blank() || node.as_bool().is_some());
                (name, value)
            })
            .collect(),
        secrets: text_list(map, "secrets"),
        ssh: text(map, "ssh"),
        driver: text(map, "driver").unwrap_or_else(|| "docker-container".into()),
        provenance: text(map, "provenance"),
        sbom: flag(map, "sbom"),
    }
}

fn ssh(map: Option<&Map>, sshkit: Option<&Map>) -> Ssh {
    let empty = Map::default();
    let map = map.unwrap_or(&empty);
    let config = match map.get("config").map(|node| &node.value) {
        None | Some(Value::Null | Value::Bool(true)) => SshConfig::Default,
        Some(Value::Bool(false)) => SshConfig::Off,
        Some(Value::List(_)) => SshConfig::Files(text_list(map, "config")),
        Some(_) => SshConfig::Files(text(map, "config").into_iter().collect()),
    };
    Ssh {
        user: text(map, "user").unwrap_or_default(),
        port: text(map, "port").unwrap_or_else(|| "22".into()),
        proxy: text(map, "proxy"),
        proxy_command: text(map, "proxy_command"),
        keys_only: flag(map, "keys_only"),
        keys: text_list(map, "keys"),
        key_data: text_list(map, "key_data"),
        config,
        forward_agent: flag(map, "forward_agent"),
        max_concurrent_starts: sshkit
            .and_then(|map| int(map, "max_concurrent_starts"))
            .unwrap_or(30),
    }
}

fn hooks_output(node: Option<&Node>) -> HooksOutput {
    let verbosity = |node: &Node| match node.to_text().as_str() {
        "quiet" => Some(HookVerbosity::Quiet),
        "verbose" => Some(HookVerbosity::Verbose),
        _ => None,
    };
    let Some(node) = node else { return HooksOutput::default() };
    match node.as_map() {
        Some(map) => HooksOutput {
            all: None,
            by_hook: pairs(Some(map))
                .filter_map(|(hook, node)| Some((hook, verbosity(node)?)))
                .collect(),
        },
        None => HooksOutput { all: verbosity(node), by_hook: Vec::new() },
    }
}

fn dhow(map: Option<&Map>) -> DhowSettings {
    let Some(map) = map else { return DhowSettings::default() };
    DhowSettings {
        rollback_on_failure: text(map, "failure_policy").as_deref() == Some("rollback"),
        kamal_env_escaping: text(map, "env_escaping").as_deref() == Some("kamal"),
    }
}

/// A proxy section; that of a role is merged with the root's beforehand.
pub(crate) fn proxy(map: &Map) -> Proxy {
    let comma = |key: &str| -> Vec<String> {
        let text = text(map, key).unwrap_or_default();
        text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    };
    let section = |key: &str| self::map(map, key).cloned().unwrap_or_default();
    let (health, buffering, log) =
        (section("healthcheck"), section("buffering"), section("logging"));
    let default_headers =
        || ["Cache-Control", "Last-Modified", "User-Agent"].map(str::to_owned).to_vec();
    let request_headers = log.get("request_headers").map(|_| text_list(&log, "request_headers"));
    let own_prefixes = text_list(map, "path_prefixes");
    // Beside `enabled`, `hosts` lists servers (the transitional form).
    let names = if map.get("enabled").is_some() { Vec::new() } else { text_list(map, "hosts") };
    Proxy {
        hosts: if map.get("host").is_some() { comma("host") } else { names },
        app_port: int(map, "app_port").unwrap_or(80),
        tls: tls(map.get("ssl")),
        ssl_redirect: flag(map, "ssl_redirect"),
        forward_headers: flag(map, "forward_headers"),
        response_timeout: int(map, "response_timeout"),
        path_prefixes: if own_prefixes.is_empty() { comma("path_prefix") } else { own_prefixes },
        strip_path_prefix: flag(map, "strip_path_prefix"),
        health_path: text(&health, "path"),
        health_interval: int(&health, "interval"),
        health_timeout: int(&health, "timeout"),
        buffer_requests: flag(&buffering, "requests").unwrap_or(true),
        buffer_responses: flag(&buffering, "responses").unwrap_or(true),
        buffer_memory: int(&buffering, "memory"),
        max_request_body: int(&buffering, "max_request_body"),
        max_response_body: int(&buffering, "max_response_body"),
        log_request_headers: request_headers.unwrap_or_else(default_headers),
        log_response_headers: text_list(&log, "response_headers"),
        run: self::map(map, "run").map(run),
    }
}

fn tls(node: Option<&Node>) -> Tls {
    let Some(node) = node.filter(|node| node.is_truthy()) else { return Tls::Off };
    let secret =
        |key: &str| node.as_map().and_then(|map| text(map, key)).filter(|name| !name.is_empty());
    match (secret("certificate_pem"), secret("private_key_pem")) {
        (Some(certificate), Some(key)) => Tls::Custom { certificate, key },
        _ => Tls::Automatic,
    }
}

fn run(map: &Map) -> ProxyRun {
    ProxyRun {
        http_port: int(map, "http_port"),
        https_port: int(map, "https_port"),
        metrics_port: int(map, "metrics_port"),
        debug: flag(map, "debug").unwrap_or(false),
        log_max_size: text(map, "log_max_size"),
        publish: flag(map, "publish").unwrap_or(true),
        bind_ips: text_list(map, "bind_ips"),
        registry: text(map, "registry"),
        repository: text(map, "repository"),
        version: text(map, "version"),
        options: self::map(map, "options").cloned().unwrap_or_default(),
    }
}

fn accessory(name: String, node: &Node, service: &str) -> Accessory {
    let empty = Map::default();
    let map = node.as_map().unwrap_or(&empty);
    let list = |one: &str, many: &str| {
        text(map, one).map_or_else(|| text_list(map, many), |single| vec![single])
    };
    let placement = if map.get("role").is_some() || map.get("roles").is_some() {
        Placement::Roles(list("role", "roles"))
    } else if map.get("tag").is_some() || map.get("tags").is_some() {
        Placement::Tags(list("tag", "tags"))
    } else if map.get("host").is_some() {
        Placement::Hosts(list("host", "hosts"))
    } else {
        let items = map.get("hosts").and_then(Node::as_list).unwrap_or_default();
        Placement::Hosts(tagged_hosts(items).into_iter().map(|tagged| tagged.host).collect())
    };
    let port = map.get("port").and_then(|node| match node.value {
        Value::Int(port) => Some(format!("{port}:{port}")),
        _ => scalar(node)
            .map(|port| if port.contains(':') { port } else { format!("{port}:{port}") }),
    });
    Accessory {
        service: text(map, "service").unwrap_or_else(|| format!("{service}-{name}")),
        image: text(map, "image").unwrap_or_default(),
        registry: self::map(map, "registry")
            .filter(|map| !map.is_empty())
            .map(|map| registry(Some(map))),
        placement,
        cmd: text(map, "cmd"),
        port,
        labels: text_pairs(self::map(map, "labels")),
        options: self::map(map, "options").cloned().unwrap_or_default(),
        env: env(map.get("env")),
        files: paths(map, "files"),
        directories: paths(map, "directories"),
        volumes: text_list(map, "volumes"),
        network: text(map, "network").unwrap_or_else(|| "kamal".into()),
        proxy: self::map(map, "proxy").filter(|map| !map.is_empty()).map(proxy),
        name,
    }
}

fn paths(map: &Map, key: &str) -> Vec<PathMount> {
    let items = map.get(key).and_then(Node::as_list).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| match &item.value {
            Value::Map(map) => Some(PathMount {
                local: text(map, "local").unwrap_or_default(),
                remote: text(map, "remote").unwrap_or_default(),
                options: text(map, "options"),
                mode: text(map, "mode"),
                owner: text(map, "owner"),
            }),
            _ => {
                let line = scalar(item)?;
                let mut parts = line.splitn(3, ':');
                Some(PathMount {
                    local: parts.next().unwrap_or_default().to_owned(),
                    remote: parts.next().unwrap_or_default().to_owned(),
                    options: parts.next().map(str::to_owned),
                    ..PathMount::default()
                })
            }
        })
        .collect()
}
