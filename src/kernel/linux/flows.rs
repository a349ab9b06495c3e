//! Forgets UDP flows that began before a published port changed hands.
//!
//! Connection tracking decides where a flow goes at its first packet and remembers it for as long
//! as packets come. A client that never pauses would for ever reach the container that had the port
//! before, or nobody, had it asked too early. TCP needs none of this: its connections end.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::socket::Socket;
use super::wire::Wire;
use crate::firewall::model::Value;
use crate::firewall::nftables::wire::{ACK, DUMP, FAMILY_IPV4, Writer, find};
use crate::kernel::KernelError;
use crate::model::Protocol;
use crate::object::{Element, Object, Op};

/// NETLINK_NETFILTER (uapi linux/netlink.h).
const NETLINK_NETFILTER: isize = 12;
/// NFNL_SUBSYS_CTNETLINK with IPCTNL_MSG_CT_GET (uapi linux/netfilter/nfnetlink_conntrack.h).
const GET: u16 = 1 << 8 | 1;
/// The same with IPCTNL_MSG_CT_DELETE.
const DELETE: u16 = 1 << 8 | 2;
/// CTA_TUPLE_ORIG: what the first packet had.
const ORIGINAL: u16 = 1;
/// CTA_TUPLE_REPLY: what answers have.
const REPLY: u16 = 2;
/// CTA_ID: tells a flow from a later one with the same tuple.
const ID: u16 = 12;
/// CTA_FILTER, since Linux 5.8.
const FILTER: u16 = 25;
/// CTA_FILTER_ORIG_FLAGS.
const FILTER_ORIGINAL: u16 = 1;
/// CTA_FILTER_F_CTA_PROTO_NUM (net/netfilter/nf_conntrack_netlink.c; bit 3).
const BY_PROTOCOL: u32 = 1 << 3;
/// CTA_TUPLE_IP, with CTA_IP_V4_SRC 1 and CTA_IP_V4_DST 2.
const TUPLE_IP: u16 = 1;
/// CTA_TUPLE_PROTO, with CTA_PROTO_NUM 1 and CTA_PROTO_DST_PORT 3.
const TUPLE_PROTOCOL: u16 = 2;

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
        let local: BTreeSet<Ipv4Addr> = match published.iter().any(|port| port.host.is_none()) {
            false => BTreeSet::new(),
            true => host.addresses()?.iter().filter_map(|address| v4(address.net.addr())).collect(),
        };
        let is_local = |address: Ipv4Addr| address.is_loopback() || local.contains(&address);
        let failed = |error: io::Error| {
            KernelError::new(error.raw_os_error().unwrap_or(0), "connection tracking")
        };
        if self.0.is_none() {
            self.0 = Some(Socket::open(NETLINK_NETFILTER).map_err(failed)?);
        }
        let Some(socket) = self.0.as_mut() else { return Ok(()) };
        let sequence = socket.next_sequence();
        let flows = socket.dump(&dump_of_udp(sequence), sequence).map_err(failed)??;
        let (mut batch, mut sequences) = (Writer::default(), Vec::new());
        for flow in &flows {
            let attributes = flow.payload.get(4..).unwrap_or_default();
            if !published.iter().any(|published| published.decides(attributes, &is_local)) {
                continue;
            }
            let sequence = socket.next_sequence();
            batch.raw_message(DELETE, ACK, sequence, (FAMILY_IPV4, 0), |message| {
                let original = find(attributes, ORIGINAL).unwrap_or_default();
                message.bytes(ORIGINAL | NESTED, original);
                message.bytes(ID, find(attributes, ID).unwrap_or_default());
            });
            sequences.push(sequence);
        }
        if !sequences.is_empty() {
            // ENOENT: it ended by itself.
            socket.exchange(&batch.into_bytes(), &sequences).map_err(failed)?;
        }
        Ok(())
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

fn dump_of_udp(sequence: u32) -> Vec<u8> {
    let mut request = Writer::default();
    request.raw_message(GET, DUMP, sequence, (FAMILY_IPV4, 0), |message| {
        message.nested(ORIGINAL, |tuple| {
            tuple.nested(TUPLE_PROTOCOL, |protocol| protocol.bytes(1, &[Protocol::Udp.number()]));
        });
        message.nested(FILTER, |filter| {
            filter.bytes(FILTER_ORIGINAL, &BY_PROTOCOL.to_ne_bytes());
        });
    });
    request.into_bytes()
}

/// A published UDP port that came or went.
struct Published {
    /// The host address it is published on; `None` for all.
    host: Option<Ipv4Addr>,
    first: u16,
    last: u16,
    container: Ipv4Addr,
}

fn published(op: &Op) -> Option<Published> {
    let Object::Element(Element { set, key, through, data }) = op.object() else { return None };
    if !set.is_port_map() || !key.contains(&Value::Protocol(Protocol::Udp)) {
        return None;
    }
    let port = |key: &[Value]| {
        key.iter().find_map(|value| match value {
            Value::Port(port) => Some(*port),
            Value::Link(_) | Value::Ipv4(_) | Value::Protocol(_) => None,
        })
    };
    let ip = |values: &[Value]| {
        values.iter().find_map(|value| match value {
            Value::Ipv4(address) => Some(*address),
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
    fn decides(&self, flow: &[u8], is_local: &dyn Fn(Ipv4Addr) -> bool) -> bool {
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
fn ends(tuple: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let ip = find(tuple, TUPLE_IP)?;
    let end = |which| Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(ip, which)?).ok()?));
    Some((end(1)?, end(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::policy::port_elements;
    use crate::model::PortRange;

    const HOST: [u8; 4] = [10, 99, 0, 1];

    fn element(protocol: Protocol, host: Ipv4Addr) -> Op {
        let published = crate::model::Published {
            protocol,
            host,
            host_ports: PortRange::single(5353).unwrap(),
            container_first: 53,
        };
        Op::Create(port_elements(&published, Ipv4Addr::new(172, 30, 1, 2)).remove(0))
    }

    fn udp(host: Ipv4Addr) -> Published {
        published(&element(Protocol::Udp, host)).unwrap()
    }

    #[track_caller]
    fn check(published: &Published, flow: &[u8], decided: bool) {
        assert_eq!(published.decides(flow, &|address| address.octets() == HOST), decided);
    }

    fn flow(from: [u8; 4], to: [u8; 4], port: u16, answers: ([u8; 4], [u8; 4])) -> Vec<u8> {
        let mut bytes = Writer::default();
        for (kind, (source, destination)) in [(ORIGINAL, (from, to)), (REPLY, answers)] {
            bytes.nested(kind, |tuple| {
                tuple.nested(TUPLE_IP, |ip| {
                    ip.bytes(1, &source);
                    ip.bytes(2, &destination);
                });
                tuple.nested(TUPLE_PROTOCOL, |protocol| protocol.bytes(3, &port.to_be_bytes()));
            });
        }
        bytes.into_bytes()
    }

    #[test]
    fn only_udp_ports_are_looked_at() {
        assert!(published(&element(Protocol::Tcp, Ipv4Addr::UNSPECIFIED)).is_none());
        let everywhere = udp(Ipv4Addr::UNSPECIFIED);
        assert_eq!((everywhere.first, everywhere.last, everywhere.host), (5353, 5353, None));
        assert_eq!(udp(HOST.into()).host, Some(HOST.into()));
    }

    #[test]
    fn flows_to_the_port_are_forgotten_and_those_passing_by_are_not() {
        let (client, web) = ([10, 99, 0, 2], [172, 30, 1, 2]);
        let (other, world) = ([172, 30, 2, 2], [9, 9, 9, 9]);
        for udp in [udp(Ipv4Addr::UNSPECIFIED), udp(HOST.into())] {
            check(&udp, &flow(client, HOST, 5353, (HOST, client)), true);
            check(&udp, &flow(client, HOST, 5353, (web, client)), true);
            check(&udp, &flow(client, HOST, 53, (HOST, client)), false);
            check(&udp, &flow(client, HOST, 53, (web, client)), false);
            check(&udp, &flow(client, HOST, 5353, (other, client)), false);
            check(&udp, &flow(other, world, 5353, (world, HOST)), false);
            // The host's own questions, and a neighbour's straight to the container.
            check(&udp, &flow(HOST, world, 5353, (world, HOST)), false);
            check(&udp, &flow(other, web, 5353, (web, other)), false);
            check(&udp, &[1, 2, 3], false);
        }
        // Another address of the host, where somebody else may have the port.
        let elsewhere = udp([127, 0, 0, 1].into());
        check(&elsewhere, &flow(client, HOST, 5353, (HOST, client)), false);
    }
}
