//! A deploy of a version that every host has pulled: beside its floor and beside real Kamal, and where its time goes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::floor::{self, Steps};
use super::stage::{App, Cost, Stage, agent_log, fleet};
use super::{RUNS, Report, median};

/// Deploys before the first measured one: what only a first deploy does is done, and there is something to prune.
const WARM_UP: usize = 4;

/// What was measured on so many hosts, a value a run.
#[derive(Default)]
struct Series {
    dhow: Vec<Cost>,
    kamal: Vec<Cost>,
    floor: Vec<Duration>,
    /// Steps of the slowest host of the floor.
    floor_steps: Vec<Steps>,
    /// Milliseconds of dhow's steps on the host where they took longest, by their first word.
    steps: Vec<BTreeMap<String, f64>>,
    /// Milliseconds of dhow's stages, in order.
    stages: Vec<Vec<(String, f64)>>,
    /// Bytes between one host and the controller.
    wire: Vec<f64>,
    dhow_version: Vec<Cost>,
    kamal_version: Vec<Cost>,
}

/// The same app for each deployer.
struct Apps {
    dhow: App,
    kamal: App,
    floor: App,
}

pub(super) fn run(report: &mut Report) -> Result<()> {
    let fleet = fleet()?;
    let stage = Stage::set(&fleet)?;
    let one = measure(report, &stage, &[1])?;
    let three = measure(report, &stage, &[1, 2, 3])?;

    let over = |series: &Series, of: &[Cost]| {
        let walls = of.iter().map(|cost| cost.wall);
        median(
            &walls
                .zip(&series.floor)
                .map(|(w, f)| w.as_secs_f64() / f.as_secs_f64())
                .collect::<Vec<_>>(),
        )
    };
    report.figure_with_goal("deploy_1_host_over_floor", over(&one, &one.dhow), "ratio", "≤ 1.15");
    report.figure_with_goal(
        "deploy_3_hosts_over_floor",
        over(&three, &three.dhow),
        "ratio",
        "≤ 1.15",
    );
    let wall = |cost: &Cost| cost.wall;
    let beside = |ours: &[Cost], theirs: &[Cost], what: fn(&Cost) -> Duration| {
        let pairs = theirs.iter().zip(ours);
        median(
            &pairs.map(|(k, d)| what(k).as_secs_f64() / what(d).as_secs_f64()).collect::<Vec<_>>(),
        )
    };
    let ratio = beside(&one.dhow, &one.kamal, wall);
    report.figure_with_goal("deploy_1_host_kamal_over_dhow", ratio, "ratio", "≥ 3");
    let ratio = beside(&three.dhow, &three.kamal, wall);
    report.figure_with_goal("deploy_3_hosts_kamal_over_dhow", ratio, "ratio", "≥ 3");
    let ratio = beside(&three.dhow, &three.kamal, |cost| cost.cpu);
    report.figure_with_goal("client_cpu_kamal_over_dhow", ratio, "ratio", "≥ 50");
    let wire: Vec<f64> = one.wire.iter().chain(&three.wire).copied().collect();
    report.figure_with_goal("deploy_wire_bytes_per_host", median(&wire), "bytes", "≤ 6144");
    let ratio = beside(&three.dhow_version, &three.kamal_version, wall);
    report.figure_with_goal("version_kamal_over_dhow", ratio, "ratio", "≥ 10");

    for (hosts, series) in [("1 host", &one), ("3 hosts", &three)] {
        tables(report, hosts, series);
    }
    drop(stage);
    fleet.down()
}

fn measure(report: &Report, stage: &Stage<'_>, hosts: &[usize]) -> Result<Series> {
    let n = hosts.len();
    let mut apps = Apps {
        dhow: stage.app(&format!("ours{n}"), hosts)?,
        kamal: stage.app(&format!("theirs{n}"), hosts)?,
        floor: stage.app(&format!("floor{n}"), hosts)?,
    };
    for _ in 0..WARM_UP {
        let version = stage.next_version(&mut apps.dhow)?;
        stage.dhow(&apps.dhow, &["deploy", "-P", "--version", &version])?;
        for app in [&mut apps.kamal, &mut apps.floor] {
            let version = stage.next_version(app)?;
            let verb = if version == "v1" { "setup" } else { "deploy" };
            stage.kamal(app, &[verb, "--skip-push", "--version", &version])?;
        }
    }
    let mut series = Series::default();
    for run in 1..=RUNS {
        one_run(stage, &mut apps, hosts, &mut series)?;
        let last = |costs: &[Cost]| costs.last().map_or(0.0, |cost| ms(cost.wall));
        let floor = series.floor.last().copied().unwrap_or_default();
        report.note(&format!(
            "{n} hosts, run {run}: dhow {:.0} ms, floor {:.0} ms, kamal {:.0} ms",
            last(&series.dhow),
            ms(floor),
            last(&series.kamal)
        ));
    }
    Ok(series)
}

fn one_run(stage: &Stage<'_>, apps: &mut Apps, hosts: &[usize], series: &mut Series) -> Result<()> {
    let version = stage.next_version(&mut apps.floor)?;
    let (wall, steps) = floor::deploy(&stage.targets(&apps.floor), &version)?;
    series.floor.push(wall);
    series.floor_steps.extend(steps.into_iter().max_by_key(|steps| steps.iter().sum::<Duration>()));

    let version = stage.next_version(&mut apps.dhow)?;
    let bytes = |number: &usize| stage.wire_bytes(*number);
    let before = hosts.iter().map(bytes).collect::<Result<Vec<_>>>()?;
    let logs = hosts.iter().map(|number| Ok(agent_log(stage.fleet, *number, 0)?.len()));
    let logs = logs.collect::<Result<Vec<_>>>()?;
    series.dhow.push(stage.dhow(&apps.dhow, &["deploy", "-P", "--version", &version])?);
    for (number, before) in hosts.iter().zip(before) {
        #[expect(clippy::cast_precision_loss, reason = "some KiB")]
        series.wire.push((stage.wire_bytes(*number)? - before) as f64);
    }
    let steps = hosts.iter().zip(logs).map(|(number, from)| {
        Ok(steps_of(&agent_log(stage.fleet, *number, from)?, apps.dhow.project.service()))
    });
    let longest = |steps: &BTreeMap<String, f64>| steps.values().sum::<f64>();
    let steps = steps.collect::<Result<Vec<_>>>()?;
    series.steps.extend(steps.into_iter().max_by(|a, b| longest(a).total_cmp(&longest(b))));
    series.stages.push(stages(stage, &apps.dhow)?);
    series.dhow_version.push(stage.dhow(&apps.dhow, &["app", "version"])?);

    let version = stage.next_version(&mut apps.kamal)?;
    series.kamal.push(stage.kamal(&apps.kamal, &["deploy", "--skip-push", "--version", &version])?);
    series.kamal_version.push(stage.kamal(&apps.kamal, &["app", "version"])?);
    Ok(())
}

/// Milliseconds by the first word of a step, of an agent's log lines about an app.
fn steps_of(log: &str, service: &str) -> BTreeMap<String, f64> {
    let mut steps = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains(": step unit=") && line.contains(service)) {
        let field = |name: &str| line.split_once(&format!(" {name}=")).map(|(_, rest)| rest);
        let word = field("step").and_then(|text| text.split(' ').next());
        let took = field("elapsed_ms").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        if let (Some(word), Some(took)) = (word, took) {
            *steps.entry(word.to_owned()).or_default() += took;
        }
    }
    steps
}

/// The stages of the newest rollout with their times in milliseconds.
fn stages(stage: &Stage<'_>, app: &App) -> Result<Vec<(String, f64)>> {
    let ask = |args: &[&str]| -> Result<serde_json::Value> {
        let said = stage.controller.cli(app.project.dir(), args)?.ok()?.stdout;
        serde_json::from_str(&said).with_context(|| format!("`dhow {}`", args.join(" ")))
    };
    let rollouts = ask(&["rollout", "list", "--json"])?;
    let id = rollouts[0]["id"].as_str().context("a rollout has an id")?.to_owned();
    let shown = ask(&["rollout", "show", &id, "--json"])?;
    let stages = shown["stages"].as_array().cloned().unwrap_or_default();
    let time = |stage: &serde_json::Value, name: &str| -> Result<jiff::Timestamp> {
        stage[name]
            .as_str()
            .unwrap_or_default()
            .parse()
            .with_context(|| format!("a stage's {name}"))
    };
    let took = |stage: &serde_json::Value| -> Result<(String, f64)> {
        let took = time(stage, "finished_at")?.duration_since(time(stage, "started_at")?);
        Ok((stage["name"].as_str().unwrap_or_default().to_owned(), took.as_secs_f64() * 1000.0))
    };
    stages.iter().map(took).collect()
}

fn tables(report: &Report, hosts: &str, series: &Series) {
    let walls = |costs: &[Cost]| median(&costs.iter().map(|c| ms(c.wall)).collect::<Vec<_>>());
    let cpus = |costs: &[Cost]| median(&costs.iter().map(|c| ms(c.cpu)).collect::<Vec<_>>());
    let floor = median(&series.floor.iter().copied().map(ms).collect::<Vec<_>>());
    let dhow = walls(&series.dhow);
    let mut rows = vec![row(["", "wall ms", "client CPU ms"])];
    rows.push(row(["floor", &format!("{floor:.0}"), ""]));
    for (name, costs) in [
        ("dhow deploy", &series.dhow),
        ("kamal deploy", &series.kamal),
        ("dhow app version", &series.dhow_version),
        ("kamal app version", &series.kamal_version),
    ] {
        rows.push(row([name, &format!("{:.0}", walls(costs)), &format!("{:.0}", cpus(costs))]));
    }
    report.table(&format!("{hosts}: what a deploy takes (medians)"), &rows);

    let mut rows = vec![row(["step", "floor ms", "dhow ms"])];
    let mut names: Vec<&str> = floor::STEPS.to_vec();
    let ours = series.steps.iter().flat_map(BTreeMap::keys).map(String::as_str);
    for name in ours.collect::<std::collections::BTreeSet<_>>() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut sum = 0.0;
    for name in names {
        let index = floor::STEPS.iter().position(|step| *step == name);
        let floor = index.map(|i| {
            let all: Vec<f64> = series.floor_steps.iter().map(|steps| ms(steps[i])).collect();
            format!("{:.0}", median(&all))
        });
        let ours: Vec<f64> =
            series.steps.iter().map(|steps| steps.get(name).copied().unwrap_or_default()).collect();
        sum += median(&ours);
        rows.push(row([name, &floor.unwrap_or_default(), &format!("{:.0}", median(&ours))]));
    }
    rows.push(row(["looking, waiting, telling", "", &format!("{:.0}", dhow - sum)]));
    rows.push(row(["wall", &format!("{floor:.0}"), &format!("{dhow:.0}")]));
    report.table(&format!("{hosts}: by step, on the slowest host"), &rows);

    let mut rows = vec![row(["stage", "dhow ms"])];
    let mut sum = 0.0;
    let named: Vec<String> =
        series.stages.first().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    for (index, name) in named.iter().enumerate() {
        let all: Vec<f64> =
            series.stages.iter().filter_map(|run| run.get(index)).map(|(_, took)| *took).collect();
        sum += median(&all);
        rows.push(row([name, &format!("{:.0}", median(&all))]));
    }
    rows.push(row(["before, between and after", &format!("{:.0}", dhow - sum)]));
    report.table(&format!("{hosts}: by stage of the rollout"), &rows);
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_from_an_agents_log() {
        let log = "2026-01-01T00:00:00Z  INFO dhow_agent::converge::pass: step unit=role shop/web step=start shop-web-v2 elapsed_ms=230 ok=true\n\
                   2026-01-01T00:00:00Z  INFO dhow_agent::converge::pass: step unit=role shop/web step=stop shop-web-v1 elapsed_ms=40 ok=true\n\
                   2026-01-01T00:00:00Z  INFO dhow_agent::converge::pass: step unit=app shop step=stop shop-web-v0 elapsed_ms=2 ok=true\n\
                   2026-01-01T00:00:00Z  INFO dhow_agent::converge::pass: step unit=app other step=tag x as y elapsed_ms=9 ok=true\n\
                   2026-01-01T00:00:00Z  INFO dhow_agent::converge::pass: plan computed unit=app shop steps=3\n";
        let steps = steps_of(log, "shop");
        let steps: Vec<(&str, f64)> =
            steps.iter().map(|(word, took)| (word.as_str(), *took)).collect();
        assert_eq!(steps, [("start", 230.0), ("stop", 42.0)]);
    }
}
