//! Networks: create, find, remove.

use std::collections::BTreeMap;

use super::execute::{Left, execute, roll_forward, with_leftovers};
use super::{Engine, Mode, NetworkRequest};
use crate::driver::{self, GatewaySkips};
use crate::ipam::PoolId;
use crate::model::{
    DriverSpec, Error, ErrorClass, NetworkId, NetworkPhase, NetworkSpec, Origin, Reach, Result,
    StoredNetwork,
};
use crate::plan::{Plan, delta};
use crate::store::Change;

impl Engine {
    /// Makes a network. A request for an id that exists and says the same is answered as done.
    pub fn create_network(
        &mut self,
        request: NetworkRequest,
        mode: Mode,
    ) -> Result<(NetworkId, Plan)> {
        let label = request.name.as_ref().map_or_else(
            || request.id.map_or_else(String::new, |id| id.short()),
            ToString::to_string,
        );
        let task = format!("create network \"{label}\"");
        self.make_network(request, mode).map_err(|error| error.within(task))
    }

    fn make_network(&mut self, request: NetworkRequest, mode: Mode) -> Result<(NetworkId, Plan)> {
        if let Some(existing) = request.id.and_then(|id| self.intent.network(id)) {
            let ready = existing.phase == NetworkPhase::Ready;
            return match ready && is_same(&existing.spec, &request) {
                true => Ok((existing.spec.id, Plan::default())),
                false => Err(Error::conflict("", "the id belongs to another network already")),
            };
        }
        if let Some(name) = &request.name
            && self.intent.networks().any(|known| known.spec.name.as_ref() == Some(name))
        {
            return Err(Error::conflict("", format!("network with name {name} already exists"))
                .advise("pick another name, or remove that network first"));
        }
        self.refresh_facts()?;
        let id = match request.id {
            Some(id) => id,
            None => NetworkId::from_bytes(super::random_id()?),
        };
        let book = self.book.clone();
        let made = self.check_network(id, request).and_then(|spec| self.install(spec, mode));
        if made.is_err() || mode == Mode::DryRun {
            self.book = book;
        }
        made
    }

    /// The families of which a network of these options would need no gateway address.
    pub fn gateway_skips(
        &self,
        driver: &str,
        options: &BTreeMap<String, String>,
        reach: Reach,
    ) -> Result<GatewaySkips> {
        driver::gateway_skips(driver, options, reach)
    }

    /// Turns a request into a spec: subnets chosen and reserved, options parsed, clashes found.
    fn check_network(&mut self, id: NetworkId, request: NetworkRequest) -> Result<NetworkSpec> {
        let subnets = self.subnets(&request)?;
        let driver = driver::settings(
            &request.driver,
            id,
            &request.options,
            &subnets,
            request.reach,
            &self.facts,
        )?;
        self.check_bridge_name(&driver)?;
        Ok(NetworkSpec {
            id,
            name: request.name,
            origin: request.origin,
            driver,
            ipam: request.ipam,
            subnets,
            reach: request.reach,
            labels: request.labels,
            options: request.options,
            created_ms: request.created_ms,
        })
    }

    fn check_bridge_name(&self, driver: &DriverSpec) -> Result<()> {
        let link = driver::own_link(driver);
        let has = |known: &&StoredNetwork| driver::own_link(&known.spec.driver) == link;
        let ours = self.intent.networks().find(has);
        if let Some(other) = ours {
            return Err(Error::conflict(
                format!("bridge \"{link}\""),
                format!("network \"{}\" has a bridge of this name", other.spec.label()),
            )
            .advise("choose another com.docker.network.bridge.name"));
        }
        Ok(())
    }

    /// Records the network, makes it, and records that it is complete.
    fn install(&mut self, spec: NetworkSpec, mode: Mode) -> Result<(NetworkId, Plan)> {
        let id = spec.id;
        let host = self.host_objects(self.needs(None, Some(&spec)));
        let mut after = host.clone();
        after.extend(driver::network_objects(&spec, &self.facts));
        let plan = delta(&self.host, &after);
        if mode == Mode::DryRun {
            return Ok((id, plan));
        }
        let pools =
            spec.subnets.iter().filter_map(|subnet| self.book.pool(&PoolId::of(subnet.pool)));
        let mut changes: Vec<Change> =
            pools.cloned().map(|pool| Change::PutPool(Box::new(pool))).collect();
        let unsaved = self.unsaved(&host);
        changes.extend(unsaved.iter().cloned().map(Change::SaveSysctl));
        let creating = StoredNetwork { spec, phase: NetworkPhase::Creating };
        changes.push(Change::PutNetwork(Box::new(creating.clone())));
        self.store.commit(&changes)?;
        self.saved.extend(unsaved);
        if let Err(error) = execute(&mut *self.kernel, &plan) {
            self.abandon_network(creating, &error);
            return Err(error);
        }
        let ready = StoredNetwork { phase: NetworkPhase::Ready, ..creating };
        if let Err(error) = self.store.commit(&[Change::PutNetwork(Box::new(ready.clone()))]) {
            let left = roll_forward(&mut *self.kernel, &delta(&after, &self.host));
            let error = with_leftovers(error, left);
            self.abandon_network(ready, &error);
            return Err(error);
        }
        self.intent.put_network(ready);
        self.host = host;
        Ok((id, plan))
    }

    /// A network that could not be made: forgotten, or kept as "deleting" where a piece of it is
    /// stuck, so that a later reconcile finishes.
    fn abandon_network(&mut self, mut network: StoredNetwork, error: &Error) {
        let pools = network.spec.subnets.iter().map(|subnet| PoolId::of(subnet.pool));
        let mut changes: Vec<Change> = match network.spec.leases_here() {
            true => pools.map(Change::DropPool).collect(),
            false => Vec::new(),
        };
        if error.class == ErrorClass::Stuck {
            network.phase = NetworkPhase::Deleting;
            changes.push(Change::PutNetwork(Box::new(network.clone())));
            self.intent.put_network(network);
        } else {
            changes.push(Change::DropNetwork(network.spec.id));
        }
        let written = self.store.commit(&changes);
        let stuck = error.class == ErrorClass::Stuck;
        if let Err(error) =
            written.and_then(|()| if stuck { Ok(()) } else { self.forget_sysctls() })
        {
            self.note("store", error.to_string());
        }
    }

    /// Removes a network. Docker's goes with whatever endpoints are left (dockerd has forgotten
    /// them); one of ours must have none.
    pub fn delete_network(&mut self, id: NetworkId, mode: Mode) -> Result<Plan> {
        let unknown = || Error::not_found(format!("network \"{}\"", id.short()), "no such network");
        let network = self.intent.network(id).ok_or_else(unknown)?.clone();
        let task = format!("remove network \"{}\"", network.spec.label());
        let endpoints: Vec<_> =
            self.intent.endpoints_of(id).map(|endpoint| endpoint.spec.clone()).collect();
        if let (Origin::Netagent, Some(first)) = (network.spec.origin, endpoints.first()) {
            return Err(Error::conflict(
                task,
                match endpoints.len() {
                    1 => format!("endpoint \"{}\" is on it", first.label()),
                    many => format!("it has {many} endpoints, \"{}\" among them", first.label()),
                },
            )
            .advise("disconnect them first"));
        }
        let needs = self.needs(Some(id), None);
        let mut before = self.host.clone();
        if needs != self.needs(None, None) {
            // What is taken from the host goes back to how it is now, not to how it was.
            self.refresh_facts()?;
            before = self.host_objects(self.needs(None, None));
        }
        before.extend(driver::network_objects(&network.spec, &self.facts));
        let host = self.host_objects(needs);
        let plan = delta(&before, &host);
        if mode == Mode::DryRun {
            return Ok(plan);
        }
        let deleting = StoredNetwork { phase: NetworkPhase::Deleting, ..network };
        self.store.commit(&[Change::PutNetwork(Box::new(deleting.clone()))])?;
        self.intent.put_network(deleting.clone());
        for endpoint in endpoints {
            self.delete_endpoint(id, endpoint.id)?;
        }
        let errors = roll_forward(&mut *self.kernel, &plan);
        self.host = host;
        if let Some(Left { error, .. }) = errors.into_iter().next() {
            self.note(&deleting.spec.label(), error.to_string());
            return Err(Error::new(ErrorClass::Stuck, "", error.to_string()).within(task));
        }
        self.forget_network(&deleting)?;
        Ok(plan)
    }

    /// Drops the record of a network whose objects are gone, with its pools and, after the last
    /// network, the host's saved sysctls.
    pub(super) fn forget_network(&mut self, network: &StoredNetwork) -> Result<()> {
        let id = network.spec.id;
        let mut changes = vec![Change::DropNetwork(id)];
        if network.spec.leases_here() {
            for subnet in &network.spec.subnets {
                let pool = PoolId::of(subnet.pool);
                if self.book.release_pool(&pool).is_ok() {
                    changes.push(match self.book.pool(&pool) {
                        Some(pool) => Change::PutPool(Box::new(pool.clone())),
                        None => Change::DropPool(pool),
                    });
                }
            }
        }
        self.store.commit(&changes)?;
        self.intent.remove_network(id);
        self.forget_sysctls()
    }

    /// The network of this name, id, or unambiguous beginning of an id.
    pub fn find_network(&self, reference: &str) -> Result<NetworkId> {
        let doing = || format!("network \"{reference}\"");
        let named = |known: &&StoredNetwork| {
            known.spec.name.as_ref().is_some_and(|name| name.as_str() == reference)
                || known.spec.id.to_string() == reference
        };
        let mut named = self.intent.networks().filter(named);
        match (named.next(), named.next()) {
            (Some(known), None) => return Ok(known.spec.id),
            (Some(_), Some(_)) => {
                return Err(Error::usage(doing(), "several networks have this name")
                    .advise("give the id: one of them is Docker's"));
            }
            (None, _) => {}
        }
        let mut begins = self.intent.networks().filter(|known| {
            !reference.is_empty() && known.spec.id.to_string().starts_with(reference)
        });
        match (begins.next(), begins.next()) {
            (Some(known), None) => Ok(known.spec.id),
            (Some(_), Some(_)) => Err(Error::usage(doing(), "several ids begin like this")
                .advise("give more digits, or the name")),
            (None, _) => Err(Error::not_found(doing(), "no such network")
                .advise("`netagent network ls` lists them")),
        }
    }
}

fn is_same(spec: &NetworkSpec, request: &NetworkRequest) -> bool {
    let subnets = spec.subnets.iter().map(|subnet| (subnet.pool, subnet.gateway));
    let asked = request.subnets.iter().map(|subnet| (subnet.pool, subnet.gateway));
    spec.origin == request.origin
        && spec.reach == request.reach
        && driver::was_asked_with(spec, &request.options)
        && subnets.eq(asked)
}
