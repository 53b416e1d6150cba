//! What can be done to a host, and that it does what it says.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use dhow_test_images::{AppImage, app_archive};
use dhow_tests::fleet::run::wait_until;
use dhow_tests::load::{self, Kind, LoadSpec};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, FleetOptions, Host};

const SOON: Duration = Duration::from_secs(20);

pub(crate) fn hosts_have_their_own_engine_address_and_home(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let mut ids = Vec::new();
    for host in fleet.hosts() {
        let id = host.docker(&["info", "--format", "{{.ID}}"])?.ok()?.stdout;
        ensure!(!ids.contains(&id), "two hosts share one Engine");
        ids.push(id);
        host.exec(&["sh", "-c", "echo hello > /root/here"])?.ok()?;
        let images = host.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?.ok()?.stdout;
        ensure!(
            images.contains("basecamp/kamal-proxy:v0.9.2"),
            "the proxy's image is there: {images}"
        );
        let name = host.exec(&["hostname"])?.ok()?.stdout;
        ensure!(name.trim() == format!("dhow-{}", host.name()), "the host's name is {name}");
    }
    ensure!(fleet.host(1).home().join("here").exists());
    ensure!(!std::path::Path::new("/root/here").exists(), "the machine's own home is untouched");
    Ok(())
}

/// Runs the sample app on port 8000 of `host`, with a restart policy, and waits until it answers.
fn serve(fleet: &Fleet, host: &Host, version: &str) -> Result<String> {
    let reference = format!("host-ops:{version}");
    host.load(&app_archive(&[AppImage::new(&reference, version)])?)?;
    host.docker(&["rm", "-f", "host-ops"])?;
    let args = ["run", "-d", "--name", "host-ops", "--restart", "unless-stopped", "-p", "8000:80"];
    host.docker(&[&args[..], &[&reference]].concat())?.ok()?;
    let url = format!("http://{}:8000/", host.address());
    answers(fleet, &url)?;
    Ok(url)
}

/// Leaves the host as [`serve`] found it.
fn leave(host: &Host) -> Result<()> {
    host.docker(&["rm", "-f", "host-ops"])?.ok()?;
    let images = host.docker(&["images", "-q", "host-ops"])?.ok()?.stdout;
    let ids: Vec<&str> = images.split_whitespace().collect();
    host.docker(&[&["rmi", "-f"][..], &ids].concat())?.ok().map(drop)
}

fn one(url: &str, timeout_ms: u64) -> LoadSpec {
    LoadSpec { count: 1, timeout_ms, ..LoadSpec::new(url) }
}

fn answers(fleet: &Fleet, url: &str) -> Result<()> {
    wait_until(&format!("{url} answers"), SOON, || {
        Ok((load::run(fleet, &one(url, 2000))?.ok == 1).then_some(()))
    })
}

pub(crate) fn a_power_cut_stops_everything_and_power_on_brings_back_what_should_run(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let host = fleet.host(1);
    let url = serve(fleet, host, "v1")?;
    let begun = Instant::now();
    host.power_cut()?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "a power cut took {:?}", begun.elapsed());
    ensure!(load::run(fleet, &one(&url, 1000))?.ok == 0, "a host without power answers");
    ensure!(!host.engine_answers() && host.exec(&["true"]).is_err());
    host.power_on()?;
    answers(fleet, &url)?;
    // At once, while the kernel is still tidying up: this failed now and then.
    for _ in 0..3 {
        host.power_cut()?;
        host.power_on()?;
    }
    answers(fleet, &url)?;
    leave(host)
}

pub(crate) fn a_link_that_is_down_cuts_the_host_off_until_it_is_up(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let url = serve(fleet, fleet.host(2), "v1")?;
    fleet.host(2).link_down()?;
    ensure!(load::run(fleet, &one(&url, 1000))?.ok == 0, "a host without a link answers");
    ensure!(fleet.host(2).engine_answers(), "its Engine runs on");
    fleet.host(2).link_up()?;
    answers(fleet, &url)?;
    leave(fleet.host(2))
}

pub(crate) fn a_silenced_host_answers_nothing_and_refuses_nothing(
    shared: &mut Shared,
) -> Result<()> {
    let fleet = shared.fleet()?;
    let url = serve(fleet, fleet.host(3), "v1")?;
    // Open when the silence begins: it must neither end nor be refused before its time-out.
    let spec = LoadSpec {
        count: 40,
        rate: 20.0,
        timeout_ms: 1500,
        mix: vec![Kind::Slow { ms: 200 }],
        ..LoadSpec::new(&url)
    };
    let running = load::Load::start(fleet, &spec)?;
    wait_until("the app is being asked", SOON, || {
        let log = fleet.host(3).docker(&["top", "host-ops"])?;
        Ok(log.success().then_some(()))
    })?;
    fleet.host(3).silence()?;
    let report = load::run(fleet, &one(&url, 1500))?;
    ensure!(report.errors.keys().eq(["no answer within 1500 ms"]), "{report:?}");
    let report = running.finish()?;
    ensure!(report.errors.keys().all(|error| error == "no answer within 1500 ms"), "{report:?}");
    fleet.host(3).unsilence()?;
    answers(fleet, &url)?;
    leave(fleet.host(3))
}

pub(crate) fn an_engine_that_is_killed_or_stopped_starts_again(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let host = fleet.host(1);
    let url = serve(fleet, host, "v2")?;
    host.engine_stop()?;
    ensure!(load::run(fleet, &one(&url, 1000))?.ok == 0, "containers stop with their Engine");
    host.engine_start()?;
    answers(fleet, &url)?;
    host.engine_kill()?;
    ensure!(!host.engine_answers());
    // What becomes of the container is the Engine's affair: 20.10 stops it when it comes back and,
    // whatever the restart policy says, leaves it so.
    host.engine_start()?;
    host.docker(&["start", "host-ops"])?.ok()?;
    answers(fleet, &url)?;
    leave(host)
}

pub(crate) fn with_live_restore_containers_outlive_a_killed_engine(_: &mut Shared) -> Result<()> {
    let fleet = Fleet::start_with(FleetOptions { live_restore: true, ..FleetOptions::hosts(1) })?;
    let host = fleet.host(1);
    let url = serve(&fleet, host, "v1")?;
    // Over one connection that stays open: new ones are refused while the Engine, coming back, makes
    // its iptables rules anew.
    let spec = LoadSpec { new_connection_every: 0, ..LoadSpec::new(&url) };
    let running = load::Load::start(&fleet, &spec)?;
    wait_until("the load is connected", SOON, || {
        let sockets = fleet.hub().exec(&["ss", "-Htn", "state", "established", "dport = :8000"])?;
        Ok((!sockets.ok()?.stdout.is_empty()).then_some(()))
    })?;
    host.engine_kill()?;
    host.engine_start()?;
    answers(&fleet, &url)?;
    let report = running.finish()?;
    ensure!(report.sent > 5 && report.failed() == 0, "{report:?}");
    fleet.down()
}

pub(crate) fn a_small_disk_can_be_full_and_free_again(_: &mut Shared) -> Result<()> {
    let options =
        FleetOptions { small_disk_mb: Some(256), proxy_image: false, ..FleetOptions::hosts(1) };
    let fleet = Fleet::start_with(options)?;
    let host = fleet.host(1);
    let image = |version: &str| {
        let image = AppImage::new(format!("disk:{version}"), version).padding(20_000_000);
        app_archive(&[image])
    };
    host.load(&image("v1")?)?;
    host.disk_full(4096)?;
    let Err(error) = host.load(&image("v2")?) else { bail!("20 MB went on to a full disk") };
    let error = error.to_string();
    ensure!(error.contains("no space left on device"), "{error}");
    host.disk_free()?;
    host.load(&image("v2")?)?;
    fleet.down()
}

pub(crate) fn a_registry_with_a_password_refuses_others(_: &mut Shared) -> Result<()> {
    let options = FleetOptions {
        registry_password: Some("right".to_owned()),
        proxy_image: false,
        ..FleetOptions::hosts(1)
    };
    let fleet = Fleet::start_with(options)?;
    let host = fleet.host(1);
    fleet.hub().push(&app_archive(&[AppImage::new("locked:v1", "v1")])?)?;
    let registry = fleet.hub().registry();
    let image = format!("{registry}/locked:v1");
    ensure!(!host.docker(&["pull", &image])?.success(), "the registry let a stranger pull");
    let login = |password: &str| -> Result<bool> {
        let args = ["login", "-u", "fleet", "--password-stdin", &registry];
        Ok(host.docker_with_input(&args, password.as_bytes())?.success())
    };
    ensure!(!login("wrong")?, "the registry took a wrong password");
    ensure!(login("right")?, "the registry refused the right password");
    host.docker(&["pull", &image])?.ok()?;
    fleet.down()
}
