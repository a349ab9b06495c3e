//! Ends flows into a network that its policy would not let in any more.
//!
//! The rules let answers through and do not ask again whether the first packet would still be let
//! in. A flow that connection tracking has forgotten begins anew with its next packet, and is
//! judged by the rules as they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use super::flows::{
    DELETE, GET, ID, NESTED, NETLINK_NETFILTER, ORIGINAL, REPLY, TUPLE_PROTOCOL, ends,
};
use super::socket::Socket;
use super::wire::Wire;
use crate::firewall::model::{SetName, Value};
use crate::firewall::nftables::wire::{ACK, DUMP, Writer, family_number, find};
use crate::kernel::{KernelError, Narrowed};
use crate::model::{Family, LinkName, Protocol};
use crate::object::Element;

/// Forgets every flow into the network that would be refused now.
pub fn end_flows(host: &mut Wire, narrowed: &Narrowed) -> Result<(), KernelError> {
    let failed = |error: io::Error| {
        KernelError::new(error.raw_os_error().unwrap_or(0), "connection tracking")
    };
    let judge = Judge { narrowed, ways: Ways::read(host)? };
    let families: BTreeSet<Family> =
        narrowed.subnets.iter().map(|net| Family::of(net.addr())).collect();
    let mut socket = Socket::open(NETLINK_NETFILTER).map_err(failed)?;
    for family in families {
        let sequence = socket.next_sequence();
        let mut request = Writer::default();
        request.raw_message(GET, DUMP, sequence, (family_number(family), 0), |_| {});
        let flows = socket.dump(&request.into_bytes(), sequence).map_err(failed)??;
        let (mut batch, mut sequences) = (Writer::default(), Vec::new());
        for flow in &flows {
            let attributes = flow.payload.get(4..).unwrap_or_default();
            if !Flow::parse(attributes).is_some_and(|flow| judge.ends(&flow)) {
                continue;
            }
            let sequence = socket.next_sequence();
            batch.raw_message(DELETE, ACK, sequence, (family_number(family), 0), |message| {
                message.bytes(ORIGINAL | NESTED, find(attributes, ORIGINAL).unwrap_or_default());
                message.bytes(ID, find(attributes, ID).unwrap_or_default());
            });
            sequences.push(sequence);
        }
        if !sequences.is_empty() {
            // ENOENT: it ended by itself.
            socket.exchange(&batch.into_bytes(), &sequences).map_err(failed)?;
        }
    }
    Ok(())
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    from: IpAddr,
    to: IpAddr,
    from_port: Option<u16>,
    to_port: Option<u16>,
}

impl Tuple {
    fn parse(tuple: &[u8]) -> Option<Self> {
        let (from, to) = ends(tuple)?;
        let transport = find(tuple, TUPLE_PROTOCOL)?;
        // CTA_PROTO_NUM 1, CTA_PROTO_SRC_PORT 2, CTA_PROTO_DST_PORT 3.
        let port = |kind| find(transport, kind)?.try_into().ok().map(u16::from_be_bytes);
        let protocol = *find(transport, 1)?.first()?;
        Some(Self { protocol, from, to, from_port: port(2), to_port: port(3) })
    }

    fn protocol(&self) -> Option<Protocol> {
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        all.into_iter().find(|protocol| protocol.number() == self.protocol)
    }

    fn is_icmp(&self) -> bool {
        /// IPPROTO_ICMP and IPPROTO_ICMPV6 (uapi linux/in.h, in6.h).
        const ICMP: [u8; 2] = [1, 58];
        ICMP.contains(&self.protocol)
    }
}

/// A flow as its first packet was, and as it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    sent: Tuple,
    answered: Tuple,
}

impl Flow {
    fn parse(attributes: &[u8]) -> Option<Self> {
        let tuple = |kind| Tuple::parse(find(attributes, kind)?);
        Some(Self { sent: tuple(ORIGINAL)?, answered: tuple(REPLY)? })
    }

    fn is_translated(&self) -> bool {
        (self.sent.to, self.sent.to_port) != (self.answered.from, self.answered.from_port)
    }
}

/// Which link packets from where come in by, and what is on the host itself.
struct Ways {
    local: BTreeSet<IpAddr>,
    routes: BTreeMap<IpNet, LinkName>,
}

impl Ways {
    fn read(host: &mut Wire) -> Result<Self, KernelError> {
        let names: BTreeMap<u32, LinkName> = host
            .links()?
            .into_iter()
            .filter_map(|link| Some((link.index, link.name.parse().ok()?)))
            .collect();
        let routes = host.routes()?.into_iter().filter(|route| route.is_main());
        let routes = routes.filter_map(|route| {
            let link = route.links.first().and_then(|index| names.get(index))?;
            Some((route.destination, link.clone()))
        });
        let local = host.addresses()?.iter().map(|address| address.net.addr()).collect();
        Ok(Self { local, routes: routes.collect() })
    }

    /// The link of the longest route to `source`.
    fn link(&self, source: IpAddr) -> Option<&LinkName> {
        let routes = self.routes.iter().filter(|(net, _)| net.contains(&source));
        routes.max_by_key(|(net, _)| net.prefix_len()).map(|(_, link)| link)
    }
}

struct Judge<'a> {
    narrowed: &'a Narrowed,
    ways: Ways,
}

impl Judge<'_> {
    fn ends(&self, flow: &Flow) -> bool {
        let Narrowed { subnets, containers, gone, holding, .. } = self.narrowed;
        if !containers.contains(&flow.answered.from) {
            return false;
        }
        if flow.is_translated() {
            // What somebody else has translated is somebody else's to end.
            return gone.iter().any(|element| leads(element, flow))
                && !holding.iter().any(|element| leads(element, flow));
        }
        let from = &flow.sent.from;
        let near = subnets.iter().any(|net| net.contains(from));
        let free = near || from.is_loopback() || self.ways.local.contains(from);
        !free && !self.is_direct(flow)
    }

    /// Whether the container may be reached at its own address.
    fn is_direct(&self, flow: &Flow) -> bool {
        let Narrowed { bridge, holding, .. } = self.narrowed;
        let family = Family::of(flow.sent.to);
        let has = |set: SetName, key: &[Value]| {
            holding.iter().any(|element| element.set == set && element.key == key)
        };
        let bridge = Value::Link(bridge.clone());
        let opened = || {
            let Some((protocol, port)) = flow.sent.protocol().zip(flow.sent.to_port) else {
                return false;
            };
            let key = [Value::Port(port), Value::Protocol(protocol), Value::Address(flow.sent.to)];
            holding
                .iter()
                .any(|element| element.set == SetName::Opened(family) && contains(element, &key))
        };
        let trusted = || {
            let link = self.ways.link(flow.sent.from).cloned().map(Value::Link);
            link.is_some_and(|link| has(SetName::Trusted, &[link, bridge.clone()]))
        };
        let one = std::slice::from_ref(&bridge);
        has(SetName::Unprotected(family), one)
            || (has(SetName::Routed(family), one) && (flow.sent.is_icmp() || opened()))
            || (trusted() && opened())
    }
}

/// Whether a packet with these fields is in the element, field by field as the kernel compares.
fn contains(element: &Element, key: &[Value]) -> bool {
    let through = element.through.as_ref().unwrap_or(&element.key);
    let bounds = element.key.iter().zip(through);
    element.key.len() == key.len()
        && key.iter().zip(bounds).all(|(value, (first, last))| first <= value && value <= last)
}

/// Whether an element of a port map translates the flow's first packet to where it went.
fn leads(element: &Element, flow: &Flow) -> bool {
    let Some((protocol, port)) = flow.sent.protocol().zip(flow.sent.to_port) else { return false };
    let family = Family::of(flow.sent.to);
    let (port, protocol) = (Value::Port(port), Value::Protocol(protocol));
    let host = Value::Address(flow.sent.to);
    let key = match element.set {
        set if set == SetName::AnyPorts(family) => vec![protocol, port],
        set if set == SetName::AnyRanges(family) => vec![port, protocol],
        set if set == SetName::HostPorts(family) => vec![protocol, host, port],
        set if set == SetName::HostRanges(family) => vec![port, protocol, host],
        _ => return false,
    };
    let container = Value::Address(flow.answered.from);
    let target = flow.answered.from_port.map(Value::Port);
    let there = match element.data.as_slice() {
        [address] => *address == container && flow.sent.to_port == flow.answered.from_port,
        [address, port] => *address == container && Some(port) == target.as_ref(),
        _ => false,
    };
    there && contains(element, &key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::policy::{opened_element, port_elements};
    use crate::model::{HostAddress, PortRange, Published};
    use crate::object::Object;

    const CLIENT: &str = "10.99.0.2";
    const HOST: &str = "10.99.0.1";
    const WEB: &str = "172.30.1.2";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tuple(from: (&str, u16), to: (&str, u16)) -> Tuple {
        Tuple {
            protocol: Protocol::Tcp.number(),
            from: ip(from.0),
            to: ip(to.0),
            from_port: Some(from.1),
            to_port: Some(to.1),
        }
    }

    fn translated(to: (&str, u16), container: (&str, u16)) -> Flow {
        let client = (CLIENT, 40000);
        Flow { sent: tuple(client, to), answered: tuple(container, client) }
    }

    fn direct(from: &str, port: u16) -> Flow {
        let (client, web) = ((from, 40000), (WEB, port));
        Flow { sent: tuple(client, web), answered: tuple(web, client) }
    }

    fn published(host: HostAddress) -> Vec<Element> {
        let published = Published {
            protocol: Protocol::Tcp,
            host,
            host_ports: PortRange::single(8080).unwrap(),
            container_first: 80,
        };
        elements(port_elements(&published, &[ip(WEB)]))
    }

    fn elements(objects: Vec<Object>) -> Vec<Element> {
        let element = |object| {
            let Object::Element(element) = object else { panic!("not an element: {object:?}") };
            element
        };
        objects.into_iter().map(element).collect()
    }

    fn in_set(set: SetName, key: &[&str]) -> Element {
        let key = key.iter().map(|link| Value::Link(link.parse().unwrap())).collect();
        Element { set, key, through: None, data: vec![] }
    }

    #[track_caller]
    fn check(gone: &[Element], holding: &[Element], flow: Flow, ends: bool) {
        let narrowed = Narrowed {
            bridge: "nab-web".parse().unwrap(),
            subnets: vec!["172.30.1.0/24".parse().unwrap()],
            containers: BTreeSet::from([ip(WEB)]),
            gone: gone.to_vec(),
            holding: holding.to_vec(),
        };
        let way = |net: &str, link: &str| (net.parse().unwrap(), link.parse().unwrap());
        let ways = Ways {
            local: BTreeSet::from([ip(HOST), ip("172.30.1.1")]),
            routes: BTreeMap::from([way("0.0.0.0/0", "eth0"), way("10.99.0.0/24", "lan")]),
        };
        assert_eq!(Judge { narrowed: &narrowed, ways }.ends(&flow), ends, "{flow:?}");
    }

    #[test]
    fn a_published_flow_ends_with_its_binding_and_with_no_other() {
        let any = published(HostAddress::Any);
        let here = published(HostAddress::At(ip(HOST)));
        let flow = translated((HOST, 8080), (WEB, 80));
        check(&any, &[], flow, true);
        check(&any, &here, flow, false);
        check(&any, &here, translated(("127.0.0.1", 8080), (WEB, 80)), true);
        check(&here, &any, flow, false);
        check(&[], &[], flow, false);
        // An operator's own translation, and another container's.
        check(&any, &[], translated((HOST, 9090), (WEB, 80)), false);
        check(&any, &[], translated((HOST, 8080), ("172.30.1.3", 80)), false);
        check(&any, &[], translated((HOST, 8080), ("172.30.9.2", 80)), false);
    }

    #[test]
    fn a_direct_flow_lasts_while_the_policy_would_let_it_in() {
        let opened = opened_element(Protocol::Tcp, PortRange::single(80).unwrap(), ip(WEB));
        let opened = elements(vec![opened]);
        let with = |more: Element| [opened.clone(), vec![more]].concat();
        let flow = direct(CLIENT, 80);
        check(&[], &[], flow, true);
        check(&[], &opened, flow, true);
        check(&[], &[in_set(SetName::Unprotected(Family::V4), &["nab-web"])], flow, false);
        let routed = with(in_set(SetName::Routed(Family::V4), &["nab-web"]));
        check(&[], &routed, flow, false);
        check(&[], &routed, direct(CLIENT, 81), true);
        let trusted = with(in_set(SetName::Trusted, &["lan", "nab-web"]));
        check(&[], &trusted, flow, false);
        check(&[], &trusted, direct("9.9.9.9", 80), true);
        // The host itself, and a neighbour on the bridge.
        check(&[], &[], direct(HOST, 80), false);
        check(&[], &[], direct("172.30.1.3", 80), false);
    }
}
