//! The harness itself: how long a fleet takes to come up and to go.

use std::time::Instant;

use anyhow::Result;

use super::{RUNS, Report, median};
use crate::Fleet;

pub(super) fn run(report: &mut Report) -> Result<()> {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let begun = Instant::now();
        let fleet = Fleet::start(3)?;
        let started = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        fleet.down()?;
        // The first run also builds images and programs.
        if run > 0 {
            up.push(started);
            down.push(begun.elapsed().as_secs_f64());
        }
    }
    report.figure("fleet_start_3_hosts", median(&up), "s");
    report.figure("fleet_down_3_hosts", median(&down), "s");
    Ok(())
}
