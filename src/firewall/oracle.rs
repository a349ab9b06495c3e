//! The policy said a second time: what must become of one packet, as a plain predicate.
//!
//! No tables, chains or sets, and nothing of [`super::policy`] is used: the two are written apart
//! so that a slip in one is seen in the other. `tests/oracle` runs the rules of the one on random
//! packets and compares. Never used by the agent itself; read it to learn what is allowed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::model::{
    BridgeOwner, BridgeSpec, DriverSpec, EndpointSpec, Facts, GatewayMode, HostAddress, Icc,
    LinkName, Masquerade, NetworkId, NetworkSpec, Protocol, Reach, Subnet,
};

/// Everything the policy depends on.
#[derive(Debug, Clone)]
pub struct World {
    /// Our networks; no two subnets overlap.
    pub networks: Vec<NetworkSpec>,
    /// What is attached to them. No two published ports meet on the same host address, and none
    /// is of a family that its network does not translate.
    pub endpoints: Vec<EndpointSpec>,
    /// The host's uplinks, and whether it is a router, as they were before us.
    pub facts: Facts,
    /// Bridges that are not ours.
    pub foreign_bridges: BTreeSet<LinkName>,
}

/// A packet, as it arrives and as it was routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The link it came in by; `None` for one that a process of this host sends.
    pub from: Option<LinkName>,
    /// The link it leaves by; `None` for one that a process of this host receives.
    pub to: Option<LinkName>,
    /// Source.
    pub source: IpAddr,
    /// Destination as it was sent, of the same family.
    pub destination: IpAddr,
    /// Whether that is an address of this host.
    pub to_this_host: bool,
    /// What it carries.
    pub carries: Load,
    /// Its connection.
    pub state: State,
    /// Whether the destination of its connection has been translated: by us with an earlier
    /// packet, or by another owner before us.
    pub translated: bool,
    /// Whether its connection was ended by a change of its network.
    pub ended: bool,
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// A transport protocol, with its destination port.
    Port(Protocol, u16),
    /// ICMP, or ICMPv6 in IPv6.
    Icmp,
    /// Anything else.
    Other,
}

/// What connection tracking knows of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It opens a connection. Only such packets are translated; the kernel remembers the rest.
    New,
    /// It belongs or relates to one that is open.
    Known,
    /// It belongs to none and opens none.
    Invalid,
}

/// What must become of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Gone.
    Dropped,
    /// Not dropped by us.
    Passes {
        /// Whether other owners' final drops must let it pass too.
        marked: bool,
        /// Its new destination and port.
        translated_to: Option<SocketAddr>,
        /// Whose address it leaves with.
        source: Source,
    },
}

/// Source address of a packet that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The one it had.
    Kept,
    /// That of the link it leaves by.
    ThisHosts,
    /// The one the operator chose for its network.
    Address(IpAddr),
}

enum Way {
    Closed,
    /// Another owner's rules have the last word.
    Open,
    /// Other owners' final drops do not count.
    Marked,
}

impl World {
    /// What must become of the packet.
    pub fn fate(&self, packet: &Packet) -> Fate {
        if is_forged(packet) {
            return Fate::Dropped;
        }
        let translated_to = self.published_at(packet);
        let translated = packet.translated || translated_to.is_some();
        let destination = translated_to.map_or(packet.destination, |to| to.ip());
        let marked = match self.way(packet, destination, translated) {
            Way::Closed => return Fate::Dropped,
            Way::Open => false,
            Way::Marked => true,
        };
        let source = self.source(packet, destination, translated);
        Fate::Passes { marked, translated_to, source }
    }

    /// Where a published port leads: to the container's address of the packet's own family. One
    /// published on the very address wins over one published on all of them. A link-local client
    /// could not be answered from another link. What is sent to [::1] stays on the host where its
    /// answers could not come back: a relay takes it.
    fn published_at(&self, packet: &Packet) -> Option<SocketAddr> {
        let Load::Port(protocol, port) = packet.carries else { return None };
        if packet.state != State::New || packet.translated || !packet.to_this_host {
            return None;
        }
        if matches!(packet.source, IpAddr::V6(source) if source.is_unicast_link_local()) {
            return None;
        }
        let everywhere = match packet.destination {
            IpAddr::V4(_) => HostAddress::ANY_V4,
            IpAddr::V6(_) => HostAddress::ANY_V6,
        };
        let on = |host: HostAddress| {
            self.endpoints.iter().find_map(|endpoint| {
                let stays = packet.destination == Ipv6Addr::LOCALHOST
                    && protocol != Protocol::Sctp
                    && self.loses_answers_to_loopback_v6(endpoint.network);
                let container = address_like(endpoint, packet.destination)?;
                let published = endpoint.ports.iter().find(|published| {
                    published.protocol == protocol
                        && published.host == host
                        && published.host_ports.first() <= port
                        && port <= published.host_ports.last()
                })?;
                let offset = port - published.host_ports.first();
                let to = SocketAddr::new(container, published.container_first + offset);
                let changes = to != SocketAddr::new(packet.destination, port);
                Some((changes && !stays).then_some(to))
            })
        };
        on(HostAddress::At(packet.destination))
            .or_else(|| on(everywhere))
            .or_else(|| on(HostAddress::Any))
            .flatten()
    }

    /// Whether answers to ::1 that come in by a network's bridge are lost: on one that is not ours,
    /// which gets no route for them, and where bridged packets are filtered as routed ones are.
    fn loses_answers_to_loopback_v6(&self, network: NetworkId) -> bool {
        let lost = |bridge: &BridgeSpec| {
            let here = bridge.icc == Icc::Deny && self.facts.bridge_netfilter;
            bridge.owner == BridgeOwner::Operator || self.facts.bridged_v6_filtered || here
        };
        self.facts.ipv6 && self.bridges().any(|(known, bridge)| known.id == network && lost(bridge))
    }

    /// What is forwarded. A process of this host reaches every container and is reached by all:
    /// only packets that come in by one link and leave by one are looked at.
    fn way(&self, packet: &Packet, destination: IpAddr, translated: bool) -> Way {
        let (Some(from), Some(to)) = (&packet.from, &packet.to) else { return Way::Open };
        if packet.ended {
            return Way::Closed;
        }
        if let Some(shared) = self.adopted(from).filter(|_| from == to) {
            return self.way_beside_others(packet, destination, translated, shared);
        }
        let known = packet.state == State::Known;
        match (self.at(from, packet.source), self.at(to, destination)) {
            (Some((_, bridge)), Some(_)) if from == to => match bridge.icc {
                Icc::Allow => Way::Marked,
                Icc::Deny if translated => Way::Marked,
                Icc::Deny => Way::Closed,
            },
            (Some((network, _)), _) if network.reach == Reach::Internal => Way::Closed,
            (_, Some((network, _))) if network.reach == Reach::Internal => Way::Closed,
            (_, Some(_)) if known || translated => Way::Marked,
            (_, Some(target)) => match self.may_enter(packet, from, target) {
                true => Way::Marked,
                false => Way::Closed,
            },
            (Some(_), None) if known || self.is_way_out(to) => Way::Marked,
            (Some(_), None) if self.foreign_bridges.contains(to) => Way::Open,
            (Some(_), None) if self.adopted(to).is_some() => Way::Open,
            (Some(_), None) => Way::Marked,
            (None, None) if self.only_we_forward(packet, from, to) => match packet.state {
                State::New if !translated => Way::Closed,
                State::New | State::Known | State::Invalid => Way::Open,
            },
            (None, None) => Way::Open,
        }
    }

    /// What stays on a bridge of the operator's, bridged or routed back, where containers are
    /// among others: what is no container's is none of our business.
    fn way_beside_others(
        &self,
        packet: &Packet,
        destination: IpAddr,
        translated: bool,
        shared: (&NetworkSpec, &BridgeSpec),
    ) -> Way {
        let (network, bridge) = shared;
        let sends = self.at(&bridge.bridge, packet.source).is_some();
        let receives = self.at(&bridge.bridge, destination).is_some();
        let neighbours =
            sends && is_near(network, destination) || receives && is_near(network, packet.source);
        let enters =
            || packet.state == State::Known || self.may_enter(packet, &bridge.bridge, shared);
        let muted = !translated && self.is_quiet(packet.source) && self.is_quiet(destination);
        match (sends, receives) {
            _ if muted => Way::Closed,
            (false, false) => Way::Open,
            (true, _) | (_, true) if neighbours => Way::Marked,
            (true, _) | (_, true) if network.reach == Reach::Internal => Way::Closed,
            (_, true) if translated || enters() => Way::Marked,
            (_, true) => Way::Closed,
            (true, false) => Way::Marked,
        }
    }

    /// Whether a packet may be sent to a container's own address, from another network or from
    /// outside.
    fn may_enter(
        &self,
        packet: &Packet,
        from: &LinkName,
        (network, bridge): (&NetworkSpec, &BridgeSpec),
    ) -> bool {
        let has_family = network
            .subnets
            .iter()
            .any(|subnet| subnet.pool.addr().is_ipv4() == packet.destination.is_ipv4());
        let answers = self.answers_at(packet.destination, packet.carries);
        if bridge.trusted.contains(from) && answers {
            return true;
        }
        has_family
            && match bridge.mode_for(packet.destination) {
                GatewayMode::NatUnprotected => true,
                GatewayMode::Routed => answers || packet.carries == Load::Icmp,
                GatewayMode::Nat | GatewayMode::Isolated => false,
            }
    }

    /// Whether the container at the address answers there at the port. Where nothing is translated
    /// these are the ports it asked for. Where host ports lead to it, those that they lead to; of
    /// networks that trust no link nobody asks.
    fn answers_at(&self, address: IpAddr, load: Load) -> bool {
        let Load::Port(protocol, port) = load else { return false };
        let Some((endpoint, (network, bridge))) = self.container(address) else { return false };
        if network.reach == Reach::Internal {
            return false;
        }
        let same_family = |host: HostAddress| match host {
            HostAddress::Any => true,
            HostAddress::At(host) => host.is_ipv4() == address.is_ipv4() && !host.is_loopback(),
        };
        match bridge.mode_for(address) {
            GatewayMode::Routed => endpoint.asked.iter().any(|asked| {
                let host = asked.host.map_or(bridge.host_binding, HostAddress::At);
                (asked.protocol, asked.container) == (protocol, port) && same_family(host)
            }),
            GatewayMode::Nat | GatewayMode::NatUnprotected if !bridge.trusted.is_empty() => {
                endpoint.ports.iter().any(|published| {
                    let count = published.host_ports.last() - published.host_ports.first();
                    let first = published.container_first;
                    published.protocol == protocol
                        && (first..=first + count).contains(&port)
                        && same_family(published.host)
                })
            }
            GatewayMode::Nat | GatewayMode::NatUnprotected | GatewayMode::Isolated => false,
        }
    }

    /// Whose first packets leave with another address: those that would otherwise be answered past
    /// the host, or not at all.
    fn source(&self, packet: &Packet, destination: IpAddr, translated: bool) -> Source {
        let Some(to) = packet.to.as_ref().filter(|_| packet.state == State::New) else {
            return Source::Kept;
        };
        let target = self.network(to).map(|(network, _)| network);
        let shared = packet.from.as_ref() == Some(to) && self.adopted(to).is_some();
        let near = |address| shared && target.is_some_and(|network| is_near(network, address));
        let at_home = self.has_home_at(to, packet.source);
        if translated && (at_home || near(packet.source)) {
            return Source::ThisHosts;
        }
        if at_home && (!shared || near(destination)) {
            return Source::Kept;
        }
        let ours = target.is_some() && self.adopted(to).is_none();
        if packet.source.is_loopback() && (ours || self.has_home_at(to, destination)) {
            return Source::ThisHosts;
        }
        let home =
            self.bridges().find(|(_, bridge)| self.has_home_at(&bridge.bridge, packet.source));
        let Some((network, bridge)) = home else { return Source::Kept };
        let hidden = network.reach == Reach::External
            && bridge.masquerade == Masquerade::On
            && bridge.mode_for(packet.source).translates();
        let chosen = match packet.source {
            IpAddr::V4(_) => bridge.source_v4.map(IpAddr::V4),
            IpAddr::V6(_) => bridge.source_v6.map(IpAddr::V6),
        };
        match (hidden, chosen) {
            (true, Some(address)) => Source::Address(address),
            (true, None) => Source::ThisHosts,
            (false, _) => Source::Kept,
        }
    }

    fn bridges(&self) -> impl Iterator<Item = (&NetworkSpec, &BridgeSpec)> {
        self.networks.iter().map(|network| {
            let DriverSpec::Bridge(bridge) = &network.driver;
            (network, bridge)
        })
    }

    /// The network whose bridge has this name.
    fn network(&self, link: &LinkName) -> Option<(&NetworkSpec, &BridgeSpec)> {
        self.bridges().find(|(_, bridge)| bridge.bridge == *link)
    }

    /// The same where the bridge is the operator's.
    fn adopted(&self, link: &LinkName) -> Option<(&NetworkSpec, &BridgeSpec)> {
        self.network(link).filter(|(_, bridge)| bridge.owner == BridgeOwner::Operator)
    }

    /// The network that speaks and hears by this link with this address: with all of them where
    /// the bridge is ours, with its containers' where it is the operator's.
    fn at(&self, link: &LinkName, address: IpAddr) -> Option<(&NetworkSpec, &BridgeSpec)> {
        self.network(link).filter(|(network, bridge)| match bridge.owner {
            BridgeOwner::Netagent => true,
            BridgeOwner::Operator => {
                self.container(address).is_some_and(|(_, (home, _))| home.id == network.id)
            }
        })
    }

    /// Whether the address is one of the network's whose bridge this is.
    fn has_home_at(&self, link: &LinkName, address: IpAddr) -> bool {
        self.at(link, address).is_some_and(|(network, _)| has(network, address))
    }

    /// Whether it is a container's that shall not hear its neighbours, though its bridge would let
    /// it.
    fn is_quiet(&self, address: IpAddr) -> bool {
        self.container(address).is_some_and(|(_, (_, bridge))| {
            bridge.owner == BridgeOwner::Operator && bridge.icc == Icc::Deny
        })
    }

    /// The endpoint that has this address, and its network.
    fn container(&self, address: IpAddr) -> Option<(&EndpointSpec, (&NetworkSpec, &BridgeSpec))> {
        let endpoint = self
            .endpoints
            .iter()
            .find(|endpoint| address_like(endpoint, address) == Some(address))?;
        let network = self.bridges().find(|(network, _)| network.id == endpoint.network)?;
        Some((endpoint, network))
    }

    /// Whether a default route goes by the link.
    fn is_way_out(&self, link: &LinkName) -> bool {
        self.facts.uplinks.iter().any(|uplink| uplink.name == *link && uplink.default_route)
    }

    /// Whether the host would not forward from this link but for us. A bridge that only bridges
    /// is not forwarding.
    fn only_we_forward(&self, packet: &Packet, from: &LinkName, to: &LinkName) -> bool {
        let outside = |network: &&NetworkSpec| network.reach == Reach::External;
        let mut outside = self.networks.iter().filter(outside);
        let uplink = self.facts.uplinks.iter().find(|uplink| uplink.name == *from);
        let adopted = self.adopted(from).filter(|(network, _)| network.reach == Reach::External);
        let bridge = adopted.and_then(|_| self.facts.foreign_bridge(from));
        let before = match (uplink, bridge) {
            (Some(uplink), _) => (uplink.forwarding_v4, uplink.forwarding_v6),
            (None, Some(bridge)) => (bridge.forwarding_v4, bridge.forwarding_v6),
            (None, None) => return false,
        };
        let raised = match packet.source {
            IpAddr::V4(_) => {
                let forwarded = self.facts.router || before.0;
                outside.next().is_some() && !forwarded
            }
            IpAddr::V6(_) => {
                let forwarded = self.facts.router_v6 || before.1 == Some(true);
                let has_v6 = |network: &NetworkSpec| network.v6().next().is_some();
                self.facts.ipv6 && outside.any(has_v6) && !forwarded
            }
        };
        raised && from != to
    }
}

/// Whether somebody else than this host uses 127.0.0.0/8 or ::1.
fn is_forged(packet: &Packet) -> bool {
    let from_outside = packet.from.as_ref().is_some_and(|link| link.as_str() != "lo");
    from_outside && (packet.source.is_loopback() || packet.destination.is_loopback())
}

/// Whether the address is reached on the network's link without a gateway: one of its subnets', or
/// one that no router sends on.
fn is_near(network: &NetworkSpec, address: IpAddr) -> bool {
    let has_family = |subnet: &Subnet| subnet.pool.addr().is_ipv4() == address.is_ipv4();
    let stays = match address {
        IpAddr::V4(address) => address.octets()[0] >= 224,
        IpAddr::V6(address) => address.segments()[0] >= 0xfe80,
    };
    has(network, address) || (stays && network.subnets.iter().any(has_family))
}

/// The endpoint's address of the same family.
fn address_like(endpoint: &EndpointSpec, other: IpAddr) -> Option<IpAddr> {
    match other {
        IpAddr::V4(_) => endpoint.v4.map(|net| IpAddr::V4(net.addr())),
        IpAddr::V6(_) => endpoint.v6.map(|net| IpAddr::V6(net.addr())),
    }
}

fn has(network: &NetworkSpec, address: IpAddr) -> bool {
    network.subnets.iter().any(|subnet| subnet.pool.contains(&address))
}
