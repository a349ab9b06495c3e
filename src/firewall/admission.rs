//! Flows into a network whose policy has changed.
//!
//! The rules let answers through and do not ask again whether the first packet would still be let
//! in. Here that is asked of a flow as connection tracking has it: the rules' answer to its first
//! packet, had it come now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::model::{SetName, Value};
use crate::model::{Family, LinkName, Protocol};
use crate::object::Element;

/// What a network lets in, and what it let in before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Why it is asked.
    pub occasion: Occasion,
    /// Its bridge.
    pub bridge: LinkName,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// The addresses of its endpoints.
    pub containers: BTreeSet<IpAddr>,
    /// Elements of the policy that let packets in and are gone.
    pub gone: Vec<Element>,
    /// Those of the network and its endpoints that hold.
    pub holding: Vec<Element>,
}

/// Why flows are looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The policy changes now.
    Change,
    /// It may have changed before the agent began. The link that a flow came in by is a guess from
    /// routes, and nothing ends for a guess each time the agent starts: any trusted link will do.
    Start,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Source.
    pub from: IpAddr,
    /// Destination, of the same family.
    pub to: IpAddr,
    /// Source port, where the protocol has ports.
    pub from_port: Option<u16>,
    /// Destination port, where the protocol has ports.
    pub to_port: Option<u16>,
}

impl Tuple {
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

/// A flow as connection tracking has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// As its first packet was.
    pub sent: Tuple,
    /// As it is answered.
    pub answered: Tuple,
    /// Whether another flow announced it (FTP's data): the rules let it in with that one.
    pub related: bool,
    /// Whether it carries the mark of ended flows.
    pub ended: bool,
}

impl Flow {
    fn is_translated(&self) -> bool {
        (self.sent.to, self.sent.to_port) != (self.answered.from, self.answered.from_port)
    }
}

/// Which link packets from where come in by, and what is on the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ways {
    /// The host's addresses.
    pub local: BTreeSet<IpAddr>,
    /// The main routing table.
    pub routes: BTreeMap<IpNet, LinkName>,
}

impl Ways {
    /// The link of the longest route to `source`.
    fn link(&self, source: IpAddr) -> Option<&LinkName> {
        let routes = self.routes.iter().filter(|(net, _)| net.contains(&source));
        routes.max_by_key(|(net, _)| net.prefix_len()).map(|(_, link)| link)
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.local.contains(&address)
    }
}

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It goes on, or stays ended.
    Leave,
    /// It is taken out of connection tracking; its next packet is judged as a first one.
    Forget,
    /// It gets the mark that the forward chain drops. Forgetting would not do: if the container
    /// speaks next, it opens a flow outward, and what comes in are answers.
    End,
    /// It loses that mark.
    Resume,
}

/// What the policy says of a flow's first packet.
enum Verdict {
    Allowed,
    Forbidden,
    /// Not by what this network lets in or does not.
    Elsewhere,
}

impl Admission {
    /// What becomes of the flow. One that was ended and is allowed again goes on.
    pub fn treatment(&self, flow: &Flow, ways: &Ways) -> Treatment {
        match self.verdict(flow, ways) {
            Verdict::Forbidden if flow.ended => Treatment::Leave,
            // The host's own packets do not pass the forward chain, but find no socket of its any
            // more. A port that is published over UDP may change hands while its client never
            // pauses.
            Verdict::Forbidden if flow.is_translated() && self.begins_anew(flow, ways) => {
                Treatment::Forget
            }
            Verdict::Forbidden => Treatment::End,
            Verdict::Allowed if flow.ended => Treatment::Resume,
            Verdict::Allowed | Verdict::Elsewhere => Treatment::Leave,
        }
    }

    fn begins_anew(&self, flow: &Flow, ways: &Ways) -> bool {
        ways.is_local(flow.sent.from) || flow.sent.protocol() == Some(Protocol::Udp)
    }

    fn verdict(&self, flow: &Flow, ways: &Ways) -> Verdict {
        if !self.containers.contains(&flow.answered.from) || flow.related {
            return Verdict::Elsewhere;
        }
        if flow.is_translated() {
            let led_by = |elements: &[Element]| elements.iter().any(|element| leads(element, flow));
            // What somebody else has translated is somebody else's to end.
            return match (led_by(&self.holding), led_by(&self.gone)) {
                (true, _) => Verdict::Allowed,
                (false, true) => Verdict::Forbidden,
                (false, false) => Verdict::Elsewhere,
            };
        }
        let from = flow.sent.from;
        let on_link = matches!(from, IpAddr::V6(from) if from.is_unicast_link_local());
        let near = on_link || self.subnets.iter().any(|net| net.contains(&from));
        match near || ways.is_local(from) {
            true => Verdict::Elsewhere,
            false if self.is_direct(flow, ways) => Verdict::Allowed,
            false => Verdict::Forbidden,
        }
    }

    /// Whether the container may be reached at its own address.
    fn is_direct(&self, flow: &Flow, ways: &Ways) -> bool {
        let family = Family::of(flow.sent.to);
        let bridge = Value::Link(self.bridge.clone());
        let in_set = |set: SetName| self.holding.iter().filter(move |known| known.set == set);
        let has = |set: SetName| in_set(set).any(|known| known.key == [bridge.clone()]);
        let opened = || {
            let Some((protocol, port)) = flow.sent.protocol().zip(flow.sent.to_port) else {
                return false;
            };
            let key = [Value::Port(port), Value::Protocol(protocol), Value::Address(flow.sent.to)];
            in_set(SetName::Opened(family)).any(|element| contains(element, &key))
        };
        let trusted = || {
            let link = ways.link(flow.sent.from).cloned().map(Value::Link);
            in_set(SetName::Trusted).any(|element| match element.key.as_slice() {
                [from, to] if *to == bridge => {
                    self.occasion == Occasion::Start || Some(from) == link.as_ref()
                }
                _ => false,
            })
        };
        has(SetName::Unprotected(family))
            || (has(SetName::Routed(family)) && (flow.sent.is_icmp() || opened()))
            || (trusted() && opened())
    }
}

/// Whether an element lets packets into a network.
pub fn lets_in(element: &Element) -> bool {
    let set = element.set;
    set.is_port_map()
        || matches!(
            set,
            SetName::Trusted | SetName::Routed(_) | SetName::Unprotected(_) | SetName::Opened(_)
        )
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

    fn flow(sent: Tuple, answered: Tuple) -> Flow {
        Flow { sent, answered, related: false, ended: false }
    }

    fn translated(to: (&str, u16), container: (&str, u16)) -> Flow {
        let client = (CLIENT, 40000);
        flow(tuple(client, to), tuple(container, client))
    }

    fn direct(from: &str, port: u16) -> Flow {
        let (client, web) = ((from, 40000), (WEB, port));
        flow(tuple(client, web), tuple(web, client))
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

    fn ways() -> Ways {
        let way = |net: &str, link: &str| (net.parse().unwrap(), link.parse().unwrap());
        Ways {
            local: BTreeSet::from([ip(HOST), ip("172.30.1.1")]),
            routes: BTreeMap::from([way("0.0.0.0/0", "eth0"), way("10.99.0.0/24", "lan")]),
        }
    }

    fn admission(gone: &[Element], holding: &[Element]) -> Admission {
        Admission {
            occasion: Occasion::Change,
            bridge: "nab-web".parse().unwrap(),
            subnets: vec!["172.30.1.0/24".parse().unwrap()],
            containers: BTreeSet::from([ip(WEB)]),
            gone: gone.to_vec(),
            holding: holding.to_vec(),
        }
    }

    #[track_caller]
    fn check(gone: &[Element], holding: &[Element], flow: Flow, ends: bool) {
        let expected = if ends { Treatment::End } else { Treatment::Leave };
        assert_eq!(admission(gone, holding).treatment(&flow, &ways()), expected, "{flow:?}");
    }

    #[test]
    fn a_published_flow_ends_with_its_binding_and_with_no_other() {
        let any = published(HostAddress::Any);
        let here = published(HostAddress::At(ip(HOST)));
        let flow = translated((HOST, 8080), (WEB, 80));
        check(&any, &[], flow, true);
        check(&any, &here, flow, false);
        check(&any, &here, translated(("127.0.0.1", 8080), (WEB, 80)), true);
        check(&any, &[], Flow { related: true, ..flow }, false);
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

    /// The host's own packets do not pass the forward chain, and a client over UDP may never pause.
    #[test]
    fn flows_that_the_mark_would_not_end_or_for_ever_are_forgotten() {
        let web = (WEB, 80);
        let any = admission(&published(HostAddress::Any), &[]);
        let own = flow(tuple((HOST, 40000), (HOST, 8080)), tuple(web, ("172.30.1.1", 40000)));
        assert_eq!(any.treatment(&own, &ways()), Treatment::Forget);
        let mut udp = direct(CLIENT, 80);
        (udp.sent.protocol, udp.answered.protocol) = (17, 17);
        assert_eq!(any.treatment(&udp, &ways()), Treatment::End, "nothing was translated");
    }

    #[test]
    fn what_is_allowed_again_goes_on() {
        let ended = |flow: Flow| Flow { ended: true, ..flow };
        let (by_port, by_address) = (translated((HOST, 8080), (WEB, 80)), direct(CLIENT, 80));
        let mut holding = published(HostAddress::Any);
        holding.push(in_set(SetName::Unprotected(Family::V4), &["nab-web"]));
        for flow in [by_port, by_address] {
            let now =
                |holding: &[Element]| admission(&[], holding).treatment(&ended(flow), &ways());
            assert_eq!(now(&holding), Treatment::Resume, "{flow:?}");
            assert_eq!(now(&[]), Treatment::Leave, "{flow:?}");
            assert_eq!(admission(&[], &holding).treatment(&flow, &ways()), Treatment::Leave);
        }
    }

    /// Answers may go another way than the questions came.
    #[test]
    fn a_start_ends_no_flow_for_the_link_it_seems_to_come_by() {
        let opened = opened_element(Protocol::Tcp, PortRange::single(80).unwrap(), ip(WEB));
        let mut holding = elements(vec![opened]);
        holding.push(in_set(SetName::Trusted, &["lan", "nab-web"]));
        let start = Admission { occasion: Occasion::Start, ..admission(&[], &holding) };
        assert_eq!(start.treatment(&direct("9.9.9.9", 80), &ways()), Treatment::Leave);
        assert_eq!(start.treatment(&direct("9.9.9.9", 81), &ways()), Treatment::End);
    }
}
