//! Kamal's audit log: lines of ours, and lines of another deployer.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::SystemTime;

use dhow_proto::model::{App, RoleName};

use super::Owner;
use super::files::create_dirs;

/// A line to be written.
pub(crate) struct Line<'a> {
    pub(crate) at: SystemTime,
    pub(crate) performer: &'a str,
    pub(crate) app: &'a App,
    pub(crate) role: Option<&'a RoleName>,
    pub(crate) text: &'a str,
}

impl Line<'_> {
    /// `[time] [performer] [destination] [role] text`, without its newline.
    pub(crate) fn format(&self) -> String {
        let at = super::lock::iso8601(self.at);
        let performer: String =
            self.performer.chars().filter(|c| !c.is_control()).take(200).collect();
        let mut line = format!("[{at}] [{performer}]");
        if let Some(destination) = &self.app.destination {
            line.push_str(&format!(" [{destination}]"));
        }
        if let Some(role) = self.role {
            line.push_str(&format!(" [{role}]"));
        }
        line.push(' ');
        line.push_str(self.text);
        line
    }
}

/// Appends a line in one write.
pub(crate) fn append(path: &Path, line: &str, owner: Option<Owner>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        create_dirs(directory, owner)?;
    }
    let new = !path.exists();
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    if let (true, Some(owner)) = (new, owner) {
        chown(path, Some(owner.uid), Some(owner.gid))?;
    }
    file.write_all(format!("{line}\n").as_bytes())
}

/// Texts by which Kamal changes what runs or what it could go back to.
const CHANGES: [&str; 14] = [
    "Booted app version",
    "Renaming container",
    "Started app version",
    "Stopped app",
    "Tagging ",
    "Removed app container",
    "Removed all app",
    "Pruned containers",
    "Pruned images",
    "Removed .kamal",
    PROXY_CHANGES[0],
    PROXY_CHANGES[1],
    PROXY_CHANGES[2],
    PROXY_CHANGES[3],
];

/// Those of them about kamal-proxy itself.
const PROXY_CHANGES: [&str; 4] =
    ["Rebooted proxy", "Started proxy", "Stopped proxy", "Removed proxy"];

/// Which lines are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Any change.
    Anything,
    /// kamal-proxy itself.
    Proxy,
}

/// Newest line behind byte `from` that tells of a change and is none of `own`. Reads at most the last MiB.
pub(crate) fn foreign_line(
    path: &Path,
    from: u64,
    own: &[String],
    about: About,
) -> io::Result<Option<String>> {
    const MOST: u64 = 1 << 20;
    let texts: &[&str] = match about {
        About::Anything => &CHANGES,
        About::Proxy => &PROXY_CHANGES,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    // A shorter file was rotated or emptied: all of it is new.
    let from = if length < from { 0 } else { from };
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(MOST))))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let foreign = text.lines().rfind(|line| {
        let message = message_of(line);
        texts.iter().any(|c| message.starts_with(c)) && !own.iter().any(|o| o == line)
    });
    Ok(foreign.map(|line| line.chars().take(300).collect()))
}

/// What follows the tags in brackets.
fn message_of(line: &str) -> &str {
    let mut rest = line.trim_start();
    while let Some(tag) = rest.strip_prefix('[') {
        let Some((_, after)) = tag.split_once("] ") else { break };
        rest = after;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_others_since_the_adoption_are_foreign() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop-audit.log");
        append(&path, "[t] [ann@x] [web] Booted app version v0", None).unwrap();
        let from = std::fs::metadata(&path).unwrap().len();
        let own = vec!["[t] [dhow] [web] Booted app version v1".to_owned()];
        append(&path, &own[0], None).unwrap();
        append(&path, "[t] [ann@x] Pulled image with version v2", None).unwrap();
        let line = |about| foreign_line(&path, from, &own, about).unwrap();
        assert_eq!(line(About::Anything), None);
        append(&path, "[t] [ann@x] [web] Booted app version v2", None).unwrap();
        let found = line(About::Anything).unwrap();
        assert!(found.ends_with("version v2"), "{found}");
        assert_eq!(line(About::Proxy), None);
        append(&path, "[t] [ann@x] Rebooted proxy", None).unwrap();
        assert_eq!(line(About::Anything), line(About::Proxy));
        assert!(line(About::Proxy).is_some());
    }
}
