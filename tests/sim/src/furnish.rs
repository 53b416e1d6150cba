//! An app with all that a config may give it, so that every step there is for that comes up.

use bytes::Bytes;
use dhow_agent::engine::Engine as _;
use dhow_agent::engine::fake::{FakeEngine, FakeImage};
use dhow_proto::model::secrets::{Purpose, Secrets};
use dhow_proto::model::spec::{BootLimit, ErrorPage, Spec};
use dhow_proto::model::{BlobRef, Unit};
use dhow_proto::seal::Bundle;
use dhow_proto::wire;
use futures_util::FutureExt as _;
use prost::Message as _;
use secrecy::SecretString;

use crate::world::{World, app};

/// A network that people made, for containers to be connected to.
const NETWORK: &str = "backend";

/// The version that is booted in groups.
const GROUPED: usize = 2;

fn page(version: usize) -> Vec<u8> {
    format!("page of v{version}").into_bytes()
}

pub(crate) fn spec(spec: &mut Spec, version: usize) {
    spec.retain_containers = 1;
    spec.error_pages =
        Some(vec![ErrorPage { name: "404.html".to_owned(), content: BlobRef::of(&page(version)) }]);
    if version == GROUPED {
        spec.boot.limit = Some(BootLimit::Count(1));
        spec.boot.wait_s = 2;
    }
    for role in &mut spec.roles {
        let template = &mut role.templates[0].template;
        template.container.options.networks = vec![NETWORK.to_owned()];
        let Some(proxy) = &mut template.proxy else { continue };
        proxy.error_pages = true;
        template.asset_path = Some("/assets".to_owned());
        role.tls_secrets = Some(("CERTIFICATE".to_owned(), "KEY".to_owned()));
    }
}

pub(crate) fn engine(engine: &FakeEngine) {
    engine
        .create_network(NETWORK)
        .now_or_never()
        .expect("the model answers at once")
        .expect("it is there");
}

pub(crate) fn image(image: &mut FakeImage, version: usize) {
    let content = format!("v{version}");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let written = builder.append_data(&mut header, format!("./v{version}.js"), content.as_bytes());
    let archive = written.and_then(|()| builder.into_inner()).expect("memory does not fail");
    image.files.insert("/assets".to_owned(), Bytes::from(archive));
}

/// The list of sealed bundles, and all that is uploaded beside the spec.
pub(crate) fn uploads(world: &World, version: usize) -> (Option<BlobRef>, Vec<Vec<u8>>) {
    let unit = Unit::Role(app(), "web".parse().expect("a role's name"));
    let mut pair = Secrets::new();
    pair.insert("certificate_pem", SecretString::from("cert"));
    pair.insert("private_key_pem", SecretString::from("key"));
    let bundle = Bundle::seal(&pair, &unit, Purpose::Tls).expect("it can be sealed");
    let keys = world.hosts.iter().map(|host| {
        let public = host.stored.host_key.public_bytes();
        let key = bundle.wrap(&host.stored.host, &public).expect("a host's key");
        wire::HostWrappedKey { host: host.name.clone(), key: Some((&key).into()) }
    });
    let list = wire::SealedBundles {
        bundles: vec![wire::SealedBundle {
            purpose: wire::SecretPurpose::from(Purpose::Tls).into(),
            unit: Some((&unit).into()),
            template: 0,
            ciphertext: Some(BlobRef::of(&bundle.ciphertext).into()),
            keys: keys.collect(),
        }],
    };
    let list = list.encode_to_vec();
    let blob = BlobRef::of(&list);
    (Some(blob), vec![list, bundle.ciphertext, page(version)])
}
