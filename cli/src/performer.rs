//! Who runs this command, as Kamal tells it: git's user, else the local one.

use std::path::Path;
use std::process::Command;

/// Answers of git and the system.
pub struct Performer {
    name: Option<String>,
    email: Option<String>,
    user: String,
}

impl Performer {
    /// Asks git in a directory. No git, no repository or no setting is normal.
    pub fn find(directory: &Path) -> Self {
        let ask = |key: &str| {
            let output = Command::new("git")
                .args(["--no-optional-locks", "config", key])
                .current_dir(directory)
                .env("GIT_TERMINAL_PROMPT", "0")
                .output()
                .ok()?;
            let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
            (output.status.success() && !text.is_empty()).then_some(text)
        };
        let whoami =
            Command::new("whoami").output().ok().and_then(|o| String::from_utf8(o.stdout).ok());
        let user = whoami
            .map(|u| u.trim().to_owned())
            .filter(|u| !u.is_empty())
            .unwrap_or_else(|| "unknown".to_owned());
        Self { name: ask("user.name"), email: ask("user.email"), user }
    }

    /// `KAMAL_PERFORMER`.
    pub fn email_or_user(&self) -> String {
        self.email.clone().unwrap_or_else(|| self.user.clone())
    }

    /// `Locked by:` of the lock.
    pub fn name_or_user(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.user.clone())
    }
}
