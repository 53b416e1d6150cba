//! Whole configs to specs.

use super::super::load::{LoadOptions, load};
use super::super::outside::fake::FakeOutside;
use super::*;
use dhow_proto::model::template::Mount;

const SHOP: &str = r"
service: shop
image: acme/shop
servers:
  web: [10.0.0.1, {10.0.0.2: canary}]
  jobs: {hosts: [10.0.0.3], cmd: bin/jobs --queue 'a b', options: {memory: 1g}, stop_timeout: 60}
registry: {server: ghcr.io, username: u, password: [PW]}
builder: {arch: amd64}
env:
  clear: {A: 1, B: ''}
  secret: [KEY, TOKEN:API_TOKEN]
  tags: {canary: {clear: {A: 2}, secret: [CANARY]}}
labels: {team: x}
volumes: [data:/data, $PWD/log:/log, /anonymous]
proxy: {host: 'a.example.com,b.example.com', app_port: 3000, healthcheck: {path: /ok, interval: 2}}
boot: {limit: 25%, wait: 2}
retain_containers: 3
ssh: {user: app}
accessories:
  db:
    image: mysql:8.0
    roles: [web]
    port: 3306
    env: {clear: {H: '%'}, secret: [PASS]}
    files: ['config/my.cnf:/etc/my.cnf:ro', 'init.sql.erb:/init.sql']
    directories: [{local: data, remote: /var/lib/mysql, mode: '0750', owner: '999:999'}]
error_pages_path: public
x-dhow: {failure_policy: rollback}
";

fn outside(text: &str) -> FakeOutside {
    FakeOutside::default()
        .file("config/deploy.yml", text)
        .file("config/my.cnf", "[mysqld]")
        .file("init.sql.erb", "<%= ENV['PASS'] %>")
        .file("public/404.html", "gone")
        .file("public/other.html", "")
}

fn compile(text: &str) -> Result<Compiled, Diagnostics> {
    let outside = outside(text);
    let loaded = load(&LoadOptions::default(), &outside)?;
    loaded.compile(&CompileInput { version: "v1", outside: &outside })
}

#[test]
fn roles_become_templates_by_their_hosts_tags() {
    let spec = compile(SHOP).unwrap().spec;
    let names: Vec<&str> = spec.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(names, ["web", "jobs"]);
    let web = &spec.roles[0];
    assert_eq!(web.templates.len(), 2);
    assert_eq!((web.hosts[0].template, web.hosts[1].template), (0, 1));
    let clear = |index: usize| {
        let env = &web.templates[index].template.container.env;
        env.iter().map(|var| (var.name.as_str(), var.value.as_deref())).collect::<Vec<_>>()
    };
    assert_eq!(clear(0), [("A", Some("1")), ("B", None)]);
    assert_eq!(clear(1), [("A", Some("2")), ("B", None)]);
    let secrets: Vec<(&str, &str)> = web.templates[1]
        .secret_env
        .iter()
        .map(|secret| (secret.name.as_str(), secret.secret.as_str()))
        .collect();
    assert_eq!(secrets, [("KEY", "KEY"), ("TOKEN", "API_TOKEN"), ("CANARY", "CANARY")]);
}

#[test]
fn containers_get_what_kamal_gives_them() {
    let spec = compile(SHOP).unwrap().spec;
    assert_eq!(spec.image.to_string(), "ghcr.io/acme/shop:v1");
    let container = &spec.roles[1].templates[0].template.container;
    assert_eq!(container.cmd.as_deref().unwrap(), ["bin/jobs", "--queue", "a b"]);
    assert_eq!(container.labels["team"], "x");
    assert_eq!(container.log.options["max-size"], "10m");
    assert_eq!(container.options.host_config["Memory"], 1_073_741_824);
    assert_eq!(
        container.mounts,
        [
            Mount::Bind("data:/data".into()),
            Mount::HomeBind("log:/log".into()),
            Mount::Anonymous("/anonymous".into())
        ]
    );
    assert_eq!(spec.roles[1].templates[0].template.timeouts.stop_s, Some(60));
    assert!(spec.roles[1].templates[0].template.proxy.is_none());
    let proxy = spec.roles[0].templates[0].template.proxy.as_ref().unwrap();
    assert_eq!(proxy.hosts, ["a.example.com", "b.example.com"]);
    assert_eq!((proxy.app_port, proxy.health_interval_s), (3000, Some(2)));
    assert!(proxy.error_pages);
    assert_eq!(spec.boot.limit, Some(BootLimit::Percent(25)));
    assert_eq!(spec.ssh_user, "app");
    assert!(spec.rollback_on_failure && spec.registry.login);
}

#[test]
fn without_an_ssh_user_paths_are_relative_to_the_agents_own_home() {
    let spec = compile(&SHOP.replace("ssh: {user: app}\n", "")).unwrap().spec;
    assert_eq!(spec.ssh_user, "");
}

#[test]
fn accessories_bring_their_files() {
    let compiled = compile(SHOP).unwrap();
    let db = &compiled.spec.accessories[0];
    assert_eq!(db.template.service, "shop-db");
    assert_eq!(db.hosts.len(), 2);
    assert_eq!(db.template.container.image.to_string(), "mysql:8.0");
    assert_eq!(
        db.template.container.mounts,
        [
            Mount::HomeBind("shop-db/etc/my.cnf:/etc/my.cnf:ro".into()),
            Mount::HomeBind("shop-db/init.sql:/init.sql".into()),
            Mount::HomeBind("shop-db/data:/var/lib/mysql".into()),
        ]
    );
    assert_eq!(db.template.files[0].content, Some(BlobRef::of(b"[mysqld]")));
    assert_eq!(db.template.files[1].content, None);
    assert_eq!(compiled.templates[0].local, "init.sql.erb");
    assert_eq!(db.template.directories[0].path, "shop-db/data");
    let bindings = &db.template.container.options.host_config["PortBindings"];
    assert_eq!(bindings["3306/tcp"][0]["HostPort"], "3306");
    let pages = compiled.spec.error_pages.unwrap();
    assert_eq!(pages.len(), 1);
    assert_eq!(compiled.blobs.len(), 2);
}

#[test]
fn a_spec_survives_its_own_bytes() {
    use dhow_proto::model::document::Document as _;
    let spec = compile(SHOP).unwrap().spec;
    assert_eq!(Spec::from_bytes(&spec.to_bytes()).unwrap(), spec);
}

#[test]
fn what_no_host_could_carry_out_is_refused() {
    for (more, message) in [
        ("boot: {limit: many}", "boot/limit: `many` is neither a number nor a percentage"),
        ("volumes: ['$DATA/x:/x']", "volumes: `$DATA/x:/x`: only `$PWD` and `$HOME` can be used"),
        ("deploy_timeout: -1", "deploy_timeout: -1 is out of range"),
        ("accessories: {db: {image: x, host: h, files: ['nope:/n']}}", "Missing file: /app/nope"),
        ("accessories: {db: {host: h}}", "accessories/db: an accessory needs an `image`"),
        (
            "accessories: {db: {image: x, host: h, options: {rm: true}}}",
            "accessories/db/options/rm: cannot be",
        ),
    ] {
        let base = "service: shop\nimage: i\nservers: [h]\nregistry: {username: u, password: p}\nbuilder: {arch: amd64}\n";
        let problems = compile(&format!("{base}{more}\n")).unwrap_err();
        let found = &problems.list[0].message;
        assert!(found.contains(message), "{more}: {found}");
    }
}

/// The transitional form says which hosts have moved to kamal-proxy; the others are left alone.
#[test]
fn hosts_that_are_not_listed_beside_enabled_keep_traefik() {
    let with = |hosts: &str| {
        let proxy = format!("proxy: {{enabled: true, hosts: {hosts}}}\n");
        let text = SHOP.lines().filter(|line| !line.starts_with("proxy:")).collect::<Vec<_>>();
        let text = format!("{}\n{proxy}", text.join("\n"));
        let outside = outside(&text);
        let loaded = load(&LoadOptions::default(), &outside).unwrap();
        let compiled = loaded.compile(&CompileInput { version: "v1", outside: &outside }).unwrap();
        let traefik = loaded.config.hosts_with_traefik().join(" ");
        let warned = compiled.warnings.render_warnings(false).contains("run Traefik still");
        // Beside `enabled` the list names servers, not names that are routed.
        let target = compiled.spec.roles[0].templates.len();
        assert!(target > 0 && loaded.config.roles[1].proxy.as_ref().unwrap().hosts.is_empty());
        (traefik, warned)
    };
    // Hosts of roles without a proxy run neither.
    assert_eq!(with("[10.0.0.1]"), ("10.0.0.2".to_owned(), true));
    assert_eq!(with("[10.0.0.2, 10.0.0.1]"), (String::new(), false));
}

#[test]
fn options_of_the_proxys_container_are_all_carried() {
    let run = "{run: {log_max_size: 5m, options: {env: [A=1, B], label: team=x, volume: [/a:/a, $HOME/b:/b, /c], \
        restart: always, log-driver: json-file, log-opt: max-file=3, memory: 1g, network-alias: px}}}";
    let text = SHOP.replace("proxy: {host", "proxy: &p {<<: RUN, host").replace("RUN", run);
    let proxy = compile(&text).unwrap().spec.proxy;
    let container = proxy.container;
    assert_eq!(container.env.len(), 2);
    assert_eq!(container.labels["team"], "x");
    assert_eq!(
        container.mounts,
        [
            Mount::Bind("/a:/a".into()),
            Mount::HomeBind("b:/b".into()),
            Mount::Anonymous("/c".into()),
        ]
    );
    assert_eq!(container.restart, Some(dhow_proto::model::template::Restart::Always));
    assert_eq!(
        (container.log.driver.as_str(), container.log.options["max-file"].as_str()),
        ("json-file", "3")
    );
    assert_eq!(proxy.log_max_size, "5m");
    assert_eq!(proxy.options.host_config["Memory"], serde_json::json!(1 << 30));
    assert_eq!(proxy.options.endpoint["Aliases"], serde_json::json!(["px"]));
}

/// Kamal's 10 MB are for containers of which nothing is said, neither driver nor options.
#[test]
fn the_cap_of_logs_gives_way_to_a_driver_and_to_options() {
    let log = |logging: &str| {
        let spec = compile(&format!("{SHOP}logging: {logging}\n")).unwrap().spec;
        let log = spec.roles[0].templates[0].template.container.log.clone();
        (log.driver, log.options.into_iter().collect::<Vec<_>>())
    };
    let options = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!(log("{}"), (String::new(), options("max-size", "10m")));
    assert_eq!(log("{driver: local}"), ("local".to_owned(), Vec::new()));
    assert_eq!(log("{options: {tag: x}}"), (String::new(), options("tag", "x")));
}

/// The app's image and each accessory's come from their own registries; hosts log in where there is somebody
/// to log in as, which a registry on the deployer's machine never asks for.
#[test]
fn each_image_has_its_own_registry() {
    let text = "service: shop\nservers: [h]\nregistry: {server: 'localhost:5555'}\nbuilder: {arch: amd64}\n\
        accessories:\n  \
          own: {image: 'acme/db:2', host: h, registry: {server: 'r.example.com:5000', username: [U], password: [P]}}\n  \
          hub: {image: acme/queue, host: h, registry: {username: u, password: hunter2}}\n  \
          near: {image: tool, host: h, registry: {server: 'localhost:5556'}}\n  \
          shared: {image: 'mysql:8', host: h}\n";
    let spec = compile(text).unwrap().spec;
    assert_eq!(spec.image.to_string(), "localhost:5555/shop:v1");
    assert_eq!((spec.registry.server.as_str(), spec.registry.login), ("localhost:5555", false));
    let of = |name: &str| {
        let found = spec.accessories.iter().find(|accessory| accessory.name.as_str() == name);
        let accessory = found.unwrap_or_else(|| panic!("no accessory {name}"));
        let image = accessory.template.container.image.to_string();
        (image, accessory.registry.as_ref().map(|own| (own.server.clone(), own.login)))
    };
    let own = Some(("r.example.com:5000".to_owned(), true));
    assert_eq!(of("own"), ("r.example.com:5000/acme/db:2".to_owned(), own));
    assert_eq!(of("hub"), ("acme/queue:latest".to_owned(), Some((String::new(), true))));
    let near = Some(("localhost:5556".to_owned(), false));
    assert_eq!(of("near"), ("localhost:5556/tool:latest".to_owned(), near));
    assert_eq!(of("shared"), ("mysql:8".to_owned(), None));
    let printed = serde_json::to_string(&spec).unwrap();
    assert!(!printed.contains("hunter2"), "{printed}");
}
