//! The real binary as a service: what it refuses, when it is ready, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longer than anything here may take.
const DEADLINE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "the binary is what is tested")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// Directories of an agent, and systemd's end of the notifications.
struct Place {
    root: TempDir,
    notify: UnixDatagram,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let notify = UnixDatagram::bind(root.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { root, notify }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn api(&self) -> PathBuf {
        self.path("run/netagent.sock")
    }

    fn plugin(&self) -> PathBuf {
        self.path("plugins/netagent.sock")
    }

    fn arguments(&self) -> Vec<String> {
        let pairs = [
            ("--state-dir", "state"),
            ("--runtime-dir", "run"),
            ("--docker-plugin-dir", "plugins"),
            ("--docker-host", "docker.sock"),
        ];
        let of = |(key, name): (&str, &str)| [key.into(), self.path(name).display().to_string()];
        ["daemon".to_owned()].into_iter().chain(pairs.into_iter().flat_map(of)).collect()
    }

    fn daemon(&self) -> Command {
        let mut command = command(env!("CARGO_BIN_EXE_netagent"));
        command.args(self.arguments());
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.path("notify")).stderr(self.log()).stdin(Stdio::null());
    }

    fn log(&self) -> File {
        File::options().create(true).append(true).open(self.path("log")).unwrap()
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until systemd has been told this.
    #[track_caller]
    fn told(&self, expected: &str) {
        let mut buffer = [0; 4096];
        loop {
            let Ok(length) = self.notify.recv(&mut buffer) else {
                panic!("never told {expected}; log:\n{}", self.logged());
            };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(expected)) {
                return;
            }
        }
    }

    #[track_caller]
    fn start(&self) -> Daemon {
        let daemon = Daemon(self.daemon().spawn().unwrap());
        self.told("READY=1");
        daemon
    }
}

/// A running agent, killed at the latest when the test ends.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            std::thread::yield_now();
        }
        panic!("the agent does not end");
    }

    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One request; the whole answer.
fn ask(socket: &Path, request: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Runs the test in a network namespace of its own, which children inherit.
fn in_own_netns(name: &'static str, test: impl FnOnce() + Send + 'static) {
    let run = move || {
        if !nix::unistd::geteuid().is_root() || !own_netns() {
            assert!(
                std::env::var_os("NETAGENT_REQUIRE_ROOT").is_none(),
                "{name}: needs root and a network namespace"
            );
            println!("SKIP {name}: needs root and a network namespace");
            return;
        }
        test();
    };
    std::thread::spawn(run).join().unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the thread ends with the test")]
fn own_netns() -> bool {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok()
}

#[track_caller]
fn check_refused(mut command: Command, code: i32, words: &[&str]) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn whoever_is_not_root_is_refused_with_what_to_do() {
    let place = Place::new();
    // A copy where everybody can reach it: the build directory may be root's alone.
    let copy = place.path("netagent");
    std::fs::copy(env!("CARGO_BIN_EXE_netagent"), &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(place.root.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut daemon = command(copy.to_str().unwrap());
    daemon.args(place.arguments());
    if nix::unistd::geteuid().is_root() {
        daemon.uid(65534).gid(65534);
    }
    check_refused(daemon, 5, &["only root", "sudo netagent daemon"]);
    assert!(!place.path("run").exists() && !place.path("state").exists());
}

#[test]
fn a_bad_configuration_is_refused_with_its_line() {
    in_own_netns("a_bad_configuration_is_refused_with_its_line", || {
        let place = Place::new();
        let file = place.path("netagent.toml");
        std::fs::write(&file, "log = \"info\"\nmarc = 1\n").unwrap();
        let with = |path: &Path| {
            let mut daemon = place.daemon();
            daemon.arg("--config").arg(path);
            daemon
        };
        check_refused(with(&file), 2, &["line 2", "marc", "did you mean \"mark\"?"]);
        check_refused(with(&place.path("missing.toml")), 2, &["missing.toml"]);
        let mut daemon = place.daemon();
        daemon.env("NETAGENT_LOG", "=,=");
        check_refused(daemon, 2, &["NETAGENT_LOG"]);
        let mut daemon = place.daemon();
        daemon.args(["--docker-host", "tcp://1.2.3.4:2375"]);
        assert!(!daemon.output().unwrap().status.success());
    });
}

#[test]
fn the_agent_is_ready_when_its_sockets_answer_and_ends_in_order() {
    in_own_netns("the_agent_is_ready_when_its_sockets_answer_and_ends_in_order", || {
        let place = Place::new();
        let daemon = place.start();
        assert!(ask(&place.api(), "GET /v1/version", "").starts_with("HTTP/1.1 200"));
        let activated = ask(&place.plugin(), "POST /Plugin.Activate", "");
        assert!(activated.contains("NetworkDriver"), "{activated}");
        for file in [place.api(), place.plugin(), place.path("run/netagent.lock")] {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
        for dir in ["run", "state"] {
            assert_eq!(place.path(dir).metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        // An idle connection, as dockerd keeps them, does not hold up the end.
        let _idle = UnixStream::connect(place.plugin()).unwrap();
        daemon.stop();
        place.told("STOPPING=1");
        assert!(!place.api().exists() && !place.plugin().exists());
        place.start().stop();
    });
}

#[test]
fn a_second_agent_is_refused_and_names_the_first() {
    in_own_netns("a_second_agent_is_refused_and_names_the_first", || {
        let place = Place::new();
        let first = place.start();
        let pid = format!("(pid {})", first.0.id());
        check_refused(place.daemon(), 4, &["another netagent", &pid, "--runtime-dir"]);
        // The state directory alone is enough to collide.
        let elsewhere = Place::new();
        let mut shared = command(env!("CARGO_BIN_EXE_netagent"));
        shared.args(elsewhere.arguments().into_iter().map(|word| {
            let own = elsewhere.path("state").display().to_string();
            if word == own { place.path("state").display().to_string() } else { word }
        }));
        check_refused(shared, 4, &["another netagent uses it"]);
        // So does the host's network.
        check_refused(Place::new().daemon(), 4, &["another netagent", "owns its networks"]);
        assert!(ask(&place.api(), "GET /v1/version", "").starts_with("HTTP/1.1 200"));
        first.stop();
    });
}

#[test]
fn networks_and_dead_sockets_are_taken_up_after_kill_9() {
    in_own_netns("networks_and_dead_sockets_are_taken_up_after_kill_9", || {
        let place = Place::new();
        let mut daemon = place.start();
        make_a_network(&place);
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
        assert!(place.api().exists(), "killed: its socket stays");
        let daemon = place.start();
        let network = ask(&place.api(), "GET /v1/networks/web", "");
        assert!(network.contains("10.99.0.0/24"), "{network}");
        daemon.stop();
        let daemon = place.start();
        let removed = ask(&place.api(), "DELETE /v1/networks/web", "");
        assert!(removed.starts_with("HTTP/1.1 2"), "{removed}");
        daemon.stop();
    });
}

#[test]
fn sighup_reads_the_log_level_again_and_a_mistake_in_the_file_ends_nothing() {
    in_own_netns("sighup_reads_the_log_level_again", || {
        let place = Place::new();
        let file = place.path("netagent.toml");
        let wait_for = |words: &str| {
            let until = Instant::now() + DEADLINE;
            while !place.logged().contains(words) {
                assert!(Instant::now() < until, "{words} is never logged:\n{}", place.logged());
                std::thread::yield_now();
            }
        };
        std::fs::write(&file, "log = \"info\"\n").unwrap();
        let mut daemon = place.daemon();
        daemon.arg("--config").arg(&file).env_remove("NETAGENT_LOG");
        let daemon = Daemon(daemon.spawn().unwrap());
        place.told("READY=1");
        std::fs::write(&file, "log = \"loud\"\n").unwrap();
        daemon.signal(Signal::SIGHUP);
        wait_for("the configuration was not taken over");
        std::fs::write(&file, "log = \"debug\"\n").unwrap();
        daemon.signal(Signal::SIGHUP);
        wait_for("the log level was read again");
        assert!(!place.logged().contains("answered dockerd"));
        ask(&place.plugin(), "POST /Plugin.Activate", "");
        wait_for("answered dockerd");
        daemon.stop();
    });
}

#[test]
fn sockets_of_systemd_are_used_and_left_in_place() {
    in_own_netns("sockets_of_systemd_are_used_and_left_in_place", || {
        let place = Place::new();
        let (api, plugin) = (place.path("api.sock"), place.path("plugin.sock"));
        let handed = |path: &Path| Stdio::from(OwnedFd::from(UnixListener::bind(path).unwrap()));
        // As systemd does it: descriptors from 3 on, and the id of the process they are for.
        let script = "exec 3<&0 4<&1 0</dev/null 1>&2; \
             LISTEN_FDS=2 LISTEN_FDNAMES=netagent-docker:netagent-api LISTEN_PID=$$ exec \"$@\"";
        let mut shell = command("sh");
        shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_netagent")]).args(place.arguments());
        place.environment(&mut shell);
        shell.stdin(handed(&plugin)).stdout(handed(&api));
        let daemon = Daemon(shell.spawn().unwrap());
        drop(shell);
        place.told("READY=1");
        assert!(ask(&api, "GET /v1/version", "").starts_with("HTTP/1.1 200"));
        assert!(ask(&plugin, "POST /Plugin.Activate", "").contains("NetworkDriver"));
        assert!(!place.api().exists() && !place.plugin().exists());
        daemon.stop();
        assert!(api.exists() && plugin.exists());
    });
}

#[test]
fn systemds_watchdog_is_fed() {
    in_own_netns("systemds_watchdog_is_fed", || {
        let place = Place::new();
        let mut daemon = place.daemon();
        daemon.env("WATCHDOG_USEC", "300000");
        let daemon = Daemon(daemon.spawn().unwrap());
        place.told("READY=1");
        for _ in 0..3 {
            place.told("WATCHDOG=1");
        }
        daemon.stop();
    });
}

/// The links of the network namespace that the test is in.
fn links() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().into())
        .collect()
}

fn make_a_network(place: &Place) {
    let body = r#"{"Name":"web","Driver":"bridge","IPAM":{"Config":[{"Subnet":"10.99.0.0/24"}]}}"#;
    let made = ask(&place.api(), "POST /v1/networks", body);
    assert!(made.starts_with("HTTP/1.1 2"), "{made}");
}

#[test]
fn a_bridge_that_somebody_deletes_is_made_again() {
    in_own_netns("a_bridge_that_somebody_deletes_is_made_again", || {
        let place = Place::new();
        let daemon = place.start();
        make_a_network(&place);
        let bridge = links().into_iter().find(|name| name.starts_with("nab-")).unwrap();
        let deleted = command("ip").args(["link", "delete", &bridge]).status();
        assert!(deleted.unwrap().success(), "needs `ip`: scripts/test installs it");
        let until = Instant::now() + DEADLINE;
        while !links().contains(&bridge) {
            assert!(Instant::now() < until, "{bridge} does not come back:\n{}", place.logged());
            std::thread::yield_now();
        }
        daemon.stop();
    });
}

#[test]
fn what_was_changed_is_logged_with_the_request_that_asked_for_it() {
    in_own_netns("what_was_changed_is_logged_with_the_request_that_asked_for_it", || {
        let place = Place::new();
        let daemon = place.start();
        make_a_network(&place);
        daemon.stop();
        let log = place.logged();
        let changed = log.lines().find(|line| line.contains("changed the host"));
        let changed = changed.unwrap_or_else(|| panic!("nothing was logged:\n{log}"));
        for part in ["request{id=", "path=\"/v1/networks\"", "took_us="] {
            assert!(changed.contains(part), "{part} is missing in: {changed}");
        }
    });
}
