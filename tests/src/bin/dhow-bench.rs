//! Measures the harness itself and prints `figure NAME VALUE UNIT` lines.

use std::time::Instant;

use anyhow::Result;
use dhow_tests::Fleet;

/// Each figure is the median of so many runs.
const RUNS: usize = 3;

fn main() -> Result<()> {
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
    println!("figure fleet_start_3_hosts {:.2} s", median(&mut up));
    println!("figure fleet_down_3_hosts {:.2} s", median(&mut down));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
