//! Files below a directory as lines: mode, owner and content.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Longer contents are shown by their length only.
const SHOWN_BYTES: usize = 16 * 1024;

/// Everything below `dir`, in order; nothing where it does not exist.
pub(super) fn file_lines(dir: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    walk(dir, dir, &mut lines)?;
    Ok(lines)
}

fn walk(base: &Path, dir: &Path, lines: &mut Vec<String>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", dir.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
        let shown = path.strip_prefix(base).unwrap_or(&path).display().to_string();
        let data = fs::symlink_metadata(&path).with_context(|| format!("look at {shown}"))?;
        let kind = if data.is_dir() {
            "directory"
        } else if data.is_symlink() {
            "link"
        } else {
            "file"
        };
        let mode = data.mode() & 0o7777;
        lines.push(format!("file/{shown} = {kind} {mode:04o} {}:{}", data.uid(), data.gid()));
        if data.is_symlink() {
            let target = fs::read_link(&path).with_context(|| format!("read {shown}"))?;
            lines.push(format!("file/{shown} -> {}", target.display()));
        } else if data.is_dir() {
            walk(base, &path, lines)?;
        } else {
            content(&shown, &fs::read(&path).with_context(|| format!("read {shown}"))?, lines);
        }
    }
    Ok(())
}

fn content(shown: &str, bytes: &[u8], lines: &mut Vec<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= SHOWN_BYTES => {
            for (number, line) in text.split_inclusive('\n').enumerate() {
                lines.push(format!("file/{shown}:{:03} {}", number + 1, line.escape_debug()));
            }
        }
        _ => lines.push(format!("file/{shown}: {} bytes", bytes.len())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_shows_its_mode_and_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.env");
        fs::write(&file, "A=1\nB=2").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let lines = file_lines(dir.path()).unwrap();
        assert!(lines[0].starts_with("file/web.env = file 0600 "), "{lines:?}");
        assert_eq!(lines[1..], ["file/web.env:001 A=1\\n", "file/web.env:002 B=2"]);
    }
}
