//! Asset bridging: files of the old and the new version are both served during a switch.

use std::fs;
use std::io;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use super::Owner;
use super::files::{create_dirs, remove_tree};

/// Unpacks a tar of assets over whatever is there.
pub(crate) fn extract(tar: &[u8], target: &Path, owner: Option<Owner>) -> io::Result<()> {
    remove_tree(target)?;
    create_dirs(target, owner)?;
    let mut archive = tar::Archive::new(tar);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    // `unpack` keeps every entry inside the target, also through links.
    archive.unpack(target)?;
    own(target, owner)
}

/// Copies what the target lacks: files, directories and links, nothing overwritten.
pub(crate) fn bridge(source: &Path, target: &Path, owner: Option<Owner>) -> io::Result<()> {
    create_dirs(target, owner)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let kind = entry.file_type()?;
        let there = to.symlink_metadata().is_ok();
        if kind.is_dir() {
            if !there || to.is_dir() {
                bridge(&from, &to, owner)?;
            }
        } else if there {
            continue;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        } else {
            fs::copy(&from, &to)?;
            if let Some(owner) = owner {
                chown(&to, Some(owner.uid), Some(owner.gid))?;
            }
        }
    }
    Ok(())
}

fn own(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), Some(owner))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridging_adds_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        fs::create_dir_all(old.join("js")).unwrap();
        fs::create_dir_all(&new).unwrap();
        fs::write(old.join("js/a.js"), "old").unwrap();
        fs::write(old.join("common.css"), "old").unwrap();
        fs::write(new.join("common.css"), "new").unwrap();
        bridge(&old, &new, None).unwrap();
        assert_eq!(fs::read_to_string(new.join("common.css")).unwrap(), "new");
        assert_eq!(fs::read_to_string(new.join("js/a.js")).unwrap(), "old");
    }
}
