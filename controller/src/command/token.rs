//! `dhow-controller token`: a way back in for the admin of a machine who has no certificate.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use secrecy::ExposeSecret as _;

use super::Common;
use crate::ca::{Ca, Grant, NewToken, Role, Tokens, UserName, WrapSecret};
use crate::clock::{Clock, SystemClock};
use crate::store::Store;
use crate::store::sqlite::Sqlite;

/// How long an admin's login token can be used.
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);

/// Whom the token makes an admin.
#[derive(Debug, Args)]
pub(super) struct AdminName {
    /// Name of the admin who logs in with the token
    #[arg(long = "admin", value_name = "USER", default_value = "admin", value_parser = user_name)]
    pub(super) name: UserName,
}

/// The flags of `token`.
#[derive(Debug, Args)]
pub struct Token {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    admin: AdminName,
}

impl Token {
    /// Prints a new token as the last line.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let settings = self.common.settings(None, None)?;
        let path = settings.store_file();
        if !path.exists() {
            anyhow::bail!("{} holds no controller", settings.state_dir.display());
        }
        let clock = Arc::new(SystemClock::new());
        let store: Arc<dyn Store> = Arc::new(
            Sqlite::open(&path, clock.clone())
                .context("could not open the store; the controller must be stopped for this")?,
        );
        let secret = WrapSecret::from_file(&settings.ca_passphrase_file)?;
        let ca = Ca::open(Arc::clone(&store), clock.clone(), &secret, settings.validity).await?;
        let token = create(&self.admin.name, store, clock, &ca).await?;
        Ok(print(&self.admin.name, &token)?)
    }
}

/// Makes a login token for an admin.
pub(super) async fn create(
    admin: &UserName,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ca: &Ca,
) -> anyhow::Result<NewToken> {
    let grant = Grant::Login { user: admin.clone(), role: Role::Admin, apps: Vec::new() };
    Ok(Tokens::new(store, clock, ca).create(grant, VALID_FOR).await?)
}

/// Prints a token as the last line of stdout, and what it is on stderr.
pub(super) fn print(admin: &UserName, token: &NewToken) -> io::Result<()> {
    writeln!(
        io::stderr().lock(),
        "one-time login token of admin {admin}, usable until {} with `dhow login`:",
        token.expires_at
    )?;
    // The one place where it is shown; it is stored as a hash only.
    writeln!(io::stdout().lock(), "{}", token.text.expose_secret())
}

fn user_name(text: &str) -> Result<UserName, crate::ca::UserNameError> {
    UserName::try_from(text)
}
