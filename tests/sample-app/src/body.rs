//! The body of an answer: whole, or fed piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// What every route answers with. Holds a guard, so that a request counts as open until its body is sent.
pub(crate) struct AppBody<G> {
    source: Source,
    _guard: G,
}

/// Where the bytes come from.
pub(crate) enum Source {
    Whole(Full<Bytes>),
    /// Ends when the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl Source {
    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// A body that the returned sender feeds. A slow reader holds the sender back after 4 pieces.
    pub(crate) fn stream() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(4);
        (sender, Self::Stream(receiver))
    }

    pub(crate) fn guarded<G>(self, guard: G) -> AppBody<G> {
        AppBody { source: self, _guard: guard }
    }
}

impl<G: Unpin> Body for AppBody<G> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.source {
            Source::Whole(full) => Pin::new(full).poll_frame(cx),
            Source::Stream(pieces) => {
                pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(full) => full.is_end_stream(),
            Source::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(full) => full.size_hint(),
            Source::Stream(_) => SizeHint::default(),
        }
    }
}
