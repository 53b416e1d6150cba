//! Images for tests, made in a second or two and without a Docker Engine.
//!
//! In: the workspace's own sources. Out: docker-archive files (the format of `docker save`), which
//! `docker load` and `skopeo copy docker-archive:FILE:REPO:TAG …` accept.
//! Always true: the same inputs give the same archive bytes and therefore the same image ids, an
//! archive appears under its final name only when it is complete, and two processes that need the
//! same archive at the same time build it once.
//!
//! Nothing can be pulled where these tests run, so every image is `FROM scratch` around one static binary.

mod app;
mod archive;
mod binary;
mod proxy;

pub use app::{AppImage, Behaviour, app_archive, write_app_archive};
pub use archive::{Entry, Image, Layer, image_ids, write_archive};
pub use binary::{ARCHITECTURE, Binary, artifacts_dir, static_binary};
pub use proxy::{PROXY_REFERENCE, proxy_image, proxy_is_stand_in, stand_in_archive};
