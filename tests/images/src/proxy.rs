//! The image of the proxy: the stand-in, or the one that the caller provides.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::archive::{Entry, Image, Layer, write_archive};
use crate::binary::{Binary, artifacts_dir, static_binary};

/// What the proxy's image is called, in archives and on hosts: the version Kamal 2.11 asks for.
pub const PROXY_REFERENCE: &str = "basecamp/kamal-proxy:v0.9.2";

/// The docker-archive that holds [`PROXY_REFERENCE`]: the file named by `DHOW_PROXY_IMAGE`, or the
/// stand-in built from this workspace. The path is absolute.
///
/// # Errors
///
/// When `DHOW_PROXY_IMAGE` names no file, or the stand-in cannot be built.
pub fn proxy_image() -> Result<PathBuf> {
    match given() {
        Some(path) => fs::canonicalize(&path)
            .with_context(|| format!("DHOW_PROXY_IMAGE names {}", PathBuf::from(&path).display())),
        None => stand_in_archive(),
    }
}

/// Whether [`proxy_image`] is the stand-in; what is measured on it must say so.
pub fn proxy_is_stand_in() -> bool {
    given().is_none()
}

fn given() -> Option<OsString> {
    std::env::var_os("DHOW_PROXY_IMAGE").filter(|value| !value.is_empty())
}

/// Builds the stand-in's image, whatever `DHOW_PROXY_IMAGE` says, and gives the archive's path.
///
/// # Errors
///
/// When the program cannot be built or the archive cannot be written.
pub fn stand_in_archive() -> Result<PathBuf> {
    let binary = static_binary(Binary::KamalProxy)?;
    let program = fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
    if program.is_empty() {
        bail!("{} is empty", binary.display());
    }
    let layer = Layer::new(&file_system(program))?;
    let image =
        Image { reference: PROXY_REFERENCE.to_owned(), config: config(), layers: vec![&layer] };
    let key = hex::encode(Sha256::digest(format!("{}{}", image.config, layer.digest())));
    let path = artifacts_dir()?.join(format!("kamal-proxy-{}.tar", &key[..16]));
    if !path.exists() {
        write_archive(&path, &[image])?;
    }
    Ok(path)
}

/// The user `useradd` would make on the real base image, whose uid 1000 is taken.
const UID: u32 = 1001;

fn file_system(program: Vec<u8>) -> Vec<Entry> {
    let dir = |path: &str| Entry::Dir(path.to_owned(), 0o755, 0);
    let home = |path: &str| Entry::Dir(path.to_owned(), 0o755, UID);
    let text =
        |path: &str, text: &str| Entry::File(path.to_owned(), 0o644, text.as_bytes().to_vec());
    vec![
        dir("etc"),
        text(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nkamal-proxy:x:1001:1001::/home/kamal-proxy:/bin/sh\n",
        ),
        text("etc/group", "root:x:0:\nkamal-proxy:x:1001:\n"),
        text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        Entry::Dir("tmp".to_owned(), 0o1777, 0),
        dir("home"),
        home("home/kamal-proxy"),
        home("home/kamal-proxy/.config"),
        // A named volume mounted here takes over owner and mode from the image.
        home("home/kamal-proxy/.config/kamal-proxy"),
        dir("usr"),
        dir("usr/local"),
        dir("usr/local/bin"),
        Entry::File("usr/local/bin/kamal-proxy".to_owned(), 0o755, program),
    ]
}

fn config() -> serde_json::Value {
    json!({
        "User": "kamal-proxy:kamal-proxy",
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["kamal-proxy", "run"],
        // Kamal prunes proxy images by this label.
        "Labels": {"org.opencontainers.image.title": "kamal-proxy", "dhow.stand-in": "true"},
    })
}
