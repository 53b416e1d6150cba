//! kamal-proxy's command line, in Kamal's order (kamal-proxy contract: how Kamal calls it).

use std::time::Duration;

use dhow_proto::model::template::{ProxyTarget, Timeouts};
use dhow_proto::model::{App, RoleName, Version, kamal};

/// `kamal-proxy deploy` of a role's version to a target (`ID12:port`).
pub fn deploy(
    app: &App,
    role: &RoleName,
    version: &Version,
    proxy: &ProxyTarget,
    timeouts: &Timeouts,
    target: &str,
) -> Vec<String> {
    let files = format!("{}/{}", kamal::PROXY_APPS_CONFIG, app.slug());
    let mut argv = vec![
        "kamal-proxy".to_owned(),
        "deploy".to_owned(),
        app.role_prefix(role),
        format!("--target={target}"),
    ];
    let mut flag = |name: &str, value: Option<String>| {
        argv.extend(value.map(|v| format!("--{name}={v}")));
    };
    let seconds = |s: u64| format!("{s}s");
    for host in &proxy.hosts {
        flag("host", Some(host.clone()));
    }
    flag("tls", proxy.tls.then(|| "true".to_owned()));
    if proxy.custom_certificate {
        flag("tls-certificate-path", Some(format!("{files}/tls/{role}/cert.pem")));
        flag("tls-private-key-path", Some(format!("{files}/tls/{role}/key.pem")));
    }
    flag("deploy-timeout", Some(seconds(timeouts.deploy_s)));
    flag("drain-timeout", Some(seconds(timeouts.drain_s)));
    flag("health-check-interval", proxy.health_interval_s.map(seconds));
    flag("health-check-timeout", proxy.health_timeout_s.map(seconds));
    flag("health-check-path", proxy.health_path.clone());
    flag("target-timeout", proxy.response_timeout_s.map(seconds));
    flag("buffer-requests", Some(proxy.buffer_requests.to_string()));
    flag("buffer-responses", Some(proxy.buffer_responses.to_string()));
    flag("buffer-memory", proxy.buffer_memory.map(|n| n.to_string()));
    flag("max-request-body", proxy.max_request_body.map(|n| n.to_string()));
    flag("max-response-body", proxy.max_response_body.map(|n| n.to_string()));
    for prefix in &proxy.path_prefixes {
        flag("path-prefix", Some(prefix.clone()));
    }
    flag("strip-path-prefix", proxy.strip_path_prefix.map(|b| b.to_string()));
    flag("forward-headers", proxy.forward_headers.map(|b| b.to_string()));
    flag("tls-redirect", proxy.tls_redirect.map(|b| b.to_string()));
    for header in &proxy.log_request_headers {
        flag("log-request-header", Some(header.clone()));
    }
    for header in &proxy.log_response_headers {
        flag("log-response-header", Some(header.clone()));
    }
    flag("error-pages", proxy.error_pages.then(|| format!("{files}/error_pages/{version}")));
    argv
}

/// `kamal-proxy list`.
pub fn list() -> Vec<String> {
    words(&["kamal-proxy", "list"])
}

/// `kamal-proxy remove`.
pub fn remove(service: &str) -> Vec<String> {
    words(&["kamal-proxy", "remove", service])
}

/// `kamal-proxy resume`.
pub fn resume(service: &str) -> Vec<String> {
    words(&["kamal-proxy", "resume", service])
}

/// `kamal-proxy stop`.
pub fn stop(service: &str, drain: Duration, message: &str) -> Vec<String> {
    let mut argv = words(&["kamal-proxy", "stop", service]);
    argv.push(format!("--drain-timeout={}s", drain.as_secs()));
    if !message.is_empty() {
        argv.push(format!("--message={message}"));
    }
    argv
}

/// The service that a command line deploys, if it is a `kamal-proxy deploy`.
pub fn is_deploy_of(argv: &[String]) -> Option<&str> {
    let [program, verb, rest @ ..] = argv else { return None };
    if program.rsplit('/').next() != Some("kamal-proxy") || verb != "deploy" {
        return None;
    }
    rest.iter().map(String::as_str).find(|word| !word.starts_with('-'))
}

/// The service whose route a command line changes, if it is a command of kamal-proxy that does.
pub fn is_change_of(argv: &[String]) -> Option<&str> {
    let [program, verb, rest @ ..] = argv else { return None };
    let changes = ["deploy", "remove", "rm", "pause", "stop", "resume"].contains(&verb.as_str());
    if program.rsplit('/').next() != Some("kamal-proxy") || !changes {
        return None;
    }
    rest.iter().map(String::as_str).find(|word| !word.starts_with('-'))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deploy_is_told_from_other_commands() {
        let of = |line: &str| {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            is_deploy_of(&argv).map(str::to_owned)
        };
        assert_eq!(of("kamal-proxy deploy shop-web --target=a:80").as_deref(), Some("shop-web"));
        assert_eq!(of("/usr/local/bin/kamal-proxy deploy --x=y s").as_deref(), Some("s"));
        assert_eq!(of("kamal-proxy run"), None);
        assert_eq!(of("kamal-proxy rollout deploy s"), None);
    }

    #[test]
    fn commands_that_change_a_route_are_told_from_questions() {
        let of = |line: &str| {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            is_change_of(&argv).map(str::to_owned)
        };
        assert_eq!(of("kamal-proxy remove shop-web").as_deref(), Some("shop-web"));
        assert_eq!(of("kamal-proxy stop --message=x shop-web").as_deref(), Some("shop-web"));
        assert_eq!(of("kamal-proxy list"), None);
        assert_eq!(of("sh -c remove"), None);
    }

    #[test]
    fn flags_come_in_kamals_order() {
        let proxy = ProxyTarget {
            app_port: 3000,
            hosts: vec!["a.test".to_owned()],
            tls: true,
            custom_certificate: true,
            buffer_requests: true,
            buffer_responses: true,
            log_request_headers: vec!["User-Agent".to_owned()],
            error_pages: true,
            ..ProxyTarget::default()
        };
        let timeouts = Timeouts { deploy_s: 30, drain_s: 20, readiness_delay_s: 7, stop_s: None };
        let app = App { service: "shop".parse().unwrap(), destination: None };
        let argv = deploy(
            &app,
            &"web".parse().unwrap(),
            &"v2".parse().unwrap(),
            &proxy,
            &timeouts,
            "0123456789ab:3000",
        );
        expect_test::expect![[r#"
            kamal-proxy
            deploy
            shop-web
            --target=0123456789ab:3000
            --host=a.test
            --tls=true
            --tls-certificate-path=/home/kamal-proxy/.apps-config/shop/tls/web/cert.pem
            --tls-private-key-path=/home/kamal-proxy/.apps-config/shop/tls/web/key.pem
            --deploy-timeout=30s
            --drain-timeout=20s
            --buffer-requests=true
            --buffer-responses=true
            --log-request-header=User-Agent
            --error-pages=/home/kamal-proxy/.apps-config/shop/error_pages/v2"#]]
        .assert_eq(&argv.join("\n"));
    }
}
