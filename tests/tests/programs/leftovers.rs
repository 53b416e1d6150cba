//! What nobody needs any more goes by itself, also in the programs as they are started.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use dhow_tests::fleet::run::wait_until;

use crate::stage::Stage;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn an_agent_that_starts_deletes_blobs_that_a_crash_left_over() -> Result<()> {
    let stage = Stage::with_admin()?;
    stage.join(&stage.host_token("h1")?, "h1")?.ok()?;
    let blobs = stage.path("h1/blobs");
    fs::create_dir_all(&blobs).context("the agent's blobs")?;
    let left_over = blobs.join("0".repeat(64));
    fs::write(&left_over, "fetched for an intent that never came").context("a blob")?;
    let mut agent = stage.run_agent("h1")?;
    wait_until("the blob is deleted", SOON, || {
        let log = fs::read_to_string(stage.path("h1.log")).context("the agent's log")?;
        Ok(log.contains("deleted blobs that nothing names blobs=1").then_some(()))
    })?;
    agent.kill();
    // The journal that says so becomes a missing file when the folder is opened the next time.
    let mut agent = stage.run_agent("h1")?;
    wait_until("its file is gone", SOON, || Ok((!left_over.exists()).then_some(())))?;
    assert_eq!(agent.ended()?, None);
    Ok(())
}
