//! Measures how long an attach takes, and whose time it is.
//!
//! Four ways take turns, so that noise hits all alike: the engine in process, the same request
//! through the API's socket, only the kernel's share (the same operations without an engine), and
//! only the engine's share (the same request on a host where everything succeeds at once).
//! Between laps there is a pause, until all links are deleted: caches are as cold as in life, and the
//! engine's share is about three times what it is when nothing else runs in between.
//! All of it is on a thread in namespaces of its own and ends with the process. It asserts no times.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on ends here")]

mod rig;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use netagent::api;
use netagent::driver;
use netagent::engine::{EndpointRequest, Engine, Handle};
use netagent::http::Limits;
use netagent::kernel::linux::{Iptables, Linux, Options};
use netagent::kernel::{Kernel, Outcome};
use netagent::model::{
    Attach, EndpointId, EndpointPhase, EndpointSpec, Facts, HostAddress, MacAddr, Mark,
    NetworkSpec, Origin, PortRange, Protocol, Published, SandboxId,
};
use netagent::object::Op;
use netagent::plan::delta;
use serde_json::{Value, json};

use rig::{
    Caller, Obliging, SCRATCH, Shared, endpoint, leave_the_machines_namespaces, port, resident_kib,
    sandbox, start_engine,
};

/// How many endpoints are there while one more comes and goes.
const PRESENT: [usize; 3] = [1, 100, 1000];
/// Sandboxes that the endpoints which stay are spread over.
const SANDBOXES: usize = 50;
/// The port that is published and withdrawn; below the ephemeral ones of those who stay.
const PORT: u16 = 8080;
/// New links ask for neighbours and routers, and a bridge with a thousand ports floods that a
/// thousandfold: after this time only a few still do. A guess, from watching the figures.
const SETTLE: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Engine,
    Api,
    Kernel,
    Own,
}

const WAYS: [Way; 4] = [Way::Engine, Way::Api, Way::Kernel, Way::Own];

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Api => "API socket",
            Self::Kernel => "kernel alone",
            Self::Own => "engine alone",
        }
    }
}

/// One attach and its detach.
#[derive(Debug, Clone, Copy)]
struct Lap {
    attach: Duration,
    detach: Duration,
}

/// By what was measured, ports, and endpoints present.
type Laps = BTreeMap<(Way, usize, usize), Vec<Lap>>;

fn main() {
    let mut rounds = 50;
    let mut file = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--json" => file = Some(File::create(arguments.next().unwrap()).unwrap()),
            "--rounds" => rounds = arguments.next().unwrap().parse().unwrap(),
            other => {
                eprintln!("unknown option {other}; there are --json FILE and --rounds N");
                std::process::exit(2);
            }
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("this needs root: sudo scripts/bench");
        std::process::exit(1);
    }
    let (laps, memory_kib) = thread::spawn(move || {
        leave_the_machines_namespaces();
        Bench::start().run(rounds)
    })
    .join()
    .unwrap();
    print_table(&laps, rounds, memory_kib);
    if let Some(mut file) = file {
        serde_json::to_writer_pretty(&file, &as_json(&laps, rounds, memory_kib)).unwrap();
        file.write_all(b"\n").unwrap();
    }
}

/// An agent in a namespace, and an engine without a kernel that has the same endpoints.
struct Bench {
    runtime: tokio::runtime::Runtime,
    engine: Handle,
    caller: Caller,
    host: Shared,
    network: NetworkSpec,
    facts: Facts,
    alone: Engine,
    /// Where one more endpoint comes and goes.
    guest: PathBuf,
    /// Where the others stay.
    homes: Vec<PathBuf>,
    present: usize,
    made: u64,
}

impl Bench {
    fn start() -> Self {
        let options = Options { mark: Mark::DEFAULT, iptables: Iptables::Unused };
        let host = Shared(Arc::new(Mutex::new(Linux::open(options).unwrap())));
        let (engine, network) = start_engine(host.clone(), "host");
        let facts = engine.facts().clone();
        let homes: Vec<PathBuf> = (1..=SANDBOXES).map(sandbox).collect();
        let guest = sandbox(0);
        let (alone, _) = start_engine(Obliging(facts.clone()), "alone");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (engine, _) = Handle::spawn(engine).unwrap();
        let socket = Path::new(SCRATCH).join("api.sock");
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket).unwrap() });
        let never = std::future::pending();
        runtime.spawn(api::server::serve(listener, Limits::default(), never, engine.clone()));
        let caller = Caller::connect(&socket, network.id);
        let (present, made) = (0, 0);
        Self { runtime, engine, caller, host, network, facts, alone, guest, homes, present, made }
    }

    /// What was measured, and the memory of the process with no and with all endpoints in KiB.
    fn run(mut self, rounds: usize) -> (Laps, (u64, u64)) {
        let mut laps = Laps::new();
        let empty_kib = resident_kib();
        let mut grown_kib = 0;
        for present in PRESENT {
            eprintln!("{rounds} rounds with {} present", endpoints(present));
            let before = resident_kib();
            let residents = self.more_residents(present);
            self.on_engine(move |engine| fill(engine, residents));
            grown_kib += resident_kib().saturating_sub(before);
            let residents = self.more_residents(present);
            fill(&mut self.alone, residents);
            self.present = present;
            thread::sleep(SETTLE);
            // The first laps open sockets and fill caches.
            for round in 0..rounds + 2 {
                for ports in [0, 1] {
                    for way in WAYS.iter().cycle().skip(round).take(WAYS.len()) {
                        let lap = self.lap(*way, ports);
                        if round >= 2 {
                            laps.entry((*way, ports, present)).or_default().push(lap);
                        }
                    }
                }
            }
        }
        (laps, (empty_kib, empty_kib + grown_kib))
    }

    fn lap(&mut self, way: Way, ports: usize) -> Lap {
        let lap = match way {
            Way::Engine => self.lap_engine(ports),
            Way::Api => self.lap_api(ports),
            Way::Kernel => self.lap_kernel(ports),
            Way::Own => self.lap_own(ports),
        };
        while self.host.garbage() > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        lap
    }

    fn lap_engine(&self, ports: usize) -> Lap {
        let (network, request) = (self.network.id, self.guest(ports));
        self.on_engine(move |engine| {
            let (made, attach) = clocked(|| engine.create_endpoint(request).unwrap());
            let ((), detach) = clocked(|| engine.delete_endpoint(network, made.id).unwrap());
            Lap { attach, detach }
        })
    }

    fn lap_api(&mut self, ports: usize) -> Lap {
        let publish = if ports == 0 { vec![] } else { vec![format!("{PORT}:80")] };
        let body = json!({ "netns": self.guest, "publish": publish }).to_string();
        let (made, attach) = clocked(|| self.caller.call("POST", "", &body));
        let made: Value = serde_json::from_slice(&made).unwrap();
        let endpoint = format!("/{}", made.get("EndpointID").unwrap().as_str().unwrap());
        let (_, detach) = clocked(|| self.caller.call("DELETE", &endpoint, ""));
        Lap { attach, detach }
    }

    fn lap_kernel(&mut self, ports: usize) -> Lap {
        let mut id = [0xbe; 32];
        id[..8].copy_from_slice(&self.made.to_le_bytes());
        self.made += 1;
        let published = |_| Published {
            protocol: Protocol::Tcp,
            host: HostAddress::ANY_V4,
            host_ports: PortRange::single(PORT).unwrap(),
            container_first: 80,
        };
        let address = Ipv4Addr::new(10, 77, 255, 200);
        let endpoint = EndpointSpec {
            id: EndpointId::from_bytes(id),
            network: self.network.id,
            origin: Origin::Netagent,
            name: None,
            v4: Some(ipnet::Ipv4Net::new(address, 16).unwrap()),
            v6: None,
            mac: MacAddr::from_v4(address),
            attach: Attach::Netns {
                path: self.guest.clone(),
                id: SandboxId(1),
                interface: "eth0".parse().unwrap(),
                default_route: true,
            },
            sysctls: BTreeMap::new(),
            naming: Default::default(),
            asked: Vec::new(),
            publishes: true,
            ports: (0..ports).map(published).collect(),
        };
        let phase = EndpointPhase::Creating;
        let wanted = driver::endpoint_objects(&self.network, &endpoint, phase, &self.facts);
        let mut perform = |ops: Vec<Op>| {
            let (outcomes, took) = clocked(|| self.host.perform(&ops));
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
            took
        };
        let attach = perform(delta(&[], &wanted).ops());
        Lap { attach, detach: perform(delta(&wanted, &[]).ops()) }
    }

    fn lap_own(&mut self, ports: usize) -> Lap {
        let request = self.guest(ports);
        let (made, attach) = clocked(|| self.alone.create_endpoint(request).unwrap());
        let ((), detach) = clocked(|| self.alone.delete_endpoint(made.network, made.id).unwrap());
        Lap { attach, detach }
    }

    fn on_engine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> T {
        self.runtime.block_on(self.engine.run(work)).unwrap()
    }

    /// The endpoint that comes and goes.
    fn guest(&self, ports: usize) -> EndpointRequest {
        let ports = vec![port(PortRange::single(PORT)); ports];
        endpoint(self.network.id, &self.guest, true, ports)
    }

    /// Those that stay, each with a port, as many as are missing.
    fn more_residents(&self, upto: usize) -> Vec<EndpointRequest> {
        let homes = self.homes.iter().cycle().skip(self.present).take(upto - self.present);
        homes.map(|home| endpoint(self.network.id, home, false, vec![port(None)])).collect()
    }
}

fn fill(engine: &mut Engine, endpoints: Vec<EndpointRequest>) {
    for endpoint in endpoints {
        engine.create_endpoint(endpoint).unwrap();
    }
}

fn clocked<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}

/// Median, least and most, in milliseconds to the microsecond.
fn figures(laps: &[Lap], part: Part) -> [f64; 3] {
    let mut took: Vec<Duration> = laps.iter().map(part).collect();
    took.sort_unstable();
    let micros = |took: &Duration| (took.as_secs_f64() * 1e6).round() / 1e3;
    let at = |index: usize| took.get(index).map_or(f64::NAN, micros);
    [at(took.len() / 2), at(0), at(took.len().saturating_sub(1))]
}

/// One of the two times of a lap.
type Part = fn(&Lap) -> Duration;

const PARTS: [(&str, Part); 2] = [("attach", |lap| lap.attach), ("detach", |lap| lap.detach)];

fn endpoints(count: usize) -> String {
    match count {
        1 => "1 endpoint".into(),
        1000.. => format!("{},{:03} endpoints", count / 1000, count % 1000),
        _ => format!("{count} endpoints"),
    }
}

fn print_table(laps: &Laps, rounds: usize, (empty_kib, full_kib): (u64, u64)) {
    println!("milliseconds: median (min to max) of {rounds} rounds, while there are");
    let row = |head: String, cells: [String; PRESENT.len()]| {
        let cells = cells.map(|cell| format!("{cell:<26}")).concat();
        println!("{head:<32}{}", cells.trim_end());
    };
    row(String::new(), PRESENT.map(endpoints));
    for (part, took) in PARTS {
        for ports in [0, 1] {
            let what = format!("{part}, {ports} port{}", if ports == 1 { "" } else { "s" });
            for way in WAYS {
                let cell = |present| {
                    let laps = laps.get(&(way, ports, present)).map_or(&[][..], Vec::as_slice);
                    let [median, least, most] = figures(laps, took);
                    format!("{median:.3} ({least:.3} to {most:.3})")
                };
                row(format!("{what:<16}{}", way.name()), PRESENT.map(cell));
            }
        }
    }
    println!(
        "resident memory: {empty_kib} KiB without endpoints, {full_kib} KiB with the last of them"
    );
}

fn as_json(laps: &Laps, rounds: usize, (empty_kib, full_kib): (u64, u64)) -> Value {
    let mut figures_of = Vec::new();
    for ((way, ports, present), laps) in laps {
        for (part, took) in PARTS {
            let [median, least, most] = figures(laps, took);
            figures_of.push(json!({
                "what": part, "way": way.name(), "ports": ports, "endpoints": present,
                "median_ms": median, "min_ms": least, "max_ms": most,
            }));
        }
    }
    json!({
        "rounds": rounds, "figures": figures_of,
        "memory_kib": { "without_endpoints": empty_kib, "with_the_last": full_kib },
    })
}
