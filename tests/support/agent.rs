//! The agent inside a lab: starting, killing, asking.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use super::lab::{Lab, Ran};
use super::until;

const BINARY: &str = env!("CARGO_BIN_EXE_netagent");
const SOCKET: &str = "/run/netagent/netagent.sock";

/// A running agent.
pub struct Agent {
    pub(super) child: Child,
    pid: String,
}

impl Lab {
    /// Starts the agent and waits until its API and its plugin socket answer.
    #[track_caller]
    pub fn start_agent(&self) {
        let state = self.data("state");
        let line = [
            BINARY,
            "daemon",
            "--state-dir",
            &state,
            "--runtime-dir",
            "/run/netagent",
            "--docker-plugin-dir",
            "/run/docker/plugins",
        ];
        let child = self.spawn_daemon("agent", &line);
        let pid = self.daemon_pid("agent");
        *self.agent.borrow_mut() = Some(Agent { child, pid });
        until("the agent's API answers", Duration::from_secs(20), || {
            self.assert_agent_lives();
            self.try_api("GET", "/v1/status", "").filter(|(status, _)| *status == 200)
        });
        until("the plugin socket is there", Duration::from_secs(10), || {
            self.inside("/run/docker/plugins/netagent.sock").exists().then_some(())
        });
    }

    /// Kills the agent without a chance to say goodbye.
    pub fn kill_agent(&self) {
        self.end_agent("-KILL");
    }

    /// Stops the agent as systemd would, and waits until it has gone.
    pub fn stop_agent(&self) {
        self.end_agent("-TERM");
    }

    /// The agent's pid inside the lab.
    pub fn agent_pid(&self) -> String {
        self.agent.borrow().as_ref().expect("no agent runs").pid.clone()
    }

    fn end_agent(&self, signal: &str) {
        let mut agent = self.agent.borrow_mut().take().expect("no agent runs");
        self.run(&["kill", signal, &agent.pid]);
        until("the agent ends", Duration::from_secs(20), || agent.child.try_wait().unwrap());
    }

    #[track_caller]
    fn assert_agent_lives(&self) {
        let mut agent = self.agent.borrow_mut();
        if let Some(status) = agent.as_mut().and_then(|a| a.child.try_wait().unwrap()) {
            panic!("the agent ended by itself: {status}");
        }
    }

    /// Runs `netagent …` as an operator.
    pub fn try_netagent(&self, args: &[&str]) -> Ran {
        let mut argv = vec![BINARY];
        argv.extend(args);
        self.try_run(&argv)
    }

    /// The same for a command that must succeed; its output.
    #[track_caller]
    pub fn netagent(&self, args: &[&str]) -> String {
        self.try_netagent(args).expect_ok()
    }

    /// A request to the API; status and body, `None` where nobody answers.
    pub fn try_api(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = UnixStream::connect(self.inside(SOCKET)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: netagent\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunk(body) } else { body.to_owned() };
        Some((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
    }

    /// A request that must succeed; the body of the answer.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.try_api(method, path, &text).expect("the API does not answer");
        assert!((200..300).contains(&status), "{method} {path} {text}: {status} {answer}");
        answer
    }

    pub(super) fn spawn_daemon(&self, name: &str, line: &[&str]) -> Child {
        let path = self.log(name);
        let log = File::options().create(true).append(true).open(path).unwrap();
        let pid_file = self.data(&format!("{name}.pid"));
        let _ = std::fs::remove_file(self.inside(&pid_file));
        let mut argv =
            vec!["bash", "-c", r#"echo $$ >"$1.new"; mv "$1.new" "$1"; shift; exec "$@""#, name];
        argv.push(&pid_file);
        argv.extend(line);
        let mut command = self.command(&argv);
        command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()));
        command.env("RUST_BACKTRACE", "1").env("NO_COLOR", "1");
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    pub(super) fn daemon_pid(&self, name: &str) -> String {
        let pid_file = self.inside(&self.data(&format!("{name}.pid")));
        until("the daemon's pid is known", Duration::from_secs(10), || {
            std::fs::read_to_string(&pid_file).ok().map(|pid| pid.trim().to_owned())
        })
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}
