//! Running without HTTP, and what goes wrong by itself.

use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::Settings;

/// Starts what the settings want to go wrong: a later crash, a flood of lines.
pub(crate) fn start_misbehaviour(settings: &Settings) {
    let version = settings.version.clone();
    if let Some(after) = settings.crash_after {
        let status = settings.crash_status;
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            println!("sample-app {version} crashes");
            std::process::exit(status);
        });
    }
    if settings.log_lines_per_s > 0 {
        let (lines, bytes) = (settings.log_lines_per_s, settings.log_line_bytes);
        tokio::spawn(async move {
            // Ten bursts a second: a timer per line could not keep up.
            let mut bursts = tokio::time::interval(Duration::from_millis(100));
            let mut written = 0;
            loop {
                bursts.tick().await;
                written = write_lines(written, lines.div_ceil(10), bytes);
            }
        });
    }
}

/// Writes `lines` numbered lines of `bytes` bytes, the first numbered `from`; gives the next number.
pub(crate) fn write_lines(from: u64, lines: u32, bytes: usize) -> u64 {
    for number in from..from + u64::from(lines) {
        let mut line = format!("flood {number} ");
        while line.len() < bytes {
            line.push('x');
        }
        println!("{line}");
    }
    from + u64::from(lines)
}

/// Writes a heartbeat until SIGTERM or SIGINT.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut heartbeat = tokio::time::interval(settings.heartbeat);
    let healthy = tokio::time::sleep(settings.start_delay + settings.healthy_after);
    tokio::pin!(healthy);
    let mut is_healthy = false;
    let mut beats = 0_u64;
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {
                beats += 1;
                println!("sample-app {} heartbeat {beats}", settings.version);
            }
            () = &mut healthy, if !is_healthy => {
                is_healthy = true;
                std::fs::write("/tmp/healthy", &settings.version)?;
            }
            _ = terminated.recv() => {
                if !settings.ignore_sigterm { break; }
                println!("sample-app {} ignores SIGTERM", settings.version);
            }
            _ = interrupted.recv() => break,
        }
    }
    tokio::time::sleep(settings.stop_delay).await;
    println!("sample-app {} stops", settings.version);
    Ok(())
}
