//! Error pages and certificates: files that the proxy reads at deploy and at restart.

use std::io::BufReader;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{self, Answer, Ask, read_answer};
use crate::rig::{Rig, inside};

#[test]
fn s22_custom_pages_must_exist_and_are_used_for_the_proxys_own_errors() {
    let rig = Rig::start();
    let app = rig.app(&[]);
    let broken = "unable to load error pages";
    rig.deploy("web", &app, &["--error-pages", &inside("missing")]).error(broken);
    std::fs::create_dir(rig.apps_config.path().join("empty")).unwrap();
    rig.deploy("web", &app, &["--error-pages", &inside("empty")]).error(broken);
    assert_eq!(rig.listed("web"), None);

    rig.write("pages/503.html", "<p>closed: {{ .Message }}</p>");
    let pages = ["--error-pages", &inside("pages"), "--target-timeout", "500ms"];
    rig.deploy("web", &app, &pages).silent_success();
    let timeout = rig.get("/slow?ms=30000");
    assert_eq!((timeout.status, timeout.header("Content-Type")), (504, "text/html; charset=utf-8"));
    assert!(!timeout.body.contains("closed"), "503.html is not for 504: {}", timeout.body);
    assert_eq!(rig.get("/status/503").body, "app says 503\n");
    rig.run(&["stop", "web", "--message", "a < b"]).silent_success();
    let answer = rig.get("/");
    assert_eq!((answer.status, answer.body.as_str()), (503, "<p>closed: a &lt; b</p>"));
}

#[test]
fn s23_pages_that_are_gone_at_a_restart_take_all_services_with_them() {
    let rig = Rig::start();
    let (paged, plain) = (rig.app(&[]), rig.new_app());
    rig.write("pages/503.html", "closed");
    rig.deploy("paged", &paged, &["--host", "a.test", "--error-pages", &inside("pages")])
        .silent_success();
    rig.deploy("plain", &plain, &["--host", "b.test"]).silent_success();
    std::fs::remove_dir_all(rig.apps_config.path().join("pages")).unwrap();
    rig.run(&["stop", "paged"]).silent_success();
    assert_eq!(rig.get_host("a.test", "/").body, "closed", "pages are held in memory");
    rig.restart_proxy();
    assert_eq!(rig.list().len(), 0);
    assert_eq!(rig.get_host("a.test", "/").status, 404);
    assert_eq!(rig.get_host("b.test", "/").status, 404);
}

#[test]
fn s24_a_custom_certificate_is_served_to_its_host_only() {
    let rig = Rig::start();
    let (secure, plain) = (rig.app(&[]), rig.new_app());
    // Good for both names, so that only the proxy can refuse the second.
    let names = ["a.test".to_owned(), "b.test".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = rig.write("certs/cert.pem", &made.cert.pem());
    let key = rig.write("certs/key.pem", &made.signing_key.serialize_pem());
    let flags = |certificate: &str| {
        vec![
            "--host=a.test".to_owned(),
            "--tls".to_owned(),
            format!("--tls-certificate-path={certificate}"),
            format!("--tls-private-key-path={key}"),
        ]
    };
    let deploy = |certificate: &str| {
        let flags = flags(certificate);
        rig.deploy("secure", &secure, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    deploy(&inside("certs/wrong.pem")).error("unable to load certificate");
    assert_eq!(rig.listed("secure"), None);
    deploy(&certificate).silent_success();
    assert_eq!(rig.listed("secure").unwrap().last().unwrap(), "yes");
    rig.deploy("plain", &plain, &["--host", "b.test"]).silent_success();

    let client = tls_client(made.cert.der());
    let answer =
        over_tls(&client, &Ask::get(rig.https(), "a.test", "/headers")).expect("a.test has TLS");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\"x-forwarded-proto\":[\"https\"]"), "{}", answer.body);
    let redirect = rig.get_host("a.test", "/x?y=1");
    assert_eq!((redirect.status, redirect.header("Location")), (301, "https://a.test/x?y=1"));
    let refused = over_tls(&client, &Ask::get(rig.https(), "b.test", "/"));
    assert!(refused.is_err(), "b.test has no TLS: {refused:?}");
    assert_eq!(rig.get_host("b.test", "/").body, "v2\n");
}

#[test]
fn a_service_below_a_prefix_follows_the_tls_of_its_hosts_root() {
    let rig = Rig::start();
    let (root, below) = (rig.app(&[]), rig.new_app());
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let certificate = rig.write("certs/cert.pem", &made.cert.pem());
    let key = rig.write("certs/key.pem", &made.signing_key.serialize_pem());
    let certificate = format!("--tls-certificate-path={certificate}");
    let key = format!("--tls-private-key-path={key}");
    rig.deploy("below", &below, &["--host=a.test", "--path-prefix=/x"]).silent_success();
    let tls = || rig.listed("below").unwrap().last().unwrap().clone();
    assert_eq!(tls(), "no");
    rig.deploy("root", &root, &["--host=a.test", "--tls", &certificate, &key]).silent_success();
    assert_eq!(tls(), "yes");
    let redirect = rig.get_host("a.test", "/x/y");
    assert_eq!((redirect.status, redirect.header("Location")), (301, "https://a.test/x/y"));
    let client = tls_client(made.cert.der());
    let answer = over_tls(&client, &Ask::get(rig.https(), "a.test", "/x/y")).unwrap();
    assert_eq!(answer.body, "v2\n");
    rig.run(&["remove", "root"]).silent_success();
    assert_eq!(tls(), "no");
    assert_eq!(rig.get_host("a.test", "/x/y").body, "v2\n");
}

fn tls_client(root: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn over_tls(client: &Arc<ClientConfig>, ask: &Ask) -> std::io::Result<Answer> {
    let name = ServerName::try_from(ask.host.clone()).unwrap();
    let connection = ClientConnection::new(client.clone(), name).unwrap();
    let mut stream = StreamOwned::new(connection, http::connect(ask.address)?);
    ask.write(&mut stream)?;
    read_answer(&mut BufReader::new(stream))
}
