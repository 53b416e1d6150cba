use secrecy::{ExposeSecret as _, SecretString};

use super::*;
use crate::model::{App, RoleName};

fn unit(role: &str) -> Unit {
    let app = App { service: "shop".try_into().unwrap(), destination: None };
    Unit::Role(app, RoleName::try_from(role).unwrap())
}

fn host(name: &str) -> HostName {
    HostName::try_from(name).unwrap()
}

fn secrets() -> Secrets {
    let mut secrets = Secrets::new();
    secrets.insert("DB_PASSWORD", SecretString::from("line one\nline \"two\" é"));
    secrets
}

fn key(byte: u8) -> HostKey {
    HostKey::from_private(Zeroizing::new([byte; 32])).unwrap()
}

fn value(opened: &Secrets) -> &str {
    opened.get("DB_PASSWORD").unwrap().expose_secret()
}

#[test]
fn what_is_sealed_for_a_host_opens_there() {
    let bundle = Bundle::seal(&secrets(), &unit("web"), Purpose::Env).unwrap();
    for (name, key) in [("h1", key(7)), ("h2", key(8))] {
        let wrapped = bundle.wrap(&host(name), &key.public_bytes()).unwrap();
        let (host, unit) = (host(name), unit("web"));
        let binding = Binding { host: &host, unit: &unit, purpose: Purpose::Env };
        let opened = key.open(&bundle.ciphertext, &wrapped, &binding).unwrap();
        assert_eq!(value(&opened), "line one\nline \"two\" é");
    }
}

#[test]
fn another_host_unit_purpose_or_a_changed_byte_does_not_open() {
    let key = key(7);
    let bundle = Bundle::seal(&secrets(), &unit("web"), Purpose::Env).unwrap();
    let wrapped = bundle.wrap(&host("h1"), &key.public_bytes()).unwrap();
    let open = |name: &str, role: &str, purpose, ciphertext: &[u8]| {
        let (host, unit) = (host(name), unit(role));
        key.open(ciphertext, &wrapped, &Binding { host: &host, unit: &unit, purpose }).map(drop)
    };
    let mut damaged = bundle.ciphertext.clone();
    damaged[3] ^= 1;
    assert!(open("h1", "web", Purpose::Env, &bundle.ciphertext).is_ok());
    for refused in [
        open("h2", "web", Purpose::Env, &bundle.ciphertext),
        open("h1", "job", Purpose::Env, &bundle.ciphertext),
        open("h1", "web", Purpose::Registry, &bundle.ciphertext),
        open("h1", "web", Purpose::Env, &damaged),
        open("h1", "web", Purpose::Env, &[]),
    ] {
        assert!(matches!(refused, Err(SealError::Damaged)), "{refused:?}");
    }
}

#[test]
fn a_host_that_enrolled_anew_is_told_so() {
    let bundle = Bundle::seal(&secrets(), &unit("web"), Purpose::Env).unwrap();
    let wrapped = bundle.wrap(&host("h1"), &key(7).public_bytes()).unwrap();
    let (host, unit) = (host("h1"), unit("web"));
    let opened = key(9).open(
        &bundle.ciphertext,
        &wrapped,
        &Binding { host: &host, unit: &unit, purpose: Purpose::Env },
    );
    assert!(matches!(opened, Err(SealError::OtherHostKey)));
}

#[test]
fn a_bundle_keeps_the_order_of_its_names() {
    let mut secrets = Secrets::new();
    for name in ["ZEBRA", "APPLE", "MANGO"] {
        secrets.insert(name, SecretString::from("x"));
    }
    let back = Secrets::from_plaintext(&secrets.to_plaintext()).unwrap();
    assert_eq!(back.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["ZEBRA", "APPLE", "MANGO"]);
}

#[test]
fn nothing_of_the_plaintext_shows() {
    let bundle = Bundle::seal(&secrets(), &unit("web"), Purpose::Env).unwrap();
    let text = String::from_utf8_lossy(&bundle.ciphertext).into_owned();
    assert!(!text.contains("line") && !text.contains("DB_PASSWORD"));
    assert_eq!(format!("{:?}", secrets()), "{\"DB_PASSWORD\"}");
    assert!(!format!("{:?}", key(7)).contains("7, 7"));
}

/// The stored form must open for ever: these bytes were sealed by the first build.
#[test]
fn what_the_first_build_sealed_still_opens() {
    let bundle =
        Bundle::seal_with(&secrets(), &unit("web"), Purpose::Env, Zeroizing::new([42; 32]))
            .unwrap();
    assert_eq!(hex::encode(&bundle.ciphertext), CIPHERTEXT, "the data layer changed");
    let key = key(7);
    assert_eq!(hex::encode(key.public_bytes()), PUBLIC_KEY, "the key pair changed");
    let wrapped = WrappedKey {
        host_key_id: key.id(),
        encapsulated: hex::decode(ENCAPSULATED).unwrap(),
        ciphertext: hex::decode(WRAPPED).unwrap(),
    };
    let (host, unit) = (host("h1"), unit("web"));
    let binding = Binding { host: &host, unit: &unit, purpose: Purpose::Env };
    let opened = key.open(&bundle.ciphertext, &wrapped, &binding).unwrap();
    assert_eq!(value(&opened), "line one\nline \"two\" é");
}

const CIPHERTEXT: &str = "4dd24a158b7fc64d6ad0a7609d2d6ce4f862375248e1b16698935561c0a122e281e05c69fa23974e3dc10b070640ac35ca20f847cf0da7683727c2";
const PUBLIC_KEY: &str = "13be4feaeaf204c7fd3358fc9c00721881d174278128227ec674f37f7fe97b6d";
const ENCAPSULATED: &str = "2a59959aeea6b17d14a059afa8351310e09c76be9cd95bd3eb0ef4a2eeb9d402";
const WRAPPED: &str = "3ab548b881d12194004d75437e5337f2ed029c099511fa562ab18cb3842262834843cb4bbe1da50fd8d702bb3e1b75b7";
