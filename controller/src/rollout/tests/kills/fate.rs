//! Who dies, and when: every point of the driver and of the client that runs hooks is one where it may strike.

use std::sync::{Arc, Mutex, MutexGuard};

use dhow_proto::breakpoint::{Asked, Breakpoints, Wait};
use tokio::sync::watch;

use super::super::fleet::Fleet;
use super::super::mortal::Mortal;
use super::super::world::World;

/// Whether a person comes back after their client died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Person {
    /// `dhow rollout attach`, with what they saw of the hook that was left behind.
    Attaches,
    /// Never.
    StaysAway,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Controller,
    Client(Person),
    /// Both, as when one machine has them; the person attaches to the next controller.
    Both,
}

impl Victim {
    pub(super) fn is_controller(self) -> bool {
        match self {
            Self::Controller | Self::Both => true,
            Self::Client(_) => false,
        }
    }

    /// The person behind a client that dies.
    pub(super) fn person(self) -> Option<Person> {
        match self {
            Self::Controller => None,
            Self::Client(person) => Some(person),
            Self::Both => Some(Person::Attaches),
        }
    }
}

/// A death at the point of this number, counted from 0.
pub(super) type Strike = (usize, Victim);

#[derive(Default)]
struct State {
    strikes: Vec<Strike>,
    met: Vec<String>,
    /// Who has to die before anybody goes on.
    dying: Option<Victim>,
    /// Hooks that were run, in order.
    ran: Vec<String>,
    must_serve: Vec<(String, String)>,
    violations: Vec<String>,
}

/// Of one rollout.
pub(super) struct Fate {
    store: Arc<Mortal>,
    fleet: Arc<Fleet>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Fate {
    pub(super) fn new(world: &World, strikes: &[Strike]) -> Arc<Self> {
        let must_serve = world.fleet.serving();
        let state = State { strikes: strikes.to_vec(), must_serve, ..State::default() };
        Arc::new(Self {
            store: Arc::clone(&world.store),
            fleet: Arc::clone(&world.fleet),
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    pub(super) fn breakpoints(self: &Arc<Self>) -> Breakpoints {
        let asked: Arc<dyn Asked> = Arc::clone(self) as Arc<dyn Asked>;
        Breakpoints::of(asked)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let result = with(&mut self.lock());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    /// Every point so far.
    pub(super) fn met(&self) -> Vec<String> {
        self.lock().met.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The hook with this id runs.
    pub(super) fn runs(&self, id: &str) {
        self.lock().ran.push(id.to_owned());
    }

    /// What a person finds who looks whether a hook did its work.
    pub(super) fn has_run(&self, id: &str) -> bool {
        self.lock().ran.iter().any(|ran| ran == id)
    }

    /// Ids of the hooks that ran, in order.
    pub(super) fn ran(&self) -> Vec<String> {
        self.lock().ran.clone()
    }

    /// Whoever has to die now.
    pub(super) async fn dying(&self) -> Victim {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(victim) = self.lock().dying {
                return victim;
            }
            changed.changed().await.unwrap();
        }
    }

    /// They are dead; who is not goes on.
    pub(super) fn is_done(&self) {
        self.change(|s| s.dying = None);
    }

    /// What served before serves all the time.
    fn look(&self, point: &str) {
        let now = self.fleet.serving();
        let mut state = self.lock();
        let gone: Vec<_> = state.must_serve.iter().filter(|s| !now.contains(s)).collect();
        let gone = gone.iter().map(|(host, role)| format!("{host} serves no {role}: {point}"));
        let gone: Vec<String> = gone.collect();
        state.violations.extend(gone);
    }

    /// A point. One where somebody dies does not end before they are dead: for the dead, that is never.
    pub(super) async fn meet(&self, point: String) {
        let mut changed = self.changed.subscribe();
        while self.lock().dying.is_some() {
            changed.changed().await.unwrap();
        }
        self.look(&point);
        let victim = self.change(|s| {
            let number = s.met.len();
            s.met.push(point);
            s.dying = s.strikes.iter().find(|(at, _)| *at == number).map(|(_, v)| *v);
            s.dying
        });
        if victim.is_some_and(Victim::is_controller) {
            // What else it has under way does not happen either.
            self.store.die();
        }
        while self.lock().dying.is_some() {
            changed.changed().await.unwrap();
        }
    }
}

impl Asked for Fate {
    fn ask<'a>(&'a self, point: &'a str) -> Wait<'a> {
        Box::pin(self.meet(point.to_owned()))
    }
}
