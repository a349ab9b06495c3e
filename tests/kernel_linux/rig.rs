//! A namespace for the host, others for sandboxes, and short words for objects.

pub use netagent::firewall::model::{SetName, Value};
pub use netagent::firewall::policy;
pub use netagent::kernel::linux::events::{Event, Monitor};
pub use netagent::kernel::linux::{Iptables, Linux, Options};
pub use netagent::kernel::{Announcement, Kernel, KernelError, Outcome, Scope};
pub use netagent::model::{
    Family, HostAddress, LinkName, MacAddr, Mark, Mtu, PortRange, Protocol, Published,
};
pub use netagent::object::{
    Accept, Address, Element, Hold, Hop, Link, LinkKind, Netns, Object, Op, Peer, Revert, Route,
    Sysctl,
};
pub use netagent::plan::{Owner, Seen};
pub use nix::errno::Errno;
pub use nix::sched::CloneFlags;
pub use std::io::{Read, Write};
pub use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
pub use std::path::PathBuf;
pub use std::sync::mpsc;
pub use std::thread;
pub use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "on a thread that ends with the test")]
pub fn leave_the_machines_namespace() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
}

/// Runs `test` on a thread in a namespace of its own, or says why not.
pub fn in_namespace(name: &str, test: fn()) {
    if !nix::unistd::geteuid().is_root() {
        let required = std::env::var_os("NETAGENT_REQUIRE_ROOT").is_some_and(|value| value == "1");
        assert!(!required, "{name} needs root");
        println!("SKIP {name}: needs root");
        return;
    }
    let thread = thread::spawn(move || {
        leave_the_machines_namespace();
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Tests that each run in a namespace of their own.
macro_rules! tests {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {
        $($(#[$attribute])* #[test] fn $name() {
            $crate::rig::in_namespace(stringify!($name), || $body);
        })*
    };
}

/// Another program's doing, in the calling thread's namespace.
#[expect(clippy::disallowed_methods, reason = "plays the other program")]
pub fn sh(command: &str) -> String {
    let output = std::process::Command::new("sh").args(["-ec", command]).output().expect("sh");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

pub type Work = Box<dyn FnOnce() + Send>;

/// A namespace that lives as long as its thread.
pub struct Sandbox {
    pub path: PathBuf,
    work: Option<mpsc::Sender<Work>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sandbox {
    pub fn new() -> Self {
        let (work, todo) = mpsc::channel::<Work>();
        let (ready, tid) = mpsc::channel();
        let thread = thread::spawn(move || {
            leave_the_machines_namespace();
            ready.send(nix::unistd::gettid()).unwrap();
            todo.iter().for_each(|work| work());
        });
        let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), tid.recv().unwrap());
        Self { path: path.into(), work: Some(work), thread: Some(thread) }
    }

    pub fn netns(&self) -> Netns {
        Netns::Path(self.path.clone())
    }

    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let work = move || drop(answer.send(work()));
        self.work.as_ref().unwrap().send(Box::new(work)).unwrap();
        answered.recv().expect("the sandbox's work panicked")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.work = None;
        let _ = self.thread.take().unwrap().join();
    }
}

pub fn linux() -> Linux {
    Linux::open(Options { mark: Mark::DEFAULT, iptables: Iptables::Unused }).unwrap()
}

pub fn with_iptables() -> Linux {
    Linux::open(Options { mark: Mark::DEFAULT, iptables: Iptables::Used }).unwrap()
}

pub fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

pub fn mtu(bytes: u32) -> Mtu {
    Mtu::new(bytes).unwrap()
}

pub fn mac(last: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, last]).unwrap()
}

pub fn bridge(filter_bridged: bool) -> Link {
    Link {
        netns: Netns::Host,
        name: name("nab-1"),
        kind: LinkKind::Bridge { filter_bridged },
        mtu: mtu(1400),
        mac: Some(mac(1)),
        master: None,
        alias: "netagent:web".into(),
        serving: true,
    }
}

pub fn veth(host: &str, peer: Peer) -> Link {
    Link {
        netns: Netns::Host,
        name: name(host),
        kind: LinkKind::Veth { peer, isolated: false },
        mtu: mtu(1400),
        mac: None,
        master: Some(name("nab-1")),
        alias: format!("netagent:web/{host}"),
        serving: true,
    }
}

pub fn into_sandbox(sandbox: &Sandbox, last: u8) -> Peer {
    Peer::At {
        netns: sandbox.netns(),
        name: name("eth0"),
        mac: mac(last),
        sysctls: Default::default(),
    }
}

pub fn handed_off() -> Peer {
    Peer::At { netns: Netns::Host, name: name("nac-1"), mac: mac(7), sysctls: Default::default() }
}

pub fn link(link: &Link) -> Object {
    Object::Link(link.clone())
}

pub fn address(netns: Netns, link: &str, net: &str) -> Object {
    Object::Address(Address { netns, link: name(link), net: net.parse().unwrap() })
}

pub fn route(netns: Netns, destination: &str, via: &str) -> Object {
    Object::Route(Route {
        netns,
        destination: destination.parse().unwrap(),
        hop: Hop::Via(via.parse().unwrap()),
        link: name("eth0"),
    })
}

pub fn hold(protocol: Protocol, first: u16, last: u16) -> Object {
    let ports = PortRange::new(first, last).unwrap();
    Object::Hold(Hold { protocol, host: HostAddress::ANY_V4, ports, relay: None })
}

pub fn create(kernel: &mut Linux, objects: &[Object]) {
    let ops: Vec<Op> = objects.iter().cloned().map(Op::Create).collect();
    let outcomes = kernel.perform(&ops);
    assert_eq!(outcomes, vec![Outcome::Done; ops.len()], "{ops:#?}");
}

pub fn attempt(kernel: &mut Linux, op: Op) -> Result<(), KernelError> {
    match kernel.perform(&[op]).remove(0) {
        Outcome::Done => Ok(()),
        Outcome::Failed(error) => Err(error),
        Outcome::NotTried => panic!("the only operation was not tried"),
    }
}

pub fn refusal(kernel: &mut Linux, op: Op) -> (Errno, String) {
    let error = attempt(kernel, op).unwrap_err();
    (Errno::from_raw(error.errno), error.text)
}

/// Whatever holds the key of `object`.
pub fn seen(kernel: &mut Linux, object: &Object) -> Option<Seen> {
    let key = object.key();
    let mut observed = kernel.observe(&Scope::Keys(vec![key.clone()])).unwrap();
    let seen = observed.remove(&key);
    assert!(observed.is_empty(), "not asked for: {observed:?}");
    seen
}

pub fn check_met(kernel: &mut Linux, object: &Object) {
    let seen = seen(kernel, object).unwrap_or_else(|| panic!("{} is absent", object.key()));
    assert_eq!(seen.owner, Owner::Netagent, "{seen:?}");
    assert!(object.is_met_by(&seen.object), "want {object:#?}, seen {:#?}", seen.object);
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        thread::yield_now();
    }
}

/// A child that another test is about to start holds copies of all sockets until it executes its
/// program, so a closed one's port can stay taken for a moment.
pub fn wait_until_free(address: &str) {
    wait_until(address, || TcpListener::bind(address).is_ok());
}

/// A bridge with two sandboxes on it, both families.
pub fn two_sandboxes(kernel: &mut Linux) -> [Sandbox; 2] {
    let sandboxes = [Sandbox::new(), Sandbox::new()];
    create(kernel, &[link(&bridge(false)), address(Netns::Host, "nab-1", "10.9.0.1/24")]);
    for (at, sandbox) in sandboxes.iter().enumerate() {
        let last = u8::try_from(at).unwrap() + 2;
        create(
            kernel,
            &[
                link(&veth(&format!("nae-{last}"), into_sandbox(sandbox, last))),
                address(sandbox.netns(), "eth0", &format!("10.9.0.{last}/24")),
                address(sandbox.netns(), "eth0", &format!("fd00:9::{last}/64")),
                route(sandbox.netns(), "0.0.0.0/0", "10.9.0.1"),
            ],
        );
    }
    sandboxes
}

/// Sends a line from one namespace to a listener in the other.
pub fn talks(from: &Sandbox, to: &Sandbox, address: IpAddr) {
    let listener = to.run(move || TcpListener::bind((address, 7)).unwrap());
    let server = thread::spawn(move || {
        let mut line = String::new();
        listener.accept().unwrap().0.read_to_string(&mut line).unwrap();
        line
    });
    from.run(move || {
        let target = (address, 7).into();
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5)).unwrap();
        stream.write_all(b"hello").unwrap();
    });
    assert_eq!(server.join().unwrap(), "hello");
}
