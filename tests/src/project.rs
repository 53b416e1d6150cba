//! A project that dhow (or Kamal) deploys: its directory with `config/deploy.yml`, secrets and hooks.

mod spec;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dhow_test_images::{AppImage, app_archive};

use crate::fleet::Fleet;

pub use spec::ProjectSpec;

/// A project below a fleet's directory.
#[derive(Debug)]
pub struct Project {
    dir: PathBuf,
    service: String,
}

impl Project {
    /// An empty project for a service of this name.
    ///
    /// # Errors
    ///
    /// When its directory cannot be made.
    pub fn new(fleet: &Fleet, service: &str) -> Result<Self> {
        let dir = fleet.dir().join(format!("project-{service}"));
        for below in ["config", ".kamal/hooks"] {
            let path = dir.join(below);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        Ok(Self { dir, service: service.to_owned() })
    }

    /// Its directory: where commands run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of the service, also of its image.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Writes a file of the project.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let path = self.dir.join(path);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// Writes an executable hook that appends its name and what `line` prints to `hooks.log` of the project.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn hook(&self, name: &str, line: &str) -> Result<()> {
        let path = format!(".kamal/hooks/{name}");
        self.write(&path, &format!("#!/bin/sh\necho \"{name} {line}\" >> hooks.log\n"))?;
        let path = self.dir.join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("make a hook executable")
    }

    /// Lines the hooks wrote.
    #[must_use]
    pub fn hook_lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("hooks.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// `deploy.yml` for the fleet's registry: `rest` is everything but service, image, registry and builder.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn deploy_yml(&self, fleet: &Fleet, rest: &str) -> Result<()> {
        let (service, registry) = (&self.service, fleet.hub().registry());
        self.write(
            "config/deploy.yml",
            &format!(
                "service: {service}\nimage: {service}\nregistry:\n  server: {registry}\n  username: fleet\n  password: [REGISTRY_PASSWORD]\nbuilder: {{arch: amd64}}\n{rest}"
            ),
        )?;
        let password = fleet.hub().registry_password().unwrap_or("any");
        self.write(
            ".kamal/secrets",
            &format!("REGISTRY_PASSWORD={password}\nDB_PASSWORD=s3cret-of-{service}\n"),
        )
    }

    /// Pushes versions of the sample app under the service's name; `change` alters each image.
    ///
    /// # Errors
    ///
    /// When building or pushing fails.
    pub fn push(
        &self,
        fleet: &Fleet,
        versions: &[&str],
        change: impl Fn(AppImage) -> AppImage,
    ) -> Result<()> {
        let images: Vec<AppImage> = versions
            .iter()
            .map(|v| {
                change(AppImage::new(format!("{}:{v}", self.service), *v).service(&self.service))
            })
            .collect();
        fleet.hub().push(&app_archive(&images)?)
    }
}
