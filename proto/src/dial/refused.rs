//! Looks at the first thing a controller says: whether it takes our certificate.
//!
//! In TLS 1.3 a client is done before the server has looked at its certificate. A refusal is an alert that comes with the
//! first read, when the HTTP/2 library has the connection, which makes "broken pipe" of it. So it is seen on its way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::Encrypted;

/// Nothing when the controller speaks HTTP/2; the reason when it refuses. It closes without a word where this never comes.
pub(super) type First = oneshot::Receiver<Result<(), String>>;

/// An encrypted connection that tells the first thing it hears.
pub(super) struct Listening {
    inner: Encrypted,
    teller: Option<oneshot::Sender<Result<(), String>>>,
}

impl Listening {
    pub(super) fn new(inner: Encrypted) -> (Self, First) {
        let (teller, first) = oneshot::channel();
        (Self { inner, teller: Some(teller) }, first)
    }

    fn heard(&mut self, read: Result<(), &io::Error>) {
        // Who asked may have given up.
        let Some(teller) = self.teller.take() else { return };
        match read {
            Ok(()) => {
                let _ = teller.send(Ok(()));
            }
            Err(error) => {
                let error = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
                if let Some(rustls::Error::AlertReceived(alert)) = error {
                    let _ = teller.send(Err(reason(*alert)));
                }
            }
        }
    }

    /// A write may fail before the alert is read that says why: its failure is held back until that is known. On a
    /// connection that is broken a read never waits for long.
    fn with_reason<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.teller.is_none() || !matches!(outcome, Poll::Ready(Err(_))) {
            return outcome;
        }
        let mut space = [0; 512];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => self.heard(Err(&error)),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.heard(Ok(())),
            Poll::Ready(Ok(())) => self.teller = None,
        }
        outcome
    }
}

/// The alert in words (RFC 8446, section 6.2; which one is sent for what is rustls's choice).
fn reason(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "it has expired".to_owned(),
        AlertDescription::CertificateRevoked => "it was revoked".to_owned(),
        AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::BadCertificate => "this controller did not give it".to_owned(),
        other => format!("{other:?}"),
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        match &read {
            Poll::Pending => {}
            Poll::Ready(Err(error)) => self.heard(Err(error)),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.heard(Ok(())),
            Poll::Ready(Ok(())) => self.teller = None,
        }
        read
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, data);
        self.with_reason(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.with_reason(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, data);
        self.with_reason(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
