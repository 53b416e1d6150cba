//! The rooms of the authority together, on a store in memory and a clock that stands still.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::clock::ManualClock;
use crate::store::memory::Memory;
use crate::store::{Op, Store, Txn};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Room {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    secret: WrapSecret,
    ca: Ca,
    tokens: Tokens,
}

fn random_secret() -> WrapSecret {
    let folder = tempfile::tempdir().unwrap();
    WrapSecret::create_file(&folder.path().join("ca.wrap")).unwrap()
}

async fn room() -> Room {
    let clock = Arc::new(ManualClock::at("2026-11-23T12:00:00Z".parse().unwrap()));
    let store: Arc<dyn Store> = Arc::new(Memory::new(clock.clone()));
    let secret = random_secret();
    let ca = Ca::create(store.clone(), clock.clone(), &secret, Validity::default()).await.unwrap();
    let tokens = Tokens::new(store.clone(), clock.clone(), &ca);
    Room { store, clock, secret, ca, tokens }
}

fn host(name: &str) -> Identity {
    Identity::Host(name.try_into().unwrap())
}

fn user(name: &str) -> Identity {
    Identity::User(name.try_into().unwrap())
}

fn csr(names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let key = KeyPair::generate().unwrap();
    CertificateParams::new(names).unwrap().serialize_request(&key).unwrap().der().to_vec()
}

fn join(name: &str) -> Grant {
    Grant::Join { host: name.try_into().unwrap(), reenrol: false }
}

#[tokio::test]
async fn an_issued_certificate_carries_its_identity_and_nothing_of_the_request_but_the_key() {
    let room = room().await;
    let issued = room.ca.issue(&host("web-1"), &csr(&["evil.example.com"])).await.unwrap();
    let peer = peer(&issued.certificate_der).unwrap();
    assert_eq!(peer.identity, host("web-1"));
    assert_eq!((&peer.serial, peer.generation), (&issued.serial, 1));
    let (_, certificate) = X509Certificate::from_der(&issued.certificate_der).unwrap();
    assert!(!certificate.is_ca());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(certificate.key_usage().unwrap().unwrap().value.digital_signature());
    let text = String::from_utf8_lossy(&issued.certificate_der);
    assert!(!text.contains("evil"));
}

#[tokio::test]
async fn hosts_get_seven_days_and_people_thirty_with_room_for_slow_clocks() {
    let room = room().await;
    let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    for (identity, days) in [(host("web-1"), 7), (user("ada"), 30)] {
        let issued = room.ca.issue(&identity, &csr(&[])).await.unwrap();
        let (_, certificate) = X509Certificate::from_der(&issued.certificate_der).unwrap();
        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), now.as_second() - 300);
        assert_eq!(validity.not_after.timestamp(), now.as_second() + days * 24 * 3600);
        assert_eq!(issued.not_after.as_second(), validity.not_after.timestamp());
    }
}

#[tokio::test]
async fn serial_numbers_are_positive_and_never_the_same() {
    let room = room().await;
    let request = csr(&[]);
    let first = room.ca.issue(&host("a"), &request).await.unwrap();
    let second = room.ca.issue(&host("a"), &request).await.unwrap();
    assert_ne!(first.serial, second.serial);
    assert_eq!(first.serial.to_string().len(), 32);
}

#[tokio::test]
async fn requests_that_are_none_are_refused() {
    let room = room().await;
    let mut forged = csr(&[]);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for request in [vec![], vec![0; 100], vec![0; MAX_CSR_BYTES + 1], forged] {
        let refused = room.ca.issue(&host("a"), &request).await;
        assert!(matches!(refused, Err(IssueError::MalformedRequest)), "{refused:?}");
    }
}

#[tokio::test]
async fn the_server_certificate_has_names_and_addresses_and_brings_its_ca() {
    let room = room().await;
    let names = ["dhow.example.com", "10.0.0.1", "::1"].map(String::from);
    let server = room.ca.issue_server(&names).unwrap();
    assert_eq!(server.chain[1..], *room.ca.ca_set().certificates());
    let (_, certificate) = X509Certificate::from_der(&server.chain[0]).unwrap();
    let sans = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(sans.value.general_names.len(), 3);
    assert!(certificate.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert!(!format!("{server:?}").contains("PRIVATE"));
}

#[tokio::test]
async fn server_names_that_no_client_could_check_are_refused() {
    let room = room().await;
    for name in ["", "a b", "http://x", "10.0.0.1:7443", "-x", "ü.example.com"] {
        let refused = room.ca.issue_server(&[name.to_owned()]);
        assert!(matches!(refused, Err(IssueError::BadServerName(_))), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn the_authority_opens_with_its_secret_only() {
    let room = room().await;
    let open =
        |secret| Ca::open(room.store.clone(), room.clock.clone(), secret, Validity::default());
    let again = open(&room.secret).await.unwrap();
    assert_eq!((again.pin(), again.ca_set()), (room.ca.pin(), room.ca.ca_set()));
    let refused = open(&random_secret()).await;
    assert!(matches!(refused, Err(CaError::Wrap(WrapError::WrongSecret))), "{refused:?}");
}

#[tokio::test]
async fn a_second_authority_is_refused_and_a_missing_one_is_said_so() {
    let room = room().await;
    let create = |store| Ca::create(store, room.clock.clone(), &room.secret, Validity::default());
    assert!(matches!(create(room.store.clone()).await, Err(CaError::Exists)));
    let empty = Arc::new(Memory::new(room.clock.clone()));
    let opened = Ca::open(empty, room.clock.clone(), &room.secret, Validity::default()).await;
    assert!(matches!(opened, Err(CaError::Missing)));
}

#[tokio::test]
async fn the_key_is_not_in_the_store_in_clear() {
    use base64::Engine as _;
    let room = room().await;
    let stored = room.store.get("ca".into()).await.unwrap().unwrap();
    let key = room.ca.issuer.key().serialized_der();
    // The private scalar of a P-256 key in PKCS#8 begins at byte 36.
    let scalar = &key[36..68];
    let base64 = base64::engine::general_purpose::STANDARD.encode(key);
    for canary in [scalar.to_vec(), hex::encode(scalar).into(), base64[60..100].into()] {
        assert!(!stored.value.windows(canary.len()).any(|window| window == canary));
    }
}

#[tokio::test]
async fn a_token_is_used_once() {
    let room = room().await;
    let token = room.tokens.create(join("web-1"), DAY).await.unwrap();
    assert_eq!(room.tokens.consume(&token.text, Kind::Join).await.unwrap(), join("web-1"));
    let refused = room.tokens.consume(&token.text, Kind::Join).await.unwrap_err();
    assert!(matches!(refused, TokenError::Used { .. }) && refused.is_refusal());
}

#[tokio::test]
async fn of_many_who_use_a_token_at_once_one_wins() {
    let room = room().await;
    let token = Arc::new(room.tokens.create(join("web-1"), DAY).await.unwrap());
    let mut presented = Vec::new();
    for _ in 0..5 {
        presented.push(room.tokens.check(&token.text, Kind::Join).await.unwrap());
    }
    let mut won = 0;
    for presented in presented {
        let txn = presented.spend(Txn::new().then(Op::put("host/web-1", "record")));
        won += u32::from(room.store.txn(txn).await.unwrap().succeeded);
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_token_expires() {
    let room = room().await;
    let token = room.tokens.create(join("web-1"), DAY).await.unwrap();
    room.clock.advance(DAY);
    let refused = room.tokens.consume(&token.text, Kind::Join).await.unwrap_err();
    assert!(matches!(refused, TokenError::Expired { at } if at == token.expires_at));
}

#[tokio::test]
async fn a_token_of_another_kind_is_refused() {
    let room = room().await;
    let token = room.tokens.create(join("web-1"), DAY).await.unwrap();
    let refused = room.tokens.consume(&token.text, Kind::Login).await.unwrap_err();
    assert_eq!(refused.to_string(), "this is not a login token");
    let relabelled = token.text.expose_secret().replacen(".join.", ".login.", 1).into();
    let refused = room.tokens.consume(&relabelled, Kind::Login).await.unwrap_err();
    assert!(matches!(refused, TokenError::WrongKind { .. }));
}

#[tokio::test]
async fn a_made_up_cut_off_or_foreign_token_is_refused() {
    let room = room().await;
    let token = room.tokens.create(join("web-1"), DAY).await.unwrap();
    let text = token.text.expose_secret();
    let foreign = super::tests::room().await.tokens.create(join("web-1"), DAY).await.unwrap();
    let parts: Vec<&str> = text.split('.').collect();
    let other_secret = foreign.text.expose_secret().split('.').nth(3).unwrap().to_owned();
    let mixed = [parts[0], parts[1], parts[2], other_secret.as_str(), parts[4]].join(".");
    let unknown = [foreign.text.expose_secret().to_owned(), mixed];
    for text in unknown {
        let refused = room.tokens.check(&SecretString::from(text), Kind::Join).await.unwrap_err();
        assert!(matches!(refused, TokenError::Unknown), "{refused:?}");
    }
    let malformed = [
        String::new(),
        "dhow1".into(),
        text[..text.len() - 1].to_owned(),
        text.replacen("dhow1", "dhow2", 1),
        format!("{text}.x"),
        [parts[0], parts[1], "../../ca", parts[3], parts[4]].join("."),
        [parts[0], parts[1], parts[2], "AAAA", parts[4]].join("."),
    ];
    for text in malformed {
        let refused = room.tokens.check(&SecretString::from(text), Kind::Join).await.unwrap_err();
        assert!(matches!(refused, TokenError::Malformed), "{refused:?}");
    }
}

#[tokio::test]
async fn a_token_pins_the_authority_and_its_secret_is_stored_as_a_hash_only() {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let room = room().await;
    let token = room.tokens.create(join("web-1"), DAY).await.unwrap();
    let text = token.text.expose_secret();
    let parts: Vec<&str> = text.split('.').collect();
    assert_eq!(base64.decode(parts[4]).unwrap(), room.ca.pin());
    let secret = base64.decode(parts[3]).unwrap();
    for entry in room.store.read_all("").await.unwrap().entries {
        let value = entry.value.to_vec();
        for canary in [secret.clone(), parts[3].into(), hex::encode(&secret).into()] {
            assert!(!value.windows(canary.len()).any(|window| window == canary));
        }
    }
    assert!(!format!("{token:?}").contains(parts[3]));
}

#[tokio::test]
async fn a_token_is_valid_for_some_time_but_not_for_ever() {
    let room = room().await;
    for validity in [Duration::ZERO, DAY * 31] {
        let refused = room.tokens.create(join("web-1"), validity).await;
        assert!(matches!(refused, Err(TokenError::BadValidity)));
    }
}

#[tokio::test]
async fn a_grant_keeps_what_it_grants() {
    let room = room().await;
    let app = dhow_proto::model::App { service: "shop".try_into().unwrap(), destination: None };
    let user = UserName::try_from("ada").unwrap();
    let grant = Grant::Login { user, role: Role::Deployer, apps: vec![app] };
    let token = room.tokens.create(grant.clone(), DAY).await.unwrap();
    assert_eq!(room.tokens.consume(&token.text, Kind::Login).await.unwrap(), grant);
}

#[tokio::test]
async fn old_tokens_are_swept_a_week_after_they_expired() {
    let room = room().await;
    let token = room.tokens.create(join("web-1"), DAY).await.unwrap();
    room.clock.advance(DAY * 7);
    assert_eq!(room.tokens.sweep().await.unwrap(), 0);
    room.clock.advance(DAY);
    assert_eq!(room.tokens.sweep().await.unwrap(), 1);
    let refused = room.tokens.check(&token.text, Kind::Join).await.unwrap_err();
    assert!(matches!(refused, TokenError::Unknown));
}

async fn issued_peer(room: &Room, identity: &Identity) -> Peer {
    peer(&room.ca.issue(identity, &csr(&[])).await.unwrap().certificate_der).unwrap()
}

#[tokio::test]
async fn revoking_an_identity_refuses_what_it_had_and_enrolling_anew_works() {
    let room = room().await;
    let revocations = Revocations::load(room.store.clone()).await.unwrap();
    let (old, other) = (issued_peer(&room, &host("a")).await, issued_peer(&room, &host("b")).await);
    let namesake = issued_peer(&room, &user("a")).await;
    revocations.check(&old).unwrap();

    revocations.revoke_identity(&host("a")).await.unwrap();
    assert_eq!(revocations.check(&old), Err(Revoked::Identity { identity: host("a") }));
    revocations.check(&other).unwrap();
    revocations.check(&namesake).unwrap();
    let new = issued_peer(&room, &host("a")).await;
    assert_eq!(new.generation, 2);
    revocations.check(&new).unwrap();
    revocations.revoke_identity(&host("a")).await.unwrap();
    assert!(revocations.check(&new).is_err());
}

#[tokio::test]
async fn revoking_a_certificate_spares_the_others_of_its_bearer() {
    let room = room().await;
    let revocations = Revocations::load(room.store.clone()).await.unwrap();
    let (one, two) = (issued_peer(&room, &user("a")).await, issued_peer(&room, &user("a")).await);
    revocations.revoke_certificate(&one).await.unwrap();
    let refused = Revoked::Certificate { serial: one.serial.clone() };
    assert_eq!(revocations.check(&one), Err(refused));
    revocations.check(&two).unwrap();

    let fresh = Revocations::load(room.store.clone()).await.unwrap();
    assert!(fresh.check(&one).is_err(), "it is stored");
    assert_eq!(fresh.sweep(one.not_after).await.unwrap(), 0);
    let later = one.not_after.checked_add(DAY).unwrap();
    assert_eq!(fresh.sweep(later).await.unwrap(), 1);
}

#[tokio::test]
async fn what_another_replica_revokes_is_known_here_without_asking() {
    let room = room().await;
    let here = Arc::new(Revocations::load(room.store.clone()).await.unwrap());
    let shutdown = CancellationToken::new();
    let follower = tokio::spawn({
        let (here, shutdown) = (here.clone(), shutdown.clone());
        async move { here.follow(&shutdown).await }
    });
    let (host_peer, user_peer) =
        (issued_peer(&room, &host("a")).await, issued_peer(&room, &user("u")).await);
    let mut changes = here.changes();
    let there = Revocations::load(room.store.clone()).await.unwrap();
    there.revoke_identity(&host("a")).await.unwrap();
    there.revoke_certificate(&user_peer).await.unwrap();
    let both = async {
        while here.check(&host_peer).is_ok() || here.check(&user_peer).is_ok() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    shutdown.cancel();
    follower.await.unwrap().unwrap();
}
