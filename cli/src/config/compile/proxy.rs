//! Proxy settings: how services are routed, and how the proxy itself runs.

use dhow_proto::model::kamal::{PROXY_REPOSITORY, PROXY_VERSION};
use dhow_proto::model::name::ImageRef;
use dhow_proto::model::template::{LogConfig, ProxyContainer, ProxyTarget, ProxyTemplate};

use super::super::diagnostic::Code;
use super::super::model::{Proxy, ProxyRun, Tls};
use super::{Compiler, options};

impl Compiler<'_> {
    /// The options of `kamal-proxy deploy`.
    pub(super) fn target(&mut self, proxy: &Proxy, path: &str) -> Option<ProxyTarget> {
        let mut seconds = |value: Option<i128>, key: &str| match value {
            Some(value) => self.unsigned::<u64>(value, &format!("{path}/{key}")).map(Some),
            None => Some(None),
        };
        let health_interval_s = seconds(proxy.health_interval, "healthcheck/interval")?;
        let health_timeout_s = seconds(proxy.health_timeout, "healthcheck/timeout")?;
        let response_timeout_s = seconds(proxy.response_timeout, "response_timeout")?;
        let mut bytes = |value: Option<i128>, key: &str| match value {
            Some(value) => {
                self.unsigned::<i64>(value, &format!("{path}/buffering/{key}")).map(Some)
            }
            None => Some(None),
        };
        Some(ProxyTarget {
            buffer_memory: bytes(proxy.buffer_memory, "memory")?,
            max_request_body: bytes(proxy.max_request_body, "max_request_body")?,
            max_response_body: bytes(proxy.max_response_body, "max_response_body")?,
            app_port: self.unsigned(proxy.app_port, &format!("{path}/app_port"))?,
            hosts: proxy.hosts.clone(),
            tls: proxy.tls != Tls::Off,
            custom_certificate: matches!(proxy.tls, Tls::Custom { .. }),
            health_path: proxy.health_path.clone(),
            health_interval_s,
            health_timeout_s,
            response_timeout_s,
            buffer_requests: proxy.buffer_requests,
            buffer_responses: proxy.buffer_responses,
            path_prefixes: proxy.path_prefixes.clone(),
            strip_path_prefix: proxy.strip_path_prefix,
            forward_headers: proxy.forward_headers,
            tls_redirect: proxy.ssl_redirect,
            log_request_headers: proxy.log_request_headers.clone(),
            log_response_headers: proxy.log_response_headers.clone(),
            error_pages: self.config.error_pages_path.is_some(),
        })
    }

    /// How the proxy runs: by the one `proxy.run` section in use, else with the defaults.
    pub(super) fn proxy_template(&mut self) -> Option<ProxyTemplate> {
        let config = self.config;
        let mut runs: Vec<&ProxyRun> = Vec::new();
        let used = config.roles.iter().filter_map(|role| role.proxy.as_ref());
        let used = used.chain(config.accessories.iter().filter_map(|a| a.proxy.as_ref()));
        for run in used.filter_map(|proxy| proxy.run.as_ref()) {
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        if runs.len() > 1 {
            self.report(
                Code::Conflict,
                "proxy/run",
                "all proxied roles and accessories need the same settings; give them once, at the root",
            );
            return None;
        }
        let none = ProxyRun { publish: true, ..ProxyRun::default() };
        let run = runs.first().copied().unwrap_or(&none);
        let explicit = !runs.is_empty();
        let translated = options::translate(&run.options);
        for problem in translated.problems {
            self.report(
                Code::Option,
                &format!("proxy/run/options/{}", problem.option),
                problem.cause,
            );
        }
        let mounts = translated.volumes.iter();
        let container = ProxyContainer {
            env: translated.env,
            labels: translated.labels,
            mounts: mounts
                .filter_map(|volume| self.mount(volume, "proxy/run/options/volume"))
                .collect(),
            restart: translated.restart,
            log: LogConfig {
                driver: translated.log_driver.unwrap_or_default(),
                options: translated.log_options,
            },
        };
        let repository = run.repository.as_deref().unwrap_or(PROXY_REPOSITORY);
        let repository = match run.registry.as_deref().filter(|registry| !registry.is_empty()) {
            Some(registry) => format!("{registry}/{repository}"),
            None => repository.to_owned(),
        };
        let tag = run.version.clone().unwrap_or_else(|| PROXY_VERSION.to_owned());
        let metrics_port = match run.metrics_port {
            Some(port) => Some(self.unsigned(port, "proxy/run/metrics_port")?),
            None => None,
        };
        Some(ProxyTemplate {
            image: ImageRef { repository, tag },
            publish: run.publish,
            http_port: self.unsigned(run.http_port.unwrap_or(80), "proxy/run/http_port")?,
            https_port: self.unsigned(run.https_port.unwrap_or(443), "proxy/run/https_port")?,
            bind_ips: run.bind_ips.clone(),
            log_max_size: run.log_max_size.clone().unwrap_or_else(|| "10m".into()),
            metrics_port,
            debug: run.debug,
            explicit,
            options: translated.engine,
            container,
        })
    }
}
