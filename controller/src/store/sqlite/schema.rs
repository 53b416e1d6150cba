//! Opening the file: the lock, the checks, the schema and its version.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Says that a SQLite file is a dhow store: "dhow" in ASCII, in the header's application id.
const APPLICATION_ID: i32 = 0x6468_6f77;

/// The schema this program writes. A change gets the next number and a step in [`migrate`].
const SCHEMA_VERSION: i32 = 1;

/// How long to wait for somebody who looks at the file with another tool.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE state (
        one        INTEGER PRIMARY KEY CHECK (one = 1),
        revision   INTEGER NOT NULL,
        oldest     INTEGER NOT NULL, -- the oldest revision still in event
        last_lease INTEGER NOT NULL
    ) STRICT;
    INSERT INTO state VALUES (1, 1, 1, 0);
    CREATE TABLE entry (
        key             BLOB PRIMARY KEY,
        value           BLOB NOT NULL,
        create_revision INTEGER NOT NULL,
        mod_revision    INTEGER NOT NULL,
        version         INTEGER NOT NULL,
        lease           INTEGER REFERENCES lease (id)
    ) STRICT;
    CREATE INDEX entry_by_lease ON entry (lease) WHERE lease IS NOT NULL;
    CREATE TABLE event (
        revision        INTEGER NOT NULL,
        seq             INTEGER NOT NULL, -- order within the revision
        key             BLOB NOT NULL,
        value           BLOB, -- null for a delete, as the columns below
        create_revision INTEGER,
        version         INTEGER,
        lease           INTEGER,
        PRIMARY KEY (revision, seq)
    ) STRICT;
    CREATE TABLE lease (
        id     INTEGER PRIMARY KEY,
        ttl_ms INTEGER NOT NULL
    ) STRICT;
";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("store {} is in use by another process", path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// A newer dhow wrote it.
    #[error("store has schema version {found}, this program knows up to {known}: upgrade it")]
    Newer {
        /// The version in the file.
        found: i32,
        /// The newest one known here.
        known: i32,
    },
    /// It is an SQLite file, but not a dhow store.
    #[error("{} is not a dhow store", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// SQLite's integrity check found faults.
    #[error("store is damaged, restore it from a backup: {detail}")]
    Damaged {
        /// SQLite's first finding.
        detail: String,
    },
    /// The file system refused.
    #[error("could not open the store's file")]
    Io(#[source] io::Error),
    /// SQLite refused.
    #[error("could not open the store's database")]
    Sql(#[from] rusqlite::Error),
}

/// A store's database, locked for this process.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// Held while the connection lives. Freed by the kernel when the process dies.
    pub(super) lock: File,
}

/// Opens the database for its one writer.
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let lock = lock(path)?;
    // Created here and not by SQLite, so that nobody else can ever read it; SQLite gives its WAL
    // the same mode.
    let created = owner_only().create(true).truncate(false).open(path).map_err(OpenError::Io)?;
    created.sync_all().map_err(OpenError::Io)?;
    sync_folder(path)?;
    let mut connection = Connection::open_with_flags(path, flags())?;
    prepare(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit is answered only when it is on disk (promise 1).
    connection.pragma_update(None, "synchronous", "FULL")?;
    refuse_foreign(&connection, path)?;
    migrate(&mut connection)?;
    check_integrity(&connection)?;
    Ok(Opened { connection, lock })
}

/// Opens another connection, for reading, to a database that [`open`] opened before.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, flags())?;
    prepare(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn flags() -> OpenFlags {
    // Each connection is used by one thread only, so SQLite needs no mutexes.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn prepare(connection: &Connection) -> Result<(), OpenError> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// A file of its own: SQLite's locks allow a second writer, which would give out the same revisions.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let file = owner_only().create(true).truncate(false).open(lock_path).map_err(OpenError::Io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(OpenError::Io(error)),
    }
}

/// Makes the new file's name durable; SQLite syncs contents only.
fn sync_folder(path: &Path) -> Result<(), OpenError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(OpenError::Io)
}

fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if id == APPLICATION_ID || (id == 0 && tables == 0) {
        return Ok(());
    }
    Err(OpenError::Foreign { path: path.to_owned() })
}

fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let found: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer { found, known: SCHEMA_VERSION });
    }
    if found < SCHEMA_VERSION {
        // The only older version is 0, the empty file.
        let txn = connection.transaction()?;
        txn.execute_batch(SCHEMA)?;
        txn.pragma_update(None, "application_id", APPLICATION_ID)?;
        txn.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        txn.commit()?;
    }
    Ok(())
}

/// `quick_check` finds damaged pages without comparing each index: fast enough for every start.
fn check_integrity(connection: &Connection) -> Result<(), OpenError> {
    let detail: String =
        connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(damaged)?;
    if detail == "ok" { Ok(()) } else { Err(OpenError::Damaged { detail }) }
}

fn damaged(error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
            OpenError::Damaged { detail: error.to_string() }
        }
        Some(_) | None => OpenError::Sql(error),
    }
}
