//! How much sooner `dhow config` answers than `kamal config`, for the same file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{RUNS, Report, median};
use crate::fleet::binary;
use crate::fleet::run::run as run_program;
use crate::kamal;

pub(super) fn run(report: &mut Report) -> Result<()> {
    let (kamal, dhow) = (kamal::program()?, binary("dhow")?);
    let folder = std::env::temp_dir().join(format!("dhow-bench-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let measured = measure(&kamal, &dhow, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    let (kamals, dhows): (Vec<f64>, Vec<f64>) = measured?.into_iter().unzip();
    let ratios: Vec<f64> = kamals.iter().zip(&dhows).map(|(kamal, dhow)| kamal / dhow).collect();
    report.figure("config_kamal", median(&kamals) * 1e3, "ms");
    report.figure("config_dhow", median(&dhows) * 1e3, "ms");
    report.figure_with_goal("config_kamal_over_dhow", median(&ratios), "x", "≥ 100");
    Ok(())
}

/// Seconds of Kamal and of dhow, by pair.
fn measure(kamal: &Path, dhow: &Path, folder: &Path) -> Result<Vec<(f64, f64)>> {
    let file = folder.join("deploy.yml");
    std::fs::write(&file, CONFIG).with_context(|| format!("write {}", file.display()))?;
    // By this name dhow prints exactly what Kamal prints.
    let named = folder.join("kamal");
    std::os::unix::fs::symlink(dhow, &named).context("name dhow kamal")?;
    // Both run once before it counts, so both are in memory.
    let expected = printed(kamal, folder)?;
    ensure!(printed(&named, folder)? == expected, "dhow prints something else than Kamal");
    (0..RUNS).map(|_| Ok((wall(kamal, folder)?, wall(&named, folder)?))).collect()
}

fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["config", "-c", "deploy.yml", "--version=v1"]).current_dir(folder);
    command.env_remove("VERSION").env_remove("KAMAL_DESTINATION");
    command
}

fn printed(program: &Path, folder: &Path) -> Result<String> {
    Ok(run_program(&mut command(program, folder), Duration::from_secs(60))?.ok()?.stdout)
}

/// The wall time of one run, from before it is started until it has ended, in seconds.
fn wall(program: &Path, folder: &Path) -> Result<f64> {
    let mut command = command(program, folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("run {}", program.display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(seconds)
}

/// A config of usual size, as a small company has it.
const CONFIG: &str = r#"
service: shop
image: acme/shop
servers:
  web:
    hosts: [10.0.0.1, 10.0.0.2, {10.0.0.3: canary}]
    labels: {team: checkout}
  jobs:
    hosts: [10.0.0.4]
    cmd: bin/jobs
    options: {memory: 1g, cpus: 2}
proxy:
  host: shop.example.com
  app_port: 3000
  healthcheck: {path: /up, interval: 3, timeout: 3}
registry: {server: registry.example.com, username: shop, password: [REGISTRY_PASSWORD]}
builder:
  arch: [amd64, arm64]
  args: {RUBY_VERSION: 3.4.1}
  secrets: [BUNDLE_TOKEN]
env:
  clear: {DB_HOST: 10.0.0.5, WEB_CONCURRENCY: 2, LOG_LEVEL: info}
  secret: [RAILS_MASTER_KEY, DATABASE_URL]
  tags: {canary: {clear: {FEATURES: all}}}
volumes: ["shop_storage:/rails/storage"]
asset_path: /rails/public/assets
boot: {limit: 25%, wait: 10}
aliases: {console: app exec -i --reuse "bin/rails console"}
accessories:
  db:
    image: postgres:17
    host: 10.0.0.5
    port: "127.0.0.1:5432:5432"
    env: {clear: {POSTGRES_USER: shop}, secret: [POSTGRES_PASSWORD]}
    directories: ["data:/var/lib/postgresql/data"]
  redis: {image: "redis:7", roles: [web], cmd: redis-server --appendonly yes, volumes: ["redis:/data"]}
"#;
