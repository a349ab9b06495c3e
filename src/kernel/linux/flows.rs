//! Forgets UDP flows that began before a published port changed hands.
//!
//! Connection tracking decides where a flow goes at its first packet and remembers it for as long
//! as packets come. A client that never pauses would for ever reach the container that had the port
//! before, or nobody, had it asked too early. TCP needs none of this here: its connections end, and
//! where an update of a network forbids them, it ends them ([`crate::firewall::admission`], which
//! [`Flows::judge`] asks).

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use super::socket::{Message, Socket};
use super::wire::Wire;
use crate::firewall::model::Value;
use crate::firewall::nftables::wire::{ACK, DUMP, Writer, family_number, find};
use crate::kernel::KernelError;
use crate::model::{Family, Protocol};
use crate::object::{Element, Object, Op};

/// NETLINK_NETFILTER (uapi linux/netlink.h).
const NETLINK_NETFILTER: isize = 12;
/// NFNL_SUBSYS_CTNETLINK with IPCTNL_MSG_CT_GET (uapi linux/netfilter/nfnetlink_conntrack.h).
const GET: u16 = 1 << 8 | 1;
/// The same with IPCTNL_MSG_CT_DELETE.
const DELETE: u16 = 1 << 8 | 2;
/// The same with IPCTNL_MSG_CT_NEW: without NLM_F_CREATE it changes a flow that is there.
const CHANGE: u16 = 1 << 8;
/// CTA_TUPLE_ORIG: what the first packet had.
pub(super) const ORIGINAL: u16 = 1;
/// CTA_TUPLE_REPLY: what answers have.
pub(super) const REPLY: u16 = 2;
/// CTA_MARK: the connection's mark, big endian.
pub(super) const MARK: u16 = 8;
/// CTA_ID: tells a flow from a later one with the same tuple.
const ID: u16 = 12;
/// CTA_FILTER, since Linux 5.8.
const FILTER: u16 = 25;
/// CTA_FILTER_ORIG_FLAGS.
const FILTER_ORIGINAL: u16 = 1;
/// CTA_FILTER_F_CTA_PROTO_NUM (net/netfilter/nf_conntrack_netlink.c; bit 3).
const BY_PROTOCOL: u32 = 1 << 3;
/// CTA_TUPLE_IP, with CTA_IP_V4_SRC 1, CTA_IP_V4_DST 2, CTA_IP_V6_SRC 3 and CTA_IP_V6_DST 4.
const TUPLE_IP: u16 = 1;
/// CTA_TUPLE_PROTO, with CTA_PROTO_NUM 1 and CTA_PROTO_DST_PORT 3.
pub(super) const TUPLE_PROTOCOL: u16 = 2;

/// The socket to connection tracking, opened when it is first needed.
#[derive(Debug, Default)]
pub struct Flows(Option<Socket>);

impl Flows {
    /// Forgets the flows that the performed `ops` decide anew. Their next packet is a first one.
    pub fn forget(&mut self, host: &mut Wire, ops: &[Op]) {
        let published: Vec<Published> = ops.iter().filter_map(published).collect();
        if published.is_empty() {
            return;
        }
        // The ports are as asked for; that old clients must pause is no reason to undo it.
        match self.try_forget(host, &published) {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "old UDP flows could not be forgotten"),
        }
    }

    fn try_forget(&mut self, host: &mut Wire, published: &[Published]) -> Result<(), KernelError> {
        // A port on all addresses is on those that the host has; loopback counts as a whole.
        let local: BTreeSet<IpAddr> = match published.iter().any(|port| port.host.is_none()) {
            false => BTreeSet::new(),
            true => host.addresses()?.iter().map(|address| address.net.addr()).collect(),
        };
        let is_local = |address: IpAddr| address.is_loopback() || local.contains(&address);
        for family in Family::ALL {
            let of_family = |port: &&Published| Family::of(port.container) == family;
            let published: Vec<&Published> = published.iter().filter(of_family).collect();
            if !published.is_empty() {
                self.forget_of(family, &published, &is_local)?;
            }
        }
        Ok(())
    }

    fn forget_of(
        &mut self,
        family: Family,
        published: &[&Published],
        is_local: &dyn Fn(IpAddr) -> bool,
    ) -> Result<(), KernelError> {
        let flows = self.dump(family, only_udp)?;
        let decided =
            |flow: &&Message| published.iter().any(|port| port.decides(attributes(flow), is_local));
        let decided = flows.iter().filter(decided).map(|flow| (flow, Edit::Forget));
        self.edit(family, &decided.collect::<Vec<_>>())
    }

    fn socket(&mut self) -> Result<&mut Socket, KernelError> {
        let socket = match self.0.take() {
            Some(socket) => socket,
            None => Socket::open(NETLINK_NETFILTER).map_err(failed)?,
        };
        Ok(self.0.insert(socket))
    }

    /// All flows of a family that the filter lets through.
    pub(super) fn dump(
        &mut self,
        family: Family,
        filter: impl FnOnce(&mut Writer),
    ) -> Result<Vec<Message>, KernelError> {
        let socket = self.socket()?;
        let sequence = socket.next_sequence();
        let mut request = Writer::default();
        request.raw_message(GET, DUMP, sequence, (family_number(family), 0), filter);
        socket.dump(&request.into_bytes(), sequence).map_err(failed)?
    }

    /// Changes flows as they were dumped; one that has ended by itself is no error.
    pub(super) fn edit(
        &mut self,
        family: Family,
        edits: &[(&Message, Edit)],
    ) -> Result<(), KernelError> {
        if edits.is_empty() {
            return Ok(());
        }
        let socket = self.socket()?;
        let (mut batch, mut sequences) = (Writer::default(), Vec::new());
        for (flow, edit) in edits {
            let sequence = socket.next_sequence();
            let kind = match edit {
                Edit::Forget => DELETE,
                Edit::Mark(_) => CHANGE,
            };
            batch.raw_message(kind, ACK, sequence, (family_number(family), 0), |message| {
                let attribute = |kind| find(attributes(flow), kind).unwrap_or_default();
                message.bytes(ORIGINAL | NESTED, attribute(ORIGINAL));
                match edit {
                    Edit::Forget => message.bytes(ID, attribute(ID)),
                    Edit::Mark(mark) => message.bytes(MARK, &mark.to_be_bytes()),
                }
            });
            sequences.push(sequence);
        }
        let acks = socket.exchange(&batch.into_bytes(), &sequences).map_err(failed)?;
        let gone = |error: &KernelError| error.errno == Errno::ENOENT as i32;
        let mut refusals = acks.into_iter().filter_map(|ack| ack.result.err());
        refusals.find(|error| !gone(error)).map_or(Ok(()), Err)
    }
}

/// What is done to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    /// Connection tracking loses it.
    Forget,
    /// It gets this mark.
    Mark(u32),
}

fn failed(error: io::Error) -> KernelError {
    KernelError::new(error.raw_os_error().unwrap_or(0), "connection tracking")
}

/// The attributes of a dumped flow, behind struct nfgenmsg.
pub(super) fn attributes(flow: &Message) -> &[u8] {
    flow.payload.get(4..).unwrap_or_default()
}

/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

fn only_udp(message: &mut Writer) {
    message.nested(ORIGINAL, |tuple| {
        tuple.nested(TUPLE_PROTOCOL, |protocol| protocol.bytes(1, &[Protocol::Udp.number()]));
    });
    message.nested(FILTER, |filter| filter.bytes(FILTER_ORIGINAL, &BY_PROTOCOL.to_ne_bytes()));
}

/// A published UDP port that came or went.
struct Published {
    /// The host address it is published on; `None` for all.
    host: Option<IpAddr>,
    first: u16,
    last: u16,
    container: IpAddr,
}

fn published(op: &Op) -> Option<Published> {
    let Object::Element(Element { set, key, through, data }) = op.object() else { return None };
    if !set.is_port_map() || !key.contains(&Value::Protocol(Protocol::Udp)) {
        return None;
    }
    let port = |key: &[Value]| {
        key.iter().find_map(|value| match value {
            Value::Port(port) => Some(*port),
            Value::Link(_) | Value::Address(_) | Value::Protocol(_) => None,
        })
    };
    let ip = |values: &[Value]| {
        values.iter().find_map(|value| match value {
            Value::Address(address) => Some(*address),
            Value::Link(_) | Value::Port(_) | Value::Protocol(_) => None,
        })
    };
    let first = port(key)?;
    let last = through.as_deref().map_or(Some(first), port)?;
    Some(Published { host: ip(key), first, last, container: ip(data)? })
}

impl Published {
    /// Whether a flow went to this port of the host, and either led to the container or was not
    /// translated at all. One that only passes through to such a port elsewhere, as the host's own
    /// questions to a name server do, is none of ours.
    fn decides(&self, flow: &[u8], is_local: &dyn Fn(IpAddr) -> bool) -> bool {
        let tuples = find(flow, ORIGINAL).zip(find(flow, REPLY));
        let Some((original, reply)) = tuples else { return false };
        let Some(((from, to), (answers_from, answers_to))) = ends(original).zip(ends(reply)) else {
            return false;
        };
        let port = find(original, TUPLE_PROTOCOL)
            .and_then(|protocol| find(protocol, 3))
            .and_then(|port| port.try_into().ok())
            .map(u16::from_be_bytes);
        let untranslated = (from, to) == (answers_to, answers_from);
        port.is_some_and(|port| (self.first..=self.last).contains(&port))
            && self.host.map_or_else(|| is_local(to), |host| host == to)
            && (untranslated || answers_from == self.container)
    }
}

/// Source and destination of a tuple.
pub(super) fn ends(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let ip = find(tuple, TUPLE_IP)?;
    let v4 = |which| Some(IpAddr::from(<[u8; 4]>::try_from(find(ip, which)?).ok()?));
    let v6 = |which| Some(IpAddr::from(<[u8; 16]>::try_from(find(ip, which)?).ok()?));
    v4(1).zip(v4(2)).or_else(|| v6(3).zip(v6(4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::policy::port_elements;
    use crate::model::{HostAddress, PortRange};

    /// The host, a client of it, two containers, and an address elsewhere.
    struct Places {
        host: IpAddr,
        client: IpAddr,
        web: IpAddr,
        other: IpAddr,
        world: IpAddr,
    }

    fn places(family: Family) -> Places {
        let ip = |v4: &str, v6: &str| match family {
            Family::V4 => v4.parse().unwrap(),
            Family::V6 => v6.parse().unwrap(),
        };
        Places {
            host: ip("10.99.0.1", "fd99::1"),
            client: ip("10.99.0.2", "fd99::2"),
            web: ip("172.30.1.2", "fd30:1::2"),
            other: ip("172.30.2.2", "fd30:2::2"),
            world: ip("9.9.9.9", "2620:fe::fe"),
        }
    }

    /// The elements of port 5353 of the host, for a container with both families.
    fn elements(protocol: Protocol, host: HostAddress) -> Vec<Op> {
        let published = crate::model::Published {
            protocol,
            host,
            host_ports: PortRange::single(5353).unwrap(),
            container_first: 53,
        };
        let containers = Family::ALL.map(|family| places(family).web);
        port_elements(&published, &containers).into_iter().map(Op::Create).collect()
    }

    fn udp(host: HostAddress) -> Vec<Published> {
        elements(Protocol::Udp, host).iter().filter_map(published).collect()
    }

    #[track_caller]
    fn check(published: &Published, flow: &[u8], decided: bool) {
        let is_local = |address| Family::ALL.iter().any(|of| places(*of).host == address);
        assert_eq!(published.decides(flow, &is_local), decided);
    }

    fn flow(from: IpAddr, to: IpAddr, port: u16, answers: (IpAddr, IpAddr)) -> Vec<u8> {
        let mut bytes = Writer::default();
        for (kind, (source, destination)) in [(ORIGINAL, (from, to)), (REPLY, answers)] {
            bytes.nested(kind, |tuple| {
                tuple.nested(TUPLE_IP, |ip| {
                    for (which, address) in [(0, source), (1, destination)] {
                        match address {
                            IpAddr::V4(address) => ip.bytes(1 + which, &address.octets()),
                            IpAddr::V6(address) => ip.bytes(3 + which, &address.octets()),
                        }
                    }
                });
                tuple.nested(TUPLE_PROTOCOL, |protocol| protocol.bytes(3, &port.to_be_bytes()));
            });
        }
        bytes.into_bytes()
    }

    #[test]
    fn only_udp_ports_are_looked_at_once_a_family() {
        let tcp = elements(Protocol::Tcp, HostAddress::Any);
        assert!(tcp.iter().all(|op| published(op).is_none()));
        let everywhere = udp(HostAddress::Any);
        let families: Vec<Family> =
            everywhere.iter().map(|port| Family::of(port.container)).collect();
        assert_eq!(families, Family::ALL);
        for port in everywhere {
            assert_eq!((port.first, port.last, port.host), (5353, 5353, None));
        }
        for family in Family::ALL {
            let host = places(family).host;
            let hosts: Vec<_> =
                udp(HostAddress::At(host)).iter().map(|port| (port.host, port.container)).collect();
            assert_eq!(hosts, [(Some(host), places(family).web)]);
        }
    }

    #[test]
    fn flows_to_the_port_are_forgotten_and_those_passing_by_are_not() {
        for family in Family::ALL {
            let Places { host, client, web, other, world } = places(family);
            let of_family = |port: &Published| Family::of(port.container) == family;
            let everywhere = udp(HostAddress::Any).into_iter();
            for udp in everywhere.chain(udp(HostAddress::At(host))).filter(of_family) {
                check(&udp, &flow(client, host, 5353, (host, client)), true);
                check(&udp, &flow(client, host, 5353, (web, client)), true);
                check(&udp, &flow(client, host, 53, (host, client)), false);
                check(&udp, &flow(client, host, 53, (web, client)), false);
                check(&udp, &flow(client, host, 5353, (other, client)), false);
                check(&udp, &flow(other, world, 5353, (world, host)), false);
                // The host's own questions, and a neighbour's straight to the container.
                check(&udp, &flow(host, world, 5353, (world, host)), false);
                check(&udp, &flow(other, web, 5353, (web, other)), false);
                check(&udp, &[1, 2, 3], false);
            }
        }
    }

    #[test]
    fn flows_to_an_address_the_port_is_not_on_are_kept() {
        // Somebody else may have the port there.
        for (family, loopback) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
            let Places { host, client, .. } = places(family);
            let elsewhere = udp(HostAddress::At(loopback.parse().unwrap()));
            assert_eq!(elsewhere.len(), 1);
            for udp in &elsewhere {
                check(udp, &flow(client, host, 5353, (host, client)), false);
            }
        }
    }
}
