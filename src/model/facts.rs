//! What planning must know of the host.

use std::collections::BTreeSet;

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
    /// Whether `iptables` is there, so that an accept in DOCKER-USER can be made.
    pub iptables: bool,
    /// The bit that marks packets our policy allows.
    pub mark: Mark,
    /// Subnets in use by routes and addresses that are not ours.
    pub taken: BTreeSet<IpNet>,
    /// Names of links that are not ours.
    pub foreign_links: BTreeSet<LinkName>,
    /// Ports the kernel takes ephemeral ports from (`net.ipv4.ip_local_port_range`).
    pub ephemeral_ports: (u16, u16),
}

/// What the networks there are need of the host as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// A network reaches outside: IPv4 is forwarded on uplinks.
    pub outside: bool,
    /// One of those has IPv6 too.
    pub outside_v6: bool,
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
