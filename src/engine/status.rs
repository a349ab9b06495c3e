//! What the agent knows of its own health.

use std::net::Ipv4Addr;

use super::Engine;
use crate::model::{EndpointId, Published, Result, SavedSysctl};

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
    /// Container's address.
    pub container: Ipv4Addr,
    /// Ports.
    pub published: Published,
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
        let mut holders = Vec::new();
        for endpoint in self.intent.endpoints() {
            let spec = &endpoint.spec;
            let Some(container) = spec.v4 else { continue };
            let network = self.intent.network(spec.network);
            holders.extend(spec.ports.iter().map(|published| Holder {
                network: network.map_or_else(|| spec.network.short(), |known| known.spec.label()),
                endpoint: spec.label(),
                endpoint_id: spec.id,
                container: container.addr(),
                published: *published,
            }));
        }
        let order = |holder: &Holder| (holder.published.host_ports, holder.published);
        holders.sort_by_key(order);
        holders
    }
}
