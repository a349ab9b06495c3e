//! The namespaces: a host, and a neighbour on the other end of its uplink.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use super::agent::Agent;
use super::docker::Dockerd;
use super::place::Place;
use super::version::{Root, Version};

/// Stays outside, waits for the namespaces to end, and removes what the kernel does not: the
/// directory, and the control groups of containers that died with their pid namespace.
const GUARDIAN: &str = r#"
dir=$1 inner=$2
unshare --mount --net --pid --fork --kill-child --propagation private -- bash -c "$inner" lab "$dir"
find /sys/fs/cgroup -depth -type d -path "*/${dir##*/}*" -exec rmdir {} + 2>/dev/null
rm -rf --one-file-system "$dir"
"#;

/// Process 1 of the pid namespace: sets the scene, says its pid as the machine knows it (the old
/// /proc still tells), and lives until its input ends. bash reaps orphans, `cat` would not, and
/// dockerd takes a dead containerd that nobody reaped for a live one.
const INNER: &str = r#"
set -eu
dir=$1
read -r pid _ </proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns "$dir/data"
mount -t tmpfs -o mode=755 tmpfs "$dir/data"
ip link set lo up
ip netns add neighbour
ip -n neighbour link set lo up
ip link add uplink type veth peer name eth0 netns neighbour
ip addr add 10.99.0.1/24 dev uplink
ip -6 addr add fd99::1/64 dev uplink nodad
ip link set uplink up
ip -n neighbour addr add 10.99.0.2/24 dev eth0
ip -n neighbour -6 addr add fd99::2/64 dev eth0 nodad
ip -n neighbour link set eth0 up
ip route add default via 10.99.0.2
ip -n neighbour route add default via 10.99.0.1
echo "$pid"
while read -r _; do :; done
"#;

/// What a command inside the lab did.
#[derive(Debug)]
pub struct Ran {
    pub line: String,
    pub ok: bool,
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The output, where it succeeded; otherwise a panic with all it said.
    #[track_caller]
    pub fn expect_ok(self) -> String {
        assert!(self.ok, "`{}` failed ({}):\n{}{}", self.line, self.code, self.out, self.err);
        self.out.trim_end().to_owned()
    }

    /// The error text, where it failed.
    #[track_caller]
    pub fn expect_err(self) -> String {
        assert!(
            !self.ok,
            "`{}` should have failed, but said:\n{}{}",
            self.line, self.out, self.err
        );
        self.err
    }
}

/// A host of its own, with a neighbour at the other end of its uplink.
///
/// | where | link | addresses |
/// |---|---|---|
/// | host | `uplink` | 10.99.0.1/24, fd99::1/64; default route by the neighbour |
/// | neighbour | `eth0` | 10.99.0.2/24, fd99::2/64; default route by the host |
pub struct Lab {
    name: String,
    dir: PathBuf,
    pid: u32,
    guardian: Child,
    pipe: Option<ChildStdin>,
    pub(super) agent: RefCell<Option<Agent>>,
    pub(super) dockerd: RefCell<Option<Dockerd>>,
    /// Which dockerd it is to be.
    pub version: Version,
    /// Its root, where it is not the installed one.
    pub(super) root: Option<Root>,
}

impl Lab {
    /// Builds the namespaces; `None` (with a `SKIP` line) where that is not allowed.
    pub fn start() -> Option<Self> {
        let name = std::thread::current().name().unwrap_or("lab").to_owned();
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var("NETAGENT_REQUIRE_ROOT").as_deref() != Ok("1"),
                "{name} needs root, and NETAGENT_REQUIRE_ROOT=1 forbids skipping it"
            );
            println!("SKIP {name}: needs root for namespaces");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("netagent-lab-").tempdir().unwrap().keep();
        let mut guardian = Command::new("bash")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&dir)
            .arg(INNER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start bash");
        let pipe = guardian.stdin.take();
        let mut line = String::new();
        BufReader::new(guardian.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().expect("the lab's namespaces could not be made (see above)");
        let (agent, dockerd) = (RefCell::new(None), RefCell::new(None));
        let (version, root) = (Version::V20, None);
        Some(Self { name, dir, pid, guardian, pipe, agent, dockerd, version, root })
    }

    /// The host's network namespace.
    pub fn host(&self) -> Place {
        Place::open("host", &self.inside("/proc/1/ns/net"))
    }

    /// The host next door.
    pub fn neighbour(&self) -> Place {
        self.place("neighbour")
    }

    /// An empty namespace of its own, as a container runtime would make one.
    pub fn sandbox(&self, name: &str) -> Place {
        self.run(&["ip", "netns", "add", name]);
        self.run(&["ip", "-n", name, "link", "set", "lo", "up"]);
        self.place(name)
    }

    /// A named namespace that is there already.
    pub fn place(&self, name: &str) -> Place {
        Place::open(name, &self.inside(&format!("/run/netns/{name}")))
    }

    /// The namespace of a process, by its pid inside the lab.
    pub fn place_of(&self, name: &str, pid: u32) -> Place {
        Place::open(name, &self.inside(&format!("/proc/{pid}/ns/net")))
    }

    /// A path inside the lab, as this process can open it.
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// A directory for data; inside the lab it is a tmpfs.
    pub fn data(&self, name: &str) -> String {
        format!("{}/data/{name}", self.dir.display())
    }

    /// Name of this lab, unique on the machine.
    pub fn id(&self) -> String {
        self.dir.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// A log file, outside of the namespaces.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// A command inside, not started yet.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-n", "-p", "--"]).args(argv);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command inside, for at most a minute and a half, and tells what it did.
    pub fn try_run(&self, argv: &[&str]) -> Ran {
        let mut all = vec!["timeout", "-k", "1", "90"];
        all.extend(argv);
        let Output { status, stdout, stderr } = self.command(&all).output().unwrap();
        Ran {
            line: argv.join(" "),
            ok: status.success(),
            code: status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&stdout).into_owned(),
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Runs a command inside that must succeed; its output.
    #[track_caller]
    pub fn run(&self, argv: &[&str]) -> String {
        self.try_run(argv).expect_ok()
    }

    /// Sets a sysctl of the host, by its dotted name.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        self.run(&["sysctl", "-qw", &format!("{key}={value}")]);
    }

    /// Whether bridged packets pass netfilter; `false` where the machine lacks br_netfilter, which
    /// means the same as switching it off.
    #[track_caller]
    pub fn bridge_nf(&self, on: bool) -> bool {
        if !self.inside("/proc/sys/net/bridge").exists() {
            return false;
        }
        for table in ["iptables", "ip6tables"] {
            self.sysctl(&format!("net.bridge.bridge-nf-call-{table}"), if on { "1" } else { "0" });
        }
        true
    }

    /// Names of the host's links, without those that every lab has.
    pub fn links(&self) -> Vec<String> {
        let always = ["lo", "uplink", "docker0", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0"];
        let names = self.run(&["sh", "-c", "ip -o link | cut -d' ' -f2 | tr -d : | cut -d@ -f1"]);
        let mut names: Vec<String> =
            names.lines().map(str::to_owned).filter(|n| !always.contains(&n.as_str())).collect();
        names.retain(|name| !["erspan0", "ip6_vti0", "ip_vti0", "ip6gre0"].contains(&&**name));
        names.sort();
        names
    }

    /// The ruleset of nf_tables without Docker's (the tables that iptables keeps).
    pub fn nft_tables(&self) -> Vec<String> {
        let tables = self.run(&["nft", "list", "tables"]);
        let of_iptables = ["filter", "nat", "raw", "mangle", "security"];
        tables
            .lines()
            .filter(|line| !of_iptables.iter().any(|name| line.ends_with(&format!(" {name}"))))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["agent", "dockerd"] {
                print_tail(&self.name, &self.log(name), if name == "agent" { 120 } else { 40 });
            }
        }
        drop(self.pipe.take());
        let _ = self.guardian.wait();
        let agent = self.agent.take().map(|agent| agent.child);
        let dockerd = self.dockerd.take().map(|dockerd| dockerd.child);
        for child in [agent, dockerd, self.root.take().map(|root| root.child)] {
            let _ = child.map(|mut child| child.wait());
        }
    }
}

fn print_tail(test: &str, path: &Path, count: usize) {
    let Ok(text) = fs::read_to_string(path) else { return };
    let chatter = ["module=grpc", "loading plugin", "msg=serving"];
    let mut lines: Vec<&str> = text.lines().collect();
    lines.retain(|line| !chatter.iter().any(|words| line.contains(words)));
    println!("---- {test}: last lines of {}", path.display());
    for line in &lines[lines.len().saturating_sub(count)..] {
        println!("{line}");
    }
}
