//! Which version is deployed: as asked for, or the git revision.

use std::io;

use super::diagnostic::{Code, Diagnostic, ErrorClass};
use super::outside::Outside;

/// The version: `given`, else `VERSION` of the environment, else the revision of the working
/// directory's repository; with the suffix `_uncommitted_…` where the build sees uncommitted
/// changes, that is with `builder.context`.
///
/// # Errors
///
/// A problem of kind [`Code::Version`] where there is no repository to ask.
pub fn resolve(
    given: Option<&str>,
    has_context: bool,
    outside: &dyn Outside,
) -> Result<String, Diagnostic> {
    if let Some(given) = given.filter(|given| !given.trim().is_empty()) {
        return Ok(given.to_owned());
    }
    if let Some(version) = outside.var("VERSION").filter(|version| !version.trim().is_empty()) {
        return Ok(version);
    }
    let problem = |message: String| {
        Diagnostic::new(Code::Version, message)
            .class(ErrorClass::Runtime)
            .hint("give the version with `--version`, or run inside the app's git repository")
    };
    let inside = match outside.git(&["rev-parse", "--git-dir"]) {
        Ok(output) => output.status == Some(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(problem("git is not installed, so the version is not known".into()));
        }
        Err(error) => return Err(problem(format!("git does not answer: {error}"))),
    };
    if !inside {
        let directory = outside.current_dir();
        return Err(problem(format!(
            "Can't use commit hash as version, no git repository found in {}",
            directory.display()
        )));
    }
    let output = |args: &[&str]| -> String {
        let output = outside.git(args).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
    let revision = output(&["rev-parse", "HEAD"]);
    if has_context && !output(&["status", "--porcelain"]).is_empty() {
        return Ok(format!("{revision}_uncommitted_{}", random_hex()));
    }
    Ok(revision)
}

/// 16 hexadecimal digits, as Kamal's `SecureRandom.hex(8)`: every build of uncommitted work is a
/// version of its own.
fn random_hex() -> String {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 8];
    // The system's source does not fail; if it ever does, a fixed suffix is still a valid version.
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    hex::encode(bytes)
}

/// The version as it is shown: 7 characters, or all of it when it holds an underscore.
#[must_use]
pub fn abbreviated(version: &str) -> &str {
    if version.contains('_') {
        return version;
    }
    version.char_indices().nth(7).map_or(version, |(end, _)| &version[..end])
}

#[cfg(test)]
mod tests {
    use super::super::outside::fake::FakeOutside;
    use super::*;

    fn repository() -> FakeOutside {
        FakeOutside::default()
            .with_git("rev-parse --git-dir", ".git\n")
            .with_git("rev-parse HEAD", "abc123def\n")
    }

    #[test]
    fn the_version_is_what_was_given_then_the_environment_then_git() {
        let outside = repository().with_var("VERSION", "from-env");
        assert_eq!(resolve(Some("given"), false, &outside).unwrap(), "given");
        assert_eq!(resolve(Some(""), false, &outside).unwrap(), "from-env");
        assert_eq!(resolve(None, false, &repository()).unwrap(), "abc123def");
    }

    #[test]
    fn uncommitted_changes_count_only_with_a_build_context() {
        let outside = repository().with_git("status --porcelain", " M a\n");
        assert_eq!(resolve(None, false, &outside).unwrap(), "abc123def");
        let version = resolve(None, true, &outside).unwrap();
        assert!(version.starts_with("abc123def_uncommitted_"));
        assert_eq!(version.len(), "abc123def_uncommitted_".len() + 16);
    }

    #[test]
    fn without_a_repository_the_error_says_so() {
        let error = resolve(None, false, &FakeOutside::default()).unwrap_err();
        assert_eq!(
            error.message,
            "Can't use commit hash as version, no git repository found in /app"
        );
    }

    #[test]
    fn a_version_is_shown_short() {
        assert_eq!(abbreviated("0123456789"), "0123456");
        assert_eq!(abbreviated("012_456789"), "012_456789");
    }
}
