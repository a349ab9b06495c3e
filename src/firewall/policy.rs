//! What packets may do: the rules that never change, and the elements that say to whom.
//!
//! The rules are fixed; everything that grows with networks, endpoints or ports is an element, so
//! an attach is one small transaction and a packet's cost is flat. The forward chain runs before
//! other owners' (priority −5): what it allows it marks, what it refuses it drops.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::model::{
    Base, BaseKind, Chain, Field, Hook, Match, Rule, Ruleset, SetName, Statement, Value,
};
use crate::model::{BridgeSpec, Icc, Mark, Masquerade, NetworkSpec, Published, Reach, Uplink};
use crate::object::{Element, Object, Table};

/// Name of our table.
pub const TABLE: &str = "netagent";

/// Before NF_IP_PRI_FILTER (0), where Docker, ufw and firewalld drop what they do not know.
const BEFORE_FILTER: i32 = -5;
/// NF_IP_PRI_RAW: before connection tracking and any translation.
const RAW: i32 = -300;
/// NF_IP_PRI_NAT_DST.
const NAT_DESTINATION: i32 = -100;
/// NF_IP_PRI_NAT_SRC.
const NAT_SOURCE: i32 = 100;

/// 127.0.0.0/8.
fn loopback() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)
}

/// The table with its rules and empty sets.
pub fn table(mark: Mark) -> Object {
    let ruleset = Ruleset {
        table: TABLE,
        sets: SetName::ALL.into_iter().map(SetName::declaration).collect(),
        chains: vec![
            guard(),
            within(mark),
            inward(mark),
            outward(mark),
            forward(),
            published(),
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
/// translated before the kernel's own check; so nothing but the host itself may send them.
fn guard() -> Chain {
    Chain {
        name: "guard",
        base: Some(Base { kind: BaseKind::Filter, hook: Hook::Prerouting, priority: RAW }),
        rules: vec![
            dropping(
                vec![Match::NotFromLoopback, Match::IsIpv4, Match::DestinationIn(loopback())],
                "the wire does not reach the host's loopback",
            ),
            dropping(
                vec![Match::NotFromLoopback, Match::IsIpv4, Match::SourceIn(loopback())],
                "the wire does not speak for the host's loopback",
            ),
        ],
    }
}

fn forward() -> Chain {
    let to = |matches, chain, comment| rule(matches, vec![Statement::Goto(chain)], comment);
    let passes = |field, set| vec![Match::In(vec![field], set)];
    Chain {
        name: "forward",
        base: Some(Base { kind: BaseKind::Filter, hook: Hook::Forward, priority: BEFORE_FILTER }),
        rules: vec![
            to(
                vec![Match::In(vec![Field::InLink, Field::OutLink], SetName::Same)],
                "within",
                "neighbours on one network",
            ),
            dropping(
                passes(Field::InLink, SetName::Internal),
                "an internal network sends nothing out",
            ),
            dropping(
                passes(Field::OutLink, SetName::Internal),
                "an internal network takes nothing in",
            ),
            to(passes(Field::OutLink, SetName::Bridges), "inward", "into a network"),
            to(passes(Field::InLink, SetName::Bridges), "outward", "out of a network"),
            for_us_only(Match::IsIpv4, SetName::Raised),
            for_us_only(Match::NotIpv4, SetName::RaisedV6),
        ],
    }
}

/// What comes in by a link that forwards only because we raised it goes to our networks, or has
/// been translated by somebody who wants it forwarded; or it is not routed but bridged.
fn for_us_only(family: Match, raised: SetName) -> Rule {
    dropping(
        vec![
            family,
            Match::In(vec![Field::InLink], raised),
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
            dropping(vec![], "not published"),
        ],
    }
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

fn published() -> Chain {
    use Field::{Destination, Port, Protocol};
    let dnat = |fields, map, comment| rule(vec![], vec![Statement::Dnat(fields, map)], comment);
    Chain {
        name: "published",
        base: None,
        rules: vec![
            dnat(vec![Protocol, Destination, Port], SetName::HostPorts, "on one address"),
            dnat(vec![Port, Protocol, Destination], SetName::HostRanges, "a range on one address"),
            dnat(vec![Protocol, Port], SetName::AnyPorts, "on every address"),
            dnat(vec![Port, Protocol], SetName::AnyRanges, "a range on every address"),
        ],
    }
}

fn to_published(name: &'static str, hook: Hook) -> Chain {
    Chain {
        name,
        base: Some(Base { kind: BaseKind::Nat, hook, priority: NAT_DESTINATION }),
        rules: vec![rule(
            vec![Match::IsIpv4, Match::ToThisHost],
            vec![Statement::Jump("published")],
            "only what is sent to this host",
        )],
    }
}

fn postrouting() -> Chain {
    let local = vec![Field::OutLink, Field::Source];
    let masquerade = |matches, comment| rule(matches, vec![Statement::Masquerade], comment);
    Chain {
        name: "postrouting",
        base: Some(Base { kind: BaseKind::Nat, hook: Hook::Postrouting, priority: NAT_SOURCE }),
        rules: vec![
            rule(vec![Match::NotIpv4], vec![Statement::Return], "IPv4 only"),
            masquerade(
                vec![
                    Match::In(vec![Field::OutLink], SetName::Bridges),
                    Match::SourceIn(loopback()),
                ],
                "from the host's loopback to a published port",
            ),
            masquerade(
                vec![Match::Dnat, Match::In(local.clone(), SetName::Local)],
                "to a published port of the same network: answers must come back this way",
            ),
            masquerade(
                vec![
                    Match::In(vec![Field::Source], SetName::Masquerade),
                    Match::NotIn(local, SetName::Local),
                ],
                "leaving its network",
            ),
        ],
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
        elements.push(element(SetName::Raised, vec![name()]));
    }
    if raised.v6 {
        elements.push(element(SetName::RaisedV6, vec![name()]));
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
    let mut elements =
        vec![element(SetName::Bridges, vec![name()]), element(SetName::Same, vec![name(), name()])];
    if bridge.icc == Icc::Deny {
        elements.push(element(SetName::IccDenied, vec![name()]));
    }
    if network.reach == Reach::Internal {
        elements.push(element(SetName::Internal, vec![name()]));
    }
    for subnet in &network.subnets {
        let IpNet::V4(net) = subnet.pool else { continue };
        elements.push(Object::Element(Element {
            set: SetName::Local,
            key: vec![name(), Value::Ipv4(net.network())],
            through: Some(vec![name(), Value::Ipv4(net.broadcast())]),
            data: vec![],
        }));
        if bridge.masquerade == Masquerade::On && network.reach == Reach::External {
            elements.push(Object::Element(Element {
                set: SetName::Masquerade,
                key: vec![Value::Ipv4(net.network())],
                through: Some(vec![Value::Ipv4(net.broadcast())]),
                data: vec![],
            }));
        }
    }
    elements
}

/// Where packets to published ports go: a range of equal numbers is one element, anything else
/// one element a port.
pub fn port_elements(published: &Published, container: Ipv4Addr) -> Vec<Object> {
    let Published { protocol, host, host_ports, .. } = *published;
    let any = host.is_unspecified();
    let protocol = || Value::Protocol(protocol);
    if published.is_identity() && host_ports.count() > 1 {
        let bound = |port: u16| match any {
            true => vec![Value::Port(port), protocol()],
            false => vec![Value::Port(port), protocol(), Value::Ipv4(host)],
        };
        return vec![Object::Element(Element {
            set: if any { SetName::AnyRanges } else { SetName::HostRanges },
            key: bound(host_ports.first()),
            through: Some(bound(host_ports.last())),
            data: vec![Value::Ipv4(container)],
        })];
    }
    let single = |(port, container_port): (u16, u16)| {
        Object::Element(Element {
            set: if any { SetName::AnyPorts } else { SetName::HostPorts },
            key: match any {
                true => vec![protocol(), Value::Port(port)],
                false => vec![protocol(), Value::Ipv4(host), Value::Port(port)],
            },
            through: None,
            data: vec![Value::Ipv4(container), Value::Port(container_port)],
        })
    };
    host_ports.iter().zip(published.container_ports().iter()).map(single).collect()
}
