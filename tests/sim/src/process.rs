//! A simulation in a process of its own.

use std::process::Command;

/// Runs this program again with a variable set: what it says, or how it ended and what it said.
///
/// # Errors
///
/// It did not succeed; for a person.
pub fn in_a_process(variable: &str, value: &str) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    // Its own end, should a simulation never end.
    let output = Command::new("timeout")
        .args(["-k", "1", "300"])
        .arg(program)
        .env(variable, value)
        .output()
        .map_err(|e| format!("could not be started: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            Err(format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr)))
        }
    }
}
