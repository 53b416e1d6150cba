//! Before and without services.

use crate::docker::try_docker;
use crate::rig::Rig;

#[test]
fn s01_list_before_the_server_is_up_fails_with_dial_unix() {
    let rig = Rig::without_proxy();
    // A container in which the client is all there is.
    let name = rig.proxy();
    let label = format!("{}={}", crate::docker::LABEL, crate::docker::owner());
    let image = &crate::docker::images().proxy;
    let output =
        try_docker(&["run", "--label", &label, "--name", &name, image, "kamal-proxy", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "Error: dial unix /tmp/kamal-proxy.sock: connect: no such file or directory\n"
    );
}

#[test]
fn s02_list_without_services_prints_only_the_header() {
    let rig = Rig::start();
    let said = rig.run(&["list"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let header = ["Service", "Host", "Path", "Target", "State", "TLS"];
    let header: String = header.map(|title| format!("\x1b[3;94m{title}\x1b[0m  ")).concat();
    assert_eq!(said.stdout, header + "\n");
}

#[test]
fn s03_a_request_without_services_gets_a_404_page() {
    let rig = Rig::start();
    let answer = rig.get("/");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("Content-Type"), "text/html; charset=utf-8");
    assert!(answer.body.contains("404"), "{}", answer.body);
}

#[test]
fn s04_commands_on_an_unknown_service_fail_at_once() {
    let rig = Rig::start();
    let commands: [&[&str]; 7] = [
        &["remove", "nobody"],
        &["pause", "nobody"],
        &["stop", "nobody"],
        &["resume", "nobody"],
        &["rollout", "deploy", "nobody", "--target", "nobody:80"],
        &["rollout", "set", "nobody", "--percent", "10"],
        &["rollout", "stop", "nobody"],
    ];
    for command in commands {
        rig.run(command).at_once().error("service not found");
    }
}
