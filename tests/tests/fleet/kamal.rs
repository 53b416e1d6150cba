//! Real Kamal works on the fleet, and snapshots show what it does.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dhow_tests::kamal::kamal;
use dhow_tests::load::{self, LoadSpec};
use dhow_tests::snapshot::{Allowed, about, difference, snapshot};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, Project, ProjectSpec};

const SOON: Duration = Duration::from_secs(20);

/// The version that host `number` serves.
fn version(fleet: &Fleet, number: usize) -> Result<String> {
    let url = format!("http://{}/", fleet.host(number).address());
    let report = load::run(fleet, &LoadSpec { count: 1, ..LoadSpec::new(&url) })?;
    let seen: Vec<&String> = report.versions.keys().collect();
    match seen[..] {
        [version] => Ok(version.clone()),
        _ => bail!("no version at {url}: {report:?}"),
    }
}

fn run(fleet: &Fleet, project: &Project, args: &[&str]) -> Result<String> {
    Ok(kamal(fleet, project, args)?.ok()?.text())
}

pub(crate) fn real_kamal_sets_up_deploys_executes_rolls_back_and_removes(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let project = ProjectSpec::new(fleet, "kamal-peer", &[1, 2])
        .env("COLOUR", "blue")
        .secret("TOKEN", "s3cret")
        .write(fleet)?;
    project.push(fleet, &["v1", "v2"], |image| image)?;

    run(fleet, &project, &["setup", "--skip-push", "--version", "v1"])?;
    fleet.wait_serving(1, "/", SOON)?;
    ensure!(version(fleet, 1)? == "v1" && version(fleet, 2)? == "v1");
    let take = |number: usize| -> Result<String> {
        Ok(about(&snapshot(fleet.host(number), &fleet.hub().address())?, "kamal-peer"))
    };
    let (first, second) = (take(1)?, take(2)?);
    // The primary host alone has what belongs to the lock.
    let primary = Allowed { pattern: "file/lock-.*", reason: "only the primary host is locked" };
    if let Some(found) = difference(&first, &second, &[primary, Allowed::AUDIT_LOG])? {
        bail!("two hosts that Kamal deployed differ:\n{found}");
    }
    for part in [
        "container/kamal-peer-web-v1/State.Status = running",
        "container/kamal-peer-web-v1/Config.Env.COLOUR = blue",
        "container/kamal-peer-web-v1/Config.Hostname = <host>-<hex12>",
        "container/kamal-peer-web-v1/Config.Labels.destination =",
        "file/apps/kamal-peer/env/roles/web.env = file 0600 0:0",
        "file/apps/kamal-peer/env/roles/web.env:001 TOKEN=s3cret\\n",
        "image = <hub>:5000/kamal-peer:latest + <hub>:5000/kamal-peer:v1",
        "network/kamal/Driver = bridge",
        "route/kamal-peer-web = * / <id of kamal-peer-web-v1>:80 running no",
        "volume/kamal-proxy-config/Driver = local",
    ] {
        ensure!(first.lines().any(|line| line == part), "no line `{part}` in\n{first}");
    }

    let url = format!("http://{}/", fleet.host(1).address());
    let running = load::Load::start(fleet, &LoadSpec::mixed(&url))?;
    run(fleet, &project, &["deploy", "--skip-push", "--version", "v2"])?;
    let report = running.finish()?;
    ensure!(report.failed() == 0, "requests failed during a deploy: {report:?}");
    ensure!(report.versions.len() == 2, "both versions were seen: {:?}", report.versions);
    ensure!(version(fleet, 2)? == "v2");

    let said =
        run(fleet, &project, &["app", "exec", "--reuse", "--primary", "sample-app version"])?;
    ensure!(said.contains("v2"), "exec said {said}");
    run(fleet, &project, &["rollback", "v1"])?;
    ensure!(version(fleet, 1)? == "v1" && version(fleet, 2)? == "v1");
    run(fleet, &project, &["remove", "-y"])?;
    let empty = take(2)?;
    let left = empty.lines().find(|line| line.starts_with("container/"));
    ensure!(left.is_none(), "a container is left: {left:?}");
    Ok(())
}

pub(crate) fn a_snapshot_tells_what_changed(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let host = fleet.host(3);
    let take = || snapshot(host, &fleet.hub().address());
    host.exec(&["mkdir", "-p", "/root/.kamal/apps/x"])?.ok()?;
    let before = take()?;
    ensure!(difference(&before, &take()?, &[])?.is_none(), "a snapshot differs from itself");
    host.exec(&["sh", "-c", "umask 077; echo A=1 > /root/.kamal/apps/x/web.env"])?.ok()?;
    host.docker(&["network", "create", "other"])?.ok()?;
    let found = difference(&before, &take()?, &[])?.context("the change does not show")?;
    host.docker(&["network", "rm", "other"])?.ok()?;
    host.exec(&["rm", "-r", "/root/.kamal"])?.ok()?;
    let expected = "+ file/apps/x/web.env = file 0600 0:0\n\
                    + file/apps/x/web.env:001 A=1\\n\n\
                    + network/other/Driver = bridge\n\
                    + network/other/Name = other";
    ensure!(found == expected, "the difference reads\n{found}");
    Ok(())
}
