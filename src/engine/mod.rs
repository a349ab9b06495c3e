//! The only writer: every request from every door becomes intent, a plan, and kernel changes here.
//!
//! Runs on one thread of its own, without async: requests are closures sent through a
//! [`Handle`]. It never parses a wire format and never prints.

mod announce;
mod endpoints;
mod execute;
mod ghosts;
mod handle;
mod host;
mod join;
mod learn;
mod networks;
mod pools;
mod ports;
mod recover;
mod siblings;
mod status;
mod subnets;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::ipam::{AddressBook, DefaultPool};
use crate::kernel::Kernel;
use crate::model::{
    EndpointId, Error, Facts, Family, Intent, Ipam, LinkName, MacAddr, Mark, NetworkId,
    NetworkName, Origin, Reach, Result, SavedSysctl,
};
use crate::object::{Netns, Object, Revert, Sysctl, Wanted};
use crate::plan::Plan;
use crate::store::Store;
use ports::PortIndex;

pub use crate::model::PortRequest;
pub use execute::{execute, roll_forward};
pub use handle::Handle;
pub use status::{Caveat, Holder, Problem, Status};
pub use update::{NetworkChange, Updated};

/// What an operator sets in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The bit that marks allowed packets.
    pub mark: Mark,
    /// Where pools come from when no subnet is named.
    pub default_pools: Vec<DefaultPool>,
}

/// Whether a request is carried out or only planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Do it.
    Apply,
    /// Say what would be done; nothing is written or changed.
    DryRun,
}

/// A network as a door asks for it, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Docker's id; `None` for one of our own.
    pub id: Option<NetworkId>,
    /// The name, where the door knows it.
    pub name: Option<NetworkName>,
    /// Which door.
    pub origin: Origin,
    /// The driver's name.
    pub driver: String,
    /// Who gives out its addresses.
    pub ipam: Ipam,
    /// Subnets as asked for.
    pub subnets: Vec<SubnetRequest>,
    /// Whether an IPv6 subnet is chosen when none is named.
    pub v6: bool,
    /// Whether an IPv4 subnet is chosen when none is named.
    pub v4: bool,
    /// External or internal.
    pub reach: Reach,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// When, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}

/// A subnet as a door asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetRequest {
    /// The pool, host bits zero.
    pub pool: IpNet,
    /// The gateway; the first free address of the pool where `None` and our IPAM gives it.
    pub gateway: Option<IpAddr>,
    /// Range of dynamic addresses.
    pub range: Option<IpNet>,
    /// Reserved addresses.
    pub aux: BTreeMap<String, IpAddr>,
}

/// An endpoint as a door asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRequest {
    /// Docker's id; `None` for one of our own.
    pub id: Option<EndpointId>,
    /// Its network.
    pub network: NetworkId,
    /// Which door.
    pub origin: Origin,
    /// The name, where the door knows it.
    pub name: Option<String>,
    /// Address with prefix length, where the door has one; with our IPAM an address is chosen.
    pub v4: Option<Ipv4Net>,
    /// The same for IPv6.
    pub v6: Option<Ipv6Net>,
    /// MAC address; made from the id where `None`.
    pub mac: Option<MacAddr>,
    /// Who plumbs the sandbox.
    pub attach: AttachRequest,
    /// Sysctls of its interface, with `IFNAME` for the interface.
    pub sysctls: BTreeMap<String, String>,
    /// Ports to publish at once (endpoints that netagent plumbs; dockerd publishes later).
    pub ports: Vec<PortRequest>,
}

/// Who plumbs the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachRequest {
    /// dockerd, or netagent where dockerd would never name the interface as the network does.
    HandOff,
    /// The same under this name, as far as it can be had.
    Named {
        /// Exact interface name.
        interface: LinkName,
    },
    /// netagent, into this namespace.
    Netns {
        /// Path of the namespace.
        path: PathBuf,
        /// Exact interface name; the network's prefix and 0 where `None`.
        interface: Option<LinkName>,
        /// Whether the default route goes by this endpoint.
        default_route: bool,
    },
}

/// What dockerd needs to know to take a link into its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Name of the link in the host's namespace; `None` where netagent has placed it already.
    pub source: Option<LinkName>,
    /// What its name in the sandbox begins with; nothing or a number follows.
    pub prefix: String,
    /// IPv4 gateway; `None` on an internal network.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 gateway; `None` on an internal network or without IPv6.
    pub gateway_v6: Option<std::net::Ipv6Addr>,
}

/// A pool as dockerd asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRequest {
    /// The subnet, or one of ours where `None`.
    pub pool: Option<IpNet>,
    /// Range of dynamic addresses.
    pub range: Option<IpNet>,
    /// The family, where no subnet is named.
    pub family: Family,
}

/// What Docker's API says there is: read outside of handlers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DockerView {
    /// Networks by id.
    pub networks: BTreeMap<NetworkId, DockerNetwork>,
    /// Names of the containers that have these endpoints.
    pub endpoints: BTreeMap<EndpointId, String>,
    /// Subnets of all its networks, also of other drivers.
    pub subnets: BTreeSet<IpNet>,
    /// Addresses of all its endpoints.
    pub addresses: BTreeSet<IpAddr>,
    /// The version of its API, major and minor number.
    pub api_version: Option<(u32, u32)>,
    /// Whether its containers outlive it.
    pub live_restore: Option<bool>,
}

/// A network as Docker's API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerNetwork {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Networks and endpoints that dockerd may have forgotten while nobody told us: all of Docker's
/// that were there when dockerd or the agent began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suspects {
    /// Networks.
    pub networks: BTreeSet<NetworkId>,
    /// Endpoints.
    pub endpoints: BTreeSet<EndpointId>,
}

/// The engine: intent, and the kernel and store it is kept in.
pub struct Engine {
    kernel: Box<dyn Kernel>,
    store: Store,
    settings: Settings,
    facts: Facts,
    intent: Intent,
    book: AddressBook,
    saved: Vec<SavedSysctl>,
    /// Repairs that failed at the last look at the host.
    failures: Vec<Problem>,
    /// What that look found and logged.
    logged: Vec<Problem>,
    /// What requests could not finish; gone once a look at the host finds all well.
    notes: Vec<Problem>,
    docker_subnets: BTreeSet<IpNet>,
    /// Whether dockerd announces addresses itself; not while its version is unknown.
    docker_announces: bool,
    /// Whether only one link of a sandbox may be placed, see [`learn`]; also while that is unknown.
    lone_placements: bool,
    /// Sandboxes that have outlived a dockerd with a link that was placed. An agent that starts takes
    /// all with such a link for one; it cannot know of those whose link has left before.
    restored: BTreeSet<PathBuf>,
    /// How the sandboxes were that endpoints are about to leave. Not recorded: see [`siblings`].
    siblings: BTreeMap<EndpointId, Vec<Wanted>>,
    /// What the host has for all networks together, as last made.
    host: Vec<Wanted>,
    ports: PortIndex,
    /// Endpoints whose namespace lives, but not at its path any more.
    nameless: BTreeSet<EndpointId>,
    /// Things of ours that nothing asks for, found by the last look at the host.
    orphans: Plan,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("intent", &self.intent).finish_non_exhaustive()
    }
}

impl Engine {
    /// What shall exist.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// Pools and leases.
    pub fn book(&self) -> &AddressBook {
        &self.book
    }

    /// What was last read of the host.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Reads what planning must know of the host.
    fn refresh_facts(&mut self) -> Result<()> {
        self.facts = self.kernel.facts().map_err(|error| {
            Error::unavailable("read the host", error.to_string()).with_errno(error.errno)
        })?;
        Ok(())
    }

    /// Remembers something an operator should know; once for the same words.
    fn note(&mut self, subject: &str, text: impl Into<String>) {
        let problem = Problem::new(subject, text);
        if !self.notes.contains(&problem) {
            tracing::warn!(subject, "{}", problem.text);
            self.notes.push(problem);
        }
    }
}

/// A raised sysctl that goes back to `before`.
fn raised(key: &str, before: String) -> Object {
    Object::Sysctl(Sysctl {
        netns: Netns::Host,
        key: key.to_owned(),
        value: "1".into(),
        revert: Revert::To(before),
    })
}

/// An id for a network or endpoint made here.
fn random_id() -> Result<[u8; 32]> {
    let mut id = [0; 32];
    getrandom::fill(&mut id)
        .map_err(|error| Error::unavailable("make an id", error.to_string()))?;
    Ok(id)
}
