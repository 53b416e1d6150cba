//! `dhow-controller init`: a new controller in an empty folder.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Common;
use super::token::{self, AdminName};
use crate::ca::{Ca, NewToken, UserName, WrapSecret, check_server_names};
use crate::clock::SystemClock;
use crate::server::NAMES_KEY;
use crate::settings::Settings;
use crate::store::Store;
use crate::store::sqlite::Sqlite;

/// The flags of `init`.
#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    common: Common,
    /// DNS names and addresses under which agents and people reach this controller
    #[arg(long = "name", value_name = "NAME", required = true, value_delimiter = ',')]
    names: Vec<String>,
    #[command(flatten)]
    admin: AdminName,
}

impl Init {
    /// Makes the controller and prints the token as the last line.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let settings = self.common.settings(None, Some(self.names.clone()))?;
        let token = initialise(&settings, &self.names, &self.admin.name).await?;
        explain(&settings)?;
        Ok(token::print(&self.admin.name, &token)?)
    }
}

/// Makes the folder, the store and the authority of a controller that is reached under `names`,
/// and a login token for its first admin.
///
/// # Errors
///
/// When there is one already, which is left as it is; when a name cannot be; when a file cannot be
/// written: then it can be repeated.
pub async fn initialise(
    settings: &Settings,
    names: &[String],
    admin: &UserName,
) -> anyhow::Result<NewToken> {
    check_server_names(names)?;
    make_state_dir(&settings.state_dir)?;
    let clock = Arc::new(SystemClock::new());
    let store: Arc<dyn Store> = Arc::new(
        Sqlite::open(&settings.store_file(), clock.clone()).context("could not make the store")?,
    );
    if store.get("ca".into()).await?.is_some() {
        bail!(
            "{} holds a controller already; nothing was changed. \
             For a new admin token stop it and run `dhow-controller token`",
            settings.state_dir.display()
        );
    }
    let secret = wrap_secret(settings)?;
    // The authority comes last: what was interrupted before it is not initialised yet, and another
    // `init` goes on.
    store.put(NAMES_KEY, serde_json::to_vec(names)?).await?;
    let ca = Ca::create(Arc::clone(&store), clock.clone(), &secret, settings.validity)
        .await
        .context("could not make the certificate authority")?;
    token::create(admin, store, clock, &ca).await
}

fn make_state_dir(path: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let owned =
        made.and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)));
    // A controller whose folder has no durable name is lost with the power. Folders made on the way are names too.
    let synced = owned.and_then(|()| std::path::absolute(path)).and_then(|path| {
        path.ancestors().skip(1).try_for_each(|above| match std::fs::File::open(above) {
            Ok(folder) => match folder.sync_all() {
                // A file system that cannot be written to syncs none of its folders, and none was made there.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                other => other,
            },
            // Where this user may not look nothing was made either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
        })
    });
    synced.with_context(|| format!("could not make the folder {}", path.display()))
}

/// The passphrase that was given, else a random key in a file of its own.
fn wrap_secret(settings: &Settings) -> anyhow::Result<WrapSecret> {
    let path = &settings.ca_passphrase_file;
    if settings.wraps_by_file() && !path.exists() {
        return Ok(WrapSecret::create_file(path)?);
    }
    Ok(WrapSecret::from_file(path)?)
}

fn explain(settings: &Settings) -> io::Result<()> {
    let mut err = io::stderr().lock();
    writeln!(err, "made a controller in {}", settings.state_dir.display())?;
    if settings.wraps_by_file() {
        writeln!(
            err,
            "the CA's key is encrypted under {}: back it up apart from the store, or use a\n\
             passphrase (--ca-passphrase-file, or the systemd credential ca-passphrase) instead",
            settings.ca_passphrase_file.display()
        )?;
    }
    writeln!(err, "next: dhow-controller run --state-dir {}", settings.state_dir.display())
}
