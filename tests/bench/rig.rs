//! Namespaces, hosts, engines and a caller to measure with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use netagent::engine::{
    AttachRequest, EndpointRequest, Engine, Mode, NetworkRequest, PortRequest, Settings,
    SubnetRequest,
};
use netagent::firewall::admission::Admission;
use netagent::kernel::linux::Linux;
use netagent::kernel::{Announcement, Kernel, KernelError, Outcome, Scope};
use netagent::model::{
    Facts, Ipam, LinkName, Mark, NetworkId, NetworkSpec, Origin, PortRange, Protocol, Reach,
    SandboxId,
};
use netagent::object::{Hold, Op};
use netagent::plan::Observed;
use netagent::store::Store;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;

/// A tmpfs of our own is mounted here, unseen by others: nothing is left of it.
pub const SCRATCH: &str = "/tmp";

#[expect(clippy::disallowed_methods, reason = "on a thread that ends with the process")]
pub fn leave_the_machines_namespaces() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    mount(Some("tmpfs"), SCRATCH, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
}

/// A namespace that stays as long as its mount; the thread that makes it ends at once.
pub fn sandbox(number: usize) -> PathBuf {
    let path = Path::new(SCRATCH).join(format!("sandbox-{number}"));
    File::create(&path).unwrap();
    thread::scope(|scope| {
        let bind = || {
            #[expect(clippy::disallowed_methods, reason = "on a thread that ends here")]
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let own = Some("/proc/thread-self/ns/net");
            mount(own, &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        };
        scope.spawn(bind).join().unwrap();
    });
    path
}

/// The host, for the engine and for measuring without it.
#[derive(Clone)]
pub struct Shared(pub Arc<Mutex<Linux>>);

impl Kernel for Shared {
    fn facts(&mut self) -> Result<Facts, KernelError> {
        self.0.lock().unwrap().facts()
    }
    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        self.0.lock().unwrap().observe(scope)
    }
    fn sandbox(&mut self, path: &Path) -> Result<SandboxId, KernelError> {
        self.0.lock().unwrap().sandbox(path)
    }
    fn perform(&mut self, ops: &[Op]) -> Vec<Outcome> {
        self.0.lock().unwrap().perform(ops)
    }
    fn announce(&mut self, announcement: &Announcement) {
        self.0.lock().unwrap().announce(announcement);
    }
    fn judge_flows(&mut self, admissions: &[Admission]) {
        self.0.lock().unwrap().judge_flows(admissions);
    }
    fn out_of_reach(&mut self, links: &[LinkName]) -> Vec<LinkName> {
        self.0.lock().unwrap().out_of_reach(links)
    }
    fn unreserved(&self) -> Vec<Hold> {
        self.0.lock().unwrap().unreserved()
    }
    fn garbage(&mut self) -> usize {
        self.0.lock().unwrap().garbage()
    }
}

/// A host where everything succeeds at once. `kernel::fake` copies itself before each transaction,
/// which would be most of what is measured with a thousand endpoints.
pub struct Obliging(pub Facts);

impl Kernel for Obliging {
    fn facts(&mut self) -> Result<Facts, KernelError> {
        Ok(self.0.clone())
    }
    fn observe(&mut self, _: &Scope) -> Result<Observed, KernelError> {
        Ok(Observed::new())
    }
    fn sandbox(&mut self, _: &Path) -> Result<SandboxId, KernelError> {
        Ok(SandboxId(1))
    }
    fn perform(&mut self, ops: &[Op]) -> Vec<Outcome> {
        vec![Outcome::Done; ops.len()]
    }
    fn announce(&mut self, _: &Announcement) {}
    fn judge_flows(&mut self, _: &[Admission]) {}
    fn out_of_reach(&mut self, _: &[LinkName]) -> Vec<LinkName> {
        vec![]
    }
    fn unreserved(&self) -> Vec<Hold> {
        Vec::new()
    }
    fn garbage(&mut self) -> usize {
        0
    }
}

/// An engine with one network; its store is in a directory of this name.
pub fn start_engine(kernel: impl Kernel + 'static, name: &str) -> (Engine, NetworkSpec) {
    let directory = Path::new(SCRATCH).join(name);
    fs::create_dir(&directory).unwrap();
    let (store, loaded) =
        Store::open(&directory.join("state"), &directory.join("runtime")).unwrap();
    let settings = Settings { mark: Mark::DEFAULT, default_pools: Vec::new() };
    let mut engine = Engine::start(Box::new(kernel), store, loaded, settings).unwrap();
    let pool = "10.77.0.0/16".parse().unwrap();
    let subnet = SubnetRequest { pool, gateway: None, range: None, aux: BTreeMap::new() };
    let request = NetworkRequest {
        id: Some(NetworkId::from_bytes([0xbe; 32])),
        name: Some("bench".parse().unwrap()),
        origin: Origin::Netagent,
        driver: "bridge".into(),
        ipam: Ipam::Netagent,
        subnets: vec![subnet],
        v6: false,
        v4: true,
        reach: Reach::External,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        created_ms: 0,
    };
    let (id, _) = engine.create_network(request, Mode::Apply).unwrap();
    let network = engine.intent().network(id).unwrap().spec.clone();
    (engine, network)
}

pub fn endpoint(
    network: NetworkId,
    path: &Path,
    default_route: bool,
    ports: Vec<PortRequest>,
) -> EndpointRequest {
    EndpointRequest {
        id: None,
        network,
        origin: Origin::Netagent,
        name: None,
        v4: None,
        v6: None,
        mac: None,
        attach: AttachRequest::Netns { path: path.to_owned(), interface: None, default_route },
        sysctls: Default::default(),
        ports,
    }
}

pub fn port(host_ports: Option<PortRange>) -> PortRequest {
    PortRequest { protocol: Protocol::Tcp, host: None, container: 80, host_ports }
}

/// One connection to the API that is kept.
pub struct Caller {
    stream: BufReader<UnixStream>,
    path: String,
}

impl Caller {
    pub fn connect(socket: &Path, network: NetworkId) -> Self {
        let stream = BufReader::new(UnixStream::connect(socket).unwrap());
        Self { stream, path: format!("/v1/networks/{network}/endpoints") }
    }

    pub fn call(&mut self, method: &str, endpoint: &str, body: &str) -> Vec<u8> {
        let (path, length) = (&self.path, body.len());
        let request = format!(
            "{method} {path}{endpoint} HTTP/1.1\r\nHost: netagent\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let from = head.len();
            assert!(self.stream.read_line(&mut head).unwrap() > 0, "the API hung up: {head}");
            if let Some((key, value)) = head[from..].split_once(':')
                && key.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{head}{}", String::from_utf8_lossy(&answer));
        answer
    }
}

/// VmRSS (man 5 proc_pid_status).
pub fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}
