//! Repeats and reorders messages of sessions, in both directions.
//!
//! The simulated network delays, drops and cuts, but TCP puts in order what arrives. So that messages themselves come twice
//! or late, this layer around the controller's services works on the gRPC frames of `FleetService.Session`: it delivers
//! some a second time, up to seconds later, and holds some back while others overtake them. The first message of a stream
//! (Hello, Welcome) stays the first.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::number::Numbers;

const SESSION: &str = "/dhow.v1.FleetService/Session";

/// Flag and length of a gRPC frame.
const HEADER: usize = 5;

/// How much is shuffled: chances in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Odds {
    pub(crate) repeat: u64,
    pub(crate) delay: u64,
}

/// Wraps the services of a controller.
#[derive(Clone)]
pub(crate) struct Shuffle {
    odds: Odds,
    numbers: Arc<Mutex<Numbers>>,
}

impl Shuffle {
    pub(crate) fn new(odds: Odds, numbers: Numbers) -> Self {
        Self { odds, numbers: Arc::new(Mutex::new(numbers)) }
    }

    fn body(&self, inner: Body) -> Body {
        let numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).fork();
        Body::new(Shuffled {
            inner,
            odds: self.odds,
            numbers,
            buffer: BytesMut::new(),
            waiting: VecDeque::new(),
            trailers: None,
            ended: false,
            frames: 0,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        })
    }
}

impl<S> Layer<S> for Shuffle {
    type Service = Shuffling<S>;

    fn layer(&self, inner: S) -> Shuffling<S> {
        Shuffling { inner, shuffle: self.clone() }
    }
}

/// A service whose sessions are shuffled.
#[derive(Clone)]
pub(crate) struct Shuffling<S> {
    inner: S,
    shuffle: Shuffle,
}

impl<S> Service<http::Request<Body>> for Shuffling<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != SESSION {
            return Box::pin(self.inner.call(request));
        }
        let shuffle = self.shuffle.clone();
        let answer = self.inner.call(request.map(|body| shuffle.body(body)));
        Box::pin(async move { Ok(answer.await?.map(|body| shuffle.body(body))) })
    }
}

struct Shuffled {
    inner: Body,
    odds: Odds,
    numbers: Numbers,
    buffer: BytesMut,
    /// By the time they are due.
    waiting: VecDeque<(Instant, Bytes)>,
    trailers: Option<HeaderMap>,
    ended: bool,
    frames: u64,
    timer: Pin<Box<Sleep>>,
}

impl Shuffled {
    fn take_frames(&mut self) {
        while self.buffer.len() >= HEADER {
            let length = (&self.buffer[1..HEADER]).get_u32() as usize;
            if self.buffer.len() < HEADER + length {
                return;
            }
            let frame = self.buffer.split_to(HEADER + length).freeze();
            let now = Instant::now();
            self.frames += 1;
            if self.frames == 1 {
                self.put(now, frame);
                continue;
            }
            if self.numbers.percent(self.odds.repeat) {
                let later = now + self.numbers.millis(0, 9_000);
                self.put(later, frame.clone());
            }
            let delay = match self.numbers.percent(self.odds.delay) {
                true => self.numbers.millis(10, 1_500),
                false => Duration::ZERO,
            };
            self.put(now + delay, frame);
        }
    }

    fn put(&mut self, due: Instant, frame: Bytes) {
        let at = self.waiting.partition_point(|(other, _)| *other <= due);
        self.waiting.insert(at, (due, frame));
    }
}

impl http_body::Body for Shuffled {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        loop {
            match this.waiting.front() {
                Some((due, _)) if this.ended || *due <= Instant::now() => {
                    let (_, frame) = this.waiting.pop_front().expect("there is a first");
                    return Poll::Ready(Some(Ok(Frame::data(frame))));
                }
                Some((due, _)) => this.timer.as_mut().reset(*due),
                None if this.ended => {
                    return Poll::Ready(this.trailers.take().map(|t| Ok(Frame::trailers(t))));
                }
                None => {}
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.buffer.extend_from_slice(&data);
                        this.take_frames();
                    }
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok();
                        this.ended = true;
                    }
                },
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => this.ended = true,
                Poll::Pending if this.waiting.is_empty() => return Poll::Pending,
                Poll::Pending => ready!(this.timer.as_mut().poll(cx)),
            }
        }
    }
}
