//! Intents as they are sent and stored. Cannot fail: the model only holds what the wire can say.

use std::time::Duration;

use super::*;

fn span(duration: Duration) -> prost_types::Duration {
    // Saturates at what protobuf can say: 10,000 years.
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: 315_576_000_000, nanos: 0 })
}

fn text(digest: Option<&ImageDigest>) -> String {
    digest.map(ToString::to_string).unwrap_or_default()
}

fn names(roles: &[RoleName]) -> Vec<String> {
    roles.iter().map(ToString::to_string).collect()
}

fn run(run: Run) -> i32 {
    match run {
        Run::Running => wire::Run::Running.into(),
        Run::Stopped => wire::Run::Stopped.into(),
    }
}

fn traffic(traffic: &Traffic) -> wire::Traffic {
    use wire::traffic::Kind;
    let kind = match traffic {
        Traffic::Live => Kind::Live(wire::Live {}),
        Traffic::Maintenance { message, drain } => Kind::Maintenance(wire::Maintenance {
            message: message.clone(),
            drain: Some(span(*drain)),
        }),
    };
    wire::Traffic { kind: Some(kind) }
}

fn login(login: Option<&RegistryLogin>) -> (String, Option<wire::SealedSecrets>) {
    login.map_or_else(Default::default, |l| (l.server.clone(), Some((&l.sealed).into())))
}

impl From<&Intent> for wire::Intent {
    fn from(intent: &Intent) -> Self {
        Self {
            unit: Some((&intent.unit).into()),
            generation: Some(intent.generation.into()),
            features: intent.features.clone(),
            rollout_id: intent.rollout_id.clone().unwrap_or_default(),
            after: intent
                .after
                .iter()
                .map(|a| wire::After {
                    settled_unit: Some((&a.unit).into()),
                    generation: Some(a.generation.into()),
                })
                .collect(),
            host: Some(wire::HostPart {
                config_host: intent.host.config_host.to_string(),
                ssh_user: intent.host.ssh_user.clone().unwrap_or_default(),
                run_directory: intent.host.run_directory.clone().unwrap_or_default(),
            }),
            desired: Some((&intent.desired).into()),
        }
    }
}

impl From<&Desired> for wire::intent::Desired {
    fn from(desired: &Desired) -> Self {
        match desired {
            Desired::Proxy(p) => Self::Proxy(p.into()),
            Desired::App(a) => Self::App(a.into()),
            Desired::Role(r) => Self::Role(r.into()),
            Desired::Accessory(a) => Self::Accessory(a.into()),
            Desired::Agent(a) => Self::Agent(a.into()),
            Desired::Task(t) => Self::Task(wire::TaskIntent {
                template: Some(t.template.into()),
                command: t.command.clone(),
                env: t.env.as_ref().map(Into::into),
                timeout: t.timeout.map(span),
            }),
            Desired::Absent(mode) => {
                let mode = match mode {
                    Absent::Remove => wire::AbsentMode::Remove,
                    Absent::Release => wire::AbsentMode::Release,
                };
                Self::Absent(wire::Absent { mode: mode.into() })
            }
            Desired::Settle { attempted, otherwise } => Self::Settle(wire::Settle {
                attempted: Some((*attempted).into()),
                otherwise: otherwise.map(Into::into),
            }),
        }
    }
}

impl From<&ProxyIntent> for wire::ProxyIntent {
    fn from(proxy: &ProxyIntent) -> Self {
        let (registry_server, registry) = login(proxy.registry.as_ref());
        Self {
            container: proxy.template.is_some(),
            template: proxy.template.map(Into::into),
            boot: proxy.boot,
            run: run(proxy.run),
            registry,
            registry_server,
        }
    }
}

impl From<&AppIntent> for wire::AppIntent {
    fn from(app: &AppIntent) -> Self {
        Self {
            repository: app.repository.clone(),
            roles: names(&app.roles),
            run: run(app.run),
            staged: app.staged.as_ref().map(|s| {
                let (registry_server, registry) = login(s.registry.as_ref());
                wire::StagedImage {
                    repository: app.repository.clone(),
                    version: s.version.to_string(),
                    digest: text(s.digest.as_ref()),
                    pull: s.pull,
                    registry,
                    registry_server,
                    local_only: s.local_only,
                }
            }),
            lock: app.lock.as_ref().map(|l| wire::KamalLock {
                holder: l.holder.clone(),
                at: Some(prost_types::Timestamp { seconds: l.at_unix_s, nanos: 0 }),
                version: l.version.clone(),
                message: l.message.clone(),
                wait: l.wait.map(span),
            }),
            stop_stale: app.stop_stale.as_ref().map(|s| wire::StopStale {
                number: s.number,
                roles: names(&s.roles),
                drain_timeout: Some(span(s.drain_timeout)),
            }),
            prepare: app.prepare.as_ref().map(|p| wire::Prepare {
                version: p.version.to_string(),
                roles: p
                    .roles
                    .iter()
                    .map(|r| wire::PreparedRole {
                        role: r.role.to_string(),
                        asset_path: r.asset_path.clone().unwrap_or_default(),
                        tls: r.tls.as_ref().map(Into::into),
                    })
                    .collect(),
                error_pages: p
                    .error_pages
                    .iter()
                    .map(|f| wire::FileBlob {
                        name: f.name.clone(),
                        content: Some(f.content.into()),
                    })
                    .collect(),
            }),
            latest: app.latest.as_ref().map(|l| wire::LatestTag {
                version: l.version.to_string(),
                digest: text(l.digest.as_ref()),
                when_serving: l.when_serving,
            }),
            prune: app.prune.map(|p| wire::Prune { number: p.number, retain: p.retain }),
        }
    }
}

impl From<&RoleIntent> for wire::RoleIntent {
    fn from(role: &RoleIntent) -> Self {
        Self {
            run: run(role.run),
            traffic: Some(traffic(&role.traffic)),
            boot: role.boot,
            variants: role
                .variants
                .iter()
                .map(|v| wire::Variant {
                    template: Some(v.template.into()),
                    count: v.count,
                    share: v.share,
                    version: v.version.to_string(),
                    digest: text(v.digest.as_ref()),
                })
                .collect(),
            env: role.env.as_ref().map(Into::into),
            primary: role.primary,
        }
    }
}

impl From<&AccessoryIntent> for wire::AccessoryIntent {
    fn from(accessory: &AccessoryIntent) -> Self {
        Self {
            run: run(accessory.run),
            traffic: Some(traffic(&accessory.traffic)),
            boot: accessory.boot,
            template: Some(accessory.template.into()),
            env: accessory.env.as_ref().map(Into::into),
            registry: accessory.registry.as_ref().map(Into::into),
            files: accessory.files.as_ref().map(Into::into),
        }
    }
}

impl From<&AgentIntent> for wire::AgentIntent {
    fn from(agent: &AgentIntent) -> Self {
        Self {
            version: agent.version.clone(),
            binaries: agent
                .binaries
                .iter()
                .map(|(triple, content)| wire::AgentBinary {
                    target_triple: triple.clone(),
                    content: Some((*content).into()),
                })
                .collect(),
            heartbeat_interval: agent.heartbeat.map(span),
            forbid_host_access: agent.forbid_host_access,
        }
    }
}
