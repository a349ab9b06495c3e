//! Kernel things as values: one type each, a key that names it, and the operations on it.
//!
//! Never talks to the kernel. A field that is `None` is not managed: it is neither written nor
//! compared. Who may touch a thing is decided by its mark, see [`MARK_PREFIX`].

mod key;
mod op;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

use crate::firewall::model::{Ruleset, SetName, Value};
use crate::model::{Family, HostAddress, LinkName, MacAddr, Mark, Mtu, PortRange, Protocol};

pub use key::{Kind, ObjectKey};
pub use op::Op;

/// What the alias (IFLA_IFALIAS) of every link of ours begins with; the network follows, then
/// `/` and the endpoint. A link without it is foreign: never changed, never deleted.
pub const MARK_PREFIX: &str = "netagent:";

/// A network namespace that an object lives in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// The agent's own, where bridges are.
    Host,
    /// A sandbox, by a path that setns(2) can open.
    Path(PathBuf),
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Path(path) => match path.file_name() {
                Some(name) => write!(f, "{}", name.to_string_lossy()),
                None => write!(f, "{}", path.display()),
            },
        }
    }
}

/// One kernel thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// Our nf_tables table with its chains, rules and empty sets.
    Table(Table),
    /// One element of a set or map of that table.
    Element(Element),
    /// A link, with its other end if it is a veth.
    Link(Link),
    /// A value below /proc/sys.
    Sysctl(Sysctl),
    /// An address on a link.
    Address(Address),
    /// A route.
    Route(Route),
    /// Sockets bound on host ports, so that nobody else binds them.
    Hold(Hold),
    /// The one rule of ours in another owner's chain.
    Accept(Accept),
}

/// Our table: what of the firewall does not grow with networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Chains, rules and set declarations.
    pub ruleset: Arc<Ruleset>,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The set or map.
    pub set: SetName,
    /// The key, one value a field.
    pub key: Vec<Value>,
    /// Last key of an interval, one value a field; `None` for a single key.
    pub through: Option<Vec<Value>>,
    /// What a map leads to; empty for a set.
    pub data: Vec<Value>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it is.
    pub netns: Netns,
    /// Its name.
    pub name: LinkName,
    /// What it is.
    pub kind: LinkKind,
    /// Its MTU; also that of a veth's other end.
    pub mtu: Mtu,
    /// Its MAC address, where it matters.
    pub mac: Option<MacAddr>,
    /// The bridge it is a port of.
    pub master: Option<LinkName>,
    /// Whose it is: [`MARK_PREFIX`], network and endpoint.
    pub alias: String,
    /// Up and, as a bridge port, in hairpin mode: always wanted, and seen otherwise when somebody
    /// took it down.
    pub serving: bool,
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge, up from the start.
    Bridge {
        /// Whether its bridged packets pass netfilter whatever the host-wide
        /// bridge-nf-call-iptables says (IFLA_BR_NF_CALL_IPTABLES): needed to deny ICC.
        /// With `false` the host's setting decides.
        filter_bridged: bool,
    },
    /// One end of a veth pair: the bridge port on the host, up from the start, in hairpin mode
    /// (a container reaches its own published port).
    Veth {
        /// The other end.
        peer: Peer,
        /// Isolated from other isolated ports (IFLA_BRPORT_ISOLATED): denies ICC where
        /// br_netfilter is absent.
        isolated: bool,
    },
}

/// The other end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Ours to make: in `Netns::Host` it is left down for dockerd to take; in a sandbox it is
    /// born there and brought up, with `lo`.
    At {
        /// The namespace it is born in.
        netns: Netns,
        /// Its name there.
        name: LinkName,
        /// Its MAC address.
        mac: MacAddr,
        /// Its sysctls in a sandbox, by path below /proc/sys: written once, before it is up. What
        /// the sandbox makes of them later is its own business.
        sysctls: BTreeMap<String, String>,
    },
    /// In a container, where dockerd moved it: the pair can be seen and deleted, not made.
    Elsewhere,
}

/// A sysctl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Where it is.
    pub netns: Netns,
    /// Path below /proc/sys with slashes, e.g. `net/ipv4/conf/nab-3f9c1b22/route_localnet`.
    pub key: String,
    /// The value, as the kernel prints it.
    pub value: String,
    /// What deleting it means.
    pub revert: Revert,
}

/// How a sysctl is undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revert {
    /// Not at all: it belongs to a link of ours and goes with it.
    WithLink,
    /// This value is written back, if the value is still ours.
    To(String),
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Where the link is.
    pub netns: Netns,
    /// The link.
    pub link: LinkName,
    /// Address and prefix length; IPv6 is added without duplicate address detection.
    pub net: IpNet,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it is.
    pub netns: Netns,
    /// Destination; prefix length 0 for the default route.
    pub destination: IpNet,
    /// Where it leads.
    pub hop: Hop,
    /// Link it leaves by.
    pub link: LinkName,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// To this next hop, from the main table.
    Via(IpAddr),
    /// To this host itself, from the local table, for packets that come in by the link.
    Local,
}

/// Real sockets on host ports, held so that a program which wants one collides and is told so.
/// The rules, not the sockets, carry the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The protocol.
    pub protocol: Protocol,
    /// Address they are bound to; both families are one socket a port.
    pub host: HostAddress,
    /// One socket a port.
    pub ports: PortRange,
    /// Where what arrives from [::1] is relayed to, where the kernel cannot translate it.
    pub relay: Option<Relay>,
}

/// The container's side of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relay {
    /// The container.
    pub to: Ipv6Addr,
    /// The container port that the first held port leads to; the others follow it.
    pub first: u16,
}

/// `-m mark --mark BIT/BIT -j ACCEPT` at the end of DOCKER-USER, before a final RETURN; the chain
/// and its jump from FORWARD are made when missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// iptables or ip6tables.
    pub family: Family,
    /// The bit.
    pub mark: Mark,
}

/// A thing that shall exist, and the spec that asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The thing.
    pub object: Object,
    /// In a reader's words: `network "web"`.
    pub why: String,
}

impl Wanted {
    /// `object`, asked for by `why`.
    pub fn new(object: Object, why: impl Into<String>) -> Self {
        Self { object, why: why.into() }
    }
}

impl Object {
    /// Whether what was `seen` is what is wanted here, as far as fields are managed. The other
    /// end of a veth is not compared: it may rightly be in a container.
    pub fn is_met_by(&self, seen: &Self) -> bool {
        if let (Self::Link(want), Self::Link(seen)) = (self, seen) {
            return want.is_met_by(seen);
        }
        if let (Self::Sysctl(want), Self::Sysctl(seen)) = (self, seen) {
            return (&want.netns, &want.key, &want.value) == (&seen.netns, &seen.key, &seen.value);
        }
        self == seen
    }

    /// The element that it is, if it is one.
    pub fn element(&self) -> Option<&Element> {
        match self {
            Self::Element(element) => Some(element),
            Self::Table(_)
            | Self::Link(_)
            | Self::Sysctl(_)
            | Self::Address(_)
            | Self::Route(_)
            | Self::Hold(_)
            | Self::Accept(_) => None,
        }
    }

    /// The link this object is part of and vanishes with.
    pub fn carrier(&self) -> Option<(&Netns, &LinkName)> {
        match self {
            Self::Address(address) => Some((&address.netns, &address.link)),
            Self::Route(route) => Some((&route.netns, &route.link)),
            Self::Table(_)
            | Self::Element(_)
            | Self::Link(_)
            | Self::Sysctl(_)
            | Self::Hold(_)
            | Self::Accept(_) => None,
        }
    }
}

impl Link {
    fn is_met_by(&self, seen: &Self) -> bool {
        let kinds = match (&self.kind, &seen.kind) {
            (
                LinkKind::Bridge { filter_bridged: want },
                LinkKind::Bridge { filter_bridged: seen },
            ) => want == seen,
            (LinkKind::Veth { isolated: want, .. }, LinkKind::Veth { isolated: seen, .. }) => {
                want == seen
            }
            (LinkKind::Bridge { .. }, LinkKind::Veth { .. })
            | (LinkKind::Veth { .. }, LinkKind::Bridge { .. }) => false,
        };
        kinds
            && (&self.netns, &self.name, self.mtu, &self.master)
                == (&seen.netns, &seen.name, seen.mtu, &seen.master)
            && (&self.alias, self.serving) == (&seen.alias, seen.serving)
            && (self.mac.is_none() || self.mac == seen.mac)
    }
}
