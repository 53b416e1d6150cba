//! What people ask of rollouts and apps: read from the store and the fleet's picture, changes nothing.

use std::collections::BTreeMap;

use dhow_proto::model::intent::Intent;
use dhow_proto::model::spec::Spec;
use dhow_proto::model::{App, Document as _, HostName, Unit};
use dhow_proto::wire;
use dhow_proto::wire::rollout_event::Kind;

use super::book::{read_events, read_header, stages_of, timestamp};
use super::error::RolloutError;
use super::fence::DriveError;
use super::record::{
    AppRecord, FailurePolicy, Header, HookRun, LockRecord, RolloutId, StageRecord, StageState,
    State, Unsuccess, from_json, key,
};
use super::{Rollouts, stages};
use crate::gateway::news;
use crate::store::Range;

/// Rollouts listed where no limit is given.
const LISTED: usize = 20;

/// Most rollouts listed.
const MOST_LISTED: usize = 500;

/// State for the wire.
pub(super) fn state(header: &Header) -> wire::RolloutState {
    match &header.state {
        State::Running => wire::RolloutState::Running,
        State::AwaitingClient { .. } => wire::RolloutState::AwaitingClient,
        State::Ending { .. } if header.policy == FailurePolicy::Rollback => {
            wire::RolloutState::RollingBack
        }
        State::Ending { .. } => wire::RolloutState::Running,
        State::Succeeded => wire::RolloutState::Succeeded,
        State::Ended { as_: Unsuccess::Failed, .. } => wire::RolloutState::Failed,
        State::Ended { as_: Unsuccess::Cancelled, .. } => wire::RolloutState::Cancelled,
    }
}

fn summary(header: &Header, stage: String) -> wire::RolloutSummary {
    wire::RolloutSummary {
        id: header.id.to_string(),
        app: Some((&header.app).into()),
        operation: wire::Operation::from(header.operation).into(),
        version: header.version.to_string(),
        state: state(header).into(),
        reason: header.state.reason().to_owned(),
        started_by: header.started_by.clone(),
        started_at: Some(timestamp(header.started_at)),
        finished_at: header.finished_at.map(timestamp),
        stage,
        hosts: header.hosts.iter().map(|h| h.config.to_string()).collect(),
        parent: header.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn stage_summary(record: &StageRecord) -> wire::StageSummary {
    let state = match record.state {
        StageState::Running => wire::StageState::Running,
        StageState::Done => wire::StageState::Done,
        StageState::Failed => wire::StageState::Failed,
    };
    wire::StageSummary {
        name: record.name.clone(),
        state: state.into(),
        hosts: record.hosts.iter().map(ToString::to_string).collect(),
        started_at: Some(timestamp(record.started_at)),
        finished_at: record.finished_at.map(timestamp),
    }
}

fn hook_progress(record: &StageRecord) -> Option<wire::HookProgress> {
    let hook = record.hook.as_ref()?;
    let (state, exit_code) = match &hook.run {
        HookRun::Requested => (wire::HookState::Requested, 0),
        HookRun::Started => (wire::HookState::Started, 0),
        HookRun::Unknown => (wire::HookState::Unknown, 0),
        HookRun::Finished { exit_code, .. } => (wire::HookState::Finished, *exit_code),
    };
    Some(wire::HookProgress {
        hook_id: hook.id.clone(),
        name: hook.name.clone(),
        state: state.into(),
        exit_code,
    })
}

impl Rollouts {
    /// The rollout of an id or of an unambiguous beginning of one.
    pub(super) async fn find(&self, id: &str) -> Result<Header, RolloutError> {
        let store = &*self.inner.rooms.store;
        let unknown = || RolloutError::NotFound(id.to_owned());
        // Eight characters are the shortest id, so anything else is a prefix or nothing.
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(unknown());
        }
        if let Ok(exact) = RolloutId::try_from(id.to_owned())
            && let Some(header) = read_header(store, &exact).await?
        {
            return Ok(header);
        }
        let mut range = Range::prefix(key::rollouts_like(id)).limit(1);
        let first = store.range(range.clone()).await?.entries.pop().ok_or_else(unknown)?;
        let header: Header = from_json(&first).map_err(DriveError::from)?;
        // A rollout's own stages and events sort below the character after the slash.
        range = range.after(format!("{}0", first.key).into());
        match store.range(range).await?.entries.is_empty() {
            true => Ok(header),
            false => Err(RolloutError::Ambiguous(id.to_owned())),
        }
    }

    /// Rollouts of an app, newest first; 0: twenty.
    ///
    /// # Errors
    ///
    /// [`RolloutError::Read`].
    pub async fn list(
        &self,
        app: &App,
        limit: usize,
    ) -> Result<Vec<wire::RolloutSummary>, RolloutError> {
        let store = &*self.inner.rooms.store;
        let limit = if limit == 0 { LISTED } else { limit.min(MOST_LISTED) };
        let index = store.read_all(key::index(app)).await?.entries;
        let mut rollouts = Vec::new();
        for entry in index.iter().rev().take(limit) {
            let id = String::from_utf8_lossy(&entry.value).into_owned();
            let Ok(id) = RolloutId::try_from(id) else { continue };
            let Some(header) = read_header(store, &id).await? else { continue };
            let stage = self.stage_name(&header).await?;
            rollouts.push(summary(&header, stage));
        }
        Ok(rollouts)
    }

    async fn stage_name(&self, header: &Header) -> Result<String, RolloutError> {
        if header.state.is_over() {
            return Ok(String::new());
        }
        let entry = self.inner.rooms.store.get(key::stage(&header.id, header.stage)).await?;
        let record: Option<StageRecord> =
            entry.map(|e| from_json(&e)).transpose().map_err(DriveError::from)?;
        Ok(record.map(|r| r.name).unwrap_or_default())
    }

    /// One rollout in full, by id or unambiguous beginning of it.
    ///
    /// # Errors
    ///
    /// [`RolloutError::NotFound`], [`RolloutError::Ambiguous`], [`RolloutError::Read`].
    pub async fn get(&self, id: &str) -> Result<wire::GetRolloutResponse, RolloutError> {
        let header = self.find(id).await?;
        let store = &*self.inner.rooms.store;
        let entries = store.read_all(key::stages(&header.id)).await?.entries;
        let records: Vec<StageRecord> =
            entries.iter().map(from_json).collect::<Result<_, _>>().map_err(DriveError::from)?;
        let mut stages: Vec<wire::StageSummary> = records.iter().map(stage_summary).collect();
        let planned = self.planned(&header).await;
        let pending = match header.state.is_over() {
            true => wire::StageState::Skipped,
            false => wire::StageState::Pending,
        };
        stages.extend(planned.iter().skip(records.len()).map(|stage| wire::StageSummary {
            name: stage.name.clone(),
            state: pending.into(),
            hosts: stage.hosts.iter().map(ToString::to_string).collect(),
            started_at: None,
            finished_at: None,
        }));
        let events = read_events(store, &header.id).await?;
        let failures = events.into_iter().filter_map(|e| match e.kind {
            Some(Kind::HostFailed(failed)) => Some(failed),
            Some(_) | None => None,
        });
        let stage = self.stage_name(&header).await?;
        Ok(wire::GetRolloutResponse {
            rollout: Some(summary(&header, stage)),
            stages,
            failures: failures.collect(),
            hooks: records.iter().filter_map(hook_progress).collect(),
            waiting_for: self.hub(&header.id).map(|hub| hub.waits()).unwrap_or_default(),
        })
    }

    /// The stages of a rollout; none where its spec is gone, as those of old rollouts may be.
    async fn planned(&self, header: &Header) -> Vec<stages::Stage> {
        let Ok(bytes) = self.inner.rooms.blobs.load(header.spec.digest).await else {
            return Vec::new();
        };
        Spec::from_bytes(&bytes).map(|spec| stages_of(header, &spec)).unwrap_or_default()
    }

    /// What every unit of an app says, and what its hosts were not told yet.
    ///
    /// # Errors
    ///
    /// [`RolloutError::Read`].
    pub async fn status(&self, app: &App) -> Result<wire::StatusResponse, RolloutError> {
        let store = &*self.inner.rooms.store;
        let mut response =
            wire::StatusResponse { app: Some(app.into()), ..wire::StatusResponse::default() };
        if let Some(entry) = store.get(key::lock(app)).await? {
            let lock: LockRecord = from_json(&entry).map_err(DriveError::from)?;
            if let Some(header) = read_header(store, &lock.rollout_id).await? {
                response.running = Some(summary(&header, self.stage_name(&header).await?));
            }
        }
        let Some(entry) = store.get(key::app(app)).await? else { return Ok(response) };
        let record: AppRecord = from_json(&entry).map_err(DriveError::from)?;
        response.wanted_version = record.version.map(|v| v.to_string()).unwrap_or_default();
        for (host, config) in &record.hosts {
            response.hosts.push(self.host_status(app, host, config).await?);
            let events = news::of(store, host).await?;
            response.events.extend(
                events
                    .into_iter()
                    .filter(|e| concerns(e.unit.as_ref(), app))
                    .map(|event| wire::HostEvent { host: config.to_string(), event: Some(event) }),
            );
        }
        Ok(response)
    }

    async fn host_status(
        &self,
        app: &App,
        host: &HostName,
        config: &HostName,
    ) -> Result<wire::HostStatus, RolloutError> {
        let fleet = &self.inner.rooms.fleet;
        let is_ours = |unit: &Unit| *unit == Unit::Proxy || unit.app() == Some(app);
        let told: BTreeMap<Unit, _> = fleet
            .statuses(host)
            .into_iter()
            .filter(|s| is_ours(&s.unit))
            .map(|s| (s.unit.clone(), s))
            .collect();
        let mut pending = Vec::new();
        for entry in self.inner.rooms.store.read_all(key::intents(host)).await?.entries {
            let intent = Intent::from_bytes(&entry.value).map_err(DriveError::from)?;
            let behind = told.get(&intent.unit).is_none_or(|s| s.generation < intent.generation);
            if is_ours(&intent.unit) && behind {
                pending.push(wire::UnitGeneration {
                    unit: Some((&intent.unit).into()),
                    generation: Some(intent.generation.into()),
                    digest: intent.digest().as_bytes().to_vec().into(),
                });
            }
        }
        Ok(wire::HostStatus {
            host: host.to_string(),
            config_host: config.to_string(),
            online: fleet.online(host).is_some(),
            last_seen: fleet.last_seen(host).map(Into::into),
            units: told.values().map(Into::into).collect(),
            pending,
        })
    }
}

fn concerns(unit: Option<&wire::UnitRef>, app: &App) -> bool {
    match unit.and_then(|u| Unit::try_from(u.clone()).ok()) {
        Some(Unit::Proxy) => true,
        Some(unit) => unit.app() == Some(app),
        None => true,
    }
}
