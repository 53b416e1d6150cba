//! The loops on a model Engine: what the ledger and the board say, and what runs, after intents, drift and restarts; and
//! which units an event wakes.

mod holds;
mod kills;
mod lives;
mod settles;
mod world;

use dhow_proto::model::Unit;

use super::news::{Commands, Concern, SERVICES, Wake};
use crate::engine::EngineEvent;
use crate::testing::role;

#[test]
fn an_event_of_another_service_does_not_hide_one() {
    let mut wake = Wake::default();
    let before = wake.count(&role("web"));
    wake.note(Concern::Service("shop".to_owned()));
    wake.note(Concern::Service("blog".to_owned()));
    assert_ne!(wake.count(&role("web")), before);
    assert_eq!(wake.count(&Unit::Proxy), 0);
}

#[test]
fn an_event_of_another_service_wakes_nobody_here() {
    let mut wake = Wake::default();
    wake.note(Concern::Service("blog".to_owned()));
    assert_eq!(wake.count(&role("web")), 0);
}

#[test]
fn more_services_than_are_counted_wake_everybody() {
    let mut wake = Wake::default();
    for number in 0..=SERVICES {
        wake.note(Concern::Service(format!("other-{number}")));
    }
    assert_eq!(wake.count(&role("web")), 1);
    assert_eq!(wake.services.len(), SERVICES);
}

fn event(name: &str, action: &str, attributes: &[(&str, &str)]) -> EngineEvent {
    let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    EngineEvent { action: action.into(), id: "1".into(), name: name.into(), attributes }
}

#[test]
fn a_route_removed_by_hand_wakes_its_role_when_the_command_has_ended() {
    let mut commands = Commands::default();
    let mut hear = |action: &str, exec: &str| {
        commands.concern(&event("kamal-proxy", action, &[("execID", exec)]))
    };
    assert_eq!(hear("exec_create: kamal-proxy remove shop-web", "a"), None);
    assert_eq!(hear("exec_start: kamal-proxy list", "b"), None);
    assert_eq!(hear("exec_start: kamal-proxy remove shop-web", "a"), None);
    assert_eq!(hear("exec_die", "b"), None);
    let concern = hear("exec_die", "a").unwrap();
    assert_eq!(concern, Concern::Route("shop-web".into()));
    assert_eq!(hear("exec_die", "a"), None);
    let mut wake = Wake::default();
    wake.note(concern);
    assert_eq!((wake.count(&role("web")), wake.count(&role("job"))), (1, 0));
}

#[test]
fn the_end_of_the_network_wakes_everybody_and_traffic_in_it_nobody() {
    let mut commands = Commands::default();
    assert_eq!(commands.concern(&event("kamal", "connect", &[])), None);
    assert_eq!(commands.concern(&event("other", "destroy", &[])), None);
    assert_eq!(commands.concern(&event("kamal", "destroy", &[])), Some(Concern::Everything));
}
