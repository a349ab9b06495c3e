//! Networks that change while containers run.
//!
//! The change is made to the spec; what it means for the host is the difference between what the
//! network and its endpoints wanted before and want now. The new records come first, so that a
//! crash in the middle is finished by the next start; a step that fails takes everything back.

use std::collections::{BTreeMap, BTreeSet};

use super::execute::execute;
use super::ports::Refused;
use super::{Engine, Mode, SubnetRequest};
use crate::driver;
use crate::firewall::admission::{Admission, Occasion, lets_in};
use crate::ipam::{AddressBook, PoolId};
use crate::kernel::Scope;
use crate::model::{
    DriverSpec, EndpointId, EndpointPhase, Error, ErrorClass, LinkName, NetworkId, NetworkPhase,
    NetworkSpec, Origin, Result, StoredEndpoint, StoredNetwork,
};
use crate::object::{Link, LinkKind, Object, ObjectKey, Op, Revert, Sysctl, Wanted};
use crate::plan::{Plan, Step, live_delta};
use crate::store::Change;

/// A change to a network as a door asks for it, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkChange {
    /// Driver options; an empty value takes one back to its default.
    pub options: BTreeMap<String, String>,
    /// Labels to add or replace.
    pub labels: BTreeMap<String, String>,
    /// Labels to drop.
    pub dropped_labels: BTreeSet<String>,
    /// Further subnets.
    pub subnets: Vec<SubnetRequest>,
}

/// What an update changed, or would.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Updated {
    /// The steps.
    pub plan: Plan,
    /// Endpoints whose interface in the container keeps its MTU until they are connected again.
    pub out_of_reach: Vec<String>,
}

/// A network and its endpoints, before or after.
struct State {
    network: StoredNetwork,
    endpoints: Vec<StoredEndpoint>,
    host: Vec<Wanted>,
    /// Everything it wants of the host.
    wanted: Vec<Wanted>,
}

impl Engine {
    /// Changes a network while its containers run; no established flow is dropped that the new
    /// setting allows.
    pub fn update_network(
        &mut self,
        id: NetworkId,
        change: &NetworkChange,
        mode: Mode,
    ) -> Result<Updated> {
        let old = self.ready_network(id)?.clone();
        let task = format!("update network \"{}\"", old.label());
        self.try_update(&old, change, mode).map_err(|error| error.within(task))
    }

    fn try_update(
        &mut self,
        old: &NetworkSpec,
        change: &NetworkChange,
        mode: Mode,
    ) -> Result<Updated> {
        check_keeper(old, change)?;
        self.refresh_facts()?;
        let mut further = change.subnets.clone();
        self.check_further(old, &mut further)?;
        let subnets = old.subnets.iter().cloned();
        let mut new = old.clone();
        new.subnets = subnets.chain(further.iter().cloned().map(super::subnets::plain)).collect();
        (new.driver, new.options) =
            driver::changed(old, &change.options, &new.subnets, &self.facts)?;
        new.labels.extend(change.labels.clone());
        new.labels.retain(|key, _| !change.dropped_labels.contains(key));
        let book = self.book.clone();
        let updated = self
            .reserve_further(&mut new, &further)
            .and_then(|()| self.replace_network(old, &new, &book, mode));
        if updated.is_err() || mode == Mode::DryRun {
            self.book = book;
        }
        updated
    }

    fn replace_network(
        &mut self,
        old: &NetworkSpec,
        new: &NetworkSpec,
        book: &AddressBook,
        mode: Mode,
    ) -> Result<Updated> {
        // What is left of a namespace that has ended is for the next look at the host.
        let lost = self.lost_sandboxes();
        let endpoints = self.endpoints_except(old.id, &lost);
        let before = State { host: self.host.clone(), ..self.state(old, endpoints) };
        let mut refused = Refused::new();
        loop {
            let again = self.choose_again(new, &before.endpoints, &refused, mode)?;
            let mut after = self.state(new, again.endpoints.clone());
            after.host = self.host_objects(self.needs(Some(old.id), Some(new)));
            let updated = self.steps(&before, &after)?;
            if mode == Mode::DryRun {
                return Ok(updated);
            }
            match self.carry_out(&before, after, &updated.plan, book) {
                Ok(()) => return Ok(updated),
                Err(error) => match again.taken(&error).filter(|_| Self::may_try_again(&refused)) {
                    Some(taken) => refused.insert(taken),
                    None => return Err(error),
                },
            };
        }
    }

    fn endpoints_except(
        &self,
        network: NetworkId,
        lost: &BTreeSet<EndpointId>,
    ) -> Vec<StoredEndpoint> {
        let alive = |known: &&StoredEndpoint| {
            known.phase != EndpointPhase::Deleting && !lost.contains(&known.spec.id)
        };
        self.intent.endpoints_of(network).filter(alive).cloned().collect()
    }

    fn state(&self, network: &NetworkSpec, endpoints: Vec<StoredEndpoint>) -> State {
        let mut wanted = driver::network_objects(network, &self.facts);
        for endpoint in &endpoints {
            wanted.extend(self.endpoint_objects(network, endpoint));
        }
        let network = StoredNetwork { spec: network.clone(), phase: NetworkPhase::Ready };
        State { network, endpoints, host: Vec::new(), wanted }
    }

    /// The steps from one state to the other.
    fn steps(&mut self, before: &State, after: &State) -> Result<Updated> {
        let plan = live_delta(&before.everything(), &after.everything());
        let plan = self.as_seen(plan)?;
        let resized = plan.steps.iter().filter_map(|step| veth(&step.op));
        let resized = resized.filter(|(from, to)| from.mtu != to.mtu);
        let names: Vec<LinkName> = resized.clone().map(|(_, to)| to.name.clone()).collect();
        let shrinks = resized.clone().any(|(from, to)| to.mtu < from.mtu);
        let lost = self.kernel.out_of_reach(&names);
        let is_lost = |endpoint: &&StoredEndpoint| {
            let name = driver::host_end(endpoint.spec.id).name;
            lost.iter().any(|lost| lost.as_str() == name)
        };
        let out_of_reach: Vec<String> =
            after.endpoints.iter().filter(is_lost).map(|lost| lost.spec.label()).collect();
        match out_of_reach.first().filter(|_| shrinks) {
            Some(first) => Err(Error::conflict(
                format!("endpoint \"{first}\""),
                "its interface is in a namespace that cannot be found, and would go on sending \
                 packets that are too large",
            )
            .advise("disconnect it first")),
            None => Ok(Updated { plan, out_of_reach }),
        }
    }

    /// The plan for what is really there: links that have gone with their containers are left to
    /// the next look at the host, and a sysctl of a link that was not managed before is changed from
    /// what it is, so that it can go back.
    fn as_seen(&mut self, mut plan: Plan) -> Result<Plan> {
        let asked = |step: &&Step| veth(&step.op).is_some() || new_sysctl(&step.op);
        let keys: Vec<ObjectKey> =
            plan.steps.iter().filter(asked).map(|step| step.op.key()).collect();
        if keys.is_empty() {
            return Ok(plan);
        }
        let seen = self.kernel.observe(&Scope::Keys(keys)).map_err(|error| {
            Error::unavailable("look at the host", error.to_string()).with_errno(error.errno)
        })?;
        plan.steps.retain_mut(|step| {
            let found = seen.get(&step.op.key()).map(|seen| &seen.object);
            if veth(&step.op).is_some() {
                return found.is_some();
            }
            let Some(from) = found.filter(|_| new_sysctl(&step.op)).cloned() else { return true };
            let to = step.op.object().clone();
            let differs = !to.is_met_by(&from);
            step.op = Op::Change { from, to };
            differs
        });
        Ok(plan)
    }

    /// Records the new state and makes it; on failure the old one is put back.
    fn carry_out(
        &mut self,
        before: &State,
        after: State,
        plan: &Plan,
        book: &AddressBook,
    ) -> Result<()> {
        let unsaved = self.unsaved(&after.host);
        let changes = changes(before, &after, &self.book, book);
        let saved = unsaved.iter().cloned().map(Change::SaveSysctl);
        let recorded = self.store.commit(&changes.iter().cloned().chain(saved).collect::<Vec<_>>());
        if let Err(error) = recorded.and_then(|()| execute(&mut *self.kernel, plan)) {
            // Of what could not be recorded as a whole the network may have been.
            let mut back = self::changes(&after, before, book, &self.book);
            match error.class {
                // One of them may still be raised.
                ErrorClass::Stuck => self.saved.extend(unsaved),
                ErrorClass::Usage
                | ErrorClass::NotFound
                | ErrorClass::Conflict
                | ErrorClass::Permission
                | ErrorClass::Unavailable => {
                    back.extend(unsaved.into_iter().map(|saved| Change::DropSysctl(saved.key)));
                }
            }
            if let Err(lost) = self.store.commit(&back) {
                self.note("store", lost.to_string());
            }
            return Err(error);
        }
        self.saved.extend(unsaved);
        if changes_entry(plan) {
            self.kernel.judge_flows(&[after.admission(Occasion::Change, plan)]);
        }
        let State { network, endpoints, host, .. } = after;
        self.host = host;
        self.intent.put_network(network);
        before.endpoints.iter().for_each(|endpoint| self.ports.remove(&endpoint.spec));
        for (old, endpoint) in before.endpoints.iter().zip(endpoints) {
            if old.spec.ports != endpoint.spec.ports {
                self.remember_ephemeral(&endpoint.spec.ports);
            }
            self.ports.add(&endpoint.spec);
            self.intent.put_endpoint(endpoint);
        }
        Ok(())
    }

    /// Finishes the records of updates that a crash cut off between network and endpoints: ports
    /// are chosen as the setting of the network has them by now. What fits it stays as it is.
    pub(super) fn finish_updates(&mut self) -> Result<()> {
        let lost = self.lost_sandboxes();
        self.index_ports(&lost);
        for network in self.ready_networks() {
            let old = self.endpoints_except(network.id, &lost);
            let again = match self.choose_again(&network, &old, &Refused::new(), Mode::DryRun) {
                Ok(again) => again,
                Err(error) => {
                    let task = format!("ports of network \"{}\"", network.label());
                    self.note(&task, error.to_string());
                    continue;
                }
            };
            for (old, new) in old.iter().zip(again.endpoints).filter(|(old, new)| *old != new) {
                self.ports.remove(&old.spec);
                self.ports.add(&new.spec);
                self.record(new)?;
            }
        }
        Ok(())
    }

    /// Looks through the flows that began before the agent did: one that was killed in an update
    /// may have left some that it forbids. `repaired` is what has just been done to the host.
    pub(super) fn judge_old_flows(&mut self, repaired: &Plan) {
        let lost = self.lost_sandboxes();
        let admissions: Vec<Admission> = self
            .ready_networks()
            .iter()
            .map(|network| {
                let state = self.state(network, self.endpoints_except(network.id, &lost));
                state.admission(Occasion::Start, repaired)
            })
            .collect();
        if !admissions.is_empty() {
            self.kernel.judge_flows(&admissions);
        }
    }

    fn ready_networks(&self) -> Vec<NetworkSpec> {
        let ready = self.intent.networks().filter(|known| known.phase == NetworkPhase::Ready);
        ready.map(|known| known.spec.clone()).collect()
    }
}

impl State {
    fn everything(&self) -> Vec<Wanted> {
        self.host.iter().chain(&self.wanted).cloned().collect()
    }

    /// What may get in once the steps are done.
    fn admission(&self, occasion: Occasion, plan: &Plan) -> Admission {
        let gone = plan.steps.iter().filter_map(|step| match &step.op {
            Op::Delete(object) => object.element(),
            Op::Create(_) | Op::Change { .. } => None,
        });
        let holding = self.wanted.iter().filter_map(|wanted| wanted.object.element());
        let DriverSpec::Bridge(bridge) = &self.network.spec.driver;
        Admission {
            occasion,
            bridge: bridge.bridge.clone(),
            subnets: self.network.spec.subnets.iter().map(|subnet| subnet.pool).collect(),
            containers: self.endpoints.iter().flat_map(|known| known.spec.addresses()).collect(),
            gone: gone.filter(|element| lets_in(element)).cloned().collect(),
            holding: holding.filter(|element| lets_in(element)).cloned().collect(),
        }
    }
}

/// The two states of a veth's host end that changes.
fn veth(op: &Op) -> Option<(&Link, &Link)> {
    match op {
        Op::Change { from: Object::Link(from), to: Object::Link(to) } => {
            matches!(to.kind, LinkKind::Veth { .. }).then_some((from, to))
        }
        Op::Change { .. } | Op::Create(_) | Op::Delete(_) => None,
    }
}

/// Whether a sysctl of a link is managed from now on.
fn new_sysctl(op: &Op) -> bool {
    matches!(op, Op::Create(Object::Sysctl(Sysctl { revert: Revert::WithLink, .. })))
}

/// What to store to come from one state, with its address book, to another.
fn changes(from: &State, to: &State, book: &AddressBook, old: &AddressBook) -> Vec<Change> {
    let mut changes = Vec::new();
    for subnet in from.network.spec.subnets.iter().chain(&to.network.spec.subnets) {
        let id = PoolId::of(subnet.pool);
        match (old.pool(&id), book.pool(&id)) {
            (was, Some(is)) if was != Some(is) => {
                changes.push(Change::PutPool(Box::new(is.clone())));
            }
            (Some(_), None) => changes.push(Change::DropPool(id)),
            (_, Some(_)) | (None, None) => {}
        }
    }
    if from.network != to.network {
        changes.push(Change::PutNetwork(Box::new(to.network.clone())));
    }
    let changed = from.endpoints.iter().zip(&to.endpoints).filter(|(from, to)| from != to);
    changes.extend(changed.map(|(_, to)| Change::PutEndpoint(Box::new(to.clone()))));
    changes
}

/// Whether the steps change what may get into a network.
fn changes_entry(plan: &Plan) -> bool {
    plan.steps.iter().filter_map(|step| step.op.object().element()).any(lets_in)
}

/// What dockerd keeps of its networks cannot be changed behind its back.
fn check_keeper(network: &NetworkSpec, change: &NetworkChange) -> Result<()> {
    if network.origin == Origin::Netagent {
        return Ok(());
    }
    if !change.labels.is_empty() || !change.dropped_labels.is_empty() {
        return Err(Error::conflict(
            "labels",
            "the network was made by Docker, which keeps its labels",
        )
        .advise("make the network anew with `docker network create --label`"));
    }
    match change.subnets.first() {
        Some(subnet) => Err(Error::conflict(
            format!("subnet {}", subnet.pool),
            "the network was made by Docker, which gives out addresses of its own subnets only",
        )
        .advise("make a second network, and connect containers to both")),
        None => Ok(()),
    }
}
