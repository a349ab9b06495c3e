//! Starting, and finding out what went on while nobody looked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::execute::roll_forward;
use super::ports::PortIndex;
use super::{Engine, Mode, Problem, Settings};
use crate::driver;
use crate::firewall::model::Value;
use crate::kernel::{Kernel, Scope};
use crate::model::{
    Attach, EndpointId, EndpointPhase, Error, Intent, LinkName, NetworkPhase, Origin, Result,
    StoredEndpoint, StoredNetwork,
};
use crate::object::{Object, ObjectKey, Op, Wanted};
use crate::plan::{Observed, Plan, Step, reconcile};
use crate::store::{Change, Loaded, Store};

impl Engine {
    /// Takes up what was stored: finishes what was being removed, removes what was being made,
    /// repairs the rest.
    pub fn start(
        mut kernel: Box<dyn Kernel>,
        store: Store,
        loaded: Loaded,
        settings: Settings,
    ) -> Result<Self> {
        let facts = kernel.facts().map_err(|error| {
            Error::unavailable("read the host", error.to_string()).with_errno(error.errno)
        })?;
        let mut engine = Self {
            kernel,
            store,
            settings,
            facts,
            intent: loaded.intent,
            book: loaded.book,
            saved: loaded.sysctls,
            failures: Vec::new(),
            logged: Vec::new(),
            notes: Vec::new(),
            docker_subnets: BTreeSet::new(),
            docker_announces: false,
            lone_placements: true,
            restored: BTreeSet::new(),
            siblings: BTreeMap::new(),
            host: Vec::new(),
            ports: PortIndex::default(),
            nameless: BTreeSet::new(),
            orphans: Plan::default(),
        };
        engine.restore_pools()?;
        engine.finish_updates()?;
        let repaired = engine.reconcile()?;
        engine.judge_old_flows(&repaired);
        // dockerd may have restarted while we were away.
        engine.note_restored();
        Ok(engine)
    }

    /// Reads the host and repairs what differs from intent; answers what was done. What cannot be
    /// done keeps nothing else.
    pub fn reconcile(&mut self) -> Result<Plan> {
        self.refresh_facts()?;
        let lost = self.lost_sandboxes();
        let (networks, endpoints) = self.unfinished();
        let forgotten = self.objects_of(&networks, &endpoints);
        self.index_ports(&lost);
        self.host = self.host_objects(self.lasting_needs());
        self.save_sysctls(&self.host.clone())?;
        let difference = self.difference(&forgotten, &lost)?;
        let left = roll_forward(&mut *self.kernel, &difference.due);
        let failed = left.iter().map(|left| Problem::new("host", left.error.to_string()));
        self.failures = failed.collect();
        let obstacles = self.obstacles(&difference, &lost);
        self.log_news(self.failures.iter().cloned().chain(obstacles).collect());
        self.orphans = difference.orphans;
        let stuck: BTreeSet<&ObjectKey> = left.iter().map(|left| &left.key).collect();
        self.finish(&networks, &endpoints, &stuck)?;
        if left.is_empty() {
            self.notes.clear();
        }
        Ok(difference.due)
    }

    /// Indexes the ports of endpoints that live.
    pub(super) fn index_ports(&mut self, lost: &BTreeSet<EndpointId>) {
        self.ports = self.ports.cleared();
        for endpoint in self.intent.endpoints().filter(|known| is_alive(known)) {
            if !lost.contains(&endpoint.spec.id) {
                self.ports.add(&endpoint.spec);
            }
        }
    }

    /// Endpoints whose namespace has ended. A path that leads nowhere, or elsewhere by now, does not
    /// tell: a namespace takes its links along, so one whose link is there lives without a name.
    pub(super) fn lost_sandboxes(&mut self) -> BTreeSet<EndpointId> {
        let sandboxed = self.intent.endpoints().filter_map(|known| match &known.spec.attach {
            Attach::Netns { path, id, .. } => Some((known.spec.id, path.clone(), *id)),
            Attach::AtJoin | Attach::HandOff => None,
        });
        let sandboxed: Vec<_> = sandboxed.collect();
        // What cannot be looked at is not taken for gone.
        let unfound: BTreeSet<EndpointId> = sandboxed
            .into_iter()
            .filter(|(_, path, id)| self.is_lost(path, *id).unwrap_or(false))
            .map(|(endpoint, ..)| endpoint)
            .collect();
        self.nameless.clear();
        if unfound.is_empty() {
            return unfound;
        }
        let keys = unfound.iter().map(|id| driver::host_end(*id)).collect();
        let seen = self.kernel.observe(&Scope::Keys(keys)).unwrap_or_default();
        let (nameless, lost) =
            unfound.into_iter().partition(|id| seen.contains_key(&driver::host_end(*id)));
        self.nameless = nameless;
        lost
    }

    /// Logs what the look before this one had not found.
    fn log_news(&mut self, problems: Vec<Problem>) {
        for problem in problems.iter().filter(|problem| !self.logged.contains(problem)) {
            tracing::warn!(subject = problem.subject, "{}", problem.text);
        }
        self.logged = problems;
    }

    /// Records that a restart removes: what was being made or removed, and endpoints without
    /// their network.
    fn unfinished(&self) -> (Vec<StoredNetwork>, Vec<StoredEndpoint>) {
        let dying = |network: &&StoredNetwork| network.phase != NetworkPhase::Ready;
        let networks: Vec<_> = self.intent.networks().filter(dying).cloned().collect();
        let lost = |endpoint: &&StoredEndpoint| {
            let network = self.intent.network(endpoint.spec.network);
            !is_alive(endpoint)
                || network.is_none_or(|network| network.phase != NetworkPhase::Ready)
        };
        let endpoints = self.intent.endpoints().filter(lost).cloned().collect();
        (networks, endpoints)
    }

    /// What is to go: all of these, and links that we placed in sandboxes that have been left.
    fn objects_of(&self, networks: &[StoredNetwork], endpoints: &[StoredEndpoint]) -> Vec<Wanted> {
        let mut objects: Vec<Wanted> = networks
            .iter()
            .flat_map(|network| driver::network_objects(&network.spec, &self.facts))
            .collect();
        let left = |known: &&StoredEndpoint| {
            let placed = matches!(known.spec.attach, Attach::Netns { .. });
            placed && known.phase == EndpointPhase::Leaving
        };
        let left = self.intent.endpoints().filter(left).cloned();
        let left = left.map(|known| StoredEndpoint { phase: EndpointPhase::Joined, ..known });
        for endpoint in endpoints.iter().cloned().chain(left) {
            if let Some(network) = self.intent.network(endpoint.spec.network) {
                objects.extend(self.endpoint_objects(&network.spec, &endpoint));
            }
        }
        objects
    }

    /// Everything that shall exist.
    fn wanted(&self, lost: &BTreeSet<EndpointId>) -> Vec<Wanted> {
        let mut wanted = self.host.clone();
        for network in self.intent.networks().filter(|known| known.phase == NetworkPhase::Ready) {
            wanted.extend(driver::network_objects(&network.spec, &self.facts));
            let endpoints = self.intent.endpoints_of(network.spec.id);
            for endpoint in endpoints.filter(|known| is_alive(known)) {
                if lost.contains(&endpoint.spec.id) {
                    continue;
                }
                wanted.extend(self.endpoint_objects(&network.spec, endpoint));
            }
        }
        wanted
    }

    /// What separates the host from intent: steps that are due, and things of ours that nothing
    /// asks for and no record explains.
    fn difference(
        &mut self,
        forgotten: &[Wanted],
        lost: &BTreeSet<EndpointId>,
    ) -> Result<Difference> {
        let wanted = self.wanted(lost);
        let restored = self.sysctls_to_restore(&wanted);
        let known = wanted.iter().chain(forgotten).map(|wanted| wanted.object.key());
        let scope = Scope::Everything(known.chain(restored.iter().map(Op::key)).collect());
        let seen: Observed = self.kernel.observe(&scope).map_err(|error| {
            Error::unavailable("look at the host", error.to_string()).with_errno(error.errno)
        })?;
        let plan = reconcile(&seen, &wanted);
        let explained: BTreeSet<ObjectKey> =
            forgotten.iter().map(|wanted| wanted.object.key()).collect();
        let records = Records::of(&self.intent);
        let (mut due, orphans): (Vec<Step>, Vec<Step>) =
            plan.steps.into_iter().partition(|step| match &step.op {
                Op::Delete(object) => explained.contains(&step.op.key()) || records.explain(object),
                Op::Create(_) | Op::Change { .. } => true,
            });
        due.extend(
            restored.into_iter().map(|op| Step { op, why: "no network needs it any more".into() }),
        );
        Ok(Difference {
            due: Plan { steps: due, ..Plan::default() },
            orphans: Plan { steps: orphans, ..Plan::default() },
            missing: plan.missing,
            clashes: plan.clashes,
        })
    }

    /// Sysctls of the host that were raised and are not needed any more.
    fn sysctls_to_restore(&self, wanted: &[Wanted]) -> Vec<Op> {
        let needed = |key: &str| wanted.iter().any(|wanted| wanted.object.key().name == key);
        let unneeded = self.saved.iter().filter(|saved| !needed(&saved.key));
        unneeded
            .map(|saved| Op::Delete(super::raised(&saved.key, self.value_before(saved))))
            .collect()
    }

    fn obstacles(&self, difference: &Difference, lost: &BTreeSet<EndpointId>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for step in &difference.missing {
            problems.push(Problem::new(
                &step.why,
                "its container's link is gone: the container has ended, or something removed the \
                 link; restart the container",
            ));
        }
        for step in &difference.clashes {
            let key = step.op.key();
            problems.push(Problem::new(
                &step.why,
                format!("{key} belongs to somebody else: rename or remove it, then netagent makes its own"),
            ));
        }
        for step in &difference.orphans.steps {
            let key = step.op.key();
            problems.push(Problem::new(
                "garbage",
                format!("{key} is netagent's, and nothing asks for it: `netagent gc` removes it"),
            ));
        }
        problems.extend(self.bridge_problems());
        for endpoint in self.nameless.iter().filter_map(|id| self.intent.endpoint(*id)) {
            let Attach::Netns { path, .. } = &endpoint.spec.attach else { continue };
            problems.push(Problem::new(
                format!("endpoint \"{}\"", endpoint.spec.label()),
                format!(
                    "its namespace lives, but not at {} any more: what is inside is left as it is",
                    path.display()
                ),
            ));
        }
        for endpoint in lost.iter().filter_map(|id| self.intent.endpoint(*id)) {
            let network = self.intent.network(endpoint.spec.network);
            let network = network.map_or_else(|| "?".into(), |network| network.spec.label());
            let id = endpoint.spec.id.short();
            let advice = match endpoint.spec.origin {
                Origin::Docker => "its container has ended; Docker has not said so yet".into(),
                Origin::Netagent => format!(
                    "its namespace has ended: `netagent network disconnect {network} {id}` forgets it"
                ),
            };
            problems.push(Problem::new(
                format!("endpoint \"{}\" of network \"{network}\"", endpoint.spec.label()),
                advice,
            ));
        }
        problems
    }

    /// What is wrong with bridges of the operator's that networks use.
    fn bridge_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for network in self.intent.networks().map(|known| &known.spec) {
            let Some(bridge) = driver::operators_link(network) else { continue };
            let down = self.facts.foreign_bridge(bridge).is_some_and(|bridge| !bridge.up);
            let text = if let Some(bridge) = driver::missing_bridge(network, &self.facts) {
                let cut_off = self.intent.endpoints_of(network.id).count();
                format!(
                    "bridge \"{bridge}\" is gone and was not netagent's: {cut_off} endpoints are cut \
                     off until it is made again"
                )
            } else if down {
                format!("bridge \"{bridge}\" is down: `ip link set {bridge} up`")
            } else {
                continue;
            };
            problems.push(Problem::new(format!("network \"{}\"", network.label()), text));
        }
        problems
    }

    /// Forgets records whose objects are gone.
    fn finish(
        &mut self,
        networks: &[StoredNetwork],
        endpoints: &[StoredEndpoint],
        stuck: &BTreeSet<&ObjectKey>,
    ) -> Result<()> {
        let is_stuck = |objects: Vec<Wanted>| {
            objects.iter().any(|wanted| stuck.contains(&wanted.object.key()))
        };
        for endpoint in endpoints {
            let Some(network) = self.intent.network(endpoint.spec.network).cloned() else {
                self.store.commit(&[Change::DropEndpoint(endpoint.spec.id)])?;
                self.intent.remove_endpoint(endpoint.spec.id);
                continue;
            };
            if !is_stuck(self.endpoint_objects(&network.spec, endpoint)) {
                self.forget_endpoint(&network.spec, &endpoint.spec)?;
            }
        }
        for network in networks {
            let used = self.intent.endpoints_of(network.spec.id).next().is_some();
            if !used && !is_stuck(driver::network_objects(&network.spec, &self.facts)) {
                self.forget_network(network)?;
            }
        }
        match stuck.is_empty() {
            true => self.forget_sysctls(),
            false => Ok(()),
        }
    }

    /// The steps that would make the host as intended, and what an operator should know, for
    /// `status`.
    pub(super) fn drift(&mut self) -> Result<(Difference, Vec<Problem>)> {
        let (networks, endpoints) = self.unfinished();
        let forgotten = self.objects_of(&networks, &endpoints);
        let lost = self.lost_sandboxes();
        let difference = self.difference(&forgotten, &lost)?;
        let mut problems = self.failures.clone();
        problems.extend(self.obstacles(&difference, &lost));
        problems.extend(self.notes.iter().cloned());
        Ok((difference, problems))
    }

    /// Removes what carries our mark and nothing asks for.
    pub fn collect_garbage(&mut self, mode: Mode) -> Result<Plan> {
        let orphans = self.drift()?.0.orphans;
        if mode == Mode::Apply {
            let errors = roll_forward(&mut *self.kernel, &orphans);
            self.reconcile()?;
            if let Some(left) = errors.into_iter().next() {
                return Err(left.error.within("collect garbage"));
            }
        }
        Ok(orphans)
    }
}

/// What separates the host from intent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Difference {
    /// Steps that make it as intended.
    pub due: Plan,
    /// Things of ours that no record explains.
    pub orphans: Plan,
    /// Links of containers that are gone.
    pub missing: Vec<Step>,
    /// Foreign things that hold what we want.
    pub clashes: Vec<Step>,
}

fn is_alive(endpoint: &StoredEndpoint) -> bool {
    match endpoint.phase {
        EndpointPhase::Ready | EndpointPhase::Joined | EndpointPhase::Leaving => true,
        EndpointPhase::Creating | EndpointPhase::Deleting => false,
    }
}

fn is_loopback(value: &Value) -> bool {
    match value {
        Value::Address(address) => address.is_loopback(),
        Value::Link(_) | Value::Protocol(_) | Value::Port(_) => false,
    }
}

/// What tells a leftover of something we know from a thing whose record is lost. The first is
/// removed, the second only reported: a running container may still use it.
struct Records {
    bridges: BTreeSet<LinkName>,
    subnets: BTreeSet<IpNet>,
    addresses: BTreeSet<IpAddr>,
}

impl Records {
    fn of(intent: &Intent) -> Self {
        let bridge = |known: &StoredNetwork| driver::own_link(&known.spec.driver).clone();
        let subnets = intent.networks().flat_map(|known| &known.spec.subnets);
        Self {
            bridges: intent.networks().map(bridge).collect(),
            subnets: subnets.map(|subnet| subnet.pool).collect(),
            addresses: intent.endpoints().flat_map(|known| known.spec.addresses()).collect(),
        }
    }

    /// Whether the thing belongs to a network or endpoint we have a record of, or to the host as
    /// a whole: then the record says that it goes.
    fn explain(&self, object: &Object) -> bool {
        match object {
            Object::Table(_) | Object::Accept(_) | Object::Hold(_) => true,
            Object::Link(_) | Object::Sysctl(_) => false,
            Object::Address(address) => self.bridges.contains(&address.link),
            Object::Route(route) => self.bridges.contains(&route.link),
            Object::Element(element) if element.set.is_host_wide() => true,
            // It keeps [::1] for a relay, which has ended with the record or is not needed.
            Object::Element(element) if element.data.first().is_some_and(is_loopback) => true,
            Object::Element(element) => {
                element.key.iter().chain(&element.data).any(|value| self.mentions(value))
            }
        }
    }

    fn mentions(&self, value: &Value) -> bool {
        match value {
            Value::Link(name) => self.bridges.contains(name),
            Value::Address(address) => {
                self.addresses.contains(address)
                    || self.subnets.iter().any(|subnet| subnet.network() == *address)
            }
            Value::Protocol(_) | Value::Port(_) => false,
        }
    }
}
