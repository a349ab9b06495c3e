//! What Docker's API tells: names, labels, and what is no longer there.

use std::collections::BTreeSet;

use super::{DockerView, Engine, Mode, Suspects};
use crate::ipam::PoolId;
use crate::model::{EndpointId, Ipam, NetworkId, Origin, Result};
use crate::store::Change;

/// The API of Docker 28.0, the first dockerd that announces the addresses of a link it took.
///
/// The part of it that announces is stopped when the link leaves, and found by the link's name. After
/// a restart under live-restore all links that were placed have one name, the empty one: when the
/// second of a sandbox leaves, dockerd ends with "close of closed channel" (RemoveInterface in
/// libnetwork/osl). There a sandbox gets one placed link at most.
const ANNOUNCES_FROM: (u32, u32) = (1, 48);

impl Engine {
    /// A dockerd began: what of Docker's is here now is suspect until its API confirms it, and
    /// addresses are given out once more to those who had them.
    pub fn docker_began(&mut self) -> Result<Suspects> {
        self.note_restored();
        // Its version may be another.
        self.lone_placements = true;
        let here =
            self.intent.networks().map(|known| &known.spec).filter(|spec| spec.leases_here());
        let ours = here.flat_map(|spec| &spec.subnets).map(|subnet| subnet.pool).collect();
        self.book.next_generation(&ours);
        let mut changes = vec![Change::Generation(self.book.generation())];
        changes.extend(self.book.pools().cloned().map(|pool| Change::PutPool(Box::new(pool))));
        self.store.commit(&changes)?;
        Ok(self.suspects())
    }

    /// What of Docker's is here, for a comparison with its API.
    pub fn suspects(&self) -> Suspects {
        let networks = self.intent.networks().filter(|known| known.spec.origin == Origin::Docker);
        let endpoints = self.intent.endpoints().filter(|known| known.spec.origin == Origin::Docker);
        Suspects {
            networks: networks.map(|known| known.spec.id).collect(),
            endpoints: endpoints.map(|known| known.spec.id).collect(),
        }
    }

    /// Takes over names and labels, and removes those suspects that Docker does not know; one that
    /// cannot be removed does not keep the others.
    pub fn learn(&mut self, view: &DockerView, suspects: &Suspects) -> Result<()> {
        self.docker_subnets.clone_from(&view.subnets);
        self.docker_announces = view.api_version.is_some_and(|version| version >= ANNOUNCES_FROM);
        self.lone_placements = self.docker_announces && view.live_restore.unwrap_or(true);
        self.learn_names(view)?;
        let mut stuck = Vec::new();
        for id in suspects.endpoints.iter().filter(|id| !view.endpoints.contains_key(id)) {
            stuck.extend(self.forsake_endpoint(*id, view).err());
        }
        for id in suspects.networks.iter().filter(|id| !view.networks.contains_key(id)) {
            stuck.extend(self.forsake_network(*id, view).err());
        }
        self.sweep_pools(view)?;
        stuck.into_iter().next().map_or(Ok(()), Err)
    }

    fn learn_names(&mut self, view: &DockerView) -> Result<()> {
        let mut changes = Vec::new();
        for (id, docker) in &view.networks {
            let Some(mut known) = self.intent.network(*id).cloned() else { continue };
            let name = docker.name.parse().ok();
            if (known.spec.name != name && name.is_some()) || known.spec.labels != docker.labels {
                known.spec.name = name.or(known.spec.name);
                known.spec.labels.clone_from(&docker.labels);
                changes.push(Change::PutNetwork(Box::new(known.clone())));
                self.intent.put_network(known);
            }
        }
        for (id, name) in &view.endpoints {
            let Some(mut known) = self.intent.endpoint(*id).cloned() else { continue };
            if !name.is_empty() && known.spec.name.as_ref() != Some(name) {
                known.spec.name = Some(name.clone());
                changes.push(Change::PutEndpoint(Box::new(known.clone())));
                self.intent.put_endpoint(known);
            }
        }
        self.store.commit(&changes)
    }

    /// Removes an endpoint that Docker does not know; not one whose container lives: then it is
    /// this Docker that is the wrong one.
    fn forsake_endpoint(&mut self, id: EndpointId, view: &DockerView) -> Result<()> {
        let Some(stored) = self.intent.endpoint(id).cloned() else { return Ok(()) };
        if !self.is_dead(&stored)? {
            self.note(
                &format!("endpoint \"{}\"", stored.spec.label()),
                "Docker does not know it, though its container lives: is --docker-host the dockerd that made it?",
            );
            return Ok(());
        }
        tracing::info!(endpoint = %id.short(), "Docker does not know it any more: removed");
        self.delete_endpoint(stored.spec.network, id)?;
        let network = self.intent.network(stored.spec.network).map(|known| known.spec.clone());
        let Some(network) = network.filter(|spec| spec.ipam == Ipam::Netagent) else {
            return Ok(());
        };
        for address in stored.spec.addresses() {
            let used = view.addresses.contains(&address)
                || self.intent.endpoint_at(network.id, address).is_some();
            let pool = network.subnets.iter().find(|subnet| subnet.pool.contains(&address));
            if let Some(pool) = pool.filter(|_| !used) {
                self.release_address(&PoolId::of(pool.pool), address)?;
            }
        }
        Ok(())
    }

    /// Removes a network that Docker does not know, and the pools it had from us.
    fn forsake_network(&mut self, id: NetworkId, view: &DockerView) -> Result<()> {
        let Some(stored) = self.intent.network(id).cloned() else { return Ok(()) };
        if self.intent.endpoints_of(id).next().is_some() {
            return Ok(());
        }
        tracing::info!(network = %id.short(), "Docker does not know it any more: removed");
        self.delete_network(id, Mode::Apply)?;
        if stored.spec.ipam != Ipam::Netagent {
            return Ok(());
        }
        for subnet in &stored.spec.subnets {
            if !view.subnets.contains(&subnet.pool) {
                self.release_pool(&PoolId::of(subnet.pool))?;
            }
        }
        Ok(())
    }

    /// Drops leases and pools of a dockerd that ended and that nobody asked for again.
    fn sweep_pools(&mut self, view: &DockerView) -> Result<()> {
        let nets = self.intent.networks().flat_map(|known| &known.spec.subnets);
        let mut alive_nets: BTreeSet<_> = nets.map(|subnet| subnet.pool).collect();
        alive_nets.extend(&view.subnets);
        let mut addresses = view.addresses.clone();
        addresses.extend(self.intent.endpoints().flat_map(|known| known.spec.addresses()));
        let before = self.book.clone();
        let dropped = self.book.sweep(&addresses, &alive_nets);
        if self.book == before {
            return Ok(());
        }
        let mut changes: Vec<Change> = dropped.into_iter().map(Change::DropPool).collect();
        changes.extend(self.book.pools().cloned().map(|pool| Change::PutPool(Box::new(pool))));
        self.store.commit(&changes)
    }
}
