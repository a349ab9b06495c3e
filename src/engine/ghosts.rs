//! Ghosts: what dockerd has forgotten without telling us, because it was killed or we were away.
//!
//! A container that lives is never taken for one: its link is in its sandbox, and that is looked
//! for before anything is removed.

use std::net::IpAddr;

use super::subnets::overlap;
use super::{Engine, Mode, SubnetRequest};
use crate::driver;
use crate::kernel::Scope;
use crate::model::{
    Attach, EndpointId, EndpointPhase, Error, Ipam, NetworkSpec, Origin, Result, StoredEndpoint,
};

impl Engine {
    /// Whether no container can be using an endpoint of Docker's: it was never taken into one, its
    /// link or the sandbox we placed it in has gone, or dockerd has put it back on the host.
    pub(super) fn is_dead(&mut self, endpoint: &StoredEndpoint) -> Result<bool> {
        let id = endpoint.spec.id;
        match (&endpoint.spec.attach, endpoint.phase) {
            (Attach::HandOff, EndpointPhase::Joined | EndpointPhase::Leaving) => {}
            (
                Attach::HandOff,
                EndpointPhase::Creating | EndpointPhase::Ready | EndpointPhase::Deleting,
            ) => {
                return Ok(true);
            }
            (Attach::AtJoin, _) => return Ok(true),
            (Attach::Netns { path, id, .. }, _) => {
                let (path, id) = (path.clone(), *id);
                return self.is_lost(&path, id);
            }
        }
        let (host_end, sandbox_end) = (driver::host_end(id), driver::sandbox_end(id));
        let keys = vec![host_end.clone(), sandbox_end.clone()];
        let seen = self
            .kernel
            .observe(&Scope::Keys(keys))
            .map_err(|error| Error::unavailable("look at the host", error.to_string()))?;
        Ok(!seen.contains_key(&host_end) || seen.contains_key(&sandbox_end))
    }

    /// An address has one endpoint. Docker gives out an address again only after the endpoint
    /// that had it is gone, even if it could not tell us.
    pub(super) fn clear_address(
        &mut self,
        network: &NetworkSpec,
        address: IpAddr,
        origin: Origin,
    ) -> Result<()> {
        let Some(holder) = self.intent.endpoint_at(network.id, address) else { return Ok(()) };
        let holder = &holder.spec;
        if (origin, holder.origin) == (Origin::Docker, Origin::Docker) {
            let ghost = holder.id;
            tracing::info!(endpoint = %ghost.short(), %address, "a dead dockerd's endpoint is replaced");
            return self.delete_endpoint(network.id, ghost);
        }
        Err(Error::conflict(
            format!("address {address}"),
            format!("endpoint \"{}\" of network \"{}\" has it", holder.label(), network.label()),
        ))
    }

    /// Removes the endpoint if it is a ghost that was taken into a container once; answers
    /// whether it was.
    pub(super) fn bury_if_dead(&mut self, id: EndpointId) -> Result<bool> {
        let Some(stored) = self.ghost(id)? else { return Ok(false) };
        tracing::info!(endpoint = %id.short(), "its container is gone: its ports are free");
        self.delete_endpoint(stored.spec.network, id)?;
        Ok(true)
    }

    /// The endpoint, if it is a ghost that was taken into a container once.
    pub(super) fn ghost(&mut self, id: EndpointId) -> Result<Option<StoredEndpoint>> {
        let taken = |known: &&StoredEndpoint| {
            matches!(known.phase, EndpointPhase::Joined | EndpointPhase::Leaving)
        };
        let Some(stored) = self.intent.endpoint(id).filter(taken).cloned() else {
            return Ok(None);
        };
        Ok(self.is_dead(&stored)?.then_some(stored))
    }

    /// dockerd's own allocator never gives out overlapping subnets: a network of Docker's that has
    /// one of these was removed while we were down. One that still has a living container stays,
    /// and is named as the conflict.
    pub(super) fn clear_subnets(&mut self, asked: &[SubnetRequest]) -> Result<()> {
        let overlaps = |spec: &NetworkSpec| {
            let mut pools = spec.subnets.iter().map(|subnet| &subnet.pool);
            (spec.origin, spec.ipam) == (Origin::Docker, Ipam::Dockerd)
                && pools.any(|pool| asked.iter().any(|new| overlap(pool, &new.pool)))
        };
        let old = self.intent.networks().map(|known| &known.spec).filter(|spec| overlaps(spec));
        for network in old.map(|spec| spec.id).collect::<Vec<_>>() {
            let endpoints: Vec<_> = self.intent.endpoints_of(network).cloned().collect();
            let mut alive = false;
            for endpoint in &endpoints {
                alive |= !self.is_dead(endpoint)?;
            }
            if !alive {
                tracing::info!(network = %network.short(), "Docker gave its subnet out again: removed");
                self.delete_network(network, Mode::Apply)?;
            }
        }
        Ok(())
    }
}
