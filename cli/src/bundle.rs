//! Seals what a rollout needs to know in secret: each bundle is encrypted once, its key sealed to every host that
//! needs it.

use std::collections::BTreeMap;

use dhow_proto::model::secrets::{Purpose, Secrets};
use dhow_proto::model::spec::Spec;
use dhow_proto::model::{BlobRef, HostName, Unit};
use dhow_proto::seal::{Bundle, SealError};
use dhow_proto::wire;
use prost::Message as _;
use secrecy::SecretString;

/// A recipient: the host's enrolled name and public key.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// Name in its certificate.
    pub host: HostName,
    /// X25519.
    pub public_key: Vec<u8>,
}

/// Recipients by the config's spelling of the host.
pub type Recipients = BTreeMap<HostName, Recipient>;

/// Why secrets could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError<L: std::error::Error + 'static> {
    /// A value was not found.
    #[error(transparent)]
    Lookup(L),
    /// Sealing failed.
    #[error("secrets could not be sealed for {what}")]
    Seal {
        /// Unit and host.
        what: String,
        /// Why.
        #[source]
        source: SealError,
    },
}

/// Sealed bundles, and the ciphertexts to upload.
pub struct Sealed {
    /// For `StartRollout.bundles`: its encoded bytes are a blob too.
    pub bundles: wire::SealedBundles,
    /// Ciphertexts.
    pub blobs: Vec<Vec<u8>>,
}

impl Sealed {
    /// The encoded list of bundles; none where there are no secrets.
    pub fn encoded(&self) -> Option<Vec<u8>> {
        (!self.bundles.bundles.is_empty()).then(|| self.bundles.encode_to_vec())
    }
}

/// What is looked up besides the spec's own names.
pub struct Login {
    /// User name of the registry.
    pub username: SecretString,
    /// Password of the registry.
    pub password: SecretString,
}

/// Seals everything a spec names, for the hosts that need it. `hosts` are the hosts in effect, as the config spells
/// them; `lookup` gives the value of a secret.
///
/// # Errors
///
/// [`BundleError`]; the first secret not found.
pub fn seal<L: std::error::Error + 'static>(
    spec: &Spec,
    recipients: &Recipients,
    login: Option<&Login>,
    lookup: impl Fn(&str) -> Result<SecretString, L>,
) -> Result<Sealed, BundleError<L>> {
    let mut sealed = Sealed { bundles: wire::SealedBundles::default(), blobs: Vec::new() };
    if let Some(login) = login {
        let mut secrets = Secrets::new();
        secrets.insert("username", login.username.clone());
        secrets.insert("password", login.password.clone());
        let unit = Unit::App(spec.app.clone());
        sealed.add(&secrets, &unit, Purpose::Registry, 0, recipients.values())?;
    }
    for role in &spec.roles {
        let unit = Unit::Role(spec.app.clone(), role.name.clone());
        for (index, template) in role.templates.iter().enumerate() {
            let hosts: Vec<&Recipient> = role
                .hosts
                .iter()
                .filter(|h| h.template == index)
                .filter_map(|h| recipients.get(&h.host))
                .collect();
            if hosts.is_empty() || template.secret_env.is_empty() {
                continue;
            }
            let mut secrets = Secrets::new();
            for env in &template.secret_env {
                secrets.insert(env.name.clone(), lookup(&env.secret).map_err(BundleError::Lookup)?);
            }
            sealed.add(&secrets, &unit, Purpose::Env, index, hosts)?;
        }
        if let Some((certificate, key)) = &role.tls_secrets {
            let mut secrets = Secrets::new();
            secrets.insert("certificate_pem", lookup(certificate).map_err(BundleError::Lookup)?);
            secrets.insert("private_key_pem", lookup(key).map_err(BundleError::Lookup)?);
            let hosts: Vec<&Recipient> =
                role.host_names().filter_map(|h| recipients.get(h)).collect();
            sealed.add(&secrets, &unit, Purpose::Tls, 0, hosts)?;
        }
    }
    Ok(sealed)
}

impl Sealed {
    fn add<'a, L: std::error::Error + 'static>(
        &mut self,
        secrets: &Secrets,
        unit: &Unit,
        purpose: Purpose,
        template: usize,
        recipients: impl IntoIterator<Item = &'a Recipient>,
    ) -> Result<(), BundleError<L>> {
        let failed = |what: String| move |source| BundleError::Seal { what, source };
        let bundle = Bundle::seal(secrets, unit, purpose).map_err(failed(unit.to_string()))?;
        let mut keys = Vec::new();
        for recipient in recipients {
            let key = bundle
                .wrap(&recipient.host, &recipient.public_key)
                .map_err(failed(format!("{unit} on host {}", recipient.host)))?;
            keys.push(wire::HostWrappedKey {
                host: recipient.host.to_string(),
                key: Some((&key).into()),
            });
        }
        self.bundles.bundles.push(wire::SealedBundle {
            purpose: wire::SecretPurpose::from(purpose).into(),
            unit: Some(unit.into()),
            template: u32::try_from(template).unwrap_or(u32::MAX),
            ciphertext: Some(BlobRef::of(&bundle.ciphertext).into()),
            keys,
        });
        self.blobs.push(bundle.ciphertext);
        Ok(())
    }
}
