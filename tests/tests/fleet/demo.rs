//! `make demo` on a host of its own: what a newcomer sees, and that it leaves no trace and harms nobody.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhow_test_images::{proxy_image, proxy_is_stand_in};
use dhow_tests::fleet::run::{Output, run};
use dhow_tests::fleet::{Host, binary};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions};

/// What `DHOW_PROXY_IMAGE` names, where the host can see it.
const PROXY: &str = "proxy.tar";

/// Both deploys of the demo, with programs that were not optimised.
const LIMIT: Duration = Duration::from_secs(120);

/// Compiling the static programs of the images, where no test before has.
const COMPILED: Duration = Duration::from_secs(600);

/// The demo's own program on a host; the programs and images are where the host can see them.
fn demo(host: &Host, verb: &str) -> Result<Output> {
    let dir = host.dir().join("demo-programs");
    let set = |name: &str, below: &str| format!("{name}={}", dir.join(below).display());
    let mut command = host.enter()?;
    command.arg("env").args([
        set("DHOW_DEMO_DIR", "made"),
        set("DHOW_BIN_DIR", ""),
        set("DHOW_DEMO_APP", "app.tar"),
        set("DHOW_DEMO_STAND_IN", "stand-in.tar"),
    ]);
    if !proxy_is_stand_in() {
        command.arg(set("DHOW_PROXY_IMAGE", PROXY));
    }
    run(command.arg(dir.join("dhow-demo")).arg(verb), LIMIT)
}

fn bring(host: &Host) -> Result<()> {
    let dir = host.dir().join("demo-programs");
    fs::create_dir_all(&dir).context("create the demo's directory")?;
    for name in ["dhow", "dhow-agent", "dhow-controller", "dhow-demo"] {
        fs::copy(binary(name)?, dir.join(name)).with_context(|| format!("copy {name}"))?;
    }
    let images =
        run(std::process::Command::new(binary("dhow-demo")?).arg("images"), COMPILED)?.ok()?;
    if !proxy_is_stand_in() {
        fs::copy(proxy_image()?, dir.join(PROXY)).context("copy the proxy's image")?;
    }
    for (archive, name) in images.stdout.lines().zip(["app.tar", "stand-in.tar"]) {
        fs::copy(archive, dir.join(name)).with_context(|| format!("copy {archive}"))?;
    }
    Ok(())
}

/// Everything of the Engine's, the processes on the host, and what the demo keeps.
fn traces(host: &Host) -> Result<String> {
    let mut text = String::new();
    for args in [
        &["ps", "-a", "--format", "{{.Names}}"][..],
        &["network", "ls", "--format", "{{.Name}}"],
        &["volume", "ls", "-q"],
        &["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"],
    ] {
        text.push_str(&format!("{}: {}\n", args[0], host.docker(args)?.ok()?.stdout));
    }
    let programs = host.exec(&["sh", "-c", "cat /proc/[0-9]*/comm | sort"])?.ok()?.stdout;
    let theirs = programs.lines().filter(|name| {
        ["dhow", "docker-registr", "sample-app", "kamal-proxy", "containerd-shim"]
            .iter()
            .any(|known| name.starts_with(known))
    });
    text.push_str(&theirs.collect::<Vec<_>>().join("\n"));
    let made = host.dir().join("demo-programs/made").exists();
    let kamal = host.home().join(".kamal").exists();
    Ok(format!("{text}\nmade: {made}, .kamal: {kamal}\n"))
}

pub(crate) fn the_demo_deploys_twice_under_load_and_leaves_no_trace(_: &mut Shared) -> Result<()> {
    let fleet = Fleet::start_with(FleetOptions { proxy_image: false, ..FleetOptions::hosts(1) })?;
    let host = fleet.host(1);
    bring(host)?;
    refuses_what_is_not_its_own(host)?;

    let line =
        regex::Regex::new(r"^demo: v2 live at http://127\.0\.0\.1:\d+, \d+ requests, 0 failed$")?;
    let before = traces(host)?;
    // The second finds the first running.
    for round in 1..=2 {
        let said = demo(host, "up")?.ok().with_context(|| format!("round {round}"))?.stdout;
        let last = said.lines().last().unwrap_or_default();
        ensure!(line.is_match(last), "round {round} ends with {last:?}:\n{said}");
        // No proxy can be pulled here; the archive that is given is in the host's eyes.
        let proxy = if proxy_is_stand_in() {
            "a stand-in: the real one could not be pulled"
        } else {
            "demo-programs/proxy.tar (DHOW_PROXY_IMAGE)"
        };
        for word in [proxy, "$ dhow deploy -P --version v2", "dhow-demo v2 is live on 1 host "] {
            ensure!(said.contains(word), "round {round} does not say {word:?}:\n{said}");
        }
        let earlier = said.contains("An earlier demo is there");
        ensure!(earlier == (round == 2), "round {round}: {said}");
        ensure!(traces(host)? != before, "the demo does not go on running");
    }
    let status = host.dir().join("demo-programs/made/dhow");
    let said = host.exec(&[status.as_os_str(), "status".as_ref()])?.ok()?.stdout;
    ensure!(said.contains("1 of 1 on v2"), "{said}");

    let said = demo(host, "down")?.ok()?.stdout;
    ensure!(said.starts_with("Removed: "), "{said}");
    let after = traces(host)?;
    ensure!(after == before, "before the demo:\n{before}\nafter it:\n{after}");
    let said = demo(host, "down")?.ok()?.stdout;
    ensure!(said.contains("There is no demo"), "{said}");
    fleet.down()
}

/// A machine on which somebody else deploys stays as it is.
fn refuses_what_is_not_its_own(host: &Host) -> Result<()> {
    host.load(&host.dir().join("demo-programs/stand-in.tar"))?;
    host.docker(&["network", "create", "kamal"])?.ok()?;
    let image = dhow_test_images::PROXY_REFERENCE;
    let args = ["run", "-d", "--name", "kamal-proxy", "--network", "kamal", image];
    host.docker(&args)?.ok()?;
    let before = traces(host)?;
    let refused = demo(host, "up")?;
    ensure!(refused.code() == Some(1), "the demo ended with {}", refused.status);
    for word in ["container kamal-proxy", "network kamal", "will not touch"] {
        ensure!(refused.stderr.contains(word), "no {word:?} in {}", refused.stderr);
    }
    demo(host, "down")?.ok()?;
    ensure!(traces(host)? == before, "somebody else's proxy was touched");
    host.docker(&["rm", "-f", "-v", "kamal-proxy"])?.ok()?;
    host.docker(&["network", "rm", "kamal"])?.ok()?;
    host.docker(&["rmi", image])?.ok().map(drop)
}
