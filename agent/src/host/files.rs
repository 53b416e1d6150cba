//! Small files, written whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use zeroize::Zeroizing;

use super::Owner;

/// Writes a file under its name only when it is complete and on disk; directories above it are made.
pub(crate) fn write(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: Option<Owner>,
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    create_dirs(directory, owner)?;
    let mut file = tempfile::Builder::new()
        .prefix(".dhow-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(content)?;
    // Not what the umask left of it.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    if let Some(owner) = owner {
        chown(file.path(), Some(owner.uid), Some(owner.gid))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// True where a file is exactly as [`write`] would leave it.
pub(crate) fn is_written(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> bool {
    let Ok(found) = path.symlink_metadata() else { return false };
    found.is_file()
        && found.permissions().mode() & 0o7777 == mode
        && owner.is_none_or(|owner| (found.uid(), found.gid()) == (owner.uid, owner.gid))
        && found.len() == content.len() as u64
        && fs::read(path).is_ok_and(|there| Zeroizing::new(there).as_slice() == content)
}

/// `mkdir -p`; what is made belongs to `owner`.
pub(crate) fn create_dirs(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dirs(parent, owner)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) => return Err(e),
    }
    if let Some(owner) = owner {
        chown(path, Some(owner.uid), Some(owner.gid))?;
    }
    Ok(())
}

/// At most 1 MiB of text; none where there is no file.
pub(crate) fn read_text(path: &Path) -> io::Result<Option<String>> {
    use std::io::Read as _;
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Names in a directory; empty where there is none.
pub(crate) fn names_in(path: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(e),
    };
    entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
}

/// True where something is there.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Removes a file that may be gone.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    gone_is_fine(fs::remove_file(path))
}

/// Removes a directory that may be gone.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    gone_is_fine(fs::remove_dir_all(path))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
