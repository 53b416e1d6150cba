//! Who may call what: one rule per RPC of `ControlService`, and the users' roles.
//!
//! Always true: an RPC without a rule is refused, and a test fails for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use dhow_proto::model::App;
use dhow_proto::wire;
use serde::{Deserialize, Serialize};
use tonic::{Request, Status};

use super::{caller, code};
use crate::ca::{Revocations, Role, UserName};
use crate::store::{Key, Op, Store, StoreError, Txn};

/// A role as the wire has it.
pub fn role_to_wire(role: Role) -> wire::UserRole {
    match role {
        Role::Viewer => wire::UserRole::Viewer,
        Role::Deployer => wire::UserRole::Deployer,
        Role::Admin => wire::UserRole::Admin,
    }
}

/// The role a request names; none where it names none.
pub fn role_from_wire(number: i32) -> Option<Role> {
    match wire::UserRole::try_from(number) {
        Ok(wire::UserRole::Viewer) => Some(Role::Viewer),
        Ok(wire::UserRole::Deployer) => Some(Role::Deployer),
        Ok(wire::UserRole::Admin) => Some(Role::Admin),
        Ok(wire::UserRole::Unspecified) | Err(_) => None,
    }
}

/// A person or a CI account: `user/<name>` in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRecord {
    /// Format of this record.
    pub v: u32,
    /// Name in the certificate.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// On which apps; empty: all.
    pub apps: BTreeSet<App>,
    /// Revoked users may do nothing.
    pub revoked: bool,
    /// When the newest certificate ends.
    pub expires_at: Option<jiff::Timestamp>,
}

impl UserRecord {
    /// True where this user may do what `role` asks on `app` (none: on everything).
    fn may(&self, role: Role, app: Option<&App>) -> bool {
        let scope = self.apps.is_empty() || app.is_some_and(|a| self.apps.contains(a));
        !self.revoked && self.role >= role && scope
    }
}

/// Whether a rule looks at the app a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The right on any app will do (the answer holds nothing of an app).
    Any,
    /// The right on the app the request names.
    App,
    /// The right on all apps.
    All,
}

/// The rule of one RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name in the `.proto` file.
    pub rpc: &'static str,
    /// The least role.
    pub role: Role,
    /// Over what.
    pub scope: Scope,
}

/// Every RPC of `ControlService`.
pub const RULES: &[Rule] = &[
    rule("Version", Role::Viewer, Scope::Any),
    rule("ListHosts", Role::Viewer, Scope::Any),
    rule("CreateHostToken", Role::Admin, Scope::All),
    rule("RevokeHost", Role::Admin, Scope::All),
    rule("CreateUserToken", Role::Admin, Scope::All),
    rule("ListUsers", Role::Admin, Scope::All),
    rule("RevokeUser", Role::Admin, Scope::All),
    rule("HostKeys", Role::Deployer, Scope::Any),
    rule("MissingBlobs", Role::Deployer, Scope::Any),
    rule("Upload", Role::Deployer, Scope::Any),
    rule("Deploy", Role::Deployer, Scope::App),
    rule("ListRollouts", Role::Viewer, Scope::App),
    rule("GetRollout", Role::Viewer, Scope::App),
    rule("WatchRollout", Role::Viewer, Scope::App),
    rule("Status", Role::Viewer, Scope::App),
    rule("Query", Role::Viewer, Scope::App),
    rule("ListAudit", Role::Admin, Scope::All),
];

const fn rule(rpc: &'static str, role: Role, scope: Scope) -> Rule {
    Rule { rpc, role, scope }
}

/// A caller whose certificate and record were checked, with the rule of the RPC at hand.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The user's record.
    pub user: UserRecord,
    /// Where the call comes from.
    pub remote: String,
    rule: Rule,
}

impl Granted {
    /// Checks the rule against the app the request turned out to be about.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED naming what is lacking.
    pub fn on(&self, app: &App) -> Result<(), Status> {
        if self.user.may(self.rule.role, Some(app)) {
            return Ok(());
        }
        Err(denied(&self.user, self.rule, &format!(" on app {app}")))
    }
}

fn denied(user: &UserRecord, rule: Rule, on: &str) -> Status {
    tracing::warn!(user = %user.name, rpc = rule.rpc, "permission denied");
    let need = format!("{:?}", rule.role).to_lowercase();
    Status::permission_denied(format!("{} needs the role {need}{on}; ask an admin", user.name))
}

/// Looks users up and applies the rules.
#[derive(Clone)]
pub struct Authoriser {
    store: Arc<dyn Store>,
    revocations: Arc<Revocations>,
}

fn user_key(name: &UserName) -> Key {
    Key::from(format!("user/{name}"))
}

/// What writes a user.
pub fn user_op(user: &UserRecord) -> Op {
    let value = serde_json::to_vec(user).expect("a record of strings is JSON");
    Op::put(user_key(&user.name), value)
}

impl Authoriser {
    /// Users of this store.
    pub fn new(store: Arc<dyn Store>, revocations: Arc<Revocations>) -> Self {
        Self { store, revocations }
    }

    /// Lets a call in by its RPC's rule. Where the rule is about an app, [`Granted::on`] must follow.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED without a user certificate, PERMISSION_DENIED where the user is unknown, revoked or may not.
    pub async fn grant<T>(
        &self,
        rpc: &'static str,
        request: &Request<T>,
    ) -> Result<Granted, Status> {
        let (name, caller) = caller::user(request)?;
        let Some(rule) = RULES.iter().copied().find(|r| r.rpc == rpc) else {
            tracing::error!(rpc, "no authorisation rule");
            return Err(Status::permission_denied(format!("{rpc} has no authorisation rule")));
        };
        if let Err(revoked) = self.revocations.check(&caller.peer) {
            tracing::warn!(user = %name, remote = %caller.remote, reason = %revoked, "a revoked user was refused");
            return Err(Status::permission_denied(revoked.to_string()));
        }
        let Some(user) = self.user(&name).await.map_err(|e| code::store(&e))? else {
            return Err(Status::permission_denied(format!("user {name} is not known here")));
        };
        let granted = match rule.scope {
            Scope::Any | Scope::App => !user.revoked && user.role >= rule.role,
            Scope::All => user.may(rule.role, None),
        };
        match granted {
            true => Ok(Granted { user, rule, remote: caller.remote.to_string() }),
            false => Err(denied(&user, rule, "")),
        }
    }

    /// The record of a user; a malformed one counts as none.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn user(&self, name: &UserName) -> Result<Option<UserRecord>, StoreError> {
        let entry = self.store.get(user_key(name)).await?;
        Ok(entry.and_then(|e| serde_json::from_slice(&e.value).ok()))
    }

    /// Every user, by name.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn users(&self) -> Result<Vec<UserRecord>, StoreError> {
        let snapshot = self.store.read_all("user/").await?;
        Ok(snapshot.entries.iter().filter_map(|e| serde_json::from_slice(&e.value).ok()).collect())
    }

    /// Writes a user.
    ///
    /// # Errors
    ///
    /// The store could not be written.
    pub async fn put(&self, user: &UserRecord) -> Result<(), StoreError> {
        self.store.txn(Txn::new().then(user_op(user))).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RPC names of a service, read from the `.proto` file itself.
    fn rpcs(service: &str) -> Vec<String> {
        let text = include_str!("../../../proto/dhow/v1/control.proto");
        let body = text.split(&format!("service {service} {{")).nth(1).unwrap();
        let body = body.split("\n}").next().unwrap();
        body.lines()
            .filter_map(|l| l.trim().strip_prefix("rpc "))
            .map(|l| l.split('(').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_control_rpc_has_exactly_one_rule() {
        let rules: Vec<&str> = RULES.iter().map(|r| r.rpc).collect();
        assert_eq!(
            rpcs("ControlService"),
            rules,
            "add a rule for a new RPC, in the order of the .proto file"
        );
    }

    fn user(role: Role, apps: &[&str]) -> UserRecord {
        let apps = apps
            .iter()
            .map(|s| App { service: (*s).try_into().unwrap(), destination: None })
            .collect::<BTreeSet<_>>();
        UserRecord {
            v: 1,
            name: UserName::try_from("ann".to_owned()).unwrap(),
            role,
            apps,
            revoked: false,
            expires_at: None,
        }
    }

    #[test]
    fn a_right_on_one_app_is_none_on_another() {
        let shop = App { service: "shop".try_into().unwrap(), destination: None };
        let blog = App { service: "blog".try_into().unwrap(), destination: None };
        let deployer = user(Role::Deployer, &["shop"]);
        assert!(deployer.may(Role::Deployer, Some(&shop)));
        assert!(!deployer.may(Role::Viewer, Some(&blog)));
        assert!(!deployer.may(Role::Deployer, None));
        assert!(!UserRecord { revoked: true, ..deployer }.may(Role::Viewer, Some(&shop)));
    }
}
