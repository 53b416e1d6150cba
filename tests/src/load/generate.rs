//! Sends the requests; runs inside the program `dhow-load`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::report::{Answer, LoadReport, Sample};
use super::spec::{Kind, LoadSpec};

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// Requests on the way at one time. More would exhaust file handles; a request beyond it counts as failed.
const MAX_OPEN: usize = 4000;

/// Sends what `spec` says until it is done or `stop` resolves, waits for the answers, and reports.
///
/// # Errors
///
/// When `spec` is out of bounds or its URL is none.
pub async fn generate(spec: &LoadSpec, stop: impl Future<Output = ()>) -> Result<LoadReport> {
    spec.check()?;
    let base: Uri = spec.url.parse().with_context(|| format!("read the URL {}", spec.url))?;
    let plan = Arc::new(Plan { spec: spec.clone(), base });
    let start = Instant::now();
    // As deep as requests can be open, so that a task which finishes never waits for the collector.
    let (done, mut finished) = mpsc::channel::<Sample>(MAX_OPEN);
    let collector = tokio::spawn(async move {
        let mut samples = Vec::new();
        while let Some(sample) = finished.recv().await {
            samples.push(sample);
        }
        samples
    });
    tokio::select! {
        // Dropping it leaves no request behind half-made: each runs in its own task.
        () = send(plan, start, done) => {}
        () = stop => {}
    }
    let samples = collector.await.context("collect the answers")?;
    Ok(LoadReport::of(samples, spec.slice_ms))
}

struct Plan {
    spec: LoadSpec,
    base: Uri,
}

async fn send(plan: Arc<Plan>, start: Instant, done: mpsc::Sender<Sample>) {
    let pooled: HttpClient = Client::builder(TokioExecutor::new())
        // hyper would otherwise send a request again whose connection was closed meanwhile.
        .retry_canceled_requests(false)
        .build(connector());
    let open = Arc::new(tokio::sync::Semaphore::new(MAX_OPEN));
    for number in 0..plan.spec.count {
        let planned = Duration::from_secs_f64(number_as_f64(number) / plan.spec.rate);
        if planned >= Duration::from_millis(plan.spec.duration_ms) {
            return;
        }
        sleep_until(start + planned).await;
        let planned_us = micros(planned);
        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else {
            let outcome = Err(format!("more than {MAX_OPEN} requests are open"));
            let sample = Sample { planned_us, done_us: micros(start.elapsed()), outcome };
            if done.send(sample).await.is_err() {
                return;
            }
            continue;
        };
        let every = plan.spec.new_connection_every;
        let fresh = every != 0 && number % every == 0;
        let client = if fresh { single_use() } else { pooled.clone() };
        let (plan, done) = (Arc::clone(&plan), done.clone());
        tokio::spawn(async move {
            let limit = Duration::from_millis(plan.spec.timeout_ms);
            let outcome = match timeout(limit, plan.request(&client, number, fresh)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {} ms", plan.spec.timeout_ms)),
            };
            let done_us = micros(start.elapsed());
            // The collector is gone only when the program ends.
            let _ = done.send(Sample { planned_us, done_us, outcome }).await;
            drop(permit);
        });
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector
}

fn single_use() -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .retry_canceled_requests(false)
        .build(connector())
}

impl Plan {
    async fn request(
        &self,
        client: &HttpClient,
        number: u64,
        fresh: bool,
    ) -> Result<Answer, String> {
        let request = self.build(number, fresh).map_err(|error| format!("{error:#}"))?;
        let response = client.request(request).await.map_err(|error| cause(&error))?;
        let status = response.status().as_u16();
        let version = response.headers().get("x-version").and_then(|value| value.to_str().ok());
        let version = version.map(str::to_owned);
        // An answer cut off half-way is a failure, whatever its status said.
        response.into_body().collect().await.map_err(|error| cause(&error))?;
        Ok(Answer { status, version })
    }

    fn build(&self, number: u64, fresh: bool) -> Result<Request<Full<Bytes>>> {
        let kinds = self.spec.mix.len() as u64;
        let at = usize::try_from(number % kinds).context("count the kinds")?;
        let (method, uri, body) = match &self.spec.mix[at] {
            Kind::Get => (Method::GET, self.base.clone(), Bytes::new()),
            Kind::Post { bytes } => {
                (Method::POST, self.base.clone(), Bytes::from(vec![b'x'; *bytes]))
            }
            Kind::Slow { ms } => (Method::GET, self.slow(*ms)?, Bytes::new()),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(host) = &self.spec.host {
            request = request.header(HOST, host);
        }
        if fresh {
            request = request.header(CONNECTION, "close");
        }
        request.body(Full::new(body)).context("make a request")
    }

    fn slow(&self, ms: u64) -> Result<Uri> {
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(format!("/slow?ms={ms}").parse().context("make a path")?);
        Uri::from_parts(parts).context("make a URL")
    }
}

/// The innermost cause, which says most: `Connection refused (os error 111)`.
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a load has at most a million requests")]
fn number_as_f64(number: u64) -> f64 {
    number as f64
}
