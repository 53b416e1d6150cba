//! Makes the proxy's archive and one of the sample app with every behaviour, and prints their paths.
//!
//! `cargo run -p dhow-test-images --example make-images [REPOSITORY]`; the app's images are
//! `REPOSITORY:v1`, `:v2` and one tag per behaviour, labelled as service REPOSITORY's last part.

use dhow_test_images::{AppImage, Behaviour, app_archive, proxy_image};

fn main() -> anyhow::Result<()> {
    let repository = std::env::args().nth(1).unwrap_or_else(|| "shop".to_owned());
    let service = repository.rsplit('/').next().unwrap_or_default();
    let mut images: Vec<AppImage> = ["v1", "v2"]
        .map(|version| AppImage::new(format!("{repository}:{version}"), version).service(service))
        .into();
    images.extend(Behaviour::ALL.map(|behaviour| {
        AppImage::new(format!("{repository}:{}", behaviour.tag()), behaviour.tag())
            .service(service)
            .behaving(behaviour)
    }));
    println!("{}", app_archive(&images)?.display());
    println!("{}", proxy_image()?.display());
    Ok(())
}
