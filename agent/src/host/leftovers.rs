//! What writes that were cut off left behind: names that only this agent makes, and that say nothing to anybody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{remove_file, remove_tree};

/// What a file or lock is called until it is complete, before six letters and digits.
const PARTIAL: [&str; 2] = [".dhow-", ".dhow-lock-"];

/// What Kamal's lock is called on its way out.
const RELEASED: (&str, &str) = ("lock-", ".released");

/// Directories of apps' own files: large, and none of ours is in the making there.
const ASSETS: &str = "assets";

/// Removes them from one directory. Nobody may write there meanwhile.
pub(crate) fn sweep_directory(directory: &Path) -> io::Result<()> {
    sweep_names(directory).map(drop)
}

/// Removes them from a directory and all below, but for apps' own files. Nobody may write there meanwhile.
pub(crate) fn sweep_tree(directory: &Path) -> io::Result<()> {
    for below in sweep_names(directory)? {
        if below.file_name().is_none_or(|name| name != ASSETS) {
            sweep_tree(&below)?;
        }
    }
    Ok(())
}

/// The directories that stay.
fn sweep_names(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut below = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(below),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, is_directory) = (entry.path(), entry.file_type()?.is_dir());
        match (is_leftover(&entry.file_name().to_string_lossy()), is_directory) {
            (true, true) => remove_tree(&path)?,
            (true, false) => remove_file(&path)?,
            (false, true) => below.push(path),
            (false, false) => {}
        }
    }
    Ok(below)
}

fn is_leftover(name: &str) -> bool {
    let random = |rest: &str| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    let partial = PARTIAL.iter().any(|prefix| name.strip_prefix(prefix).is_some_and(random));
    // No app's name has a dot.
    partial || (name.starts_with(RELEASED.0) && name.ends_with(RELEASED.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_goes_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let kamal = dir.path().join(".kamal");
        let stay = [
            ".kamal/shop-audit.log",
            ".kamal/lock-shop/details",
            ".kamal/apps/shop/env/roles/web.env",
            ".kamal/apps/shop/env/roles/.dhow-of-somebody",
            ".kamal/apps/shop/assets/volumes/web-v1/.dhow-abc123",
            ".kamal/proxy/apps-config/shop/error_pages/v1/404.html",
            ".dhow-abc123",
        ];
        let go = [
            ".kamal/.dhow-lock-a1B2c3/details",
            ".kamal/lock-shop.released/details",
            ".kamal/apps/shop/env/roles/.dhow-a1B2c3",
            ".kamal/proxy/apps-config/shop/tls/web/.dhow-Zz0000",
        ];
        for path in stay.iter().chain(&go).map(|path| dir.path().join(path)) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        sweep_directory(&kamal).unwrap();
        for tree in ["proxy", "apps", "nowhere"] {
            sweep_tree(&kamal.join(tree)).unwrap();
        }
        let there = |paths: &[&str]| -> Vec<bool> {
            paths.iter().map(|path| dir.path().join(path).exists()).collect()
        };
        assert_eq!(there(&stay), [true; 7]);
        assert_eq!(there(&go), [false; 4]);
        assert!(!kamal.join("lock-shop.released").exists());
    }
}
