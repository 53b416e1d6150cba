//! The program by its two names, with the user's aliases, abbreviations and exit statuses.

#[path = "config_corpus/kamal.rs"]
mod kamal;

use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = "service: shop\nimage: shop\nservers: {web: [192.0.2.1], jobs: [192.0.2.2]}\n\
    registry: {username: u, password: [P]}\nbuilder: {arch: amd64}\n\
    aliases: {show: docs boot, print: config --version v1, status: docs env, both: print --version v2}\n";

/// A folder with a config, and dhow by the name `kamal` in it.
struct Project {
    folder: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let at = folder.path();
        std::fs::create_dir_all(at.join("config")).expect("a folder can be made");
        std::fs::create_dir_all(at.join("empty")).expect("a folder can be made");
        std::fs::write(at.join("config/deploy.yml"), CONFIG).expect("a folder can be made");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), at.join("kamal"))
            .expect("a folder can be made");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs dhow by a name, in a folder below.
    fn run_in(&self, below: &str, name: &str, line: &str, env: &[(&str, &str)]) -> Run {
        let program = match name {
            "kamal" => self.path().join("kamal"),
            _ => PathBuf::from(env!("CARGO_BIN_EXE_dhow")),
        };
        let mut command = Command::new(program);
        kamal::VARIABLES.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.env("DHOW_HOME", self.path().join("home")).envs(env.iter().copied());
        let output = command
            .args(line.split_whitespace())
            .current_dir(self.path().join(below))
            .output()
            .expect("it runs and prints UTF-8");
        let text = |bytes| String::from_utf8(bytes).expect("it runs and prints UTF-8");
        Run { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn run(&self, name: &str, line: &str) -> Run {
        self.run_in("", name, line, &[])
    }
}

#[test]
fn aliases_and_abbreviations_are_what_they_stand_for() {
    let project = Project::new();
    let docs = project.run("dhow", "docs boot");
    assert!(docs.status == Some(0) && docs.out.contains("boot:"), "{docs:?}");
    for name in ["dhow", "kamal"] {
        assert_eq!(project.run(name, "show"), docs);
        assert_eq!(project.run(name, "doc boot"), docs);
    }
    // A command that only dhow has gives way to an alias.
    assert_eq!(project.run("dhow", "status"), project.run("dhow", "docs env"));
    let print = |version: &str| project.run("kamal", &format!("config --version {version}"));
    assert!(print("v1").out.contains(":version: v1"));
    assert_eq!(project.run("kamal", "print"), print("v1"));
    assert_eq!(project.run("kamal", "both"), print("v2"));
    assert_eq!(project.run("kamal", "both --version v3"), print("v3"));
    assert_eq!(project.run("kamal", "conf --version v4"), print("v4"));
}

/// S9: on the way from Traefik to kamal-proxy, Kamal 1's commands name what has their place.
#[test]
fn traefik_is_disabled_where_the_proxy_is_enabled() {
    let project = Project::new();
    let moving = format!("{CONFIG}proxy: {{enabled: true, hosts: [192.0.2.1]}}\n");
    std::fs::write(project.path().join("config/moving.yml"), moving).unwrap();
    let line = "traefik reboot -c config/moving.yml";
    for (name, line) in [
        ("dhow", line),
        ("kamal", line),
        ("kamal", "-c config/moving.yml traefik reboot --rolling"),
    ] {
        let run = project.run(name, line);
        assert_eq!((run.status, run.out.as_str()), (Some(64), ""), "{run:?}");
        assert!(run.err.contains("`traefik reboot` is disabled"), "{run:?}");
        assert!(run.err.contains("use `proxy reboot`"), "{run:?}");
    }
    // Without that it is a word like any other.
    assert_eq!(project.run("kamal", "traefik reboot").err, "Could not find command \"traefik\".\n");
    let run = project.run("dhow", "traefik reboot");
    assert!(run.status == Some(64) && !run.err.contains("disabled"), "{run:?}");
}

#[test]
fn wrong_usage_is_told_apart() {
    let project = Project::new();
    for name in ["dhow", "kamal"] {
        let ambiguous = project.run(name, "re");
        assert_eq!(ambiguous.status, Some(64));
        assert!(
            ambiguous.err.contains("Ambiguous command re matches [redeploy, registry, remove]"),
            "{ambiguous:?}"
        );
        assert_eq!(project.run(name, "nonsense").status, Some(64));
        assert_eq!(project.run(name, "config --nonsense").status, Some(64));
        assert_eq!(project.run(name, "config surplus").status, Some(64));
        assert_eq!(project.run(name, "").status, Some(0));
        assert_eq!(project.run(name, "app").status, Some(0));
    }
    assert_eq!(project.run("kamal", "nonsense").err, "Could not find command \"nonsense\".\n");
    // Without a config, dhow says that there is no such command, Kamal that there is no config.
    let run = project.run_in("empty", "dhow", "nonsense", &[]);
    assert!(run.status == Some(64) && run.err.contains("`nonsense` is no command"), "{run:?}");
}

#[test]
fn by_the_name_kamal_errors_are_kamals() {
    let project = Project::new();
    let lines = [
        ("empty", "config"),
        ("empty", "secrets print"),
        ("empty", "nonsense"),
        ("", "config -h nowhere"),
        ("", "config -r nobody"),
        ("", "config -d staging"),
        ("", "config -c other.yml"),
    ];
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    let asked: Vec<kamal::Line> = lines
        .iter()
        .map(|(below, line)| kamal::Line { folder: project.path().join(below), words: words(line) })
        .collect();
    for ((below, line), (status, text)) in lines.iter().zip(kamal::answers(&asked)) {
        let ours = project.run_in(below, "kamal", line, &[]);
        assert_eq!((ours.status, ours.out.as_str()), (Some(status), text.as_str()), "{line}");
        assert!(text.contains("\u{1b}[31mERROR"), "{line}: {text:?}");
        let plain = project.run_in(below, "kamal", line, &[("NO_COLOR", "1")]);
        assert_eq!(plain.out, text.replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""), "{line}");
        // By its own name dhow says it on standard error.
        let own = project.run_in(below, "dhow", line, &[]);
        assert!(own.out.is_empty() && !own.err.is_empty(), "{line}: {own:?}");
    }
}

/// Standard output is Kamal's; what it has no place for goes beside it.
#[test]
fn by_the_name_kamal_places_and_warnings_go_to_standard_error() {
    let project = Project::new();
    let write = |name: &str, more: &str| {
        std::fs::write(project.path().join("config").join(name), format!("{CONFIG}{more}\n"))
            .unwrap();
    };
    write("template.yml", "retain_containers: <%= [1, 2].sum %>");
    write("key.yml", "imgae: x");
    write("octal.yml", "env: {clear: {A: 014}}");
    for line in ["config -c config/template.yml", "secrets print -c config/template.yml"] {
        let run = project.run("kamal", line);
        assert_eq!((run.status, run.out.lines().count()), (Some(1), 1), "{run:?}");
        assert!(run.err.contains("config/template.yml:7:"), "{run:?}");
        assert!(run.err.contains("DHOW_ERB=ruby"), "{run:?}");
    }
    let run = project.run("kamal", "config -c config/key.yml");
    assert!(run.out.contains("unknown key: imgae") && run.err.contains("did you mean"), "{run:?}");
    let run = project.run("kamal", "config --version v1 -c config/octal.yml");
    assert_eq!(run.status, Some(0), "{run:?}");
    assert!(!run.out.contains("octal") && run.err.contains("is read as octal"), "{run:?}");
    let quiet = project.run("kamal", "config -q --version v1 -c config/octal.yml");
    assert_eq!((quiet.out, quiet.err), (run.out, String::new()));
    // The whole of what there is to say is Kamal's line.
    assert_eq!(project.run("kamal", "config -r nobody").err, "");
}

/// S28: what follows an alias is appended, so that a later option overrides an earlier one.
#[test]
fn what_follows_an_alias_overrides_it() {
    let project = Project::new();
    let aliases = "where: app version -r nobody, show: docs boot";
    let config = CONFIG.replace("show: docs boot", aliases);
    std::fs::write(project.path().join("config/deploy.yml"), config).unwrap();
    let said = project.run("kamal", "where");
    assert!(said.out.contains("No --roles match for nobody"), "{said:?}");
    let said = project.run("kamal", "where -r workers");
    assert!(said.out.contains("No --roles match for workers"), "{said:?}");
}

/// S21: the deprecated command is answered with the section that has its place, by both names; where the
/// config has that section, a hook that calls it goes on.
#[test]
fn proxy_boot_config_names_its_replacement() {
    let project = Project::new();
    let moved = format!("{CONFIG}proxy: {{run: {{http_port: 8080, options: {{label: a=b}}}}}}\n");
    std::fs::write(project.path().join("config/moved.yml"), moved).unwrap();
    let beside = format!(
        "{CONFIG}accessories: {{ui: {{image: u, host: 192.0.2.9, proxy: {{host: u.test, run: {{http_port: 8081}}}}}}}}\n"
    );
    std::fs::write(project.path().join("config/beside.yml"), beside).unwrap();
    let run = project.run("dhow", "proxy boot_config get -c config/beside.yml");
    assert!(run.out.starts_with("Host 192.0.2.9: --publish 8081:80"), "{run:?}");
    let filtered = project.run("dhow", "proxy boot_config get -c config/beside.yml -r web");
    assert_eq!((filtered.status, filtered.out.as_str()), (Some(1), ""), "{filtered:?}");
    let set = "proxy boot_config set --http-port 8080 --docker-options label=a=b";
    for name in ["dhow", "kamal"] {
        let run = project.run(name, set);
        assert_eq!(run.status, Some(1), "{run:?}");
        let (out, err) = (run.out.replace("\u{1b}[31m", ""), run.err.as_str());
        let error = if name == "kamal" { out.as_str() } else { err };
        let section = r#"Write `proxy: {run: {"http_port":8080,"options":{"label":"a=b"}}}`"#;
        assert!(error.contains(section) && error.contains("config/deploy.yml"), "{run:?}");
        assert!(err.contains("The proxy boot_config command is deprecated"), "{run:?}");
        for line in ["proxy boot_config get", "proxy boot-config reset", "prox boot_config clear"] {
            assert_eq!(project.run(name, line).status, Some(1), "{line}");
        }
        assert_eq!(project.run(name, "proxy boot_config put").status, Some(64));
        assert_eq!(project.run(name, "proxy boot_config").status, Some(64));
        // The config says it already.
        let there = |line: &str| project.run(name, &format!("{line} -c config/moved.yml"));
        assert_eq!(there(set).status, Some(0), "{:?}", there(set));
        assert_eq!(there(&format!("{set} --https-port 443")).status, Some(0));
        assert_eq!(there("proxy boot_config set --http-port 8080").status, Some(1));
        assert_eq!(there("proxy boot_config reset").status, Some(1));
        let got = there("proxy boot_config get");
        assert_eq!(
            got.out,
            "Host 192.0.2.1: --publish 8080:80 --publish 443:443 --log-opt max-size=10m --label a=b \
             basecamp/kamal-proxy:v0.9.2 kamal-proxy run\n"
        );
    }
}

/// Where Kamal exits with 0 though nothing was done, dhow exits with 1, by either name.
#[test]
fn nothing_done_is_a_failure() {
    let project = Project::new();
    let lines = [
        ("docs nonsense", "No documentation found for nonsense"),
        ("secrets fetch --adapter lastpass X", "--account"),
        ("app version -h 192.0.2.1 -r jobs", "No host is left"),
    ];
    for (line, words) in lines {
        for name in ["dhow", "kamal"] {
            let run = project.run(name, line);
            assert_eq!(run.status, Some(1), "{name} {line}: {run:?}");
            let said = if name == "kamal" { &run.out } else { &run.err };
            assert!(said.contains(words), "{name} {line}: {run:?}");
        }
    }
}
