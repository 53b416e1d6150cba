//! What agents and the controller take while nothing happens, after a deploy.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::stage::{Stage, fleet};
use super::{RUNS, Report, median};

/// One window holds every timer there is: heartbeats every few seconds, a look at each unit every minute.
const WINDOW: Duration = Duration::from_secs(60);

/// So many windows, on three hosts each.
const WINDOWS: usize = 2;

/// Memory is read before the first window and so often in each: with both, at as many moments as a figure needs runs.
const READINGS: u32 = 2;
const _: () = assert!(1 + WINDOWS * READINGS as usize >= RUNS);

/// What was read of some programs: of each at each moment.
#[derive(Default)]
struct Memory {
    resident: Vec<f64>,
    anonymous: Vec<f64>,
}

impl Memory {
    fn read(&mut self, programs: &[u32]) -> Result<()> {
        for id in programs {
            self.resident.push(resident_mib(*id, "VmRSS")?);
            self.anonymous.push(resident_mib(*id, "RssAnon")?);
        }
        Ok(())
    }
}

pub(super) fn run(report: &mut Report) -> Result<()> {
    let fleet = fleet()?;
    let mut stage = Stage::set(&fleet)?;
    let mut app = stage.app("idle", &[1, 2, 3])?;
    for _ in 0..3 {
        let version = stage.next_version(&mut app)?;
        stage.dhow(&app, &["deploy", "-P", "--version", &version])?;
    }
    let mut agents = Vec::new();
    for host in fleet.hosts() {
        agents.push(host.agent(|agent| agent.program_id()?.context("the agent runs"))?);
    }
    let controller = stage.controller.process()?.program_id()?.context("the controller runs")?;

    let (mut cpu, mut controller_cpu) = (Vec::new(), Vec::new());
    let (mut memory, mut controller_memory) = (Memory::default(), Memory::default());
    memory.read(&agents)?;
    controller_memory.read(&[controller])?;
    for window in 1..=WINDOWS {
        let before = agents.iter().map(|id| on_cpu(*id)).collect::<Result<Vec<_>>>()?;
        let controller_before = on_cpu(controller)?;
        let begun = Instant::now();
        for _ in 0..READINGS {
            // Time itself is what is waited for: that nothing happens in it is the point.
            std::thread::sleep(WINDOW / READINGS);
            memory.read(&agents)?;
            controller_memory.read(&[controller])?;
        }
        let wall = begun.elapsed().as_secs_f64();
        for (id, before) in agents.iter().zip(before) {
            cpu.push((on_cpu(*id)? - before).as_secs_f64() / wall * 100.0);
        }
        controller_cpu.push((on_cpu(controller)? - controller_before).as_secs_f64() / wall * 100.0);
        report.note(&format!(
            "idle window {window} of {WINDOWS}: agents {:.3} % of a core",
            median(&cpu)
        ));
    }
    report.figure_with_goal("agent_idle_rss", median(&memory.resident), "MiB", "≤ 10");
    report.figure_with_goal("agent_idle_cpu", median(&cpu), "percent", "≤ 0.1");
    report.figure("controller_idle_rss", median(&controller_memory.resident), "MiB");
    let row = |cells: [String; 4]| cells.to_vec();
    let of = |who: String, memory: &Memory, cpu: &[f64]| {
        let number = |values: &[f64]| format!("{:.2}", median(values));
        let cpu = format!("{:.3}", median(cpu));
        row([who, number(&memory.resident), number(&memory.anonymous), cpu])
    };
    let moments = controller_memory.resident.len();
    report.table(
        "Idle, one app on three hosts",
        &[
            row(["", "RSS MiB", "of it not file-backed", "CPU % of a core"].map(str::to_owned)),
            of(format!("agent (median of 3, at {moments} moments)"), &memory, &cpu),
            of("controller".to_owned(), &controller_memory, &controller_cpu),
        ],
    );
    drop(stage);
    fleet.down()
}

/// Time that all threads of a process have spent on a CPU.
fn on_cpu(id: u32) -> Result<Duration> {
    let tasks = format!("/proc/{id}/task");
    let mut nanoseconds = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))? {
        // A thread that ended in between took its time with it; an idle program ends none.
        let path = task.context("a thread of a program")?.path().join("schedstat");
        let Ok(text) = fs::read_to_string(path) else { continue };
        nanoseconds +=
            text.split(' ').next().unwrap_or_default().parse::<u64>().unwrap_or_default();
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A field of `/proc/ID/status` that is in kB.
fn resident_mib(id: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{id}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    let kb = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    Ok(kb.with_context(|| format!("no {field} in {path}"))? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_is_seen_to_work() {
        let id = std::process::id();
        let before = on_cpu(id).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(fs::read_to_string("/proc/self/stat").unwrap());
        }
        assert!(on_cpu(id).unwrap() > before);
        assert!(resident_mib(id, "VmRSS").unwrap() > 1.0);
        assert!(resident_mib(id, "NoSuchField").is_err());
    }
}
