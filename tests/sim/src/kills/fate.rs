//! Who dies at which point: every program of the simulation asks here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dhow_agent::engine::fake::FakeEngine;
use dhow_proto::breakpoint::{Asked, Breakpoints, Wait};
use tokio::sync::watch;

use crate::scenario::Fault;

/// What a program says of itself, and how often it had said so by then.
pub(crate) type Point = (String, usize);

/// What goes wrong at a point.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) fault: Fault,
    /// So long after the point; not zero: whoever met it goes on meanwhile.
    pub(crate) late: Duration,
}

#[derive(Default)]
struct State {
    /// The operation to be met has begun.
    armed: bool,
    deaths: Vec<(Point, Death)>,
    met: Vec<Point>,
    times: BTreeMap<String, usize>,
    /// Who has to die before anybody goes on.
    dying: Option<Death>,
    struck: usize,
}

/// Of one simulation; clones are the same.
#[derive(Clone)]
pub(crate) struct Fate {
    engines: Vec<FakeEngine>,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Fate {
    pub(crate) fn new(engines: Vec<FakeEngine>, deaths: Vec<(Point, Death)>) -> Self {
        let state = State { deaths, ..State::default() };
        Self { engines, state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(0) }
    }

    pub(crate) fn breakpoints(&self) -> Breakpoints {
        Breakpoints::of(Arc::new(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on points count.
    pub(crate) fn arm(&self) {
        self.lock().armed = true;
    }

    /// Every point so far, in order.
    pub(crate) fn met(&self) -> Vec<Point> {
        self.lock().met.clone()
    }

    /// How many of the deaths came about.
    pub(crate) fn struck(&self) -> usize {
        self.lock().struck
    }

    /// Whoever has to die now.
    pub(crate) fn dying(&self) -> Option<Death> {
        self.lock().dying.clone()
    }

    /// They are dead; who is not goes on.
    pub(crate) fn is_done(&self) {
        self.lock().dying = None;
        self.changed.send_modify(|n| *n += 1);
    }

    /// Nobody goes on while somebody has to die.
    async fn nobody_dies(&self) {
        let mut changed = self.changed.subscribe();
        while self.dying().is_some_and(|death| death.late.is_zero()) {
            // The other end is here.
            let _ = changed.changed().await;
        }
    }

    fn meet(&self, label: &str) {
        let mut state = self.lock();
        if !state.armed {
            return;
        }
        let times = state.times.entry(label.to_owned()).or_default();
        *times += 1;
        let point = (label.to_owned(), *times);
        let death = state.deaths.iter().find(|(at, _)| *at == point).map(|(_, d)| d.clone());
        state.met.push(point);
        let Some(death) = death else { return };
        state.struck += 1;
        // The others are killed between two steps of the simulation; until then their Engine would go on answering.
        if let Fault::Engine { host, .. } = death.fault {
            self.engines[host].go_away();
        }
        state.dying = Some(death);
    }
}

impl Asked for Fate {
    fn ask<'a>(&'a self, point: &'a str) -> Wait<'a> {
        Box::pin(async move {
            self.nobody_dies().await;
            self.meet(point);
            self.nobody_dies().await;
        })
    }
}
