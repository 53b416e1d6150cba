//! Writes docker-archives: the format of `docker save`, image specification v1.2.
//!
//! See <https://github.com/moby/moby/blob/v20.10.24/image/spec/v1.2.md>.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// One thing in a layer. Modes are permission bits; owners are numeric, as an image has no names.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A directory: path without a leading slash, mode, uid and gid.
    Dir(String, u32, u32),
    /// A file owned by root: path, mode, content.
    File(String, u32, Vec<u8>),
    /// A symbolic link: path, what it points to.
    Link(String, String),
}

/// A finished layer: its tar and the digest an image names it by.
#[derive(Clone, Debug)]
pub struct Layer {
    tar: Vec<u8>,
    digest: String,
}

impl Layer {
    /// Packs `entries` in the given order; times are fixed, so equal entries give equal digests.
    ///
    /// # Errors
    ///
    /// When a path is too long for a tar.
    pub fn new(entries: &[Entry]) -> Result<Self> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in entries {
            append(&mut builder, entry)?;
        }
        let tar = builder.into_inner().context("pack a layer")?;
        let digest = hex::encode(Sha256::digest(&tar));
        Ok(Self { tar, digest })
    }

    /// The SHA-256 of the layer's tar, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// An image as it goes into an archive.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// `repository:tag`, with a registry host if it has one.
    pub reference: String,
    /// The image configuration's `config` object (`Env`, `Cmd`, `Labels`, …), as in the Docker API.
    pub config: Value,
    /// Bottom first; images of one archive may share layers, which are then stored once.
    pub layers: Vec<&'a Layer>,
}

/// Writes `images` as one docker-archive. `path` appears only when the archive is complete.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_archive(path: &Path, images: &[Image<'_>]) -> Result<()> {
    // Two threads, or two processes, may write the same archive; each has its own file until the end.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let unfinished = path.with_extension(format!("unfinished-{}-{count}", std::process::id()));
    let file =
        File::create(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    let mut builder = tar::Builder::new(file);
    let mut manifest = Vec::new();
    let mut stored = BTreeSet::new();
    for image in images {
        let config = image_config(image).to_string().into_bytes();
        let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
        if stored.insert(config_name.clone()) {
            append(&mut builder, &Entry::File(config_name.clone(), 0o644, config))?;
        }
        for layer in &image.layers {
            if stored.insert(layer.digest.clone()) {
                append(&mut builder, &Entry::File(layer_name(layer), 0o644, layer.tar.clone()))?;
            }
        }
        manifest.push(json!({
            "Config": config_name,
            "RepoTags": [image.reference],
            "Layers": image.layers.iter().map(|layer| layer_name(layer)).collect::<Vec<_>>(),
        }));
    }
    let manifest = Value::Array(manifest).to_string().into_bytes();
    append(&mut builder, &Entry::File("manifest.json".to_owned(), 0o644, manifest))?;
    builder.into_inner().context("finish the archive")?;
    fs::rename(&unfinished, path).with_context(|| format!("name {}", path.display()))
}

/// The images in a docker-archive: tag to image id (`sha256:…`), as `docker load` will name them.
///
/// # Errors
///
/// When the file cannot be read or is not a docker-archive.
pub fn image_ids(archive: &Path) -> Result<BTreeMap<String, String>> {
    let manifest: Value = serde_json::from_slice(&member(archive, "manifest.json")?)
        .with_context(|| format!("read manifest.json of {}", archive.display()))?;
    let mut ids = BTreeMap::new();
    for image in manifest.as_array().map(Vec::as_slice).unwrap_or_default() {
        let config = image["Config"].as_str().context("an image of the archive has no config")?;
        let id = format!("sha256:{}", hex::encode(Sha256::digest(member(archive, config)?)));
        for tag in image["RepoTags"].as_array().map(Vec::as_slice).unwrap_or_default() {
            ids.insert(tag.as_str().unwrap_or_default().to_owned(), id.clone());
        }
    }
    Ok(ids)
}

fn member(archive: &Path, name: &str) -> Result<Vec<u8>> {
    let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let mut tar = tar::Archive::new(file);
    for entry in tar.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new(name) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            return Ok(content);
        }
    }
    anyhow::bail!("{} holds no {name}: not a docker-archive?", archive.display())
}

fn layer_name(layer: &Layer) -> String {
    format!("{}/layer.tar", layer.digest)
}

fn image_config(image: &Image<'_>) -> Value {
    // A fixed time keeps the id a function of the content.
    let created = "2025-01-01T00:00:00Z";
    json!({
        "architecture": crate::ARCHITECTURE,
        "os": "linux",
        "created": created,
        "config": image.config,
        "rootfs": {
            "type": "layers",
            "diff_ids": image.layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect::<Vec<_>>(),
        },
        "history": image.layers.iter().map(|_| json!({"created": created, "created_by": "dhow-test-images"})).collect::<Vec<_>>(),
    })
}

fn append<W: std::io::Write>(builder: &mut tar::Builder<W>, entry: &Entry) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mtime(0);
    match entry {
        Entry::Dir(path, mode, owner) => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            header.set_uid(u64::from(*owner));
            header.set_gid(u64::from(*owner));
            header.set_size(0);
            builder.append_data(&mut header, format!("{path}/"), std::io::empty())
        }
        Entry::File(path, mode, content) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_slice())
        }
        Entry::Link(path, to) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder.append_link(&mut header, path, to)
        }
    }
    .with_context(|| format!("pack {entry:?}", entry = name(entry)))
}

fn name(entry: &Entry) -> &str {
    match entry {
        Entry::Dir(path, ..) | Entry::File(path, ..) | Entry::Link(path, ..) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_give_equal_archives_and_ids() {
        let dir = std::env::temp_dir().join(format!("dhow-archive-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let layer = Layer::new(&[
            Entry::Dir("tmp".to_owned(), 0o1777, 0),
            Entry::File("bin/x".to_owned(), 0o755, b"x".to_vec()),
            Entry::Link("bin/y".to_owned(), "/bin/x".to_owned()),
        ])
        .unwrap();
        let image = |tag: &str, env: &str| Image {
            reference: format!("shop:{tag}"),
            config: json!({"Env": [env]}),
            layers: vec![&layer],
        };
        let (a, b) = (dir.join("a.tar"), dir.join("b.tar"));
        write_archive(&a, &[image("v1", "A=1"), image("v2", "A=2")]).unwrap();
        write_archive(&b, &[image("v1", "A=1"), image("v2", "A=2")]).unwrap();
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        let ids = image_ids(&a).unwrap();
        assert_eq!(ids.keys().collect::<Vec<_>>(), ["shop:v1", "shop:v2"]);
        assert_ne!(ids["shop:v1"], ids["shop:v2"]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
