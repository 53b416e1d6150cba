use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::controller::{Controller, TestCa};
use crate::session::{IdentityError, Join, JoinError, Stored, Token, join};

fn request(controller: &Controller, id: &str, pin: [u8; 32]) -> Join {
    let token = format!("dhow1.join.{id}.c2VjcmV0.{}\n", URL_SAFE_NO_PAD.encode(pin));
    Join {
        controllers: vec![controller.address.clone()],
        token: Token::new(&token),
        host: "h1".parse().unwrap(),
        aliases: vec![],
    }
}

#[tokio::test]
async fn a_host_joins_with_a_token_and_keeps_what_it_got() {
    let controller = Controller::start().await;
    let dir = tempfile::tempdir().unwrap();
    let request = request(&controller, "good", controller.ca.pin());
    let joined = join(&request, dir.path()).await.unwrap();
    let read = Stored::load(dir.path()).unwrap();
    assert_eq!(read.host, joined.host);
    assert_eq!(read.certificate_der, joined.certificate_der);
    assert_eq!(read.host_key.id(), joined.host_key.id());
    let addresses: Vec<String> = read.controllers.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, [controller.address.to_string(), "controller.example:7443".into()]);
    use std::os::unix::fs::PermissionsExt as _;
    let file = std::fs::metadata(dir.path().join("identity.json")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_controller_that_is_not_the_tokens_never_sees_the_token() {
    let controller = Controller::start().await;
    let dir = tempfile::tempdir().unwrap();
    let other = TestCa::new();
    let refused = join(&request(&controller, "good", other.pin()), dir.path()).await;
    assert!(matches!(refused, Err(JoinError::Dial(_))), "{refused:?}");
    assert!(matches!(Stored::load(dir.path()), Err(IdentityError::NotJoined)));
}

#[tokio::test]
async fn a_refused_token_says_why_and_leaves_no_identity() {
    let controller = Controller::start().await;
    let dir = tempfile::tempdir().unwrap();
    let refused = join(&request(&controller, "used", controller.ca.pin()), dir.path()).await;
    let error = refused.unwrap_err().to_string();
    assert_eq!(error, "the controller refused: the token was used or has expired");
    assert!(matches!(Stored::load(dir.path()), Err(IdentityError::NotJoined)));
}

#[tokio::test]
async fn neither_a_token_nor_a_key_is_shown() {
    let controller = Controller::start().await;
    let request = request(&controller, "good", controller.ca.pin());
    let stored = controller.ca.host("h1", &controller.address);
    let shown = format!("{request:?} {stored:?} {:?}", stored.dial().unwrap());
    assert!(!shown.contains("c2VjcmV0"), "{shown}");
    assert!(!shown.contains("key_der"), "{shown}");
}

#[test]
fn a_damaged_identity_is_refused_without_quoting_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("identity.json"), "{\"key\": \"c2VjcmV0\", 3}").unwrap();
    let error = Stored::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("join again"), "{error}");
    assert!(!error.contains("c2VjcmV0"), "{error}");
    let _ = Arc::new(error);
}
