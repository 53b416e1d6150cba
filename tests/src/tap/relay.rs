//! The relay itself; runs inside the program `dhow-tap`.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The file that is there once the relay listens.
pub const READY: &str = "ready";

/// Bytes taken at once.
const PIECE: usize = 16 * 1024;

/// Makes the client trust this relay and dial it, then relays and records until killed.
///
/// # Errors
///
/// When the identity is none, or the address is taken.
pub async fn run(
    listen: SocketAddr,
    upstream: SocketAddr,
    identity: &Path,
    dir: &Path,
) -> Result<()> {
    let text = fs::read_to_string(identity).context("read the identity")?;
    let mut identity_json: Value = serde_json::from_str(&text).context("read the identity")?;
    let connector = TlsConnector::from(Arc::new(as_the_client(&identity_json)?));
    let (server, authority) = as_the_controller(listen)?;
    lead_here(&mut identity_json, listen, &authority)?;
    let listener = TcpListener::bind(listen).await.context("listen")?;
    fs::write(identity, serde_json::to_vec(&identity_json)?).context("write the identity")?;
    fs::write(dir.join(READY), "").context("tell that it listens")?;
    let acceptor = TlsAcceptor::from(Arc::new(server));
    for number in 0.. {
        let (client, _) = listener.accept().await.context("accept")?;
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        let record =
            |direction: &str| File::create(dir.join(format!("{number}-{direction}.bytes")));
        let records = [record("up").context("record")?, record("down").context("record")?];
        // Ends with its connection, at the latest with the program.
        tokio::spawn(async move {
            if let Err(error) = connection(client, upstream, &acceptor, &connector, records).await {
                eprintln!("connection {number}: {error:#}");
            }
        });
    }
    Ok(())
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    acceptor: &TlsAcceptor,
    connector: &TlsConnector,
    [up, down]: [File; 2],
) -> Result<()> {
    let client = acceptor.accept(client).await.context("the client's handshake")?;
    let server = TcpStream::connect(upstream).await.context("dial the controller")?;
    let name = ServerName::IpAddress(upstream.ip().into());
    let server = connector.connect(name, server).await.context("the controller's handshake")?;
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::try_join!(copy(from_client, to_server, up), copy(from_server, to_client, down))?;
    Ok(())
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut record: File,
) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        // First, so that nothing has arrived anywhere that is not in the record.
        record.write_all(&piece[..read])?;
        to.write_all(&piece[..read]).await?;
        to.flush().await?;
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS towards the controller, with the client's own certificate.
fn as_the_client(identity: &Value) -> Result<ClientConfig> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text is missing");
    let certificate = |value: &Value| -> Result<CertificateDer<'static>> {
        let text = text(value)?;
        Ok(match text.starts_with("-----") {
            true => CertificateDer::from_pem_slice(text.as_bytes())?,
            false => STANDARD.decode(text)?.into(),
        })
    };
    let key = match identity.get("private_key") {
        Some(pem) => PrivateKeyDer::from_pem_slice(text(pem)?.as_bytes())?,
        None => PrivateKeyDer::Pkcs8(STANDARD.decode(text(&identity["key"])?)?.into()),
    };
    let mut roots = RootCertStore::empty();
    for ca in identity["ca_set"].as_array().context("no ca_set")? {
        roots.add(certificate(ca)?)?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate(&identity["certificate"])?], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// TLS towards the client, and the authority it has to trust for that.
fn as_the_controller(listen: SocketAddr) -> Result<(ServerConfig, CertificateDer<'static>)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec![listen.ip().to_string()])?;
    let certificate = params.signed_by(&key, &authority)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((config, authority.der().clone()))
}

/// Makes the client dial here and trust what it finds.
fn lead_here(identity: &mut Value, listen: SocketAddr, ca: &CertificateDer<'_>) -> Result<()> {
    let address = Value::from(listen.to_string());
    let der = STANDARD.encode(ca);
    let ca = match identity.get("address").is_some() {
        true => {
            identity["address"] = address;
            identity["addresses"] = Value::Array(Vec::new());
            format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n")
        }
        false => {
            identity["controllers"] = Value::Array(vec![address]);
            der
        }
    };
    identity["ca_set"].as_array_mut().context("no ca_set")?.push(ca.into());
    Ok(())
}
