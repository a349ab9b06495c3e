//! An engine on an in-memory host that can be watched, broken and restarted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use netagent::engine::{Engine, Settings};
use netagent::firewall::admission::Admission;
use netagent::ipam::DefaultPool;
use netagent::kernel::fake::Fake;
use netagent::kernel::faulty::{Crashed, Fault, Faulty};
use netagent::kernel::{Announcement, Kernel, KernelError, Outcome, Scope};
use netagent::model::{Facts, LinkName, Mark, SandboxId};
use netagent::object::{Hold, Op};
use netagent::plan::Observed;
use netagent::store::{Change, Loaded, Store};

/// The host that most tests want.
pub fn facts() -> Facts {
    Fake::ordinary()
}

/// What the engine did to the kernel.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Op>>>);

impl Log {
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn since(&self, start: usize) -> Vec<Op> {
        self.0.lock().unwrap()[start..].to_vec()
    }
}

struct Recorder<K> {
    inner: K,
    log: Log,
}

impl<K: Kernel> Kernel for Recorder<K> {
    fn facts(&mut self) -> Result<Facts, KernelError> {
        self.inner.facts()
    }
    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        self.inner.observe(scope)
    }
    fn sandbox(&mut self, path: &Path) -> Result<SandboxId, KernelError> {
        self.inner.sandbox(path)
    }
    fn perform(&mut self, ops: &[Op]) -> Vec<Outcome> {
        self.log.0.lock().unwrap().extend_from_slice(ops);
        self.inner.perform(ops)
    }
    fn announce(&mut self, announcement: &Announcement) {
        self.inner.announce(announcement);
    }
    fn judge_flows(&mut self, admissions: &[Admission]) {
        self.inner.judge_flows(admissions);
    }
    fn out_of_reach(&mut self, links: &[LinkName]) -> Vec<LinkName> {
        self.inner.out_of_reach(links)
    }
    fn unreserved(&self) -> Vec<Hold> {
        self.inner.unreserved()
    }
    fn garbage(&mut self) -> usize {
        self.inner.garbage()
    }
}

/// A host with the directories of an agent, which outlive each agent.
pub struct Machine {
    pub host: Fake,
    pub log: Log,
    facts: Facts,
    directory: tempfile::TempDir,
}

impl Machine {
    pub fn new() -> Self {
        Self::with(facts())
    }

    pub fn with(facts: Facts) -> Self {
        Self { host: Fake::new(facts.clone()), log: Log::default(), facts, directory: scratch() }
    }

    /// Where the agent keeps its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What an agent that starts now would find stored; the one that runs is not disturbed.
    pub fn stored(&self) -> Loaded {
        let copy = scratch();
        for part in ["state", "runtime"] {
            std::fs::create_dir(copy.path().join(part)).unwrap();
            let file = Path::new(part).join("state.redb");
            std::fs::copy(self.directory().join(&file), copy.path().join(&file)).unwrap();
        }
        Store::open(&copy.path().join("state"), &copy.path().join("runtime")).unwrap().1
    }

    /// Writes records while no agent runs.
    pub fn store(&self, changes: &[Change]) {
        let [state, runtime] = ["state", "runtime"].map(|part| self.directory().join(part));
        Store::open(&state, &runtime).unwrap().0.commit(changes).unwrap();
    }

    pub fn start(&self, fault: Fault) -> netagent::model::Result<Engine> {
        let faulty = Faulty::new(self.host.clone(), fault);
        let kernel = Recorder { inner: faulty, log: self.log.clone() };
        let state = self.directory.path().join("state");
        let runtime = self.directory.path().join("runtime");
        let (store, loaded) = Store::open(&state, &runtime)?;
        Engine::start(Box::new(kernel), store, loaded, settings())
    }

    /// The machine boots anew: the state directory is what remains.
    pub fn rebooted(self) -> Self {
        std::fs::remove_dir_all(self.directory.path().join("runtime")).unwrap();
        Self { host: Fake::new(self.facts.clone()), log: Log::default(), ..self }
    }

    pub fn engine(&self) -> Engine {
        self.start(Fault::Never).unwrap()
    }

    /// Runs `work`; `None` when the agent crashed in it.
    pub fn survives<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(value) => Some(value),
            Err(payload) if payload.is::<Crashed>() => {
                self.host.process_ended();
                None
            }
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

/// On a tmpfs where there is one: these tests write thousands of records.
fn scratch() -> tempfile::TempDir {
    match Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm").unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

pub fn settings() -> Settings {
    Settings {
        mark: Mark::DEFAULT,
        default_pools: vec![
            DefaultPool { base: "172.17.0.0/16".parse().unwrap(), size: 24 },
            DefaultPool { base: "fd00:17::/48".parse().unwrap(), size: 64 },
        ],
    }
}
