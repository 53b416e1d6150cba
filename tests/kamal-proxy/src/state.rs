//! The state file: what survives a restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::options::{Gate, RolloutSplit, ServiceOptions, TargetOptions};
use crate::service::{Rollout, Service, Setup};
use crate::targets::TargetSet;

#[derive(Serialize, Deserialize)]
struct Saved {
    name: String,
    options: ServiceOptions,
    target_options: TargetOptions,
    active_targets: Vec<String>,
    active_readers: Vec<String>,
    rollout_targets: Option<Vec<String>>,
    rollout_readers: Option<Vec<String>>,
    pause_controller: SavedGate,
    rollout_controller: Option<RolloutSplit>,
}

#[derive(Serialize, Deserialize)]
struct SavedGate {
    /// 0 running, 1 paused, 2 stopped.
    state: u8,
    stop_message: String,
    fail_after: i64,
}

/// Reads the file; `None` if there is none. All or nothing: one service that cannot be restored
/// spoils the file, as in the real proxy.
pub(crate) fn load(path: &Path) -> Result<Option<BTreeMap<String, Arc<Service>>>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let saved: Vec<Saved> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let mut services = BTreeMap::new();
    for saved in saved {
        let service = restore(saved)?;
        services.insert(service.name.clone(), service);
    }
    for service in services.values() {
        service.setup().targets.trust();
        if let Some(targets) = service.rollout().targets {
            targets.trust();
        }
    }
    Ok(Some(services))
}

fn restore(saved: Saved) -> Result<Arc<Service>, String> {
    let target_options = Arc::new(saved.target_options);
    let targets = TargetSet::new(&saved.active_targets, &saved.active_readers, &target_options)?;
    let rollout = match saved.rollout_targets {
        None => None,
        Some(names) => Some(TargetSet::new(
            &names,
            &saved.rollout_readers.unwrap_or_default(),
            &target_options,
        )?),
    };
    let setup = Setup::load(saved.options.normalised(), target_options, targets)?;
    let gate = match saved.pause_controller {
        SavedGate { state: 1, fail_after, .. } => Gate::Paused { max_pause: fail_after },
        SavedGate { state: 2, stop_message, .. } => Gate::Stopped { message: stop_message },
        SavedGate { .. } => Gate::Running,
    };
    let rollout = Rollout { targets: rollout, split: saved.rollout_controller };
    Ok(Service::new(&saved.name, setup, rollout, gate))
}

/// Writes the file in place, like the real proxy: not atomically.
pub(crate) fn store<'a>(
    path: &Path,
    services: impl Iterator<Item = &'a Arc<Service>>,
) -> std::io::Result<()> {
    let saved: Vec<Saved> = services.map(|service| save(service)).collect();
    let mut text = serde_json::to_string(&saved).map_err(std::io::Error::other)?;
    text.push('\n');
    std::fs::write(path, text)
}

fn save(service: &Service) -> Saved {
    let setup = service.setup();
    let rollout = service.rollout();
    let gate = match service.gate() {
        Gate::Running => SavedGate { state: 0, stop_message: String::new(), fail_after: 0 },
        Gate::Paused { max_pause } => {
            SavedGate { state: 1, stop_message: String::new(), fail_after: max_pause }
        }
        Gate::Stopped { message } => SavedGate { state: 2, stop_message: message, fail_after: 0 },
    };
    Saved {
        name: service.name.clone(),
        options: setup.options.clone(),
        target_options: TargetOptions::clone(&setup.target_options),
        active_targets: setup.targets.writer_names(),
        active_readers: setup.targets.reader_names(),
        rollout_targets: rollout.targets.as_ref().map(|targets| targets.writer_names()),
        rollout_readers: rollout.targets.as_ref().map(|targets| targets.reader_names()),
        pause_controller: gate,
        rollout_controller: rollout.split,
    }
}
