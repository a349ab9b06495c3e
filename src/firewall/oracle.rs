//! The policy said a second time: what must become of one packet, as a plain predicate.
//!
//! No tables, chains or sets, and nothing of [`super::policy`] is used: the two are written apart
//! so that a slip in one is seen in the other. `tests/oracle.rs` runs the rules of the one on
//! random packets and compares. Never used by the agent itself; read it to learn what is allowed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::model::{
    BridgeSpec, DriverSpec, Facts, Icc, LinkName, Masquerade, NetworkSpec, Protocol, Published,
    Reach,
};

/// Everything the policy depends on.
#[derive(Debug, Clone)]
pub struct World {
    /// Our networks; no two subnets overlap.
    pub networks: Vec<NetworkSpec>,
    /// Published ports, each with its container's address. No two meet on the same host address.
    pub published: Vec<(Published, Ipv4Addr)>,
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
    /// Destination as it was sent.
    pub destination: IpAddr,
    /// Whether that is an address of this host.
    pub to_this_host: bool,
    /// Transport protocol and destination port; `None` for one without ports (ICMP).
    pub port: Option<(Protocol, u16)>,
    /// Its connection.
    pub state: State,
    /// Whether the destination of its connection has been translated: by us with an earlier
    /// packet, or by another owner before us.
    pub translated: bool,
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
        translated_to: Option<(Ipv4Addr, u16)>,
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
        let marked = match self.way(packet, translated) {
            Way::Closed => return Fate::Dropped,
            Way::Open => false,
            Way::Marked => true,
        };
        let source = match self.gets_our_address(packet, translated) {
            true => Source::ThisHosts,
            false => Source::Kept,
        };
        Fate::Passes { marked, translated_to, source }
    }

    /// Where a published port leads. One published on the very address wins over one published
    /// on all of them.
    fn published_at(&self, packet: &Packet) -> Option<(Ipv4Addr, u16)> {
        let (IpAddr::V4(destination), Some((protocol, port))) = (packet.destination, packet.port)
        else {
            return None;
        };
        if packet.state != State::New || packet.translated || !packet.to_this_host {
            return None;
        }
        let on = |host: Ipv4Addr| {
            let (published, container) = self.published.iter().find(|(published, _)| {
                published.protocol == protocol
                    && published.host == host
                    && published.host_ports.first() <= port
                    && port <= published.host_ports.last()
            })?;
            let offset = port - published.host_ports.first();
            Some((*container, published.container_first + offset))
        };
        on(destination).or_else(|| on(Ipv4Addr::UNSPECIFIED))
    }

    /// What is forwarded. A process of this host reaches every container and is reached by all:
    /// only packets that come in by one link and leave by one are looked at.
    fn way(&self, packet: &Packet, translated: bool) -> Way {
        let (Some(from), Some(to)) = (&packet.from, &packet.to) else { return Way::Open };
        let known = packet.state == State::Known;
        match (self.network(from), self.network(to)) {
            (Some((_, bridge)), Some(_)) if from == to => match bridge.icc {
                Icc::Allow => Way::Marked,
                Icc::Deny if translated => Way::Marked,
                Icc::Deny => Way::Closed,
            },
            (Some((network, _)), _) if network.reach == Reach::Internal => Way::Closed,
            (_, Some((network, _))) if network.reach == Reach::Internal => Way::Closed,
            (_, Some(_)) if known || translated => Way::Marked,
            (_, Some(_)) => Way::Closed,
            (Some(_), None) if known || self.is_way_out(to) => Way::Marked,
            (Some(_), None) if self.foreign_bridges.contains(to) => Way::Open,
            (Some(_), None) => Way::Marked,
            (None, None) if self.only_we_forward(packet, from, to) => match packet.state {
                State::New if !translated => Way::Closed,
                State::New | State::Known | State::Invalid => Way::Open,
            },
            (None, None) => Way::Open,
        }
    }

    /// Whose first packets leave with the host's address: those that would otherwise be answered
    /// past the host, or not at all.
    fn gets_our_address(&self, packet: &Packet, translated: bool) -> bool {
        let (Some(to), IpAddr::V4(source)) = (&packet.to, packet.source) else { return false };
        if packet.state != State::New {
            return false;
        }
        let target = self.network(to).map(|(network, _)| network);
        let at_home = target.is_some_and(|network| has(network, source));
        let masqueraded = self.bridges().any(|(network, bridge)| {
            network.reach == Reach::External
                && bridge.masquerade == Masquerade::On
                && has(network, source)
        });
        match at_home {
            true => translated,
            false => masqueraded || (target.is_some() && source.is_loopback()),
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

    /// Whether a default route goes by the link.
    fn is_way_out(&self, link: &LinkName) -> bool {
        self.facts.uplinks.iter().any(|uplink| uplink.name == *link && uplink.default_route)
    }

    /// Whether the host would not forward from this link but for us. A bridge that only bridges
    /// is not forwarding.
    fn only_we_forward(&self, packet: &Packet, from: &LinkName, to: &LinkName) -> bool {
        let outside = |network: &&NetworkSpec| network.reach == Reach::External;
        let mut outside = self.networks.iter().filter(outside);
        let Some(uplink) = self.facts.uplinks.iter().find(|uplink| uplink.name == *from) else {
            return false;
        };
        let raised = match packet.source {
            IpAddr::V4(_) => {
                let forwarded = self.facts.router || uplink.forwarding_v4;
                outside.next().is_some() && !forwarded
            }
            IpAddr::V6(_) => {
                let forwarded = self.facts.router_v6 || uplink.forwarding_v6 == Some(true);
                outside.any(|network| network.v6().next().is_some()) && !forwarded
            }
        };
        raised && from != to
    }
}

/// Whether somebody else than this host uses 127.0.0.0/8.
fn is_forged(packet: &Packet) -> bool {
    let loopback =
        |address: &IpAddr| matches!(address, IpAddr::V4(address) if address.is_loopback());
    let from_outside = packet.from.as_ref().is_some_and(|link| link.as_str() != "lo");
    from_outside && (loopback(&packet.source) || loopback(&packet.destination))
}

fn has(network: &NetworkSpec, address: Ipv4Addr) -> bool {
    network.v4().any(|(_, net)| net.contains(&address))
}
