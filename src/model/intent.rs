//! All specs with their phase: the only thing that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Attach, EndpointId, EndpointSpec, LinkName, NetworkId, NetworkSpec};

/// Where a network is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkPhase {
    /// Being made; the caller has not heard success, so a restart removes it.
    Creating,
    /// Complete; a restart repairs it.
    Ready,
    /// Being removed; a restart finishes.
    Deleting,
}

/// Where an endpoint is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointPhase {
    /// Being made; a restart removes it.
    Creating,
    /// Its link waits in the host's namespace (hand-off) or is in place (netns).
    Ready,
    /// dockerd has taken the sandbox end; only the host end is ours to see.
    Joined,
    /// dockerd is giving the sandbox end back.
    Leaving,
    /// Being removed; a restart finishes.
    Deleting,
}

/// A network and its phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNetwork {
    /// What was asked for.
    pub spec: NetworkSpec,
    /// How far it got.
    pub phase: NetworkPhase,
}

/// An endpoint and its phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// What was asked for.
    pub spec: EndpointSpec,
    /// How far it got.
    pub phase: EndpointPhase,
}

/// A sysctl of the host that we changed, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SavedSysctl {
    /// Path below /proc/sys, with slashes.
    pub key: String,
    /// The value found before our first write.
    pub before: String,
}

/// Everything that shall exist, with the indexes that keep an attach flat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intent {
    networks: BTreeMap<NetworkId, StoredNetwork>,
    endpoints: BTreeMap<EndpointId, StoredEndpoint>,
    by_network: BTreeMap<NetworkId, BTreeSet<EndpointId>>,
    by_address: BTreeMap<(NetworkId, IpAddr), EndpointId>,
    by_sandbox: BTreeMap<PathBuf, BTreeSet<EndpointId>>,
}

impl Intent {
    /// All networks, by id.
    pub fn networks(&self) -> impl Iterator<Item = &StoredNetwork> {
        self.networks.values()
    }

    /// All endpoints, by id.
    pub fn endpoints(&self) -> impl Iterator<Item = &StoredEndpoint> {
        self.endpoints.values()
    }

    /// The network with this id.
    pub fn network(&self, id: NetworkId) -> Option<&StoredNetwork> {
        self.networks.get(&id)
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: EndpointId) -> Option<&StoredEndpoint> {
        self.endpoints.get(&id)
    }

    /// The endpoints of a network.
    pub fn endpoints_of(&self, network: NetworkId) -> impl Iterator<Item = &StoredEndpoint> {
        self.by_network.get(&network).into_iter().flatten().filter_map(|id| self.endpoints.get(id))
    }

    /// The endpoint of `network` that has `address`.
    pub fn endpoint_at(&self, network: NetworkId, address: IpAddr) -> Option<&StoredEndpoint> {
        self.by_address.get(&(network, address)).and_then(|id| self.endpoints.get(id))
    }

    /// The endpoints that netagent placed in the sandbox at `path`.
    pub fn endpoints_in(&self, path: &Path) -> impl Iterator<Item = &StoredEndpoint> {
        let endpoints = self.by_sandbox.get(path).into_iter().flatten();
        endpoints.filter_map(|id| self.endpoints.get(id))
    }

    /// Names of our interfaces in the sandbox at `path`.
    pub fn interfaces_in(&self, path: &Path) -> impl Iterator<Item = &LinkName> {
        self.endpoints_in(path).filter_map(|known| match &known.spec.attach {
            Attach::Netns { interface, .. } => Some(interface),
            Attach::AtJoin | Attach::HandOff => None,
        })
    }

    /// Adds or replaces a network.
    pub fn put_network(&mut self, network: StoredNetwork) {
        self.networks.insert(network.spec.id, network);
    }

    /// Adds or replaces an endpoint.
    pub fn put_endpoint(&mut self, endpoint: StoredEndpoint) {
        self.remove_endpoint(endpoint.spec.id);
        let spec = &endpoint.spec;
        self.by_network.entry(spec.network).or_default().insert(spec.id);
        for address in spec.addresses() {
            self.by_address.insert((spec.network, address), spec.id);
        }
        if let Attach::Netns { path, .. } = &spec.attach {
            self.by_sandbox.entry(path.clone()).or_default().insert(spec.id);
        }
        self.endpoints.insert(spec.id, endpoint);
    }

    /// Forgets a network.
    pub fn remove_network(&mut self, id: NetworkId) -> Option<StoredNetwork> {
        self.networks.remove(&id)
    }

    /// Forgets an endpoint.
    pub fn remove_endpoint(&mut self, id: EndpointId) -> Option<StoredEndpoint> {
        let endpoint = self.endpoints.remove(&id)?;
        let network = endpoint.spec.network;
        unlist(&mut self.by_network, &network, id);
        if let Attach::Netns { path, .. } = &endpoint.spec.attach {
            unlist(&mut self.by_sandbox, path, id);
        }
        for address in endpoint.spec.addresses() {
            if self.by_address.get(&(network, address)) == Some(&id) {
                self.by_address.remove(&(network, address));
            }
        }
        Some(endpoint)
    }
}

/// Takes an endpoint out of an index, and the entry with its last one.
fn unlist<K: Ord>(index: &mut BTreeMap<K, BTreeSet<EndpointId>>, key: &K, id: EndpointId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
