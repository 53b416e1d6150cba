//! Intents survive the wire and the store, and malformed ones are refused with the path of the field.

#![expect(clippy::unwrap_used, reason = "a test program: a panic is its failure")]

use std::time::Duration;

use dhow_proto::model::intent::*;
use dhow_proto::model::secrets::{Purpose, SealedSecrets, WrappedKey};
use dhow_proto::model::{
    App, BlobRef, Generation, HostName, ImageDigest, RoleName, ServiceName, Unit, Version,
};
use dhow_proto::wire;
use proptest::prelude::*;

fn app() -> impl Strategy<Value = App> {
    ("[a-z][a-z0-9_-]{0,8}", proptest::option::of("[a-z]{1,6}")).prop_map(
        |(service, destination)| App {
            service: ServiceName::try_from(service).unwrap(),
            destination: destination.map(|d| d.as_str().try_into().unwrap()),
        },
    )
}

fn role() -> impl Strategy<Value = RoleName> {
    "[a-z]{1,6}".prop_map(|t| RoleName::try_from(t).unwrap())
}

fn version() -> impl Strategy<Value = Version> {
    "[a-z0-9][a-z0-9_.-]{0,12}".prop_map(|t| Version::try_from(t).unwrap())
}

fn digest() -> impl Strategy<Value = ImageDigest> {
    "[0-9a-f]{64}".prop_map(|t| ImageDigest::try_from(format!("sha256:{t}")).unwrap())
}

fn blob() -> impl Strategy<Value = BlobRef> {
    proptest::collection::vec(any::<u8>(), 0..20).prop_map(|b| BlobRef::of(&b))
}

fn sealed(purpose: Purpose) -> impl Strategy<Value = SealedSecrets> {
    (blob(), any::<[u8; 32]>(), proptest::collection::vec(any::<u8>(), 0..40), app()).prop_map(
        move |(ciphertext, host_key_id, bytes, app)| SealedSecrets {
            ciphertext,
            key: WrappedKey { host_key_id, encapsulated: bytes.clone(), ciphertext: bytes },
            purpose,
            unit: Unit::App(app),
        },
    )
}

fn login() -> impl Strategy<Value = Option<RegistryLogin>> {
    let login = ("[a-z.:0-9]{0,12}", sealed(Purpose::Registry));
    proptest::option::of(login.prop_map(|(server, sealed)| RegistryLogin { server, sealed }))
}

fn run() -> impl Strategy<Value = Run> {
    prop_oneof![Just(Run::Running), Just(Run::Stopped)]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        Just(Traffic::Live),
        (".{0,10}", 0u64..100_000).prop_map(|(message, ms)| Traffic::Maintenance {
            message,
            drain: Duration::from_millis(ms)
        }),
    ]
}

fn role_intent() -> impl Strategy<Value = RoleIntent> {
    let variant = (blob(), 1u32..4, version(), proptest::option::of(digest()));
    (
        run(),
        traffic(),
        any::<u64>(),
        variant,
        proptest::option::of(sealed(Purpose::Env)),
        any::<bool>(),
    )
        .prop_map(|(run, traffic, boot, (template, count, version, digest), env, primary)| {
            RoleIntent {
                run,
                traffic,
                boot,
                variants: vec![Variant { template, count, share: 100, version, digest }],
                env,
                primary,
            }
        })
}

fn app_intent() -> impl Strategy<Value = AppIntent> {
    let staged = (version(), proptest::option::of(digest()), any::<u64>(), login(), any::<bool>())
        .prop_map(|(version, digest, pull, registry, local_only)| StagedImage {
            version,
            digest,
            pull,
            registry,
            local_only,
        });
    let prepare = (version(), role(), proptest::option::of("/[a-z]{1,5}"), blob()).prop_map(
        |(version, role, asset_path, content)| Prepare {
            version,
            roles: vec![PreparedRole { role, asset_path, tls: None }],
            error_pages: vec![FileBlob { name: "503.html".into(), content }],
        },
    );
    let wait = proptest::option::of((0u64..1000).prop_map(Duration::from_secs));
    let lock = ("[a-z ]{1,8}", 0i64..4_000_000_000, version(), wait).prop_map(
        |(holder, at_unix_s, version, wait)| KamalLock {
            holder,
            at_unix_s,
            version: version.to_string(),
            message: "Automatic deploy lock".into(),
            wait,
        },
    );
    let latest = (version(), proptest::option::of(digest()), any::<bool>())
        .prop_map(|(version, digest, when_serving)| LatestTag { version, digest, when_serving });
    let stale = (any::<u64>(), role()).prop_map(|(number, role)| StopStale {
        number,
        roles: vec![role],
        drain_timeout: Duration::from_secs(30),
    });
    (
        proptest::option::of(staged),
        proptest::option::of(lock),
        proptest::option::of(stale),
        proptest::option::of(prepare),
        proptest::option::of(latest),
        proptest::option::of(
            (any::<u64>(), 1u32..9).prop_map(|(number, retain)| Prune { number, retain }),
        ),
        proptest::collection::vec(role(), 0..3),
        run(),
    )
        .prop_map(|(staged, lock, stop_stale, prepare, latest, prune, roles, run)| AppIntent {
            repository: "10.0.0.1:5000/shop".into(),
            roles,
            run,
            staged,
            lock,
            stop_stale,
            prepare,
            latest,
            prune,
        })
}

fn intent() -> impl Strategy<Value = Intent> {
    let desired = prop_oneof![
        (app(), role(), role_intent()).prop_map(|(a, r, i)| (Unit::Role(a, r), Desired::Role(i))),
        (app(), app_intent()).prop_map(|(a, i)| (Unit::App(a), Desired::App(i))),
        (proptest::option::of(blob()), any::<u64>(), run(), login()).prop_map(
            |(template, boot, run, registry)| {
                (Unit::Proxy, Desired::Proxy(ProxyIntent { template, boot, run, registry }))
            }
        ),
        (app(), role()).prop_map(|(a, r)| (Unit::Role(a, r), Desired::Absent(Absent::Release))),
        (app(), any::<(u64, u64)>()).prop_map(|(a, (epoch, number))| {
            let attempted = Generation { epoch, number };
            (Unit::App(a), Desired::Settle { attempted, otherwise: None })
        }),
    ];
    (desired, any::<(u64, u64)>(), app(), "[a-z0-9.]{1,8}").prop_map(
        |((unit, desired), (epoch, number), after, host)| Intent {
            unit,
            generation: Generation { epoch, number },
            features: vec!["role".into()],
            rollout_id: Some("r1".into()),
            after: vec![After {
                unit: Unit::App(after),
                generation: Generation { epoch, number: 0 },
            }],
            host: HostPart {
                config_host: HostName::try_from(format!("h{host}")).unwrap(),
                ssh_user: Some("deploy".into()),
                run_directory: None,
            },
            desired,
        },
    )
}

proptest! {
    #[test]
    fn an_intent_survives_the_wire(intent in intent()) {
        let bytes = intent.to_bytes();
        let back = Intent::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&back, &intent);
        // The digest names the content, so encoding must always give the same bytes.
        prop_assert_eq!(back.to_bytes(), bytes);
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Intent::from_bytes(&bytes);
    }
}

fn role_wire() -> wire::Intent {
    let intent = Intent {
        unit: Unit::Role(
            App { service: "shop".try_into().unwrap(), destination: None },
            RoleName::try_from("web").unwrap(),
        ),
        generation: Generation { epoch: 0, number: 1 },
        features: Vec::new(),
        rollout_id: None,
        after: Vec::new(),
        host: HostPart {
            config_host: "h1".try_into().unwrap(),
            ssh_user: None,
            run_directory: None,
        },
        desired: Desired::Role(RoleIntent {
            run: Run::Running,
            traffic: Traffic::Live,
            boot: 1,
            variants: vec![Variant {
                template: BlobRef::of(b"x"),
                count: 1,
                share: 100,
                version: "v1".try_into().unwrap(),
                digest: None,
            }],
            env: None,
            primary: true,
        }),
    };
    (&intent).into()
}

fn refusal(change: impl FnOnce(&mut wire::Intent)) -> String {
    let mut wire = role_wire();
    change(&mut wire);
    Intent::try_from(wire).unwrap_err().to_string()
}

fn role_of(intent: &mut wire::Intent) -> &mut wire::RoleIntent {
    match &mut intent.desired {
        Some(wire::intent::Desired::Role(role)) => role,
        _ => panic!("a role"),
    }
}

#[test]
fn a_refusal_names_the_path_of_the_field() {
    assert_eq!(refusal(|i| i.unit = None), "intent.unit: is missing");
    assert_eq!(refusal(|i| role_of(i).variants.clear()), "intent.role.variants: must not be empty");
    assert_eq!(
        refusal(|i| role_of(i).variants[0].share = 40),
        "intent.role.variants: shares must sum up to 100"
    );
    assert!(
        refusal(|i| role_of(i).variants[0].version = "a b".into())
            .starts_with("intent.role.variants[0].version: ")
    );
    assert!(
        refusal(|i| i.host.as_mut().unwrap().run_directory = "../etc".into())
            .starts_with("intent.host.run_directory: ")
    );
    assert_eq!(
        refusal(|i| i.desired = Some(wire::intent::Desired::App(wire::AppIntent {
            repository: "shop".into(),
            run: wire::Run::Running.into(),
            ..Default::default()
        }))),
        "intent.desired: does not fit the unit role shop/web"
    );
}
