//! One proxy in a network of its own, with sample apps as targets.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::docker::{LABEL, docker, images, owner, try_docker};
use crate::http::{Answer, Ask};

/// How long a condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What "at once" may take on a busy machine, starting a process in a container included.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(8);

/// How late something timed may come on a busy machine.
pub(crate) const LATE: Duration = Duration::from_secs(6);

/// A network, a volume, a proxy, some apps; all gone when it is dropped.
pub(crate) struct Rig {
    name: String,
    address: Mutex<Option<IpAddr>>,
    apps: AtomicUsize,
    /// Mounted where Kamal mounts it; holds error pages and certificates.
    pub(crate) apps_config: tempfile::TempDir,
}

/// A sample app in the rig's network.
pub(crate) struct App {
    name: String,
    id: String,
}

/// What a `kamal-proxy` command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    pub(crate) at: Instant,
}

impl Said {
    /// Exit 0 and not a word.
    #[track_caller]
    pub(crate) fn silent_success(self) -> Self {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (0, "", ""));
        self
    }

    /// Exit 1 and this error on stderr, nothing on stdout.
    #[track_caller]
    pub(crate) fn error(self, message: &str) -> Self {
        let expected = format!("Error: {message}\n");
        assert_eq!(
            (self.code, self.stdout.as_str(), self.stderr.as_str()),
            (1, "", expected.as_str())
        );
        self
    }

    /// Exit 1 and an error that begins so.
    #[track_caller]
    pub(crate) fn error_starts(self, message: &str) -> Self {
        assert_eq!((self.code, self.stdout.as_str()), (1, ""), "{}", self.stderr);
        assert!(self.stderr.starts_with(&format!("Error: {message}")), "{}", self.stderr);
        self
    }

    /// Not before `time`, and not much later. Starting the command counts, so early is early.
    #[track_caller]
    pub(crate) fn after(self, time: Duration) -> Self {
        assert!(self.took >= time, "took {:?}, which is less than {time:?}", self.took);
        assert!(self.took < time + LATE, "took {:?} instead of {time:?}", self.took);
        self
    }

    #[track_caller]
    pub(crate) fn at_once(self) -> Self {
        assert!(self.took < AT_ONCE, "took {:?}", self.took);
        self
    }
}

/// A `kamal-proxy` command that runs.
pub(crate) struct Running {
    child: Child,
    started: Instant,
}

impl Running {
    pub(crate) fn wait(self) -> Said {
        let output = self.child.wait_with_output().expect("docker exec ends");
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: self.started.elapsed(),
            at: Instant::now(),
        }
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("docker exec can be looked at").is_some()
    }
}

impl Rig {
    /// A rig with a proxy that takes commands.
    pub(crate) fn start() -> Self {
        let rig = Self::without_proxy();
        rig.start_proxy(&[], &[]);
        rig.until_ready();
        rig
    }

    pub(crate) fn without_proxy() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        images();
        let name = format!("dhow-conf-{}-{}", owner(), COUNT.fetch_add(1, Ordering::Relaxed));
        let apps_config = tempfile::tempdir().expect("a temporary directory");
        // The proxy reads it as another user.
        set_mode(apps_config.path(), 0o755);
        let label = label();
        // The guard comes first: what fails from here on is cleaned up.
        let rig = Self { name, address: Mutex::new(None), apps: AtomicUsize::new(0), apps_config };
        docker(&["network", "create", "--label", &label, &rig.name]);
        docker(&["volume", "create", "--label", &label, &rig.name]);
        rig
    }

    /// Starts the proxy's container, with the volume and mounts that Kamal gives it.
    pub(crate) fn start_proxy(&self, options: &[&str], command: &[&str]) {
        let (label, name) = (label(), self.proxy());
        let config = format!("{}:/home/kamal-proxy/.config/kamal-proxy", self.name);
        let apps = format!("{}:/home/kamal-proxy/.apps-config", self.apps_config.path().display());
        let mut args =
            vec!["run", "--detach", "--label", &label, "--name", &name, "--network", &self.name];
        args.extend(["--volume", &config, "--volume", &apps]);
        args.extend(options);
        args.push(&images().proxy);
        args.extend(command);
        docker(&args);
        *self.address.lock().unwrap() = None;
    }

    pub(crate) fn remove_proxy(&self) {
        docker(&["rm", "--force", &self.proxy()]);
    }

    /// Waits until the server takes commands.
    pub(crate) fn until_ready(&self) {
        until("the proxy takes commands", || self.run(&["list"]).code == 0);
    }

    /// Stops and starts the proxy's container.
    pub(crate) fn restart_proxy(&self) {
        docker(&["restart", "--time", "15", &self.proxy()]);
        *self.address.lock().unwrap() = None;
        self.until_ready();
    }

    /// Ends the server as a crash would, and with it everything in its container.
    pub(crate) fn kill_proxy(&self) {
        docker(&["kill", &self.proxy()]);
    }

    /// Starts the container of a server that has ended.
    pub(crate) fn start_again(&self) {
        until("the server has ended", || {
            docker(&["inspect", "--format", "{{.State.Running}}", &self.proxy()]) == "false"
        });
        docker(&["start", &self.proxy()]);
        *self.address.lock().unwrap() = None;
        self.until_ready();
    }

    /// The proxy container's name.
    pub(crate) fn proxy(&self) -> String {
        format!("{}-proxy", self.name)
    }

    /// Runs `kamal-proxy` with these words in the proxy's container.
    pub(crate) fn run(&self, words: &[&str]) -> Said {
        self.spawn(words).wait()
    }

    pub(crate) fn spawn(&self, words: &[&str]) -> Running {
        let started = Instant::now();
        let child = Command::new("docker")
            .args(["exec", &self.proxy(), "kamal-proxy"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker can be started");
        Running { child, started }
    }

    /// Deploys `app` as `service` with more flags.
    pub(crate) fn deploy(&self, service: &str, app: &App, flags: &[&str]) -> Said {
        self.spawn_deploy(service, &app.target(), flags).wait()
    }

    pub(crate) fn spawn_deploy(&self, service: &str, target: &str, flags: &[&str]) -> Running {
        let target = format!("--target={target}");
        self.spawn(&[&["deploy", service, &target], flags].concat())
    }

    /// The rows of `list`, each cell without its colours.
    pub(crate) fn list(&self) -> Vec<Vec<String>> {
        let said = self.run(&["list"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stdout.lines().skip(1).map(cells).collect()
    }

    /// What `list` says of a service: its cells after the name.
    pub(crate) fn listed(&self, service: &str) -> Option<Vec<String>> {
        self.list().into_iter().find(|row| row[0] == service).map(|row| row[1..].to_vec())
    }

    /// Starts an app of version 1 with these environment variables, and waits until it listens.
    pub(crate) fn app(&self, env: &[&str]) -> App {
        self.start_app(&images().app_v1, env)
    }

    /// The same of version 2.
    pub(crate) fn new_app(&self) -> App {
        self.start_app(&images().app_v2, &[])
    }

    fn start_app(&self, image: &str, env: &[&str]) -> App {
        let name = format!("{}-app-{}", self.name, self.apps.fetch_add(1, Ordering::Relaxed));
        let label = label();
        let mut args =
            vec!["run", "--detach", "--label", &label, "--name", &name, "--network", &self.name];
        for variable in env {
            args.extend(["--env", variable]);
        }
        args.push(image);
        let id = docker(&args);
        let app = App { name, id };
        app.until_listening();
        app
    }

    /// The proxy's address for plain HTTP.
    pub(crate) fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), 80)
    }

    /// The proxy's address for TLS.
    pub(crate) fn https(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), 443)
    }

    fn ip(&self) -> IpAddr {
        *self.address.lock().unwrap().get_or_insert_with(|| container_ip(&self.proxy()))
    }

    /// A request through the proxy, for a host nobody claims.
    pub(crate) fn ask(&self, path: &str) -> Ask {
        self.ask_host("any.test", path)
    }

    pub(crate) fn ask_host(&self, host: &str, path: &str) -> Ask {
        Ask::get(self.http(), host, path)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(path).send().unwrap()
    }

    #[track_caller]
    pub(crate) fn get_host(&self, host: &str, path: &str) -> Answer {
        self.ask_host(host, path).send().unwrap()
    }

    /// Writes a file below the apps' configuration; gives its path in the proxy's container.
    pub(crate) fn write(&self, path: &str, content: &str) -> String {
        let file = self.apps_config.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        set_mode(&file, 0o644);
        inside(path)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = try_docker(&["logs", "--tail", "40", &self.proxy()]);
            eprintln!("--- {} ---\n{}", self.proxy(), String::from_utf8_lossy(&logs.stdout));
        }
        let filter = format!("name=^{}-", self.name);
        let ids = try_docker(&["ps", "--all", "--quiet", "--filter", &filter]);
        let ids = String::from_utf8_lossy(&ids.stdout).into_owned();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        // Failures are left to the reaper: a panic here would hide the test's own.
        if !ids.is_empty() {
            try_docker(&[&["rm", "--force", "--volumes"], ids.as_slice()].concat());
        }
        try_docker(&["network", "rm", &self.name]);
        try_docker(&["volume", "rm", "--force", &self.name]);
    }
}

impl App {
    /// As Kamal names a target: short id and port.
    pub(crate) fn target(&self) -> String {
        self.target_port(80)
    }

    pub(crate) fn target_port(&self, port: u16) -> String {
        format!("{}:{port}", &self.id[..12])
    }

    pub(crate) fn kill(&self) {
        docker(&["kill", &self.name]);
    }

    /// Starts it again; its address may be another one.
    pub(crate) fn start(&self) {
        docker(&["start", &self.name]);
        self.until_listening();
    }

    fn until_listening(&self) {
        until("the app listens", || self.control("requests").is_some());
    }

    /// Asks the app itself, past the proxy.
    fn control(&self, what: &str) -> Option<Value> {
        let ip = docker(&["inspect", "--format", IP_FORMAT, &self.name]).parse().ok()?;
        let answer =
            Ask::get(SocketAddr::new(ip, 80), "app", &format!("/control/{what}")).send().ok()?;
        serde_json::from_str(&answer.body).ok().or(Some(Value::Null))
    }

    /// Changes how `/up` answers.
    pub(crate) fn set_up(&self, query: &str) {
        self.control(&format!("up?{query}")).expect("the app listens");
    }

    /// When the health checks came, in ms on the app's clock, and what they got.
    pub(crate) fn checks(&self) -> Vec<(u64, u64)> {
        let checks = self.control("checks").expect("the app listens");
        let number = |check: &Value, field| check[field].as_u64().unwrap();
        checks
            .as_array()
            .unwrap()
            .iter()
            .map(|check| (number(check, "at_ms"), number(check, "status")))
            .collect()
    }

    /// What the health checks said of themselves: `user_agent` or `host`.
    pub(crate) fn check_field(&self, field: &str) -> String {
        let checks = self.control("checks").expect("the app listens");
        checks[0][field].as_str().unwrap_or_default().to_owned()
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        docker(&["logs", &self.name])
    }

    /// Now, on the app's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.control("requests").expect("the app listens")["now_ms"].as_u64().unwrap()
    }

    /// Waits until this many requests are in the app.
    pub(crate) fn until_open(&self, requests: u64) {
        until("requests are in flight", || {
            self.control("requests").is_some_and(|counted| counted["open"] == requests)
        });
    }
}

impl Rig {
    /// The id, on this machine, of the process in the proxy's container that runs these words.
    pub(crate) fn process(&self, words: &[&str]) -> Option<u32> {
        let first = docker(&["inspect", "--format", "{{.State.Pid}}", &self.proxy()]);
        let space = std::fs::read_link(format!("/proc/{first}/ns/pid")).ok()?;
        let wanted = words.join("\0") + "\0";
        std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let same = std::fs::read_link(entry.path().join("ns/pid")).ok()? == space;
            let runs = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            // The first word may be a path.
            let runs = runs.rsplit_once("kamal-proxy\0").map(|(_, rest)| rest == wanted)?;
            (same && runs).then(|| entry.file_name().to_str()?.parse().ok())?
        })
    }
}

/// Ends a process as a crash would.
pub(crate) fn kill_9(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()), "could not kill {pid}");
}

/// Waits until something is true.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where the proxy sees a file of [`Rig::apps_config`].
pub(crate) fn inside(path: &str) -> String {
    format!("/home/kamal-proxy/.apps-config/{path}")
}

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

const IP_FORMAT: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";

fn container_ip(name: &str) -> IpAddr {
    let ip = docker(&["inspect", "--format", IP_FORMAT, name]);
    ip.parse().unwrap_or_else(|_| panic!("{name} has the address {ip:?}"))
}

fn label() -> String {
    format!("{LABEL}={}", owner())
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Takes the colours off a line of `list` and splits it where the contract says: at two blanks.
fn cells(line: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain += before;
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain += rest;
    plain.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}
