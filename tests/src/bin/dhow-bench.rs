//! Measures and prints `figure NAME VALUE UNIT` lines: all groups, or those named; `--list` names them.

use std::process::ExitCode;

fn main() -> ExitCode {
    match dhow_tests::bench::main(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dhow-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
