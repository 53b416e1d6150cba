//! Sends the load described by the JSON on stdin and prints what it saw as JSON. SIGTERM ends it early.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use dhow_tests::load::{LoadSpec, generate};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // Before anything slow: a SIGTERM must end in a report from the first moment on.
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("read the load from stdin")?;
    let spec: LoadSpec = serde_json::from_str(&text).context("read the load from stdin")?;
    let stop = async {
        term.recv().await;
    };
    let report = generate::generate(&spec, stop).await?;
    println!("{}", serde_json::to_string(&report).context("write the report")?);
    Ok(())
}
