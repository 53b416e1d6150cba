//! What the program tells a service manager: a fake one listens.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_agent::session::Stored;
use dhow_proto::seal::HostKey;
use rcgen::{CertificateParams, KeyPair};

/// Longest wait for a message; a loaded machine takes some seconds to start a program.
const PATIENCE: Duration = Duration::from_secs(30);

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A host that has joined a controller which is away.
fn joined(state_dir: &std::path::Path) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["h1".to_owned()]).expect("a name");
    let certificate = certificate.self_signed(&key).expect("a certificate").der().to_vec();
    let stored = Stored {
        host: "h1".parse().expect("a name"),
        controllers: vec!["127.0.0.1:9".parse().expect("an address")],
        certificate_der: certificate.clone(),
        key_der: key.serialize_der().into(),
        ca_set: vec![certificate],
        host_key: Arc::new(HostKey::generate().expect("a key")),
    };
    stored.save(state_dir).expect("written");
}

#[test]
fn systemd_hears_that_the_agent_is_up_and_then_that_its_loop_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    joined(&state);
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let length = manager.recv(&mut message).expect("nothing was told");
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    let mut agent = Command::new(env!("CARGO_BIN_EXE_dhow-agent"));
    // No Engine is there: the loop is alive all the same, and a restart would not help.
    agent.args(["run", "--docker-host", "unix:///nowhere/docker.sock", "--state-dir"]).arg(&state);
    agent.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "1000000");
    let running = Running(agent.stderr(Stdio::null()).spawn().unwrap());
    assert_eq!(hear(), "READY=1");
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "pings twice within the limit, not at once");
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    while hear() != "STOPPING=1" {}
}
