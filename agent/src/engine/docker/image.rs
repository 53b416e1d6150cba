//! Images: what there is, and pulls.

use std::time::Duration;

use bollard::query_parameters;
use dhow_proto::model::ImageRef;
use futures_util::{StreamExt as _, TryStreamExt as _};
use secrecy::ExposeSecret as _;

use super::Docker;
use super::call::{QUICK, bounded, filters};
use super::translate::{self, Pull};
use crate::engine::{Credentials, EngineError, ImageFilter, ImageView, PullProgress};

impl Docker {
    pub(super) async fn inspect_image(
        &self,
        reference: &str,
    ) -> Result<Option<ImageView>, EngineError> {
        match bounded("inspect image", QUICK, self.client().await?.inspect_image(reference)).await {
            Ok(image) => Ok(Some(translate::image(image))),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn list_images(
        &self,
        filter: ImageFilter<'_>,
    ) -> Result<Vec<ImageView>, EngineError> {
        let filters = match filter {
            ImageFilter::Label(label) => filters("label", vec![label.to_owned()]),
            ImageFilter::Repository(repository) => {
                filters("reference", vec![repository.to_owned()])
            }
        };
        let options = query_parameters::ListImagesOptions { filters, ..Default::default() };
        let images =
            bounded("images", QUICK, self.client().await?.list_images(Some(options))).await?;
        Ok(images.into_iter().map(translate::listed_image).collect())
    }

    pub(super) async fn pull_image(
        &self,
        image: &ImageRef,
        credentials: Option<&Credentials>,
        idle: Duration,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<(), EngineError> {
        let options = query_parameters::CreateImageOptions {
            from_image: Some(image.repository.clone()),
            // Without a tag the Engine pulls every tag there is.
            tag: Some(image.tag.clone()),
            ..Default::default()
        };
        let credentials = credentials.map(|c| bollard::auth::DockerCredentials {
            username: Some(c.username.expose_secret().to_owned()),
            password: Some(c.password.expose_secret().to_owned()),
            serveraddress: Some(c.server.clone()).filter(|s| !s.is_empty()),
            ..Default::default()
        });
        let mut stream =
            self.client().await?.create_image(Some(options), None, credentials).boxed();
        let mut pull = Pull::default();
        loop {
            let heard = tokio::time::timeout(idle, stream.try_next()).await;
            let message = heard.map_err(|_| EngineError::TimedOut {
                what: format!("pull of {image}"),
                after: idle,
            })?;
            match message {
                Ok(None) => return Ok(()),
                Ok(Some(message)) => {
                    // Errors can arrive inside a successful answer.
                    if let Some(error) = message.error_detail {
                        return Err(EngineError::from_pull(error.message.unwrap_or_default()));
                    }
                    if let Some(so_far) = pull.hear(message) {
                        progress(so_far);
                    }
                }
                Err(error) => return Err(translate::pull_failed(error)),
            }
        }
    }
}
