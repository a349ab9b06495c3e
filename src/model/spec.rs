//! What a user asked for, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{EndpointId, LinkName, MacAddr, Mtu, NetworkId, NetworkName};

/// A network: its addresses, its reach, and what its driver needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Identity; kernel names derive from it.
    pub id: NetworkId,
    /// What users call it; `None` for a Docker network whose name Docker's API has not told yet.
    pub name: Option<NetworkName>,
    /// Which door made it, and so which door may remove it.
    pub origin: Origin,
    /// The driver and its settings.
    pub driver: DriverSpec,
    /// Who gives out its addresses.
    pub ipam: Ipam,
    /// At least one subnet; none overlaps another.
    pub subnets: Vec<Subnet>,
    /// Whether anything beyond the host's own subnet can be reached.
    pub reach: Reach,
    /// Labels as the user gave them.
    pub labels: BTreeMap<String, String>,
    /// Driver options as the user gave them, for `inspect`.
    pub options: BTreeMap<String, String>,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: u64,
}

impl NetworkSpec {
    /// Whether netagent gives out this network's addresses by itself, endpoint by endpoint; for
    /// Docker's networks dockerd asks for them first.
    pub fn leases_here(&self) -> bool {
        (self.origin, self.ipam) == (Origin::Netagent, Ipam::Netagent)
    }

    /// The name where it is known, else the short id.
    pub fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| self.id.short(), ToString::to_string)
    }

    /// The subnets of IPv4.
    pub fn v4(&self) -> impl Iterator<Item = (&Subnet, Ipv4Net)> {
        self.subnets.iter().filter_map(|subnet| match subnet.pool {
            IpNet::V4(net) => Some((subnet, net)),
            IpNet::V6(_) => None,
        })
    }

    /// The subnets of IPv6.
    pub fn v6(&self) -> impl Iterator<Item = (&Subnet, Ipv6Net)> {
        self.subnets.iter().filter_map(|subnet| match subnet.pool {
            IpNet::V6(net) => Some((subnet, net)),
            IpNet::V4(_) => None,
        })
    }

    /// The gateway of the subnet that holds `address`.
    pub fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.subnets.iter().find(|subnet| subnet.pool.contains(&address))?.gateway
    }
}

/// Who made a network or endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// dockerd, through its plugin protocol.
    Docker,
    /// The netagent API or CLI.
    Netagent,
}

/// Who gives out a network's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ipam {
    /// netagent's allocator.
    Netagent,
    /// dockerd's built-in allocator; addresses arrive with each endpoint.
    Dockerd,
}

/// How far a network reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Routed to the outside, ports can be published.
    External,
    /// Its own containers and the host only: no default route, nothing forwarded.
    Internal,
}

/// The driver of a network; a closed set, so the compiler points at every place that must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverSpec {
    /// A Linux bridge on this host.
    Bridge(BridgeSpec),
}

/// Settings of a bridge network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Kernel name of the bridge.
    pub bridge: LinkName,
    /// MTU of the bridge and of both veth ends, resolved when the network was made.
    pub mtu: Mtu,
    /// Whether containers of this network may talk to each other.
    pub icc: Icc,
    /// Whether packets that leave the host get its address.
    pub masquerade: Masquerade,
    /// Host address of published ports that name none.
    pub host_binding: Ipv4Addr,
    /// What interface names begin with inside containers; a number follows.
    pub interface_prefix: String,
}

/// Inter-container communication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Icc {
    /// Neighbours may talk.
    Allow,
    /// Only published ports and the gateway can be reached.
    Deny,
}

/// Source address translation of traffic that leaves a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Masquerade {
    /// Packets leave with the address of the link they leave by.
    On,
    /// Packets leave with the container's own address; the operator routes them back.
    Off,
}

/// One address pool of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet, host bits zero.
    pub pool: IpNet,
    /// The host's address in it, which containers use as gateway.
    pub gateway: Option<IpAddr>,
    /// Where dynamic addresses come from; the whole pool where `None`.
    pub range: Option<IpNet>,
    /// Addresses never given out, by the user's names for them.
    pub aux: BTreeMap<String, IpAddr>,
}

/// One attachment of a sandbox to a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Identity; kernel names derive from it.
    pub id: EndpointId,
    /// The network it belongs to.
    pub network: NetworkId,
    /// Which door made it.
    pub origin: Origin,
    /// What users call it (a container's name); `None` until Docker's API has told.
    pub name: Option<String>,
    /// Its IPv4 address with the subnet's prefix length.
    pub v4: Option<Ipv4Net>,
    /// Its IPv6 address with the subnet's prefix length.
    pub v6: Option<Ipv6Net>,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Who plumbs the sandbox.
    pub attach: Attach,
    /// Published ports that are in force; empty while another endpoint is the gateway.
    pub ports: Vec<Published>,
}

impl EndpointSpec {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.v4.map(|net| IpAddr::V4(net.addr()));
        let v6 = self.v6.map(|net| IpAddr::V6(net.addr()));
        v4.into_iter().chain(v6)
    }

    /// The name where it is known, else the short id.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.short())
    }
}

/// Who moves and addresses the sandbox's end of an endpoint's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attach {
    /// dockerd: the link waits in the host's namespace under a known name.
    HandOff,
    /// netagent: the link is born in this namespace, addressed and routed.
    Netns {
        /// A bind mount or `/proc/…/ns/net` of the namespace.
        path: PathBuf,
        /// Which namespace that was: the path may lead to another one later.
        id: SandboxId,
        /// Exact interface name inside.
        interface: LinkName,
        /// Whether the default route goes by this endpoint.
        default_route: bool,
    },
}

/// Identity of a network namespace: its inode in nsfs, unique while the namespace exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxId(pub u64);

/// A transport protocol whose ports can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, IP protocol 6.
    Tcp,
    /// UDP, IP protocol 17.
    Udp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(format!("\"{text}\" is not a protocol that can be published: use tcp or udp")),
        }
    }
}

/// Consecutive ports, both ends included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports `first..=last`; `None` when reversed or when 0 is among them.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// The range of one port.
    pub fn single(port: u16) -> Option<Self> {
        Self::new(port, port)
    }

    /// Lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether any port is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Each port in order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// How many ports; at least 1.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Consecutive host ports that lead to consecutive container ports of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Published {
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0` for all of them.
    pub host: Ipv4Addr,
    /// Ports on the host.
    pub host_ports: PortRange,
    /// Container port that the first host port leads to; the others follow it.
    pub container_first: u16,
}

impl Published {
    /// Whether host and container ports are the same numbers.
    pub const fn is_identity(&self) -> bool {
        self.host_ports.first == self.container_first
    }

    /// The container's ports.
    pub fn container_ports(&self) -> PortRange {
        let last =
            self.container_first.saturating_add(self.host_ports.last - self.host_ports.first);
        PortRange { first: self.container_first, last }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host, host_ports, .. } = self;
        write!(f, "{host}:{host_ports}->{}/{protocol}", self.container_ports())
    }
}
