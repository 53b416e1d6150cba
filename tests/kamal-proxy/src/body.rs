//! Bodies in both directions, as one type.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Any error a body can end with.
pub(crate) type BodyError = Box<dyn Error + Send + Sync>;

/// A body on its way to a target or to a client.
pub(crate) type ProxyBody = BoxBody<Bytes, BodyError>;

/// A body that is known whole.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> ProxyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body that does not tell its length beforehand, so that it is sent in chunks.
pub(crate) fn in_chunks(bytes: Bytes) -> ProxyBody {
    if bytes.is_empty() {
        return whole(bytes);
    }
    Unannounced(Some(bytes)).boxed()
}

struct Unannounced(Option<Bytes>);

impl Body for Unannounced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// A body that can be cut: it fails when `cancel` fires, which breaks the connection off. Drops
/// `guard` with its end, and tells `ended` when its last frame was read.
pub(crate) struct Watched<G> {
    body: Incoming,
    cancel: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: CancellationToken,
    guard: G,
}

impl<G> Watched<G> {
    pub(crate) fn new(
        body: Incoming,
        cancel: CancellationToken,
        ended: CancellationToken,
        guard: G,
    ) -> Self {
        if body.is_end_stream() {
            ended.cancel();
        }
        Self { body, cancel: Box::pin(cancel.cancelled_owned()), ended, guard }
    }
}

/// What counts the bytes of a body as they pass.
pub(crate) trait Count {
    /// `bytes` more have passed.
    fn count(&mut self, bytes: usize);
}

impl Count for () {
    fn count(&mut self, _: usize) {}
}

impl<G: Count + Unpin> Body for Watched<G> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.cancel.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the request was cancelled by a drain".into())));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.guard.count(bytes);
        }
        if frame.is_none() || self.body.is_end_stream() {
            self.ended.cancel();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
