//! Kamal's lock directory (host-effects: lock).

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_proto::model::intent::KamalLock;

use super::Owner;
use super::files::{create_dirs, exists, read_text, remove_tree, write};

/// Time as Kamal writes it.
pub(super) fn iso8601(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX))
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// What the lock says.
pub(crate) fn details(lock: &KamalLock) -> String {
    let line = |text: &str| text.replace(['\n', '\r'], " ");
    let at = Duration::from_secs(u64::try_from(lock.at_unix_s).unwrap_or(0));
    format!(
        "Locked by: {} at {}\nVersion: {}\nMessage: {}",
        line(&lock.holder),
        iso8601(SystemTime::UNIX_EPOCH + at),
        line(&lock.version),
        line(&lock.message)
    )
}

/// Decoded details of the lock; none: it is free. Details that are missing or no Base64 are empty text.
pub(crate) fn read(path: &Path) -> io::Result<Option<String>> {
    if !exists(path) {
        return Ok(None);
    }
    let text = read_text(&path.join("details"))?.unwrap_or_default();
    let packed: String = text.split_whitespace().collect();
    let plain = STANDARD.decode(packed).unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(&plain).into_owned()))
}

/// Takes the lock with its details in one move; false where somebody has it.
pub(crate) fn take(path: &Path, details: &str, owner: Option<Owner>) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    create_dirs(parent, owner)?;
    let staging = tempfile::Builder::new().prefix(".dhow-lock-").tempdir_in(parent)?;
    if let Some(owner) = owner {
        std::os::unix::fs::chown(staging.path(), Some(owner.uid), Some(owner.gid))?;
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(staging.path(), mode)?;
    write(&staging.path().join("details"), wrapped(details).as_bytes(), 0o644, owner)?;
    // Not a plain rename: that would replace a directory of Kamal's that has no details yet.
    let moved = rustix::fs::renameat_with(
        rustix::fs::CWD,
        staging.path(),
        rustix::fs::CWD,
        path,
        rustix::fs::RenameFlags::NOREPLACE,
    );
    match moved {
        Ok(()) => {
            // Moved away: nothing is left to delete.
            let _ = staging.keep();
            Ok(true)
        }
        Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Frees the lock in one move.
pub(crate) fn release(path: &Path) -> io::Result<()> {
    let mut freed = path.as_os_str().to_owned();
    freed.push(".released");
    let freed = Path::new(&freed);
    remove_tree(freed)?;
    match std::fs::rename(path, freed) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    remove_tree(freed)
}

/// Ruby's `Base64.encode64`: lines of 60.
fn wrapped(text: &str) -> String {
    let packed = STANDARD.encode(text);
    let mut lines = String::new();
    for chunk in packed.as_bytes().chunks(60) {
        lines.push_str(&String::from_utf8_lossy(chunk));
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_once_and_reads_as_kamals() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".kamal/lock-shop");
        let lock = KamalLock {
            holder: "Ann".to_owned(),
            at_unix_s: 1_700_000_000,
            version: "v2".to_owned(),
            message: "Automatic deploy lock".to_owned(),
            wait: None,
        };
        let text = details(&lock);
        assert_eq!(
            text,
            "Locked by: Ann at 2023-11-14T22:13:20Z\nVersion: v2\nMessage: Automatic deploy lock"
        );
        assert!(take(&path, &text, None).unwrap());
        assert!(!take(&path, "other", None).unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), Some(text.as_str()));
        release(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        // Kamal's own, between its mkdir and its details.
        std::fs::create_dir(&path).unwrap();
        assert!(!take(&path, &text, None).unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), Some(""));
        let left: Vec<_> = std::fs::read_dir(dir.path().join(".kamal")).unwrap().collect();
        assert_eq!(left.len(), 1);
    }
}
