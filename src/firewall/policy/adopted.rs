//! Networks on bridges of the operator's: only their containers are ours, not what else is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Span, allowing, dropping, element, link_local, on_bridge, rule, span_elements};
use crate::firewall::model::{Chain, Field, Match, Rule, SetName, Statement, Value};
use crate::model::{BridgeOwner, BridgeSpec, Family, Icc, Mark, NetworkSpec, Reach};
use crate::object::Object;

/// Internal networks where others on the bridge are none of ours.
pub(super) fn secluded(family: Family) -> [Rule; 2] {
    let is = |link, address| Match::In(vec![link, address], SetName::Secluded(family));
    [
        dropping(
            vec![is(Field::InLink, Field::Source(family))],
            "an internal network sends nothing out",
        ),
        dropping(
            vec![is(Field::OutLink, Field::Destination(family))],
            "an internal network takes nothing in",
        ),
    ]
}

/// What stays on a bridge of the operator's: bridged, where br_netfilter shows it, or routed back.
/// What is neither from nor to a container of ours is let alone.
pub(super) fn shared(mark: Mark) -> Chain {
    use Field::{Destination, InLink, OutLink, Source};
    let mut rules = Vec::new();
    for family in Family::ALL {
        let from = |set| Match::In(vec![InLink, Source(family)], set);
        let to = |set| Match::In(vec![OutLink, Destination(family)], set);
        let (ours, near) = (SetName::Local(family), SetName::OnLink(family));
        let quiet = |field| Match::In(vec![field], SetName::Quiet(family));
        rules.extend([
            dropping(
                vec![Match::NotDnat, quiet(Source(family)), quiet(Destination(family))],
                "neighbours may not talk on this network",
            ),
            allowing(vec![from(near), to(ours)], mark, "neighbours talk"),
            allowing(vec![from(ours), to(near)], mark, "neighbours talk"),
        ]);
        rules.extend(secluded(family));
        rules.extend([
            rule(vec![to(ours)], vec![Statement::Goto("inward")], "into a network"),
            allowing(vec![from(ours)], mark, "to the outside, by the same bridge"),
        ]);
    }
    Chain { name: "shared", base: None, rules }
}

/// Multicast, broadcast and reserved; link-local and multicast.
pub(super) fn never_routed(family: Family) -> Span {
    match family {
        Family::V4 => (Ipv4Addr::new(224, 0, 0, 0).into(), Ipv4Addr::BROADCAST.into()),
        Family::V6 => (link_local().network(), Ipv6Addr::from(u128::MAX).into()),
    }
}

/// What one container means to the policy: nothing by itself where the whole subnet is ours.
pub fn container_elements(
    network: &NetworkSpec,
    bridge: &BridgeSpec,
    container: IpAddr,
) -> Vec<Object> {
    if bridge.owner == BridgeOwner::Netagent {
        return Vec::new();
    }
    let family = Family::of(container);
    let mut elements = span_elements(network, bridge, (container, container));
    if network.reach == Reach::Internal {
        elements.push(on_bridge(SetName::Secluded(family), bridge, (container, container)));
    }
    if bridge.icc == Icc::Deny {
        elements.push(element(SetName::Quiet(family), vec![Value::Address(container)]));
    }
    elements
}
