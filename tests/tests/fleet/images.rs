//! The images that tests deploy: each behaviour of the sample app, chosen by a tag alone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhow_test_images::{AppImage, Behaviour, app_archive};
use dhow_tests::fleet::run::wait_until;
use dhow_tests::load::{self, Load, LoadReport, LoadSpec};
use dhow_tests::suite::Shared;
use dhow_tests::{Fleet, Host};

const SOON: Duration = Duration::from_secs(30);

/// How long a program may have run before Docker notes its start.
const NOTED_MS: i64 = 500;

/// A container of the image with a behaviour's tag.
struct App<'a> {
    fleet: &'a Fleet,
    host: &'a Host,
    name: String,
    port: usize,
}

impl<'a> App<'a> {
    fn run(fleet: &'a Fleet, behaviour: Behaviour) -> Result<Self> {
        let host = fleet.host(3);
        let port = 8100 + Behaviour::ALL.iter().take_while(|other| **other != behaviour).count();
        let name = format!("by-tag-{}", behaviour.tag());
        host.docker(&["rm", "-f", &name])?;
        let published = format!("{port}:80");
        let image = format!("by-tag:{}", behaviour.tag());
        host.docker(&["run", "-d", "--name", &name, "-p", &published, &image])?.ok()?;
        Ok(Self { fleet, host, name, port })
    }

    fn spec(&self, path: &str) -> LoadSpec {
        let url = format!("http://{}:{}{path}", self.host.address(), self.port);
        LoadSpec { count: 1, timeout_ms: 15_000, ..LoadSpec::new(&url) }
    }

    fn ask(&self, path: &str) -> Result<LoadReport> {
        load::run(self.fleet, &self.spec(path))
    }

    /// Waits until `path` answers with `status`.
    fn until(&self, path: &str, status: u16) -> Result<()> {
        wait_until(&format!("{path} of {} answers {status}", self.name), SOON, || {
            Ok(self.ask(path)?.statuses.contains_key(&status).then_some(()))
        })
    }

    fn log(&self) -> Result<String> {
        Ok(self.host.docker(&["logs", &self.name])?.ok()?.text())
    }

    fn until_logged(&self, text: &str) -> Result<()> {
        wait_until(&format!("{} says {text:?}", self.name), SOON, || {
            Ok(self.log()?.contains(text).then_some(()))
        })
    }

    fn exit_status(&self) -> Result<String> {
        Ok(self.host.docker(&["wait", &self.name])?.ok()?.stdout.trim().to_owned())
    }

    /// What Docker says of its start or end, in milliseconds.
    fn time(&self, field: &str) -> Result<i64> {
        let format = format!("{{{{.State.{field}}}}}");
        let text = self.host.docker(&["inspect", "--format", &format, &self.name])?.ok()?.stdout;
        let time: jiff::Timestamp = text.trim().parse().context("read a time of Docker")?;
        Ok(time.as_millisecond())
    }

    fn ran_ms(&self) -> Result<i64> {
        Ok(jiff::Timestamp::now().as_millisecond() - self.time("StartedAt")?)
    }
}

pub(crate) fn every_behaviour_of_the_app_can_be_had_by_a_tag(shared: &mut Shared) -> Result<()> {
    let fleet = shared.fleet()?;
    let images: Vec<AppImage> = Behaviour::ALL
        .iter()
        .map(|behaviour| {
            let (image, tag) = (format!("by-tag:{}", behaviour.tag()), behaviour.tag());
            AppImage::new(image, tag).behaving(*behaviour)
        })
        .collect();
    let begun = std::time::Instant::now();
    let archive = app_archive(&images)?;
    println!("    {} images in {:.1} s", images.len(), begun.elapsed().as_secs_f32());
    fleet.host(3).load(&archive)?;

    // First those that take their time.
    let slow_up = App::run(fleet, Behaviour::SlowUp)?;
    slow_up.until("/", 200)?;
    let slow_answer = Load::start(fleet, &slow_up.spec("/up"))?;
    let later = App::run(fleet, Behaviour::CrashLater)?;
    let late = App::run(fleet, Behaviour::SlowStart)?;
    let ill_first = App::run(fleet, Behaviour::SlowHealthy)?;

    let well = App::run(fleet, Behaviour::Well)?;
    well.until("/up", 200)?;
    ensure!(well.ask("/")?.versions.keys().eq(["well"]), "a tag is also the version");
    ensure!(
        well.ask("/assets/app-well.js")?.statuses.contains_key(&200),
        "assets bear the version"
    );
    App::run(fleet, Behaviour::Unhealthy)?.until("/up", 500)?;
    App::run(fleet, Behaviour::Redirecting)?.until("/up", 302)?;
    App::run(fleet, Behaviour::LogFlood)?.until_logged("\nflood 1500 x")?;
    App::run(fleet, Behaviour::Job)?.until_logged("heartbeat 2")?;
    let at_start = App::run(fleet, Behaviour::CrashAtStart)?;
    ensure!(at_start.exit_status()? == "1" && !at_start.log()?.contains("listens"));
    let stubborn = App::run(fleet, Behaviour::IgnoreSigterm)?;
    stubborn.until("/up", 200)?;
    fleet.host(3).docker(&["stop", "-t", "1", &stubborn.name])?.ok()?;
    ensure!(stubborn.exit_status()? == "137" && stubborn.log()?.contains("ignores SIGTERM"));

    // Never early, by Docker's own clock, which notes a start when the program may run already; how late is the machine's affair.
    let not_before = |ran: i64, ms| ran + NOTED_MS >= ms;
    late.until("/", 200)?;
    ensure!(not_before(late.ran_ms()?, 3000), "served {} ms after its start", late.ran_ms()?);
    ill_first.until("/up", 200)?;
    ensure!(
        not_before(ill_first.ran_ms()?, 3000),
        "healthy {} ms after its start",
        ill_first.ran_ms()?
    );
    ensure!(later.exit_status()? == "1" && later.log()?.contains("listens"));
    let ran = later.time("FinishedAt")? - later.time("StartedAt")?;
    ensure!(not_before(ran, 5000), "crashed {ran} ms after its start");
    let report = slow_answer.finish()?;
    ensure!(report.ok == 1 && report.max_ms >= 10_000.0, "{report:?}");

    for behaviour in Behaviour::ALL {
        fleet.host(3).docker(&["rm", "-f", &format!("by-tag-{}", behaviour.tag())])?.ok()?;
        fleet.host(3).docker(&["rmi", &format!("by-tag:{}", behaviour.tag())])?.ok()?;
    }
    Ok(())
}
