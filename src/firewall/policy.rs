//! What packets may do: the rules that never change, and the elements that say to whom.
//!
//! The rules are fixed; everything that grows with networks, endpoints or ports is an element, so
//! an attach is one small transaction and a packet's cost is flat. The forward chain runs before
//! other owners' (priority −5): what it allows it marks, what it refuses it drops.

mod adopted;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::model::{
    Base, BaseKind, Chain, Field, Hook, Match, Rule, Ruleset, SetName, Statement, Value,
};
use crate::model::{
    BridgeOwner, BridgeSpec, Family, GatewayMode, HostAddress, Icc, Mark, Masquerade, NetworkSpec,
    PortRange, Protocol, Published, Reach, Uplink,
};
use crate::object::{Element, Object, Table};

pub use adopted::container_elements;

/// Name of our table.
pub const TABLE: &str = "netagent";

/// Before NF_IP_PRI_FILTER (0), where Docker, ufw and firewalld drop what they do not know.
const BEFORE_FILTER: i32 = -5;
/// NF_IP_PRI_RAW: before connection tracking and any translation.
const RAW: i32 = -300;
/// Right behind NF_IP_PRI_NAT_DST (−100): where an operator's own rule translates what a port
/// published on every address would take too, the operator's holds.
const NAT_DESTINATION: i32 = -99;
/// NF_IP_PRI_NAT_SRC.
const NAT_SOURCE: i32 = 100;

/// 127.0.0.0/8, or ::1/128.
fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Family::V6 => Ipv6Net::from(Ipv6Addr::LOCALHOST).into(),
    }
}

/// fe80::/10.
fn link_local() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}

/// The table with its rules and empty sets.
pub fn table(mark: Mark) -> Object {
    let ruleset = Ruleset {
        table: TABLE,
        sets: SetName::ALL.into_iter().map(SetName::declaration).collect(),
        chains: vec![
            guard(),
            within(mark),
            direct(mark),
            inward(mark),
            outward(mark),
            adopted::shared(mark),
            forward(mark),
            published("published", Family::V4),
            published("published_v6", Family::V6),
            to_published("prerouting", Hook::Prerouting),
            to_published("output", Hook::Output),
            postrouting(),
        ],
    };
    Object::Table(Table { ruleset: Arc::new(ruleset) })
}

fn rule(matches: Vec<Match>, statements: Vec<Statement>, comment: &'static str) -> Rule {
    Rule { matches, statements, comment }
}

fn dropping(matches: Vec<Match>, comment: &'static str) -> Rule {
    rule(matches, vec![Statement::Counter, Statement::Drop], comment)
}

fn allowing(matches: Vec<Match>, mark: Mark, comment: &'static str) -> Rule {
    rule(matches, vec![Statement::SetMark(mark), Statement::Accept], comment)
}

/// Our bridges accept packets for 127.0.0.0/8 (route_localnet), and ports published on it are
/// translated before the kernel's own check; so nothing but the host itself may send them. For ::1
/// the kernel's check comes first, but behind ours on a bridge whose packets pass netfilter
/// (bridge-nf-call-ip6tables).
fn guard() -> Chain {
    let wire = |family, matches: fn(IpNet) -> Match, comment| {
        dropping(vec![Match::NotFromLoopback, matches(loopback(family))], comment)
    };
    let mut rules = Vec::new();
    for family in Family::ALL {
        rules.extend([
            wire(family, Match::DestinationIn, "the wire does not reach the host's loopback"),
            wire(family, Match::SourceIn, "the wire does not speak for the host's loopback"),
        ]);
    }
    Chain {
        name: "guard",
        base: Some(Base { kind: BaseKind::Filter, hook: Hook::Prerouting, priority: RAW }),
        rules,
    }
}

fn forward(mark: Mark) -> Chain {
    use Field::{Destination, InLink, OutLink, Source};
    let to = |matches, chain, comment| rule(matches, vec![Statement::Goto(chain)], comment);
    let passes = |fields: &[Field], set| vec![Match::In(fields.to_vec(), set)];
    let mut rules = vec![
        dropping(vec![Match::Ended(mark)], "ended by a change of its network"),
        to(passes(&[InLink, OutLink], SetName::Same), "within", "neighbours on one network"),
        to(
            passes(&[InLink, OutLink], SetName::Shared),
            "shared",
            "on a bridge of the operator's: others have a say there too",
        ),
        dropping(passes(&[InLink], SetName::Internal), "an internal network sends nothing out"),
        dropping(passes(&[OutLink], SetName::Internal), "an internal network takes nothing in"),
    ];
    rules.extend(Family::ALL.into_iter().flat_map(adopted::secluded));
    rules.push(to(passes(&[OutLink], SetName::Bridges), "inward", "into a network"));
    for family in Family::ALL {
        let into = passes(&[OutLink, Destination(family)], SetName::Local(family));
        rules.push(to(into, "inward", "into a network on a bridge of the operator's"));
    }
    rules.push(to(passes(&[InLink], SetName::Bridges), "outward", "out of a network"));
    for family in Family::ALL {
        let out_of = passes(&[InLink, Source(family)], SetName::Local(family));
        rules.push(to(out_of, "outward", "out of a network on a bridge of the operator's"));
    }
    rules.extend(Family::ALL.map(for_us_only));
    Chain {
        name: "forward",
        base: Some(Base { kind: BaseKind::Filter, hook: Hook::Forward, priority: BEFORE_FILTER }),
        rules,
    }
}

/// What comes in by a link that forwards only because we raised it goes to our networks, or has
/// been translated by somebody who wants it forwarded; or it is not routed but bridged.
fn for_us_only(family: Family) -> Rule {
    dropping(
        vec![
            Match::Is(family),
            Match::In(vec![Field::InLink], SetName::Raised(family)),
            Match::NotIn(vec![Field::InLink, Field::OutLink], SetName::Bridged),
            Match::New,
            Match::NotDnat,
        ],
        "forwarding was raised for netagent's networks only",
    )
}

fn within(mark: Mark) -> Chain {
    Chain {
        name: "within",
        base: None,
        rules: vec![
            allowing(vec![Match::Dnat], mark, "a neighbour's published port"),
            dropping(
                vec![Match::In(vec![Field::InLink], SetName::IccDenied)],
                "neighbours may not talk on this network",
            ),
            allowing(vec![], mark, "neighbours talk"),
        ],
    }
}

fn inward(mark: Mark) -> Chain {
    Chain {
        name: "inward",
        base: None,
        rules: vec![
            allowing(vec![Match::Established], mark, "answers"),
            allowing(vec![Match::Dnat], mark, "a published port"),
            rule(vec![], vec![Statement::Goto("direct")], "to a container's own address"),
        ],
    }
}

fn direct(mark: Mark) -> Chain {
    use Field::{Destination, InLink, OutLink, Port, Protocol};
    let into = |set| Match::In(vec![OutLink], set);
    let opened =
        |family| Match::In(vec![Port, Protocol, Destination(family)], SetName::Opened(family));
    let mut rules = Vec::new();
    for family in Family::ALL {
        rules.extend([
            allowing(
                vec![Match::In(vec![InLink, OutLink], SetName::Trusted), opened(family)],
                mark,
                "a published port, from a trusted link",
            ),
            allowing(
                vec![Match::Is(family), into(SetName::Unprotected(family))],
                mark,
                "a network without protection",
            ),
            allowing(
                vec![into(SetName::Routed(family)), opened(family)],
                mark,
                "a published port, routed",
            ),
            allowing(
                vec![Match::Is(family), into(SetName::Routed(family)), Match::Icmp(family)],
                mark,
                "ICMP, routed",
            ),
        ]);
    }
    rules.push(dropping(vec![], "not published"));
    Chain { name: "direct", base: None, rules }
}

fn outward(mark: Mark) -> Chain {
    Chain {
        name: "outward",
        base: None,
        rules: vec![
            allowing(vec![Match::Established], mark, "answers"),
            allowing(
                vec![Match::In(vec![Field::OutLink], SetName::Uplinks)],
                mark,
                "to the outside",
            ),
            rule(
                vec![Match::LeavesByBridge],
                vec![Statement::Accept],
                "another owner's bridge: its own rules decide",
            ),
            allowing(vec![], mark, "to the outside"),
        ],
    }
}

fn published(name: &'static str, family: Family) -> Chain {
    use Field::{Port, Protocol};
    let destination = Field::Destination(family);
    let dnat = |fields, map, comment| rule(vec![], vec![Statement::Dnat(fields, map)], comment);
    Chain {
        name,
        base: None,
        rules: vec![
            dnat(vec![Protocol, destination, Port], SetName::HostPorts(family), "on one address"),
            dnat(
                vec![Port, Protocol, destination],
                SetName::HostRanges(family),
                "a range on one address",
            ),
            dnat(vec![Protocol, Port], SetName::AnyPorts(family), "on every address"),
            dnat(vec![Port, Protocol], SetName::AnyRanges(family), "a range on every address"),
        ],
    }
}

fn to_published(name: &'static str, hook: Hook) -> Chain {
    let jump = |family, chain| {
        rule(
            vec![Match::Is(family), Match::ToThisHost],
            vec![Statement::Jump(chain)],
            "only what is sent to this host",
        )
    };
    Chain {
        name,
        base: Some(Base { kind: BaseKind::Nat, hook, priority: NAT_DESTINATION }),
        rules: vec![
            jump(Family::V4, "published"),
            rule(
                vec![Match::SourceIn(link_local())],
                vec![Statement::Return],
                "a link-local address cannot be answered from another link",
            ),
            jump(Family::V6, "published_v6"),
        ],
    }
}

fn postrouting() -> Chain {
    let masquerade = |matches, comment| rule(matches, vec![Statement::Masquerade], comment);
    let mut rules = Vec::new();
    for family in Family::ALL {
        let source = Field::Source(family);
        let destination = Field::Destination(family);
        let local = vec![Field::OutLink, source];
        // A packet that is bridged, and not routed, has no link here that it came in by.
        let routed_back = || Match::In(vec![Field::InLink, Field::OutLink], SetName::Shared);
        let beyond = || Match::NotIn(vec![Field::OutLink, destination], SetName::OnLink(family));
        rules.extend([
            masquerade(
                vec![
                    Match::In(vec![Field::OutLink], SetName::Bridges),
                    Match::SourceIn(loopback(family)),
                ],
                "from the host's loopback to a published port",
            ),
            masquerade(
                vec![Match::Dnat, Match::In(local.clone(), SetName::Local(family))],
                "to a published port of the same network: answers must come back this way",
            ),
            masquerade(
                vec![
                    Match::In(vec![Field::OutLink, destination], SetName::Local(family)),
                    Match::SourceIn(loopback(family)),
                ],
                "from the host's loopback to a port published on a bridge of the operator's",
            ),
            masquerade(
                vec![Match::Dnat, routed_back(), Match::In(local.clone(), SetName::OnLink(family))],
                "to a published port of a neighbour: answers must come back this way",
            ),
            rule(
                vec![Match::NotIn(local.clone(), SetName::Local(family))],
                vec![Statement::Snat(vec![source], SetName::Sources(family))],
                "leaving its network with an address of the operator's choice",
            ),
            masquerade(
                vec![
                    Match::In(vec![source], SetName::Masquerade(family)),
                    Match::NotIn(local, SetName::Local(family)),
                ],
                "leaving its network",
            ),
            rule(
                vec![routed_back(), beyond()],
                vec![Statement::Snat(vec![source], SetName::Sources(family))],
                "leaving its network by the bridge it came from",
            ),
            masquerade(
                vec![routed_back(), Match::In(vec![source], SetName::Masquerade(family)), beyond()],
                "leaving its network by the bridge it came from",
            ),
        ]);
    }
    Chain {
        name: "postrouting",
        base: Some(Base { kind: BaseKind::Nat, hook: Hook::Postrouting, priority: NAT_SOURCE }),
        rules,
    }
}

fn element(set: SetName, key: Vec<Value>) -> Object {
    Object::Element(Element { set, key, through: None, data: vec![] })
}

/// What one of the host's links means to the policy.
pub fn uplink_elements(uplink: &Uplink, raised: Raised) -> Vec<Object> {
    let name = || Value::Link(uplink.name.clone());
    let mut elements = Vec::new();
    if uplink.default_route {
        elements.push(element(SetName::Uplinks, vec![name()]));
    }
    if raised.v4 {
        elements.push(element(SetName::Raised(Family::V4), vec![name()]));
    }
    if raised.v6 {
        elements.push(element(SetName::Raised(Family::V6), vec![name()]));
    }
    if raised.v4 || raised.v6 {
        elements.push(element(SetName::Bridged, vec![name(), name()]));
    }
    elements
}

/// Whether a link forwards only because we raised it, by family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Raised {
    /// For IPv4.
    pub v4: bool,
    /// For IPv6.
    pub v6: bool,
}

/// What a bridge network means to the policy.
pub fn network_elements(network: &NetworkSpec, bridge: &BridgeSpec) -> Vec<Object> {
    let name = || Value::Link(bridge.bridge.clone());
    let mut elements = match bridge.owner {
        BridgeOwner::Netagent => vec![
            element(SetName::Bridges, vec![name()]),
            element(SetName::Same, vec![name(), name()]),
        ],
        BridgeOwner::Operator => vec![element(SetName::Shared, vec![name(), name()])],
    };
    let ours = bridge.owner == BridgeOwner::Netagent;
    if ours && bridge.icc == Icc::Deny {
        elements.push(element(SetName::IccDenied, vec![name()]));
    }
    if ours && network.reach == Reach::Internal {
        elements.push(element(SetName::Internal, vec![name()]));
    }
    let trusted = bridge.trusted.iter().map(|link| Value::Link(link.clone()));
    elements.extend(trusted.map(|link| element(SetName::Trusted, vec![link, name()])));
    for subnet in &network.subnets {
        elements.extend(subnet_elements(network, bridge, subnet.pool));
    }
    elements
}

/// What one subnet of a network means to the policy.
fn subnet_elements(network: &NetworkSpec, bridge: &BridgeSpec, pool: IpNet) -> Vec<Object> {
    let family = Family::of(pool.network());
    let name = || Value::Link(bridge.bridge.clone());
    let mut elements = match bridge.owner {
        BridgeOwner::Netagent => span_elements(network, bridge, (pool.network(), pool.broadcast())),
        BridgeOwner::Operator => {
            let near = [(pool.network(), pool.broadcast()), adopted::never_routed(family)];
            near.map(|span| on_bridge(SetName::OnLink(family), bridge, span)).into()
        }
    };
    let external = network.reach == Reach::External;
    match bridge.mode_for(pool.network()) {
        GatewayMode::Routed if external => {
            elements.push(element(SetName::Routed(family), vec![name()]));
        }
        GatewayMode::NatUnprotected if external => {
            elements.push(element(SetName::Unprotected(family), vec![name()]));
        }
        GatewayMode::Routed
        | GatewayMode::NatUnprotected
        | GatewayMode::Nat
        | GatewayMode::Isolated => {}
    }
    elements
}

/// First and last address of a net.
type Span = (IpAddr, IpAddr);

fn on_bridge(set: SetName, bridge: &BridgeSpec, (first, last): Span) -> Object {
    let bound = |address| vec![Value::Link(bridge.bridge.clone()), Value::Address(address)];
    Object::Element(Element { set, key: bound(first), through: Some(bound(last)), data: vec![] })
}

/// What the addresses of a network mean: whole subnets, or on a bridge of the operator's each
/// container's.
fn span_elements(network: &NetworkSpec, bridge: &BridgeSpec, span: Span) -> Vec<Object> {
    let (first, last) = span;
    let family = Family::of(first);
    let mut elements = vec![on_bridge(SetName::Local(family), bridge, span)];
    if network.reach == Reach::Internal {
        return elements;
    }
    let leaving = |set, data| {
        let (key, through) = (vec![Value::Address(first)], Some(vec![Value::Address(last)]));
        Object::Element(Element { set, key, through, data })
    };
    let source = match family {
        Family::V4 => bridge.source_v4.map(IpAddr::V4),
        Family::V6 => bridge.source_v6.map(IpAddr::V6),
    };
    let translates = bridge.mode_for(first).translates() && bridge.masquerade == Masquerade::On;
    match source.filter(|_| translates) {
        Some(source) => {
            elements.push(leaving(SetName::Sources(family), vec![Value::Address(source)]));
        }
        None if translates => elements.push(leaving(SetName::Masquerade(family), vec![])),
        None => {}
    }
    elements
}

/// Where packets to published ports go: a range of equal numbers is one element, anything else
/// one element a port; on every address, that once for each family the container has.
pub fn port_elements(published: &Published, container: &[IpAddr]) -> Vec<Object> {
    let leads = |container: &&IpAddr| match published.host {
        HostAddress::Any => true,
        HostAddress::At(host) => Family::of(host) == Family::of(**container),
    };
    let families = container.iter().filter(leads);
    families.flat_map(|container| elements_of_family(published, *container)).collect()
}

fn elements_of_family(published: &Published, container: IpAddr) -> Vec<Object> {
    let Published { protocol, host, host_ports, .. } = *published;
    let family = Family::of(container);
    let host = match host {
        HostAddress::At(address) if !address.is_unspecified() => Some(Value::Address(address)),
        HostAddress::Any | HostAddress::At(_) => None,
    };
    let protocol = || Value::Protocol(protocol);
    if published.is_identity() && host_ports.count() > 1 {
        let bound = |port: u16| {
            let mut key = vec![Value::Port(port), protocol()];
            key.extend(host.clone());
            key
        };
        return vec![Object::Element(Element {
            set: match host {
                None => SetName::AnyRanges(family),
                Some(_) => SetName::HostRanges(family),
            },
            key: bound(host_ports.first()),
            through: Some(bound(host_ports.last())),
            data: vec![Value::Address(container)],
        })];
    }
    let single = |(port, container_port): (u16, u16)| {
        let mut key = vec![protocol()];
        key.extend(host.clone());
        key.push(Value::Port(port));
        Object::Element(Element {
            set: match host {
                None => SetName::AnyPorts(family),
                Some(_) => SetName::HostPorts(family),
            },
            key,
            through: None,
            data: vec![Value::Address(container), Value::Port(container_port)],
        })
    };
    host_ports.iter().zip(published.container_ports().iter()).map(single).collect()
}

/// Container ports that may be reached at the container's own address.
pub fn opened_element(protocol: Protocol, ports: PortRange, container: IpAddr) -> Object {
    let bound =
        |port: u16| vec![Value::Port(port), Value::Protocol(protocol), Value::Address(container)];
    Object::Element(Element {
        set: SetName::Opened(Family::of(container)),
        key: bound(ports.first()),
        through: Some(bound(ports.last())),
        data: vec![],
    })
}
