//! Endpoints: made, found, removed.

use std::path::Path;

use ipnet::IpNet;

use super::execute::{Left, execute, roll_forward, with_leftovers};
use super::join::{attach_of, no_free_name, not_dockers};
use super::{AttachRequest, EndpointRequest, Engine};
use crate::driver;
use crate::ipam::{PoolId, Purpose};
use crate::model::{
    Attach, EndpointId, EndpointPhase, EndpointSpec, Error, ErrorClass, LinkName, MacAddr, Naming,
    NetworkId, NetworkPhase, NetworkSpec, PortRequest, Reach, Result, StoredEndpoint,
};
use crate::object::Wanted;
use crate::plan::delta;
use crate::store::Change;

impl Engine {
    /// Makes an endpoint. Docker's endpoint at the same address of a network is a ghost of a
    /// dockerd that died: it is removed first. The same request again is answered as done.
    pub fn create_endpoint(&mut self, request: EndpointRequest) -> Result<EndpointSpec> {
        let label = request.name.clone().or_else(|| request.id.map(|id| id.short()));
        let task = format!("create endpoint \"{}\"", label.unwrap_or_default());
        self.make_endpoint(request).map_err(|error| error.within(task))
    }

    fn make_endpoint(&mut self, request: EndpointRequest) -> Result<EndpointSpec> {
        if let Some(existing) = request.id.and_then(|id| self.intent.endpoint(id)) {
            let alive = existing.phase != EndpointPhase::Deleting;
            return match alive && is_same(&existing.spec, &request) {
                true => Ok(existing.spec.clone()),
                false => Err(Error::conflict("", "the id belongs to another endpoint already")),
            };
        }
        let network = self.ready_network(request.network)?.clone();
        self.need_bridge(&network)?;
        let asked = [request.v4.map(IpNet::V4), request.v6.map(IpNet::V6)];
        for net in asked.into_iter().flatten() {
            self.check_address(&network, net)?;
            self.clear_address(&network, net.addr(), request.origin)?;
        }
        let ports = request.ports.clone();
        let spec = self.check_endpoint(&network, request)?;
        self.warn_of_sysctls(&spec);
        if let Err(error) = self.attach(&network, &spec, &ports) {
            self.give_back(&network, &spec);
            return Err(error);
        }
        if !ports.is_empty()
            && let Err(error) = self.publish(network.id, spec.id, &ports)
        {
            self.delete_endpoint(network.id, spec.id)?;
            return Err(error);
        }
        Ok(self.intent.endpoint(spec.id).map_or(spec, |stored| stored.spec.clone()))
    }

    pub(super) fn ready_network(&self, id: NetworkId) -> Result<&NetworkSpec> {
        let network = self.intent.network(id).ok_or_else(|| {
            Error::not_found(format!("network \"{}\"", id.short()), "no such network")
        })?;
        match network.phase {
            NetworkPhase::Ready => Ok(&network.spec),
            NetworkPhase::Creating | NetworkPhase::Deleting => Err(Error::conflict(
                format!("network \"{}\"", network.spec.label()),
                "it is being removed",
            )),
        }
    }

    /// A bridge of the operator's may have gone, and may be back unnoticed.
    fn need_bridge(&mut self, network: &NetworkSpec) -> Result<()> {
        if driver::missing_bridge(network, &self.facts).is_none() {
            return Ok(());
        }
        self.refresh_facts()?;
        match driver::missing_bridge(network, &self.facts) {
            None => Ok(()),
            Some(bridge) => Err(Error::unavailable(
                format!("bridge \"{bridge}\""),
                "it is gone, and was not netagent's",
            )
            .advise("make it again, or remove the network")),
        }
    }

    fn check_address(&self, network: &NetworkSpec, net: IpNet) -> Result<()> {
        let doing = format!("address {}", net.addr());
        let Some(subnet) = network.subnets.iter().find(|subnet| subnet.pool.contains(&net.addr()))
        else {
            let pools: Vec<_> =
                network.subnets.iter().map(|subnet| subnet.pool.to_string()).collect();
            return Err(Error::usage(
                doing,
                format!(
                    "it is in no subnet of network \"{}\" ({})",
                    network.label(),
                    pools.join(", ")
                ),
            ));
        };
        if subnet.gateway == Some(net.addr()) {
            return Err(Error::conflict(doing, "it is the network's gateway"));
        }
        Ok(())
    }

    fn check_endpoint(
        &mut self,
        network: &NetworkSpec,
        request: EndpointRequest,
    ) -> Result<EndpointSpec> {
        let id = match request.id {
            Some(id) => id,
            None => EndpointId::from_bytes(super::random_id()?),
        };
        let (asked, attach) = match request.attach {
            AttachRequest::HandOff => (None, attach_of(network, None)),
            AttachRequest::Named { interface } => {
                let asked = not_dockers(interface);
                let attach = attach_of(network, asked.as_ref());
                (asked, attach)
            }
            AttachRequest::Netns { path, interface: asked, default_route } => {
                let id = self.sandbox(&path)?;
                let prefix = driver::interface_prefix(network);
                let interface = self.interface_name(&path, asked.as_ref(), prefix)?;
                let default_route = default_route && network.reach == Reach::External;
                (asked, Attach::Netns { path, id, interface, default_route })
            }
        };
        let (v4, v6) =
            self.choose_addresses(network, &request.v4.map(IpNet::V4), &request.v6.map(IpNet::V6))?;
        let v4 = v4.and_then(as_v4).or(request.v4);
        let own_mac = || match v4 {
            Some(net) => MacAddr::from_v4(net.addr()),
            None => MacAddr::from_id(id.as_bytes()),
        };
        Ok(EndpointSpec {
            id,
            network: network.id,
            origin: request.origin,
            name: request.name,
            v4,
            v6: v6.and_then(as_v6).or(request.v6),
            mac: request.mac.unwrap_or_else(own_mac),
            attach,
            naming: Naming { asked, told: None },
            sysctls: request.sysctls,
            asked: Vec::new(),
            publishes: false,
            ports: Vec::new(),
        })
    }

    /// The name inside the sandbox: the one asked for, or the prefix and the lowest number that
    /// no endpoint of ours has there.
    fn interface_name(
        &self,
        path: &Path,
        asked: Option<&LinkName>,
        prefix: &str,
    ) -> Result<LinkName> {
        let Some(name) = asked else {
            return self.free_names(path, prefix).next().ok_or_else(|| no_free_name(path, prefix));
        };
        if self.intent.interfaces_in(path).any(|used| used == name) {
            let doing = format!("interface in netns {}", path.display());
            return Err(Error::conflict(doing, format!("another endpoint there is \"{name}\"")));
        }
        Ok(name.clone())
    }

    /// Where netagent gives out a network's addresses itself: the named ones, or the next free one
    /// of each family. Docker asks for addresses before it makes an endpoint.
    fn choose_addresses(
        &mut self,
        network: &NetworkSpec,
        v4: &Option<IpNet>,
        v6: &Option<IpNet>,
    ) -> Result<(Option<IpNet>, Option<IpNet>)> {
        if !network.leases_here() {
            if v4.is_none() && v6.is_none() {
                return Err(Error::usage("", "dockerd gave the endpoint no address"));
            }
            return Ok((None, None));
        }
        let first = self.choose_address(network, v4, |pool| matches!(pool, IpNet::V4(_)))?;
        let second = self.choose_address(network, v6, |pool| matches!(pool, IpNet::V6(_)));
        match (second, first) {
            (Ok(second), first) => Ok((first, second)),
            (Err(error), first) => {
                if let Some(first) = first {
                    self.book.release_address(&PoolId::of(first), first.addr());
                }
                Err(error)
            }
        }
    }

    fn choose_address(
        &mut self,
        network: &NetworkSpec,
        named: &Option<IpNet>,
        family: impl Fn(&IpNet) -> bool,
    ) -> Result<Option<IpNet>> {
        let subnets = network.subnets.iter().map(|subnet| subnet.pool);
        if let Some(named) = named {
            let Some(pool) = subnets.clone().find(|pool| pool.contains(&named.addr())) else {
                return Ok(None);
            };
            return self
                .book
                .request_address(&PoolId::of(pool), Some(named.addr()), Purpose::Endpoint)
                .map(Some);
        }
        let mut full = None;
        for pool in subnets.filter(|pool| family(pool)) {
            match self.book.request_address(&PoolId::of(pool), None, Purpose::Endpoint) {
                Ok(address) => return Ok(Some(address)),
                Err(error) => full = Some(error),
            }
        }
        full.map_or(Ok(None), Err)
    }

    /// Takes back the addresses that netagent gave an endpoint, and says what to store.
    fn give_back(&mut self, network: &NetworkSpec, endpoint: &EndpointSpec) -> Vec<Change> {
        if !network.leases_here() {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for address in endpoint.addresses() {
            let pools = network.subnets.iter().map(|subnet| subnet.pool);
            let Some(pool) = pools.clone().find(|pool| pool.contains(&address)) else { continue };
            let pool = PoolId::of(pool);
            self.book.release_address(&pool, address);
            changes.extend(self.lease_change(&pool, address));
        }
        changes
    }

    /// Records the endpoint, makes it, and records that it is complete; with `ports`, which are
    /// published next, the record of these says so.
    fn attach(
        &mut self,
        network: &NetworkSpec,
        spec: &EndpointSpec,
        ports: &[PortRequest],
    ) -> Result<()> {
        let mut changes = Vec::new();
        if network.leases_here() {
            for net in [spec.v4.map(IpNet::V4), spec.v6.map(IpNet::V6)].into_iter().flatten() {
                changes.extend(self.lease_change(&PoolId::of(net), net.addr()));
            }
        }
        let creating = StoredEndpoint { spec: spec.clone(), phase: EndpointPhase::Creating };
        changes.push(Change::PutEndpoint(Box::new(creating.clone())));
        self.store.commit(&changes)?;
        if matches!(spec.attach, Attach::Netns { .. }) {
            self.announce(network, spec);
        }
        let wanted = self.endpoint_objects(network, &creating);
        let plan = delta(&[], &wanted);
        if let Err(error) = execute(&mut *self.kernel, &plan) {
            return Err(self.abandon_endpoint(network, creating, error));
        }
        let ready = StoredEndpoint { phase: EndpointPhase::Ready, ..creating };
        if ports.is_empty()
            && let Err(error) = self.store.commit(&[Change::PutEndpoint(Box::new(ready.clone()))])
        {
            let left = roll_forward(&mut *self.kernel, &delta(&wanted, &[]));
            return Err(self.abandon_endpoint(network, ready, with_leftovers(error, left)));
        }
        self.intent.put_endpoint(ready);
        Ok(())
    }

    fn abandon_endpoint(
        &mut self,
        network: &NetworkSpec,
        mut endpoint: StoredEndpoint,
        error: Error,
    ) -> Error {
        let mut changes = self.give_back(network, &endpoint.spec);
        if error.class == ErrorClass::Stuck {
            endpoint.phase = EndpointPhase::Deleting;
            changes.push(Change::PutEndpoint(Box::new(endpoint.clone())));
            self.intent.put_endpoint(endpoint);
        } else {
            changes.push(Change::DropEndpoint(endpoint.spec.id));
        }
        if let Err(error) = self.store.commit(&changes) {
            self.note("store", error.to_string());
        }
        error
    }

    pub(super) fn endpoint_objects(
        &self,
        network: &NetworkSpec,
        endpoint: &StoredEndpoint,
    ) -> Vec<Wanted> {
        if self.nameless.contains(&endpoint.spec.id) {
            // Nobody can enter it: as if dockerd had taken the link there.
            let spec = EndpointSpec { attach: Attach::HandOff, ..endpoint.spec.clone() };
            let phase = match endpoint.phase {
                EndpointPhase::Creating | EndpointPhase::Ready => EndpointPhase::Joined,
                joined @ (EndpointPhase::Joined
                | EndpointPhase::Leaving
                | EndpointPhase::Deleting) => joined,
            };
            return driver::endpoint_objects(network, &spec, phase, &self.facts);
        }
        driver::endpoint_objects(network, &endpoint.spec, endpoint.phase, &self.facts)
    }

    /// The network and the endpoint, if both exist and belong together.
    pub(super) fn find_endpoint(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Option<(NetworkSpec, StoredEndpoint)> {
        let endpoint =
            self.intent.endpoint(endpoint).filter(|known| known.spec.network == network)?;
        Some((self.intent.network(network)?.spec.clone(), endpoint.clone()))
    }

    /// The network and the endpoint, unless it is being removed.
    pub(super) fn living_endpoint(
        &self,
        network: NetworkId,
        endpoint: EndpointId,
    ) -> Result<(NetworkSpec, StoredEndpoint)> {
        let found = self.find_endpoint(network, endpoint);
        found.filter(|(_, stored)| stored.phase != EndpointPhase::Deleting).ok_or_else(|| {
            Error::not_found(
                format!("endpoint \"{}\"", endpoint.short()),
                "no such endpoint on this network",
            )
        })
    }

    pub(super) fn record(&mut self, endpoint: StoredEndpoint) -> Result<()> {
        self.store.commit(&[Change::PutEndpoint(Box::new(endpoint.clone()))])?;
        self.intent.put_endpoint(endpoint);
        Ok(())
    }

    /// Removes an endpoint with its ports; unknown ones are no error.
    pub fn delete_endpoint(&mut self, network: NetworkId, endpoint: EndpointId) -> Result<()> {
        let Some((network, mut stored)) = self.find_endpoint(network, endpoint) else {
            return Ok(());
        };
        let wanted = self.remains(&network, &stored)?;
        stored.phase = EndpointPhase::Deleting;
        self.record(stored.clone())?;
        let errors = roll_forward(&mut *self.kernel, &delta(&wanted, &[]));
        self.ports.remove(&stored.spec);
        self.restore_siblings(stored.spec.id);
        if let Some(Left { error, .. }) = errors.into_iter().next() {
            let task = format!("remove endpoint \"{}\"", stored.spec.label());
            self.note(&stored.spec.label(), error.to_string());
            return Err(Error::new(ErrorClass::Stuck, "", error.to_string()).within(task));
        }
        self.forget_endpoint(&network, &stored.spec)
    }

    /// Drops the record of an endpoint whose objects are gone.
    pub(super) fn forget_endpoint(
        &mut self,
        network: &NetworkSpec,
        endpoint: &EndpointSpec,
    ) -> Result<()> {
        let mut changes = self.give_back(network, endpoint);
        changes.push(Change::DropEndpoint(endpoint.id));
        self.intent.remove_endpoint(endpoint.id);
        self.store.commit(&changes)
    }
}

fn as_v4(net: IpNet) -> Option<ipnet::Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    }
}

fn as_v6(net: IpNet) -> Option<ipnet::Ipv6Net> {
    match net {
        IpNet::V6(net) => Some(net),
        IpNet::V4(_) => None,
    }
}

fn is_same(spec: &EndpointSpec, request: &EndpointRequest) -> bool {
    spec.network == request.network
        && spec.origin == request.origin
        && (request.v4.is_none() || spec.v4 == request.v4)
        && (request.v6.is_none() || spec.v6 == request.v6)
        && request.mac.is_none_or(|mac| mac == spec.mac)
}
