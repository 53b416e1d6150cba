//! What a load saw, computed from its requests; pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many failures a report spells out.
const FAILURES_SHOWN: usize = 20;

/// One finished request, times in microseconds since the load's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) planned_us: u64,
    pub(crate) done_us: u64,
    pub(crate) outcome: Result<Answer, String>,
}

/// An answer that arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Option<String>,
}

/// What a load saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered with a 2xx status, whole.
    pub ok: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole answer, by what went wrong.
    pub errors: BTreeMap<String, u64>,
    /// Answers by `X-Version`.
    pub versions: BTreeMap<String, u64>,
    /// Time from a request's planned time to the end of its answer, in milliseconds: half of all took no longer.
    pub p50_ms: f64,
    /// As `p50_ms`, for 99 of 100.
    pub p99_ms: f64,
    /// As `p50_ms`, the slowest.
    pub max_ms: f64,
    /// The longest time in which no request was sent that succeeded later.
    pub longest_gap: Gap,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// Time slices with at least one request, in order.
    pub slices: Vec<Slice>,
}

/// A stretch of time, in milliseconds since the load's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Its beginning.
    pub from_ms: f64,
    /// Its end.
    pub to_ms: f64,
}

impl Gap {
    /// Its length in milliseconds.
    #[must_use]
    pub fn ms(&self) -> f64 {
        self.to_ms - self.from_ms
    }
}

/// A request that failed: no answer, or one that is not 2xx.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// When it was sent, in milliseconds since the load's start.
    pub at_ms: f64,
    /// How long it took.
    pub took_ms: f64,
    /// The status or the error.
    pub what: String,
}

/// What the requests sent within one slice of time saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Its beginning, in milliseconds since the load's start.
    pub at_ms: u64,
    /// 2xx answers.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// Answers by `X-Version`.
    pub versions: BTreeMap<String, u64>,
}

impl LoadReport {
    /// Requests that were not answered with a 2xx status.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.sent - self.ok
    }

    pub(crate) fn of(mut samples: Vec<Sample>, slice_ms: u64) -> Self {
        samples.sort_by_key(|sample| sample.planned_us);
        let mut report = Self {
            sent: samples.len() as u64,
            ok: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            versions: BTreeMap::new(),
            p50_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            longest_gap: longest_gap(&samples),
            failures: Vec::new(),
            slices: Vec::new(),
        };
        for sample in &samples {
            report.count(sample, slice_ms);
        }
        let mut took: Vec<u64> = samples.iter().map(Sample::took_us).collect();
        took.sort_unstable();
        report.p50_ms = percentile(&took, 50);
        report.p99_ms = percentile(&took, 99);
        report.max_ms = percentile(&took, 100);
        report
    }

    fn count(&mut self, sample: &Sample, slice_ms: u64) {
        let at_ms = sample.planned_us / 1000 / slice_ms * slice_ms;
        if self.slices.last().is_none_or(|slice| slice.at_ms != at_ms) {
            self.slices.push(Slice { at_ms, ..Slice::default() });
        }
        let slice = self.slices.last_mut();
        if sample.succeeded() {
            self.ok += 1;
        } else if self.failures.len() < FAILURES_SHOWN {
            self.failures.push(sample.failure());
        }
        match &sample.outcome {
            Ok(answer) => {
                *self.statuses.entry(answer.status).or_default() += 1;
                if let Some(version) = &answer.version {
                    *self.versions.entry(version.clone()).or_default() += 1;
                }
            }
            Err(error) => *self.errors.entry(error.clone()).or_default() += 1,
        }
        if let Some(slice) = slice {
            if sample.succeeded() {
                slice.ok += 1
            } else {
                slice.failed += 1
            }
            if let Ok(Answer { version: Some(version), .. }) = &sample.outcome {
                *slice.versions.entry(version.clone()).or_default() += 1;
            }
        }
    }
}

impl Sample {
    fn succeeded(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|answer| (200..300).contains(&answer.status))
    }

    fn took_us(&self) -> u64 {
        self.done_us.saturating_sub(self.planned_us)
    }

    fn failure(&self) -> Failure {
        let what = match &self.outcome {
            Ok(answer) => format!("status {}", answer.status),
            Err(error) => error.clone(),
        };
        Failure { at_ms: ms(self.planned_us), took_ms: ms(self.took_us()), what }
    }
}

/// Between the load's first and last request, both counted as if they had succeeded: an app that
/// never answers has one long gap.
fn longest_gap(samples: &[Sample]) -> Gap {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Gap::default();
    };
    let good = samples.iter().filter(|sample| sample.succeeded()).map(|sample| sample.planned_us);
    let mut longest = (0, 0);
    let mut before = first.planned_us;
    for at in good.chain([last.planned_us]) {
        if at - before > longest.1 - longest.0 {
            longest = (before, at);
        }
        before = at;
    }
    Gap { from_ms: ms(longest.0), to_ms: ms(longest.1) }
}

/// The value that `percent` of all do not exceed, of a sorted list, in milliseconds.
fn percentile(sorted_us: &[u64], percent: usize) -> f64 {
    let rank = (sorted_us.len() * percent).div_ceil(100);
    sorted_us.get(rank.saturating_sub(1)).copied().map_or(0.0, ms)
}

#[expect(clippy::cast_precision_loss, reason = "an hour in microseconds is exact in an f64")]
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, took_ms: u64, status: u16, version: &str) -> Sample {
        Sample {
            planned_us: at_ms * 1000,
            done_us: (at_ms + took_ms) * 1000,
            outcome: Ok(Answer { status, version: Some(version.to_owned()) }),
        }
    }

    #[test]
    fn the_gap_is_between_the_sending_of_requests_that_succeeded() {
        let mut samples: Vec<Sample> = (0..10).map(|i| sample(i * 10, 1, 200, "v1")).collect();
        samples[4].outcome = Err("connection refused".to_owned());
        samples[5] = sample(50, 1, 502, "v1");
        let report = LoadReport::of(samples, 50);
        assert_eq!(report.longest_gap, Gap { from_ms: 30.0, to_ms: 60.0 });
        assert_eq!((report.ok, report.failed()), (8, 2));
        assert_eq!(report.failures[0].what, "connection refused");
        assert_eq!(report.failures[1].what, "status 502");
    }

    #[test]
    fn an_app_that_never_answers_has_one_long_gap() {
        let refused = |at: u64| Sample {
            planned_us: at * 1000,
            done_us: at * 1000,
            outcome: Err("connection refused".to_owned()),
        };
        assert_eq!(LoadReport::of(vec![refused(0), refused(70)], 50).longest_gap.ms(), 70.0);
    }

    #[test]
    fn slices_show_when_the_version_changed() {
        let samples =
            vec![sample(0, 1, 200, "v1"), sample(120, 9, 200, "v2"), sample(60, 2, 200, "v1")];
        let report = LoadReport::of(samples, 50);
        let seen: Vec<(u64, Vec<&String>)> =
            report.slices.iter().map(|s| (s.at_ms, s.versions.keys().collect())).collect();
        assert_eq!(format!("{seen:?}"), r#"[(0, ["v1"]), (50, ["v1"]), (100, ["v2"])]"#);
        assert_eq!((report.p50_ms, report.p99_ms, report.max_ms), (2.0, 9.0, 9.0));
    }
}
