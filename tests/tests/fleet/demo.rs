//! `make demo` on a host of its own: what a newcomer sees, and that it leaves no trace and harms nobody.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhow_test_images::{proxy_image, proxy_is_stand_in};
use dhow_tests::fleet::run::{Output, run, wait_until};
use dhow_tests::fleet::{Host, binary, workspace_root};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions};
use rustix::process::{Pid, Signal, kill_process_group};

/// What `DHOW_PROXY_IMAGE` names, where the host can see it.
const PROXY: &str = "proxy.tar";

/// Both deploys of the demo, with programs that were not optimised.
const LIMIT: Duration = Duration::from_secs(120);

/// Compiling the static programs of the images, where no test before has.
const COMPILED: Duration = Duration::from_secs(600);

/// What `make demo` and `make demo-down` run, on a host, with this directory for all that is made; programs and images are where
/// the host can see them.
fn script(host: &Host, made: &str, verb: &str) -> Result<Command> {
    let dir = host.dir().join("demo-programs");
    let set = |name: &str, below: &str| format!("{name}={}", dir.join(below).display());
    let mut command = host.enter()?;
    command.arg("env").args([
        set("DHOW_DEMO_DIR", made),
        set("DHOW_BIN_DIR", ""),
        set("DHOW_DEMO_APP", "app.tar"),
        set("DHOW_DEMO_STAND_IN", "stand-in.tar"),
    ]);
    if !proxy_is_stand_in() {
        command.arg(set("DHOW_PROXY_IMAGE", PROXY));
    }
    command.arg(dir.join("tests/demo/run.sh")).arg(verb);
    Ok(command)
}

fn demo(host: &Host, verb: &str) -> Result<Output> {
    run(&mut script(host, "made", verb)?, LIMIT)
}

fn bring(host: &Host) -> Result<()> {
    let dir = host.dir().join("demo-programs");
    fs::create_dir_all(&dir).context("create the demo's directory")?;
    for name in ["dhow", "dhow-agent", "dhow-controller", "dhow-demo"] {
        fs::copy(binary(name)?, dir.join(name)).with_context(|| format!("copy {name}"))?;
    }
    // Copied as well: the workspace may lie where a host has its own directories.
    for name in ["tests/demo/run.sh", "tests/setup/as-root.sh"] {
        let to = dir.join(name);
        fs::create_dir_all(to.parent().context("a directory")?).context("create a directory")?;
        fs::copy(workspace_root().join(name), to).with_context(|| format!("copy {name}"))?;
    }
    let images = run(Command::new(binary("dhow-demo")?).arg("images"), COMPILED)?.ok()?;
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

    refuses_somebody_elses_directory(host)?;

    let before = traces(host)?;
    let ports = Taken::ports(host, &[8080, 5000])?;
    // A busy machine may look too late.
    let mut tries = (0..3).map(|_| interrupted_in_a_deploy(host));
    let caught = tries.find(|caught| !matches!(caught, Ok(false))).unwrap_or(Ok(false))?;
    ensure!(caught, "each of three deploys was over before it was interrupted");
    let line =
        regex::Regex::new(r"^demo: v2 live at http://127\.0\.0\.1:(\d+), \d+ requests, 0 failed$")?;
    // The first finds one that was interrupted, the second one that is whole.
    for round in 1..=2 {
        let said = demo(host, "up")?.ok().with_context(|| format!("round {round}"))?.stdout;
        let last = said.lines().last().unwrap_or_default();
        let port = line.captures(last).map(|found| found[1].to_owned());
        let port = port.with_context(|| format!("round {round} ends with {last:?}:\n{said}"))?;
        ensure!(port != "8080", "round {round} takes a port in use:\n{said}");
        ensure!(!said.contains("127.0.0.1:5000 "), "round {round} takes a port in use:\n{said}");
        // No proxy can be pulled here; the archive that is given is in the host's eyes.
        let proxy = if proxy_is_stand_in() {
            "a stand-in: the real one could not be pulled"
        } else {
            "demo-programs/proxy.tar (DHOW_PROXY_IMAGE)"
        };
        let earlier = "An earlier demo is there";
        let deploy = "$ dhow deploy -P --version v2";
        for word in [earlier, proxy, deploy, "dhow-demo v2 is live on 1 host "] {
            ensure!(said.contains(word), "round {round} does not say {word:?}:\n{said}");
        }
        ensure!(traces(host)? != before, "the demo does not go on running");
    }
    let status = host.dir().join("demo-programs/made/dhow");
    let said = host.exec(&[status.as_os_str(), "status".as_ref()])?.ok()?.stdout;
    ensure!(said.contains("1 of 1 on v2"), "{said}");

    leaves_what_others_use(host)?;
    let after = traces(host)?;
    ensure!(after == before, "before the demo:\n{before}\nafter it:\n{after}");
    let said = demo(host, "down")?.ok()?.stdout;
    ensure!(said.contains("There is no demo"), "{said}");
    ports.free()?;
    fleet.down()
}

/// `down`, while a container of somebody else's is in the demo's network.
fn leaves_what_others_use(host: &Host) -> Result<()> {
    host.load(&host.dir().join("demo-programs/app.tar"))?;
    let other = ["create", "--name", "other", "--network", "kamal", "--label", "service=other"];
    host.docker(&[&other[..], &["dhow-demo:v1"]].concat())?.ok()?;
    let said = demo(host, "down")?.ok()?.stdout;
    ensure!(said.starts_with("Removed: "), "{said}");
    ensure!(said.contains("Left, as others use them: network kamal (other)."), "{said}");
    host.docker(&["network", "inspect", "kamal"])?.ok()?;
    host.docker(&["rm", "other"])?.ok()?;
    host.docker(&["network", "rm", "kamal"])?.ok()?;
    host.docker(&["rmi", "dhow-demo:v1", "dhow-demo:v2"])?.ok().map(drop)
}

/// What a person's Ctrl-C does while v1 is on its way: the agent and the controller stay, and the next `up` finds them. False
/// where v1 was there before.
fn interrupted_in_a_deploy(host: &Host) -> Result<bool> {
    let log = host.dir().join("demo-programs/interrupted.log");
    let file = fs::File::create(&log).context("create a log")?;
    let again = file.try_clone().context("share a log")?;
    let mut command = script(host, "made", "up")?;
    command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0);
    let mut child = command.spawn().context("start the demo")?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
    let reached = wait_until("v1 is on its way", LIMIT, || {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "the demo failed:\n{}", fs::read_to_string(&log)?);
            return Ok(Some(()));
        }
        // As soon as the controller has it. The second deploy, which has no proxy to boot, takes half a second only.
        Ok(fs::read_to_string(&log)?.contains("[1/").then_some(()))
    });
    // It may be over by now.
    let _ = kill_process_group(group, Signal::INT);
    child.wait().context("wait for the demo")?;
    reached?;
    let said = fs::read_to_string(&log)?;
    wait_until("the demo and its client have ended", LIMIT, || {
        let names = host.exec(&["sh", "-c", "cat /proc/[0-9]*/comm"])?.ok()?.stdout;
        Ok(names.lines().all(|name| !["dhow", "dhow-demo"].contains(&name)).then_some(()))
    })?;
    ensure!(traces(host)?.contains("dhow-agent"), "the agent ended with the demo");
    Ok(!said.contains("v1 is live"))
}

/// Ports in use on a host, as long as this is not dropped.
struct Taken {
    child: Child,
    stdin: ChildStdin,
}

impl Taken {
    fn ports(host: &Host, ports: &[u16]) -> Result<Self> {
        let program = format!(
            "import socket, sys; held = [socket.create_server(('127.0.0.1', port)) for port in {ports:?}]; \
             print('held', flush=True); sys.stdin.read()"
        );
        let mut command = host.enter()?;
        command.args(["python3", "-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start what takes ports")?;
        let stdin = child.stdin.take().context("its input")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        ensure!(line == "held\n", "the ports {ports:?} could not be taken");
        Ok(Self { child, stdin })
    }

    fn free(mut self) -> Result<()> {
        drop(self.stdin);
        self.child.wait().context("wait for what took ports").map(drop)
    }
}

/// A directory with files in it that the demo did not make stays as it is, and nothing else is done.
fn refuses_somebody_elses_directory(host: &Host) -> Result<()> {
    let dir = host.dir().join("demo-programs/precious");
    let file = dir.join("data");
    fs::create_dir(&dir).context("create a directory")?;
    fs::write(&file, "somebody's").context("write a file")?;
    // Of a name that a demo would use: without a marker it is somebody's as well.
    host.docker(&["network", "create", "kamal"])?.ok()?;
    let before = traces(host)?;
    for verb in ["up", "down"] {
        let refused = run(&mut script(host, "precious", verb)?, LIMIT)?;
        ensure!(refused.code() == Some(1), "{verb} ended with {}", refused.status);
        for word in ["demo-programs/precious", "did not make", "DHOW_DEMO_DIR"] {
            ensure!(refused.stderr.contains(word), "{verb}: no {word:?} in {}", refused.stderr);
        }
        ensure!(fs::read_to_string(&file)? == "somebody's", "{verb} touched the file");
    }
    demo(host, "down")?.ok()?;
    ensure!(traces(host)? == before, "somebody else's network was touched");
    host.docker(&["network", "rm", "kamal"])?.ok().map(drop)
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
