//! What the agent knows of its own health.

use std::fmt;
use std::net::IpAddr;

use super::Engine;
use crate::model::{
    EndpointId, EndpointSpec, Family, HostAddress, PortRange, Protocol, Published, Result,
    SavedSysctl,
};
use crate::object::{Hold, Object, Wanted};

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub subject: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl Problem {
    /// Something about `subject`.
    pub fn new(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), text: text.into() }
    }
}

/// A published port and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Network's name or short id.
    pub network: String,
    /// Endpoint's name or short id.
    pub endpoint: String,
    /// Endpoint's full id.
    pub endpoint_id: EndpointId,
    /// Container's address: that of IPv4 where a port leads to both.
    pub container: Option<IpAddr>,
    /// Ports.
    pub published: Published,
    /// What is not as one would expect of a published port.
    pub caveat: Option<Caveat>,
}

/// What an operator should know of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caveat {
    /// No socket is held on it.
    NotReserved,
    /// What is sent to [::1] takes a way that ends with the agent.
    Relayed,
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReserved => "not reserved: this kernel has no SCTP sockets",
            Self::Relayed => "[::1]: relay, needs the daemon",
        })
    }
}

/// What `netagent status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How many networks.
    pub networks: usize,
    /// How many endpoints.
    pub endpoints: usize,
    /// How many published ports.
    pub ports: usize,
    /// Sysctls of the host that we changed, with their value before.
    pub host_sysctls: Vec<SavedSysctl>,
    /// Steps that would be needed to make the host as intended; empty when all is well.
    pub drift: Vec<String>,
    /// What an operator should know.
    pub problems: Vec<Problem>,
    /// Links out of service that wait to be deleted.
    pub garbage: usize,
}

impl Engine {
    /// The agent's health, with a look at the host.
    pub fn status(&mut self) -> Result<Status> {
        let (difference, problems) = self.drift()?;
        let drift = difference.due.steps.iter().map(|step| step.op.to_string()).collect();
        let ports =
            self.ports().iter().map(|port| port.published.host_ports.count() as usize).sum();
        Ok(Status {
            networks: self.intent.networks().count(),
            endpoints: self.intent.endpoints().count(),
            ports,
            host_sysctls: self.saved.clone(),
            drift,
            problems,
            garbage: self.kernel.garbage(),
        })
    }

    /// Links out of service that wait to be deleted; does not look at the host.
    pub fn garbage(&mut self) -> usize {
        self.kernel.garbage()
    }

    /// Every published port, ordered by host port.
    pub fn ports(&self) -> Vec<Holder> {
        let held_as = |hold: &Hold| (hold.protocol, hold.host, hold.ports);
        let unreserved: Vec<Bound> = self.kernel.unreserved().iter().map(held_as).collect();
        let mut holders = Vec::new();
        for endpoint in self.intent.endpoints() {
            let spec = &endpoint.spec;
            let network = self.intent.network(spec.network);
            let relayed = network.map_or_else(Vec::new, |network| {
                relayed(&self.endpoint_objects(&network.spec, endpoint))
            });
            holders.extend(spec.ports.iter().map(|published| Holder {
                network: network.map_or_else(|| spec.network.short(), |known| known.spec.label()),
                endpoint: spec.label(),
                endpoint_id: spec.id,
                container: container_of(spec, published),
                published: *published,
                caveat: match bound(published) {
                    bound if unreserved.contains(&bound) => Some(Caveat::NotReserved),
                    bound => relayed.contains(&bound).then_some(Caveat::Relayed),
                },
            }));
        }
        let order = |holder: &Holder| (holder.published.host_ports, holder.published);
        holders.sort_by_key(order);
        holders
    }
}

/// The address of `endpoint` that a published port leads to.
fn container_of(endpoint: &EndpointSpec, published: &Published) -> Option<IpAddr> {
    endpoint.addresses().find(|address| published.host.is_of(Family::of(*address)))
}

/// Protocol, address and ports of a socket that is held for a published port.
type Bound = (Protocol, HostAddress, PortRange);

fn bound(published: &Published) -> Bound {
    (published.protocol, published.host, published.host_ports)
}

/// Of the objects those ports whose [::1] is relayed.
fn relayed(objects: &[Wanted]) -> Vec<Bound> {
    let hold = |wanted: &Wanted| match &wanted.object {
        Object::Hold(hold) => hold.relay.map(|_| (hold.protocol, hold.host, hold.ports)),
        Object::Table(_)
        | Object::Element(_)
        | Object::Link(_)
        | Object::Sysctl(_)
        | Object::Address(_)
        | Object::Route(_)
        | Object::Accept(_) => None,
    };
    objects.iter().filter_map(hold).collect()
}
