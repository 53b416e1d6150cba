//! `dhow init`: the first files of a project, which Kamal can use as well. What is there stays.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Options of init.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Only of use with Kamal, which then adds itself to the Gemfile
    #[arg(long, hide = true)]
    pub bundle: bool,
}

/// Why the files are not there.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `--bundle` was given.
    #[error("--bundle: dhow is no Ruby gem, so there is nothing to add to a Gemfile")]
    Bundle,
    /// A file or directory could not be made.
    #[error("could not create {}", path.display())]
    Create {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Standard output is closed.
    #[error("could not print")]
    Print(#[source] io::Error),
}

/// The config that `init` writes.
pub const DEPLOY: &str = include_str!("init/deploy.yml");

/// The secrets file that `init` writes: examples in comments.
pub const SECRETS: &str = include_str!("init/secrets");

/// The sample hooks with their names; without the ending `.sample` they would be run.
const HOOKS: &[(&str, &str)] = &[
    ("docker-setup.sample", include_str!("init/hooks/docker-setup.sample")),
    ("post-app-boot.sample", include_str!("init/hooks/post-app-boot.sample")),
    ("post-deploy.sample", include_str!("init/hooks/post-deploy.sample")),
    ("post-proxy-reboot.sample", include_str!("init/hooks/post-proxy-reboot.sample")),
    ("pre-app-boot.sample", include_str!("init/hooks/pre-app-boot.sample")),
    ("pre-build.sample", include_str!("init/hooks/pre-build.sample")),
    ("pre-connect.sample", include_str!("init/hooks/pre-connect.sample")),
    ("pre-deploy.sample", include_str!("init/hooks/pre-deploy.sample")),
    ("pre-proxy-reboot.sample", include_str!("init/hooks/pre-proxy-reboot.sample")),
];

/// Makes the files below `project_dir` that are missing, and says which, in Kamal's words.
///
/// # Errors
///
/// [`InitError`]; files made before it stay.
pub fn run(args: &Args, project_dir: &Path, out: &mut dyn Write) -> Result<(), InitError> {
    if args.bundle {
        return Err(InitError::Bundle);
    }
    let mut say = |line: &str| writeln!(out, "{line}").map_err(InitError::Print);
    if create(project_dir, "config/deploy.yml", DEPLOY, PLAIN)? {
        say("Created configuration file in config/deploy.yml")?;
    } else {
        say("Config file already exists in config/deploy.yml (remove first to create a new one)")?;
    }
    if create(project_dir, ".kamal/secrets", SECRETS, PLAIN)? {
        say("Created .kamal/secrets file")?;
    }
    // Samples that somebody removed do not come back.
    if !project_dir.join(".kamal/hooks").exists() {
        for (name, text) in HOOKS {
            create(project_dir, &format!(".kamal/hooks/{name}"), text, EXECUTABLE)?;
        }
        say("Created sample hooks in .kamal/hooks")?;
    }
    Ok(())
}

const PLAIN: u32 = 0o666;
const EXECUTABLE: u32 = 0o777;

/// Writes a new file, with `mode` as the umask allows it; `false` when something has its name.
fn create(project_dir: &Path, name: &str, text: &str, mode: u32) -> Result<bool, InitError> {
    let path = project_dir.join(name);
    let failed = |source| InitError::Create { path: path.clone(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    // `create_new` rather than a look before: nothing is ever overwritten, nor followed.
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map_err(failed).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn said(project_dir: &Path) -> String {
        let mut out = Vec::new();
        run(&Args::default(), project_dir, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_empty_project_gets_config_secrets_and_sample_hooks() {
        let project = tempfile::tempdir().unwrap();
        assert_eq!(
            said(project.path()),
            "Created configuration file in config/deploy.yml\n\
             Created .kamal/secrets file\n\
             Created sample hooks in .kamal/hooks\n"
        );
        let hooks = fs::read_dir(project.path().join(".kamal/hooks")).unwrap();
        for hook in hooks.map(Result::unwrap) {
            assert_ne!(hook.metadata().unwrap().permissions().mode() & 0o100, 0, "{hook:?}");
        }
        assert_eq!(
            said(project.path()),
            "Config file already exists in config/deploy.yml (remove first to create a new one)\n"
        );
    }

    #[test]
    fn what_is_there_stays() {
        let project = tempfile::tempdir().unwrap();
        fs::create_dir_all(project.path().join(".kamal/hooks")).unwrap();
        fs::write(project.path().join(".kamal/secrets"), "MINE=1").unwrap();
        assert_eq!(said(project.path()), "Created configuration file in config/deploy.yml\n");
        assert_eq!(fs::read(project.path().join(".kamal/secrets")).unwrap(), b"MINE=1");
        assert_eq!(fs::read_dir(project.path().join(".kamal/hooks")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_named() {
        let project = tempfile::tempdir().unwrap();
        fs::write(project.path().join("config"), "").unwrap();
        let error = run(&Args::default(), project.path(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().ends_with("config/deploy.yml"), "{error}");
    }

    #[test]
    fn bundle_is_refused_before_anything_is_written() {
        let project = tempfile::tempdir().unwrap();
        let error = run(&Args { bundle: true }, project.path(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, InitError::Bundle));
        assert_eq!(fs::read_dir(project.path()).unwrap().count(), 0);
    }

    #[test]
    fn hooks_are_shell_scripts_without_errors() {
        for (name, text) in HOOKS {
            assert!(text.starts_with("#!/bin/sh\n"), "{name}");
            let check = std::process::Command::new("sh").args(["-n", "-c", text]).status().unwrap();
            assert!(check.success(), "{name}");
        }
    }

    #[test]
    fn the_secrets_file_sets_nothing_by_itself() {
        assert!(SECRETS.lines().all(|line| line.is_empty() || line.starts_with('#')));
    }

    #[test]
    fn the_loader_takes_the_config() {
        let project = tempfile::tempdir().unwrap();
        said(project.path());
        let options = crate::config::LoadOptions {
            config_file: Some(project.path().join("config/deploy.yml")),
            ..Default::default()
        };
        let loaded = crate::config::load(&options, &crate::config::SystemOutside);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.render(false));
    }
}
