//! Which endpoint has which host port.

use std::collections::BTreeMap;

use crate::model::{EndpointId, EndpointSpec, HostAddress, PortRange, Protocol, Published};

/// Published ports by host port; answers by searching a tree, never by scanning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortIndex {
    ports: BTreeMap<(Protocol, HostAddress, u16), (u16, EndpointId)>,
    hosts: BTreeMap<HostAddress, usize>,
    /// The ephemeral port given out last.
    pub(super) cursor: u16,
}

impl PortIndex {
    /// Adds an endpoint's ports.
    pub fn add(&mut self, endpoint: &EndpointSpec) {
        for Published { protocol, host, host_ports, .. } in &endpoint.ports {
            let key = (*protocol, *host, host_ports.first());
            self.ports.insert(key, (host_ports.last(), endpoint.id));
            *self.hosts.entry(*host).or_default() += 1;
        }
    }

    /// Removes the ports of an endpoint.
    pub fn remove(&mut self, endpoint: &EndpointSpec) {
        for Published { protocol, host, host_ports, .. } in &endpoint.ports {
            if self.ports.remove(&(*protocol, *host, host_ports.first())).is_some()
                && let Some(count) = self.hosts.get_mut(host)
            {
                *count -= 1;
                if *count == 0 {
                    self.hosts.remove(host);
                }
            }
        }
    }

    /// The endpoints that have a port of `ports`, where addresses meet: a wildcard meets all.
    pub fn owners(
        &self,
        protocol: Protocol,
        host: HostAddress,
        ports: PortRange,
    ) -> impl Iterator<Item = EndpointId> {
        let meeting = self.hosts.keys().filter(move |other| host.meets(**other));
        meeting.filter_map(move |other| {
            let upto = (protocol, *other, 0)..=(protocol, *other, ports.last());
            let (_, (last, endpoint)) = self.ports.range(upto).next_back()?;
            (*last >= ports.first()).then_some(*endpoint)
        })
    }

    /// The same, all free but for the ephemeral port that comes next.
    pub fn cleared(&self) -> Self {
        Self { cursor: self.cursor, ..Self::default() }
    }
}
