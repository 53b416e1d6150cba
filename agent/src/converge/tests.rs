//! The loops on a model Engine: what the ledger and the board say, and what runs, after intents, drift and restarts; and
//! which units an event wakes.

mod holds;
mod lives;
mod settles;
mod world;

use dhow_proto::model::Unit;

use super::{SERVICES, Wake};
use crate::testing::role;

#[test]
fn an_event_of_another_service_does_not_hide_one() {
    let mut wake = Wake::default();
    let before = wake.count(&role("web"));
    wake.note(Some("shop".to_owned()));
    wake.note(Some("blog".to_owned()));
    assert_ne!(wake.count(&role("web")), before);
    assert_eq!(wake.count(&Unit::Proxy), 0);
}

#[test]
fn an_event_of_another_service_wakes_nobody_here() {
    let mut wake = Wake::default();
    wake.note(Some("blog".to_owned()));
    assert_eq!(wake.count(&role("web")), 0);
}

#[test]
fn more_services_than_are_counted_wake_everybody() {
    let mut wake = Wake::default();
    for number in 0..=SERVICES {
        wake.note(Some(format!("other-{number}")));
    }
    assert_eq!(wake.count(&role("web")), 1);
    assert_eq!(wake.services.len(), SERVICES);
}
