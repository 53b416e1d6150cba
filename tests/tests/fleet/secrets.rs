//! No secret is where it has no business: canaries, one for each way a secret goes, are looked for everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use dhow_tests::fleet::{Agent, Host};
use dhow_tests::suite::Shared;
use dhow_tests::tap::Tap;
use dhow_tests::{Fleet, FleetOptions, ProjectSpec};
use regex::bytes::Regex;

use crate::deploy::Stage;

/// A secret under a name, in every form it could have been written down in.
struct Canary {
    name: &'static str,
    forms: Regex,
}

impl Canary {
    fn new(name: &'static str, value: &str) -> Result<Self> {
        let bytes = value.as_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let listed: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let mut forms = vec![
            value.as_bytes().to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            // As `Debug` prints bytes.
            listed.join(", ").into_bytes(),
            listed.join(",").into_bytes(),
            value.escape_debug().to_string().into_bytes(),
            bytes.escape_ascii().to_string().into_bytes(),
            serde_json::Value::from(value).to_string().trim_matches('"').as_bytes().to_vec(),
        ];
        // Base64 looks different with what stands before: three ways, without the ends that depend on it.
        for skip in 0..3 {
            for table in [STANDARD, URL] {
                forms.push(base64_middle(bytes, skip, table));
            }
        }
        // One pass for all forms; bytes as `\xHH`, so that none has a meaning.
        let one = |form: &Vec<u8>| form.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let forms: Vec<String> = forms.iter().map(one).collect();
        let forms = Regex::new(&format!("(?-u){}", forms.join("|"))).context("a pattern")?;
        Ok(Self { name, forms })
    }

    fn is_in(&self, data: &[u8]) -> bool {
        self.forms.is_match(data)
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64_middle(bytes: &[u8], skip: usize, table: &[u8; 64]) -> Vec<u8> {
    let digit = |bits: u32| table[(bits & 63) as usize];
    let whole = bytes[skip..].chunks_exact(3);
    whole
        .flat_map(|group| {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
            [digit(bits >> 18), digit(bits >> 12), digit(bits >> 6), digit(bits)]
        })
        .collect()
}

/// Random letters and the characters that escaping changes.
fn random(escaped: bool) -> Result<String> {
    let mut bytes = [0_u8; 18];
    let mut source = fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    source.read_exact(&mut bytes).context("read random bytes")?;
    let word: String = bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    Ok(if escaped { format!("{}/\\{}+é{}", &word[..6], &word[6..12], &word[12..]) } else { word })
}

/// All files below `dir`, but for those `allowed` names.
fn files(dir: &Path, allowed: &[PathBuf], found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let Ok(kind) = fs::symlink_metadata(&path) else { continue };
        if allowed.contains(&path) {
        } else if kind.is_dir() {
            files(&path, allowed, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Container settings but for the environment, where secrets belong.
fn containers(host: &Host) -> Result<String> {
    let ids = host.docker(&["ps", "-aq"])?.ok()?.stdout;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    let text = host.docker(&[&["inspect"], ids.as_slice()].concat())?.ok()?.stdout;
    let mut list: Vec<serde_json::Value> =
        serde_json::from_str(&text).context("read the containers")?;
    for container in &mut list {
        container["Config"]["Env"] = serde_json::Value::Null;
    }
    Ok(serde_json::to_string(&list)?)
}

/// Argument lists of all processes there are.
fn arguments(into: &mut BTreeSet<Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let path = entry?.path().join("cmdline");
        // Most are no processes, and processes end meanwhile.
        into.insert(fs::read(path).unwrap_or_default());
    }
    Ok(())
}

pub(crate) fn canaries_are_found_only_where_secrets_belong(_: &mut Shared) -> Result<()> {
    let password = random(false)?;
    let fleet = Fleet::start_with(FleetOptions {
        registry_password: Some(password.clone()),
        log: "trace".to_owned(),
        ..FleetOptions::hosts(1)
    })?;
    let stage = Stage::set(&fleet, "canary", 7443)?;
    let value = random(true)?;
    let project =
        ProjectSpec::new(&fleet, "canary", &[1]).secret("CANARY", &value).write(&fleet)?;
    // Quoted, so that the backslash is one.
    let secrets = fs::read_to_string(project.dir().join(".kamal/secrets"))?;
    project.write(".kamal/secrets", &secrets.replace(&value, &format!("'{value}'")))?;
    project.push(&fleet, &["v1"], |image| image)?;
    let host = fleet.host(1);
    let controller_dir = fleet.dir().join("controller-canary");
    let admin_token = controller_dir.join("admin-token");
    let join_token = host.dir().join("join-token");
    let read = |path: &Path| -> Result<String> {
        Ok(fs::read_to_string(path).with_context(|| path.display().to_string())?.trim().to_owned())
    };
    let canaries = [
        Canary::new("the secret variable", &value)?,
        Canary::new("the registry password", &password)?,
        Canary::new("the login token", &read(&admin_token)?)?,
        Canary::new("the join token", &read(&join_token)?)?,
    ];

    // From here on both speak to the controller through a tap; tokens went before, in the only messages that may hold them.
    let upstream = stage.controller.address();
    let agent = Agent::of(host);
    agent.stop()?;
    let taps = [
        Tap::start(&fleet, "agent", 7501, &upstream, &agent.state_dir().join("identity.json"))?,
        Tap::start(
            &fleet,
            "cli",
            7502,
            &upstream,
            &controller_dir.join("client-admin/dhow/login.json"),
        )?,
    ];
    agent.run()?;

    let deploy = ["deploy", "-P", "--version", "v1", "--wait", "30"];
    let mut command = stage.controller.cli_start("admin", project.dir(), &deploy)?;
    let mut seen = BTreeSet::new();
    while command.ended()?.is_none() {
        arguments(&mut seen)?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ended = command.ended()?.context("the deploy has ended")?;
    ensure!(ended.success(), "the deploy ended with {ended}");

    let mut places =
        vec![("argument lists".to_owned(), seen.into_iter().collect::<Vec<_>>().join(&b'\n'))];
    for args in
        [vec!["status", "--json"], vec!["rollout", "list", "--json"], vec!["app", "details"]]
    {
        let output = stage.dhow(project.dir(), &args)?.ok()?;
        places.push((format!("dhow {}", args.join(" ")), output.text().into_bytes()));
    }
    let rollouts = stage.dhow(project.dir(), &["rollout", "list", "--json"])?.ok()?.stdout;
    let rollouts: serde_json::Value =
        serde_json::from_str(&rollouts).context("read the rollouts")?;
    let id = rollouts[0]["id"].as_str().or_else(|| rollouts[0]["rollout"].as_str());
    let id = id.with_context(|| format!("no rollout id in {rollouts}"))?;
    let shown = stage.dhow(project.dir(), &["rollout", "show", id, "--json"])?.ok()?;
    places.push(("dhow rollout show".to_owned(), shown.text().into_bytes()));
    places.push(("docker inspect".to_owned(), containers(host)?.into_bytes()));

    for tap in &taps {
        let heard = tap.heard()?;
        let control = Canary::new("control", "canary-web-v1")?;
        ensure!(heard.iter().any(|(_, data)| control.is_in(data)), "a tap heard nothing: {tap:?}");
        places.extend(heard);
    }

    let env_file = host.home().join(".kamal/apps/canary/env/roles/web.env");
    let mode = fs::metadata(&env_file).context("look at the env file")?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777;
    ensure!(mode == 0o600, "the env file has mode {mode:o}");
    let env = host.docker(&["inspect", "--format", "{{json .Config.Env}}", "canary-web-v1"])?;
    let env: Vec<String> = serde_json::from_str(&env.ok()?.stdout)?;
    let given = env.iter().find(|line| line.starts_with("CANARY="));
    ensure!(
        given.is_some_and(|line| line.contains(&value[..6])),
        "the app has no CANARY: {given:?}"
    );

    let mut paths = Vec::new();
    // The client's home is the person's own; the rest of the controller's directory is not.
    let allowed = [admin_token, controller_dir.join("client-admin")];
    files(&controller_dir, &allowed, &mut paths)?;
    files(&Agent::of(host).state_dir(), &[], &mut paths)?;
    files(&fleet.dir().join("logs"), &[], &mut paths)?;
    files(&host.home(), &[env_file], &mut paths)?;
    for path in paths {
        // Sockets' and journals' files may go meanwhile.
        let Ok(data) = fs::read(&path) else { continue };
        places.push((path.display().to_string(), data));
    }
    ensure!(places.iter().any(|(place, _)| place.contains("h1-agent.log")), "no log was looked at");
    let control = Canary::new("control", "canary-web-v1")?;
    ensure!(places.iter().any(|(_, data)| control.is_in(data)), "the search finds nothing at all");
    let mut leaks = Vec::new();
    for (place, data) in &places {
        let names = canaries.iter().filter(|canary| canary.is_in(data)).map(|canary| canary.name);
        leaks.extend(names.map(|name| format!("{name} in {place}")));
    }
    if !leaks.is_empty() {
        bail!("secrets are where they do not belong:\n{}", leaks.join("\n"));
    }
    Ok(())
}
