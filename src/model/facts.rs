//! What planning must know of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{LinkName, Mark, Mtu};

/// The host as planning sees it: read once per request that needs it, never on the attach path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// MTU of the default route's link; the lowest where there are several, 1500 where none.
    pub default_mtu: Mtu,
    /// Links that carry routes and are not ours: what our networks are routed over.
    pub uplinks: Vec<Uplink>,
    /// `net.ipv4.ip_forward`: when the operator or dockerd has made the host a router.
    pub router: bool,
    /// `net.ipv6.conf.all.forwarding`.
    pub router_v6: bool,
    /// Whether br_netfilter is there (`net.bridge.bridge-nf-call-iptables` exists).
    pub bridge_netfilter: bool,
    /// Whether IPv6 forwarding can be raised per link (`force_forwarding`, kernel ≥ 6.17).
    pub force_forwarding: bool,
    /// Whether the host has IPv6 at all.
    pub ipv6: bool,
    /// `net.bridge.bridge-nf-call-ip6tables`: bridged IPv6 packets pass netfilter as well.
    pub bridged_v6_filtered: bool,
    /// Whether `iptables` is there, so that an accept in DOCKER-USER can be made.
    pub iptables: bool,
    /// Whether `ip6tables` is there.
    pub ip6tables: bool,
    /// The bit that marks packets our policy allows.
    pub mark: Mark,
    /// Subnets in use by routes and addresses that are not ours.
    pub taken: BTreeSet<IpNet>,
    /// Links that are not ours, with what is known of those that are bridges.
    pub foreign_links: BTreeMap<LinkName, Option<ForeignBridge>>,
    /// Ports the kernel takes ephemeral ports from (`net.ipv4.ip_local_port_range`).
    pub ephemeral_ports: (u16, u16),
}

/// What the networks there are need of the host as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// A network reaches outside: IPv4 is forwarded on uplinks.
    pub outside: bool,
    /// One of those has IPv6 too.
    pub outside_v6: bool,
    /// Bridges of the operator's by which networks reach outside.
    pub adopted: BTreeSet<LinkName>,
}

/// A bridge that is not ours, as one that a network may use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignBridge {
    /// Its MTU.
    pub mtu: Mtu,
    /// `net.ipv4.conf.<name>.forwarding`.
    pub forwarding_v4: bool,
    /// `net.ipv6.conf.<name>.force_forwarding`; `None` where the kernel has none.
    pub forwarding_v6: Option<bool>,
    /// `net.ipv4.conf.<name>.route_localnet`.
    pub route_localnet: bool,
    /// Whether it is up.
    pub up: bool,
    /// Whether bridged IPv4 packets pass netfilter, by the bridge's own setting or the host's.
    pub filtered_v4: bool,
    /// The same for IPv6.
    pub filtered_v6: bool,
    /// Its addresses that are not ours, with their prefix lengths.
    pub addresses: BTreeSet<IpNet>,
    /// Other hosts' addresses on it, as far as routes name them.
    pub next_hops: BTreeSet<IpAddr>,
    /// What of [`Facts::taken`] is in use by this bridge alone.
    pub nets: BTreeSet<IpNet>,
}

impl ForeignBridge {
    /// Whether it has the address, with whatever prefix length.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }
}

impl Facts {
    /// The bridge of this name that is not ours.
    pub fn foreign_bridge(&self, name: &LinkName) -> Option<&ForeignBridge> {
        self.foreign_links.get(name)?.as_ref()
    }
}

/// A link that our networks are routed over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink {
    /// Its name.
    pub name: LinkName,
    /// Whether a default route goes by it, for IPv4 or IPv6.
    pub default_route: bool,
    /// `net.ipv4.conf.<name>.forwarding` as it is now.
    pub forwarding_v4: bool,
    /// `net.ipv6.conf.<name>.force_forwarding` as it is now; `None` where the kernel has none.
    pub forwarding_v6: Option<bool>,
    /// `net.ipv6.conf.<name>.accept_ra` as it is now, where a default route was learned from a
    /// router's advertisement: a router ignores those unless this is 2.
    pub learned_v6: Option<String>,
}
