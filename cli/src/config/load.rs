//! Reads the files, merges the destination over the base, checks, and builds the config.

mod file;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::diagnostic::{Code, Diagnostic, Diagnostics, ErrorClass, MAX_TOLD};
use super::made::Made;
use super::merge::deep_merge;
use super::model::{Config, build};
use super::outside::Outside;
use super::source::Sources;
use super::template::{self, align};
use super::validate::{Checker, cross_check, validate};
use super::version;
use super::yaml::read::{MAX_KEYS, read_noting};
use super::yaml::{Map, Node, Span, Surprise, Value};
use file::{read_text, render_by_ruby};

/// A config file larger than this is refused; real ones have some kilobytes.
pub const MAX_FILE: u64 = 4 << 20;

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `-c`; `None`: `config/deploy.yml`. Relative to the working directory.
    pub config_file: Option<PathBuf>,
    /// `-d`.
    pub destination: Option<String>,
    /// `--version`; empty counts as not given.
    pub version: Option<String>,
}

/// A config that was read and checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What is not wrong, but probably not meant either.
    pub warnings: Diagnostics,
    /// The files it was read from.
    pub sources: Sources,
    /// `--version` as given.
    pub given_version: Option<String>,
    /// What templates made, which no message repeats.
    pub(crate) made: Made,
}

impl Loaded {
    /// The version to deploy; see [`version::resolve`].
    ///
    /// # Errors
    ///
    /// Where neither option nor environment nor git gives one.
    pub fn version(&self, outside: &dyn Outside) -> Result<String, Diagnostics> {
        let has_context = self.config.builder.context.is_some();
        version::resolve(self.given_version.as_deref(), has_context, outside)
            .map_err(|problem| Diagnostics::one(problem, self.sources.clone()))
    }
}

/// Loads a config: all its problems at once, or the config with warnings.
///
/// # Errors
///
/// The problems in Kamal's order; never an empty list.
pub fn load(options: &LoadOptions, outside: &dyn Outside) -> Result<Loaded, Diagnostics> {
    let Tree { root, sources, surprises, made } = read_tree(options, outside)?;
    let config = build::build(root, options.destination.clone());
    let mut checker = Checker::default();
    validate(&mut checker, &config.raw);
    cross_check(&mut checker, &config, outside);
    let (mut problems, expected) = checker.finish();
    problems.iter_mut().for_each(|problem| made.conceal(problem));
    if !problems.is_empty() {
        return Err(Diagnostics { list: problems, sources });
    }
    let mut warnings = surprises_as_warnings(surprises, &expected, &config.raw);
    warnings.iter_mut().for_each(|warning| made.conceal(warning));
    Ok(Loaded {
        config,
        warnings: Diagnostics { list: warnings, sources: sources.clone() },
        sources,
        given_version: options.version.clone(),
        made,
    })
}

/// The command line that an alias stands for, of a config that need not be right otherwise.
///
/// # Errors
///
/// Files that are not there or no YAML.
pub fn alias(
    name: &str,
    options: &LoadOptions,
    outside: &dyn Outside,
) -> Result<Option<String>, Diagnostics> {
    let tree = read_tree(options, outside)?;
    let aliases = tree.root.get("aliases").and_then(Node::as_map);
    Ok(aliases.and_then(|map| map.get(name)).filter(|node| !node.is_null()).map(Node::to_text))
}

/// Whether a config, which need not be right otherwise, has `proxy.enabled`: an app on its way from
/// Traefik to kamal-proxy. One that cannot be read has not.
pub fn is_transitional(options: &LoadOptions, outside: &dyn Outside) -> bool {
    let Ok(tree) = read_tree(options, outside) else { return false };
    let enabled = tree.root.get("proxy").and_then(Node::as_map).and_then(|map| map.get("enabled"));
    enabled.is_some_and(|node| matches!(node.value, Value::Bool(true)))
}

/// All files as one tree.
struct Tree {
    root: Map,
    sources: Sources,
    surprises: Vec<Surprise>,
    made: Made,
}

fn read_tree(options: &LoadOptions, outside: &dyn Outside) -> Result<Tree, Diagnostics> {
    let mut sources = Sources::default();
    let mut surprises = Vec::new();
    let mut made = Made::default();
    let base = options.config_file.clone().unwrap_or_else(|| "config/deploy.yml".into());
    let mut files = vec![base.clone()];
    if let Some(destination) = &options.destination {
        files.push(destination_file(&base, destination));
    }
    // Kamal puts the destination into the environment before it renders the files.
    let env: Vec<(String, String)> = options
        .destination
        .iter()
        .map(|destination| ("KAMAL_DESTINATION".to_owned(), destination.clone()))
        .collect();
    let mut root = Map::default();
    for path in files {
        let mut reading =
            Reading { sources: &mut sources, surprises: &mut surprises, made: &mut made };
        match read_file(&path, &env, &mut reading, outside) {
            Ok(map) => {
                if let Err(span) = deep_merge(&mut root, &map) {
                    let message =
                        format!("a map with more than {MAX_KEYS} keys, both files together");
                    let problem = Diagnostic::new(Code::Syntax, message).at(span);
                    return Err(Diagnostics::one(problem, sources));
                }
            }
            Err(problem) => return Err(Diagnostics::one(*problem, sources)),
        }
    }
    let made = made.without_written(&sources);
    Ok(Tree { root, sources, surprises, made })
}

/// `config/deploy.yml` and `staging`: `config/deploy.staging.yml`. The ending is `.yml` always, as
/// with Kamal.
#[must_use]
pub fn destination_file(base: &Path, destination: &str) -> PathBuf {
    let stem = base.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    base.with_file_name(format!("{stem}.{destination}.yml"))
}

fn surprises_as_warnings(
    surprises: Vec<Surprise>,
    expected: &HashSet<Span>,
    root: &Map,
) -> Vec<Diagnostic> {
    if surprises.is_empty() {
        return Vec::new();
    }
    let mut paths = HashMap::new();
    collect_paths(root, "", &mut paths);
    surprises
        .into_iter()
        .filter(|surprise| !expected.contains(&surprise.span))
        .take(MAX_TOLD)
        .map(|Surprise { span, message }| {
            let path = paths.remove(&span).unwrap_or_default();
            Diagnostic::new(Code::Surprise, message).at(span).path(path)
        })
        .collect()
}

/// The path of each key and each scalar by where it stands. An item of a list has the path of the list.
fn collect_paths(map: &Map, above: &str, paths: &mut HashMap<Span, String>) {
    for entry in &map.entries {
        let name = entry.key.to_text();
        let path = if above.is_empty() { name } else { format!("{above}/{name}") };
        paths.insert(entry.key.span, path.clone());
        collect_below(&entry.value, &path, paths);
    }
}

fn collect_below(node: &Node, path: &str, paths: &mut HashMap<Span, String>) {
    match &node.value {
        Value::Map(map) => collect_paths(map, path, paths),
        Value::List(items) => items.iter().for_each(|item| collect_below(item, path, paths)),
        _ => {
            paths.insert(node.span, path.to_owned());
        }
    }
}

/// What reading a file adds to.
struct Reading<'a> {
    sources: &'a mut Sources,
    surprises: &'a mut Vec<Surprise>,
    made: &'a mut Made,
}

fn read_file(
    path: &Path,
    env: &[(String, String)],
    reading: &mut Reading<'_>,
    outside: &dyn Outside,
) -> Result<Map, Box<Diagnostic>> {
    let text = read_text(path, outside)?;
    let by_ruby = text.contains("<%") && outside.var("DHOW_ERB").as_deref() == Some("ruby");
    let file = reading.sources.add(path.display().to_string(), text.clone());
    let rendered = if by_ruby {
        let rendered = render_by_ruby(path, env, outside)?;
        template::Rendered { map: align(&text, &rendered), text: rendered }
    } else {
        template::render(&text, file, env, outside)?
    };
    let read = read_noting(&rendered.text, file, &rendered.map, reading.made);
    let (root, found) = read.map_err(|error| {
        let class = if error.is_alias { ErrorClass::Anchor } else { ErrorClass::Syntax };
        let problem = Diagnostic::new(Code::Syntax, error.message).class(class).at(error.span);
        Box::new(Diagnostic { kamal: error.psych, ..problem })
    })?;
    reading.surprises.extend(found);
    let start = Span { file, start: 0, end: 0 };
    let Some(root) = root.filter(|root| !root.is_null()) else {
        let message = format!("{} is empty", path.display());
        return Err(Box::new(Diagnostic::new(Code::Missing, message)));
    };
    match root.value {
        Value::Map(map) => Ok(build::with_text_keys(map)),
        _ => {
            let message = format!("{} should be a hash", path.display());
            Err(Box::new(Diagnostic::new(Code::WrongType, message).at(start)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outside::fake::FakeOutside;
    use super::*;

    const BASE: &str = "\
service: shop
image: acme/shop
servers: [10.0.0.1]
registry: {username: u, password: [PW]}
builder: {arch: amd64}
";

    fn load_text(text: &str) -> Result<Loaded, Diagnostics> {
        let outside = FakeOutside::default().file("config/deploy.yml", text);
        load(&LoadOptions::default(), &outside)
    }

    /// The first problem's message for the base with `more` after it.
    #[track_caller]
    fn first(more: &str) -> String {
        let problems = load_text(&format!("{BASE}{more}")).unwrap_err();
        problems.list[0].message.clone()
    }

    #[test]
    fn a_small_config_loads_with_its_defaults() {
        let config = load_text(BASE).unwrap().config;
        assert_eq!(config.service, "shop");
        assert_eq!(config.roles[0].name, "web");
        assert!(config.roles[0].proxy.is_some());
        assert_eq!((config.deploy_timeout, config.retain_containers), (30, 5));
        assert_eq!(config.primary_host(), Some("10.0.0.1"));
        assert_eq!(config.repository(), "acme/shop");
    }

    /// Any value may be one that a template took from elsewhere.
    #[test]
    fn no_value_shows_where_a_config_is_printed_for_debugging() {
        let text = "\
service: shop
servers:
  web:
    hosts: [h]
    cmd: hunter2
    options: {env: A=hunter2}
    env: {clear: {A: hunter2}}
    labels: {a: hunter2}
    logging: {options: {token: hunter2}}
    proxy: {healthcheck: {path: /hunter2}, run: {options: {env: A=hunter2}}}
env: {clear: {A: hunter2}, tags: {t: {A: hunter2}}}
labels: {a: hunter2}
volumes: ['hunter2:/a']
registry: {server: r, username: hunter2, password: hunter2}
builder:
  arch: amd64
  args: {A: hunter2}
  remote: ssh://hunter2@h
  ssh: hunter2
  cache: {type: registry, options: token=hunter2}
ssh: {key_data: [hunter2], proxy_command: hunter2}
output: {otel: {endpoint: 'http://hunter2@h'}}
aliases: {a: app exec hunter2}
accessories:
  db:
    image: i
    host: h
    cmd: hunter2
    env: {A: hunter2}
    labels: {a: hunter2}
    options: {env: A=hunter2}
    registry: {username: hunter2, password: hunter2}
    volumes: ['hunter2:/a']
image: hunter2
";
        let loaded = load_text(text).unwrap();
        let config = &loaded.config;
        let parts = (&config.raw, &config.builder, &config.logging, &config.output, &config.ssh);
        let more = (&config.roles[0].proxy, &config.roles[0].options, &config.accessories);
        let input = super::super::CompileInput { version: "v1", outside: &FakeOutside::default() };
        let compiled = loaded.compile(&input).unwrap();
        let shown = format!("{loaded:?} {parts:?} {more:?} {compiled:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        for name in ["shop", "\"web\"", "\"db\"", "REDACTED"] {
            assert!(shown.contains(name), "{name}: {shown}");
        }
    }

    #[test]
    fn a_destination_is_merged_over_its_base() {
        let outside = FakeOutside::default()
            .file("config/deploy.yml", &format!("{BASE}env: {{clear: {{A: 1, B: 2}}}}\n"))
            .file("config/deploy.staging.yml", "env: {clear: {B: 3}}\nservers: [h2]\n");
        let options = LoadOptions { destination: Some("staging".into()), ..Default::default() };
        let config = load(&options, &outside).unwrap().config;
        assert_eq!(config.env.clear[1], ("B".into(), Some("3".into())));
        assert_eq!(config.all_hosts(), ["h2"]);
    }

    #[test]
    fn the_keys_of_both_files_are_counted() {
        let keys = |name: &str| -> String {
            (0..3_000).map(|index| format!("{name}{index}: 1, ")).collect()
        };
        let outside = FakeOutside::default()
            .file("config/deploy.yml", &format!("{BASE}env: {{clear: {{{}}}}}\n", keys("A")))
            .file("config/deploy.staging.yml", &format!("env: {{clear: {{{}}}}}\n", keys("B")));
        let options = LoadOptions { destination: Some("staging".into()), ..Default::default() };
        let problems = load(&options, &outside).unwrap_err();
        assert_eq!(problems.list[0].message, "a map with more than 5000 keys, both files together");
        assert_eq!(problems.list[0].span.unwrap().file, 1);
    }

    /// Messages end up in the logs of CI.
    #[test]
    fn what_a_template_made_is_not_quoted() {
        let of = |text: &str, value: &str| {
            let outside = FakeOutside::default()
                .with_var("T", value)
                .file("config/deploy.yml", &format!("{BASE}{text}\n"));
            match load(&LoadOptions::default(), &outside) {
                Ok(loaded) => (loaded.warnings.render_warnings(false), String::new()),
                Err(problems) => (problems.render(false), problems.kamal_error(false)),
            }
        };
        let token = "env: {clear: {TOKEN: <%= ENV['T'] %>}}";
        for (text, value, said) in [
            (token, "01234567", "this value is read as octal"),
            (token, "12:34:56", "this value is read as a number (base 60)"),
            ("x-a: <%= ENV['T'] %>", "2024-05-06", "this value is read as a date"),
            (token, "*hunter2", "unknown alias: it stands in this value"),
            (token, "!ruby/hunter2 x", "the tag of this value is not supported"),
            ("x-a: {hunter2: 1, <%= ENV['T'] %>: 2}", "hunter2", "this key is given twice"),
            ("env: {clear: {T: 0<%= ENV['T'] %>1}}", "234", "this value is read as octal"),
        ] {
            let (shown, kamal) = of(text, value);
            assert!(shown.contains(said), "{text}: {shown}");
            let secret = value.trim_start_matches(['*', '!']);
            let excerpts: Vec<&str> = shown.lines().filter(|it| !it.contains("<%=")).collect();
            assert!(
                !excerpts.concat().contains(secret) && !kamal.contains(secret),
                "{shown}{kamal}"
            );
        }
        // What stands in the file is.
        assert!(of("env: {clear: {A: 014}} # <%= 1 %>", "").0.contains("`014` is read as octal"));
    }

    #[test]
    fn problems_are_worded_as_kamal_words_them() {
        for (more, message) in [
            ("proxy: {app_prt: 3}", "proxy: unknown key: app_prt"),
            ("foo: 1\nbar: 2", "unknown key: foo"),
            ("stop_wait_time: 3", "unknown key: stop_wait_time"),
            ("volumes: {a: 1}", "volumes: should be an array"),
            ("env: {clear: {A: [1]}}", "env/clear/A: should be a string"),
            ("deploy_timeout: '30'", "deploy_timeout: should be an integer"),
            ("proxy: true", "proxy: should be a hash"),
            ("primary_role: foo", "The primary_role foo isn't defined"),
            ("minimum_version: 9.0.0", "Current version is 2.12.0, minimum required is 9.0.0"),
        ] {
            assert_eq!(first(more), message, "{more}");
        }
    }

    /// Kamal tells all at once; here each is told once, with its place.
    #[test]
    fn each_unknown_key_is_told_once() {
        let problems = load_text(&format!("{BASE}proxy: {{foo: 1, bar: 2}}\n")).unwrap_err();
        let messages: Vec<&str> = problems.list.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(messages, ["proxy: unknown key: foo", "proxy: unknown key: bar"]);
        assert!(problems.kamal_error(false).ends_with("): proxy: unknown keys: foo, bar\n"));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let problems = load_text("service: shop\nimgae: x\nvolumes: 1\n").unwrap_err();
        let messages: Vec<&str> = problems.list.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                "unknown key: imgae",
                "volumes: should be an array",
                "registry/username: is required",
                "registry/password: is required",
                "builder: Builder arch not set",
                "Missing required configuration for image",
                "No servers or accessories specified",
            ]
        );
        assert_eq!(problems.list[0].hint.as_deref(), Some("did you mean `image`?"));
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let problems = load(&LoadOptions::default(), &FakeOutside::default()).unwrap_err();
        assert_eq!(
            problems.kamal_error(false),
            "  ERROR (RuntimeError): Configuration file not found in /app/config/deploy.yml\n"
        );
        assert!(load_text("").unwrap_err().list[0].message.contains("is empty"));
        assert!(load_text("- a\n").unwrap_err().list[0].message.contains("should be a hash"));
    }

    #[test]
    fn surprising_readings_are_warned_of_with_their_place() {
        let loaded =
            load_text(&format!("{BASE}env: {{clear: {{A: on, B: 014}}}}\nproxy: {{ssl: no}}\n"));
        let warnings = loaded.unwrap().warnings;
        let paths: Vec<&str> = warnings.list.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(paths, ["env/clear/A", "env/clear/B"], "{}", warnings.render_warnings(false));
    }
    /// Both those that are wanted and those that are not; each that is told takes a look through the file.
    #[test]
    fn a_file_full_of_surprises_takes_no_time() {
        let proxy =
            "{ssl: no, buffering: {requests: no}, logging: {request_headers: [no, no, no, no]}}";
        let section = |n: usize| format!("  a{n}: {{image: i, host: h, proxy: {proxy}}}\n");
        let sections: String = (0..4000).map(section).collect();
        let warnings = load_text(&format!("{BASE}accessories:\n{sections}")).unwrap().warnings;
        assert_eq!(warnings.list.len(), MAX_TOLD);
        assert!(warnings.render_warnings(false).len() < 200_000);
    }
}
