//! A network namespace as a place to listen, to call from, and to run commands in.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use socket2::SockRef;

/// How long a call may stay without an answer that should come: three SYNs.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long silence must last to count: one repeated SYN.
const SILENCE: Duration = Duration::from_millis(1200);

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A listener said its name, and as whom it sees the caller (where it says so).
    From { who: String, saw: Option<IpAddr> },
    /// Somebody refused.
    Refused,
    /// Nothing came back.
    Silent,
    /// The kernel or a router said that there is no way: its errno.
    Unreachable(i32),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { who, saw: Some(saw) } => write!(f, "\"{who}\" answered, seeing {saw}"),
            Self::From { who, saw: None } => write!(f, "\"{who}\" answered"),
            Self::Refused => f.write_str("connection refused"),
            Self::Silent => f.write_str("no answer"),
            Self::Unreachable(errno) => write!(f, "no way there (errno {errno})"),
        }
    }
}

/// An open network namespace.
pub struct Place {
    pub name: String,
    netns: Arc<File>,
}

impl Place {
    #[track_caller]
    pub fn open(name: &str, path: &Path) -> Self {
        let netns = File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
        Self { name: name.to_owned(), netns: Arc::new(netns) }
    }

    /// Runs `work` on a thread of its own inside this namespace. Sockets it makes stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.netns.as_ref(), CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command of this machine here; its output, where it succeeded.
    pub fn try_run(&self, argv: &[&str]) -> Result<String, String> {
        let out = self.enter(|| {
            Command::new(argv[0]).args(&argv[1..]).stdin(Stdio::null()).output().unwrap()
        });
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if out.status.success() {
            return Ok(text);
        }
        Err(format!("{text}{}", String::from_utf8_lossy(&out.stderr)))
    }

    /// The same for a command that must succeed.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> String {
        self.try_run(argv)
            .unwrap_or_else(|e| panic!("in {}: `{}` failed:\n{e}", self.name, argv.join(" ")))
    }

    /// Whether an echo request to `to` is answered within two seconds.
    pub fn pings(&self, to: &str) -> bool {
        self.try_run(&["ping", "-n", "-c1", "-W2", to]).is_ok()
    }

    /// Whether there is a neighbour entry for each of `addresses`, and all lead to `mac`.
    pub fn remembers(&self, mac: &str, addresses: &[&str]) -> bool {
        let entry = format!(" lladdr {mac} ");
        let known = |address: &&str| self.run(&["ip", "neigh", "show", address]).contains(&entry);
        addresses.iter().all(known)
    }

    /// A TCP listener that says its name and whom it sees.
    #[track_caller]
    pub fn tcp_listener(&self, address: &str, who: &str) -> Listener {
        let socket = self.enter(|| TcpListener::bind(address)).expect("bind");
        SockRef::from(&socket).set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let who = who.to_owned();
        Listener::spawn(move |heard| {
            if let Ok((mut stream, peer)) = socket.accept() {
                heard.fetch_add(1, Ordering::SeqCst);
                let _ = writeln!(stream, "{who} {}", peer.ip());
            }
        })
    }

    /// The same for UDP: each datagram is answered.
    #[track_caller]
    pub fn udp_listener(&self, address: &str, who: &str) -> Listener {
        let socket = self.enter(|| UdpSocket::bind(address)).expect("bind");
        socket.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let who = who.to_owned();
        Listener::spawn(move |heard| {
            let mut buffer = [0; 2048];
            if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                heard.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(format!("{who} {}\n", peer.ip()).as_bytes(), peer);
            }
        })
    }

    /// Calls `to` over TCP and listens for a name.
    pub fn tcp(&self, to: &str, patience: Duration) -> Answer {
        let to = resolve(to);
        self.enter(|| {
            let mut stream = match TcpStream::connect_timeout(&to, patience) {
                Ok(stream) => stream,
                Err(error) => return failure(&error),
            };
            stream.set_read_timeout(Some(patience)).unwrap();
            let mut text = String::new();
            match stream.read_to_string(&mut text) {
                Ok(_) => named(&text),
                Err(error) if text.is_empty() => failure(&error),
                Err(_) => named(&text),
            }
        })
    }

    /// Sends `to` datagrams, one each quarter of a second, until one is answered.
    pub fn udp(&self, to: &str, patience: Duration) -> Answer {
        let to = resolve(to);
        self.enter(|| {
            let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
            if let Err(error) = socket.connect(to) {
                return failure(&error);
            }
            let mut last = Answer::Silent;
            for _ in 0..patience.as_millis() / 250 {
                let mut buffer = [0; 512];
                match socket.send(b"who?\n").and_then(|_| socket.recv(&mut buffer)) {
                    Ok(size) => return named(&String::from_utf8_lossy(&buffer[..size])),
                    Err(error) => last = failure(&error),
                }
            }
            last
        })
    }

    /// Panics unless the listener called `who` answers at `to` (`tcp:ADDRESS:PORT` or `udp:…`);
    /// the address as which it saw the caller.
    #[track_caller]
    pub fn hears(&self, who: &str, to: &str) -> Option<IpAddr> {
        self.try_hears(who, to).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Panics if anybody answers at `to`. Prove elsewhere that there is somebody to answer.
    #[track_caller]
    pub fn hears_nothing(&self, to: &str) {
        self.try_hears_nothing(to).unwrap_or_else(|why| panic!("{why}"));
    }

    /// As [`Place::hears`], for collecting what is wrong.
    pub fn try_hears(&self, who: &str, to: &str) -> Result<Option<IpAddr>, String> {
        match self.call(to, PATIENCE) {
            Answer::From { who: name, saw } if name == who => Ok(saw),
            other => Err(format!("{} calls {to}: expected \"{who}\", but: {other}", self.name)),
        }
    }

    /// As [`Place::hears_nothing`], for collecting what is wrong.
    pub fn try_hears_nothing(&self, to: &str) -> Result<(), String> {
        match self.call(to, SILENCE) {
            Answer::Refused | Answer::Silent | Answer::Unreachable(_) => Ok(()),
            answer @ Answer::From { .. } => {
                Err(format!("{} calls {to}: expected nothing, but: {answer}", self.name))
            }
        }
    }

    /// Calls `to` until the listener called `who` answers, for things that take their time.
    #[track_caller]
    pub fn hears_within(&self, deadline: Duration, who: &str, to: &str) {
        let mut last = Answer::Silent;
        let end = std::time::Instant::now() + deadline;
        while std::time::Instant::now() < end {
            match self.call(to, Duration::from_millis(500)) {
                Answer::From { who: name, .. } if name == who => return,
                other => last = other,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} calls {to}: no \"{who}\" within {deadline:?}, but: {last}", self.name);
    }

    fn call(&self, to: &str, patience: Duration) -> Answer {
        match to.split_once(':') {
            Some(("tcp", to)) => self.tcp(to, patience),
            Some(("udp", to)) => self.udp(to, patience),
            _ => panic!("\"{to}\" does not begin with tcp: or udp:"),
        }
    }
}

/// A listener; ends when dropped.
pub struct Listener {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn spawn(mut serve_one: impl FnMut(&AtomicUsize) + Send + 'static) -> Self {
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), heard.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                serve_one(&count);
            }
        });
        Self { stop, heard, thread: Some(thread) }
    }

    /// How many calls have come so far.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn resolve(to: &str) -> SocketAddr {
    to.to_socket_addrs().unwrap_or_else(|e| panic!("\"{to}\": {e}")).next().unwrap()
}

fn named(text: &str) -> Answer {
    let mut words = text.split_whitespace();
    match words.next() {
        None => Answer::Silent,
        Some(who) => {
            let saw = words.next().and_then(|word| word.parse().ok());
            Answer::From { who: who.to_owned(), saw }
        }
    }
}

fn failure(error: &std::io::Error) -> Answer {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Answer::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Answer::Silent,
        _ => Answer::Unreachable(error.raw_os_error().unwrap_or(0)),
    }
}
