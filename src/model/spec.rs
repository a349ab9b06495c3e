//! What a user asked for, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{EndpointId, Family, LinkName, MacAddr, Mtu, NetworkId, NetworkName};

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

    /// The gateway of the containers of the subnet that holds `address`.
    pub fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.subnets.iter().find(|subnet| subnet.pool.contains(&address))?.containers_gateway()
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
    /// Whose it is.
    pub owner: BridgeOwner,
    /// MTU of the bridge and of both veth ends, resolved when the network was made.
    pub mtu: Mtu,
    /// Whether containers of this network may talk to each other.
    pub icc: Icc,
    /// Whether packets that leave the host get its address.
    pub masquerade: Masquerade,
    /// The IPv4 address they get, where it is not that of the link they leave by.
    pub source_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source_v6: Option<Ipv6Addr>,
    /// How IPv4 gets in and out.
    pub mode_v4: GatewayMode,
    /// How IPv6 gets in and out.
    pub mode_v6: GatewayMode,
    /// Whether the bridge has the IPv4 gateway's address.
    pub gateway_v4: GatewayAddress,
    /// Gateways that the operator's bridge had already: they stay when the network goes.
    pub kept: BTreeSet<IpAddr>,
    /// Whether new addresses are made known.
    pub announce: Announce,
    /// The host's links from which published ports may be reached at the containers' own addresses.
    pub trusted: BTreeSet<LinkName>,
    /// Host address of published ports that name none.
    pub host_binding: HostAddress,
    /// What interface names begin with inside containers; a number follows.
    pub interface_prefix: String,
}

impl BridgeSpec {
    /// A bridge of ours with everything as it is where the user says nothing.
    pub fn new(bridge: LinkName, mtu: Mtu) -> Self {
        Self {
            bridge,
            owner: BridgeOwner::Netagent,
            mtu,
            icc: Icc::Allow,
            masquerade: Masquerade::On,
            source_v4: None,
            source_v6: None,
            mode_v4: GatewayMode::Nat,
            mode_v6: GatewayMode::Nat,
            gateway_v4: GatewayAddress::OnBridge,
            kept: BTreeSet::new(),
            announce: Announce::Once,
            trusted: BTreeSet::new(),
            host_binding: HostAddress::Any,
            interface_prefix: "eth".into(),
        }
    }

    /// How the family of `address` gets in and out.
    pub const fn mode_for(&self, address: IpAddr) -> GatewayMode {
        match address {
            IpAddr::V4(_) => self.mode_v4,
            IpAddr::V6(_) => self.mode_v6,
        }
    }
}

/// Whose a network's bridge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BridgeOwner {
    /// Made for the network and removed with it.
    Netagent,
    /// It was there: used, given the gateway's address, and left in place.
    Operator,
}

/// How packets of one family get in and out of a network (Docker's `gateway_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayMode {
    /// Published ports are translated from host ports; nothing else gets in.
    Nat,
    /// The same, and whatever is routed to a container gets in.
    NatUnprotected,
    /// Nothing is translated; published ports and ICMP get in at the containers' own addresses.
    Routed,
    /// The host has no address on the bridge; only for internal networks.
    Isolated,
}

impl GatewayMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Nat, Self::NatUnprotected, Self::Routed, Self::Isolated];

    /// Docker's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::NatUnprotected => "nat-unprotected",
            Self::Routed => "routed",
            Self::Isolated => "isolated",
        }
    }

    /// Whether host ports lead to containers, and packets can leave with the host's address.
    pub const fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::NatUnprotected)
    }
}

impl fmt::Display for GatewayMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for GatewayMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
            format!(
                "\"{text}\" is not a gateway mode: use nat, nat-unprotected, routed or isolated"
            )
        })
    }
}

/// Whether a bridge has its network's gateway address (Docker's `inhibit_ipv4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayAddress {
    /// The host is the gateway.
    OnBridge,
    /// Somebody else has it, or nobody.
    Inhibited,
}

/// Whether neighbours are told where an endpoint's addresses are (gratuitous ARP, unsolicited
/// neighbour advertisements). How often is dockerd's business, from 28 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Announce {
    /// When the endpoint comes into its sandbox.
    Once,
    /// Not at all.
    Never,
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

impl Subnet {
    /// Names of auxiliary addresses that containers use as gateway instead of the host's address.
    pub const DEFAULT_GATEWAYS: [&'static str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

    /// What containers send by when they send elsewhere.
    pub fn containers_gateway(&self) -> Option<IpAddr> {
        let key = match self.pool {
            IpNet::V4(_) => Self::DEFAULT_GATEWAYS[0],
            IpNet::V6(_) => Self::DEFAULT_GATEWAYS[1],
        };
        self.aux.get(key).copied().or(self.gateway)
    }
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
    /// What its interface is to be called in there.
    pub naming: Naming,
    /// Sysctls of its interface as the user gave them, with `IFNAME` for the interface.
    pub sysctls: BTreeMap<String, String>,
    /// Ports its sandbox wants published.
    pub asked: Vec<PortRequest>,
    /// Whether they are published by this endpoint: a sandbox publishes by its gateway only.
    pub publishes: bool,
    /// The host ports chosen for them; none where nothing is translated.
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

/// What an interface is to be called in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Naming {
    /// The name that was asked for; a prefix and a number where `None`.
    pub asked: Option<LinkName>,
    /// What dockerd was told that the name begins with, where that is not the network's prefix.
    pub told: Option<String>,
}

/// Who moves and addresses the sandbox's end of an endpoint's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attach {
    /// Not known before the sandbox is: there is no link yet.
    AtJoin,
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
    /// SCTP, IP protocol 132.
    Sctp,
}

impl Protocol {
    /// The IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(format!(
                "\"{text}\" is not a protocol that can be published: use tcp, udp or sctp"
            )),
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

/// Where on the host a port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostAddress {
    /// Every address, of IPv4 and IPv6.
    Any,
    /// One address; 0.0.0.0 is every one of IPv4, [::] every one of IPv6.
    At(IpAddr),
}

impl HostAddress {
    /// Every address of IPv4.
    pub const ANY_V4: Self = Self::At(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    /// Every address of IPv6.
    pub const ANY_V6: Self = Self::At(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

    /// Whether an address of the family can be reached by it.
    pub fn is_of(self, family: Family) -> bool {
        match self {
            Self::Any => true,
            Self::At(address) => Family::of(address) == family,
        }
    }

    /// Whether one port on both would be the same port on some address.
    pub fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::At(one), Self::At(two)) => {
                one.is_ipv4() == two.is_ipv4()
                    && (one == two || one.is_unspecified() || two.is_unspecified())
            }
        }
    }
}

/// As `ss` has it: `*` for both families.
impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::At(IpAddr::V4(address)) => address.fmt(f),
            Self::At(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl FromStr for HostAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let address = bare.unwrap_or(text).parse();
        address.map(Self::At).map_err(|_| format!("\"{text}\" is not an IP address"))
    }
}

/// A port to publish, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRequest {
    /// The protocol.
    pub protocol: Protocol,
    /// Host address; the network's host binding where `None`.
    pub host: Option<IpAddr>,
    /// Container port.
    pub container: u16,
    /// Host port: one of a range (the first that is free), or any ephemeral one where `None`.
    pub host_ports: Option<PortRange>,
}

/// Consecutive host ports that lead to consecutive container ports of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Published {
    /// The protocol.
    pub protocol: Protocol,
    /// Where on the host.
    pub host: HostAddress,
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
