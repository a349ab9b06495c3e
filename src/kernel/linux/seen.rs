//! Links, addresses and routes as the kernel tells them: the attributes we need, nothing more.
//!
//! Total: a malformed or unknown attribute is passed over (uapi linux/if_link.h, if_addr.h,
//! rtnetlink.h).

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::MacAddr;
use crate::object::MARK_PREFIX;

/// IFLA_GROUP of links of ours ("na" in ASCII): says whose a link is before it has its alias.
pub const OUR_GROUP: u32 = 0x6e61;
/// IFLA_GROUP of links taken out of service, waiting to be deleted together.
pub const GARBAGE_GROUP: u32 = 0x6e67;
/// `rtm_protocol` of our routes: not assigned in `rt_protos` of iproute2 6.
pub const OUR_ROUTES: u8 = 110;

/// `ifa_proto` of our addresses on links of others: not assigned in uapi linux/if_addr.h. The
/// kernel keeps it from 5.18 on.
pub const OUR_ADDRESSES: u8 = 110;

/// IFF_UP.
const UP: u32 = 1;
/// RTN_UNICAST.
const UNICAST: u8 = 1;
/// RTN_LOCAL.
const TO_THIS_HOST: u8 = 2;
/// RT_TABLE_MAIN.
const MAIN: u32 = 254;
/// RT_TABLE_LOCAL.
const LOCAL: u32 = 255;
/// RTM_F_CLONED: a cache entry, not a route.
const CLONED: u32 = 0x200;

/// Attributes of links (uapi linux/if_link.h).
mod ifla {
    /// IFLA_ADDRESS.
    pub const ADDRESS: u16 = 1;
    /// IFLA_IFNAME.
    pub const NAME: u16 = 3;
    /// IFLA_MTU.
    pub const MTU: u16 = 4;
    /// IFLA_LINK: of a veth the other end.
    pub const LINK: u16 = 5;
    /// IFLA_MASTER.
    pub const MASTER: u16 = 10;
    /// IFLA_LINKINFO.
    pub const INFO: u16 = 18;
    /// IFLA_IFALIAS.
    pub const ALIAS: u16 = 20;
    /// IFLA_GROUP.
    pub const GROUP: u16 = 27;
    /// IFLA_LINK_NETNSID.
    pub const LINK_NETNSID: u16 = 37;

    /// IFLA_INFO_KIND.
    pub const INFO_KIND: u16 = 1;
    /// IFLA_INFO_DATA.
    pub const INFO_DATA: u16 = 2;
    /// IFLA_INFO_SLAVE_DATA.
    pub const INFO_PORT_DATA: u16 = 5;
    /// IFLA_BR_NF_CALL_IPTABLES.
    pub const BRIDGE_IPTABLES: u16 = 36;
    /// IFLA_BR_NF_CALL_IP6TABLES.
    pub const BRIDGE_IP6TABLES: u16 = 37;
    /// IFLA_BRPORT_MODE.
    pub const PORT_HAIRPIN: u16 = 4;
    /// IFLA_BRPORT_ISOLATED.
    pub const PORT_ISOLATED: u16 = 33;
}

/// Attributes of addresses (uapi linux/if_addr.h).
mod ifa {
    /// IFA_ADDRESS.
    pub const ADDRESS: u16 = 1;
    /// IFA_LOCAL.
    pub const LOCAL: u16 = 2;
    /// IFA_PROTO.
    pub const PROTOCOL: u16 = 11;
}

/// Attributes of routes (uapi linux/rtnetlink.h).
mod rta {
    /// RTA_DST.
    pub const DESTINATION: u16 = 1;
    /// RTA_OIF.
    pub const LINK: u16 = 4;
    /// RTA_GATEWAY.
    pub const GATEWAY: u16 = 5;
    /// RTA_MULTIPATH.
    pub const MULTIPATH: u16 = 9;
    /// RTA_TABLE.
    pub const TABLE: u16 = 15;
}
/// AF_INET (linux/socket.h).
const FAMILY_V4: u8 = 2;
/// AF_INET6.
const FAMILY_V6: u8 = 10;
/// NETNSA_NSID (uapi linux/net_namespace.h).
const NAMESPACE_NUMBER: u16 = 1;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenLink {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// IFLA_IFALIAS, empty where there is none.
    pub alias: String,
    /// IFLA_GROUP.
    pub group: u32,
    /// IFLA_MTU.
    pub mtu: u32,
    /// IFLA_ADDRESS, where it is an Ethernet address.
    pub mac: Option<MacAddr>,
    /// Index of the link it is a port of.
    pub master: Option<u32>,
    /// IFLA_INFO_KIND: `bridge`, `veth`; empty for hardware.
    pub kind: String,
    /// IFF_UP.
    pub up: bool,
    /// IFLA_BR_NF_CALL_IPTABLES.
    pub filter_bridged: bool,
    /// IFLA_BR_NF_CALL_IP6TABLES.
    pub filter_bridged_v6: bool,
    /// IFLA_BRPORT_MODE.
    pub hairpin: bool,
    /// IFLA_BRPORT_ISOLATED.
    pub isolated: bool,
    /// Index of a veth's other end, where that is in the same namespace.
    pub peer: Option<u32>,
    /// Index of the other end in another namespace, and the kernel's number for that (IFLA_LINK,
    /// IFLA_LINK_NETNSID).
    pub peer_elsewhere: Option<(u32, i32)>,
}

impl SeenLink {
    /// From the payload of RTM_NEWLINK.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut link = Self {
            index: u32_at(payload, 4)?,
            up: u32_at(payload, 8)? & UP != 0,
            ..Self::default()
        };
        let mut other_end = None;
        let mut elsewhere = None;
        for (kind, value) in attributes(payload.get(16..)?) {
            match kind {
                ifla::ADDRESS => link.mac = value.try_into().ok().and_then(MacAddr::new),
                ifla::NAME => link.name = text(value),
                ifla::MTU => link.mtu = u32_at(value, 0).unwrap_or_default(),
                ifla::LINK => other_end = u32_at(value, 0),
                ifla::MASTER => link.master = u32_at(value, 0).filter(|index| *index != 0),
                ifla::INFO => link.parse_info(value),
                ifla::ALIAS => link.alias = text(value),
                ifla::GROUP => link.group = u32_at(value, 0).unwrap_or_default(),
                ifla::LINK_NETNSID => elsewhere = u32_at(value, 0).map(u32::cast_signed),
                _ => {}
            }
        }
        link.peer = other_end.filter(|index| elsewhere.is_none() && *index != 0);
        link.peer_elsewhere = other_end.zip(elsewhere);
        Some(link)
    }

    /// IFLA_LINKINFO: kind, a bridge's data, a port's data.
    fn parse_info(&mut self, info: &[u8]) {
        for (kind, value) in attributes(info) {
            match kind {
                ifla::INFO_KIND => self.kind = text(value),
                ifla::INFO_DATA if self.kind == "bridge" => {
                    let is_on = |switch| attributes(value).any(|found| found == (switch, &[1]));
                    self.filter_bridged = is_on(ifla::BRIDGE_IPTABLES);
                    self.filter_bridged_v6 = is_on(ifla::BRIDGE_IP6TABLES);
                }
                ifla::INFO_PORT_DATA => {
                    for (kind, value) in attributes(value) {
                        match kind {
                            ifla::PORT_HAIRPIN => self.hairpin = value == [1],
                            ifla::PORT_ISOLATED => self.isolated = value == [1],
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether it carries our mark: the alias, or the group that it is born with.
    pub fn is_ours(&self) -> bool {
        self.is_marked() || matches!(self.group, OUR_GROUP | GARBAGE_GROUP)
    }

    /// Whether it carries our alias, as every finished link of ours does.
    pub fn is_marked(&self) -> bool {
        self.alias.starts_with(MARK_PREFIX) && self.group != GARBAGE_GROUP
    }
}

/// An address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenAddress {
    /// Index of its link.
    pub link: u32,
    /// Address and prefix length.
    pub net: IpNet,
    /// IFA_PROTO: who made it; 0 where nobody says.
    pub protocol: u8,
}

impl SeenAddress {
    /// From the payload of RTM_NEWADDR.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let prefix = *payload.get(1)?;
        let link = u32_at(payload, 4)?;
        let (mut address, mut local, mut protocol) = (None, None, 0);
        for (kind, value) in attributes(payload.get(8..)?) {
            match kind {
                ifa::ADDRESS => address = ip(value),
                ifa::LOCAL => local = ip(value),
                ifa::PROTOCOL => protocol = value.first().copied().unwrap_or_default(),
                _ => {}
            }
        }
        // On a point-to-point link IFA_ADDRESS is the other side's.
        let net = IpNet::new(local.or(address)?, prefix).ok()?;
        Some(Self { link, net, protocol })
    }

    /// Whether it carries our mark.
    pub fn is_ours(&self) -> bool {
        self.protocol == OUR_ADDRESSES
    }

    /// Whether the kernel made it by itself and for one link only: fe80::/10.
    pub fn is_link_local(&self) -> bool {
        is_link_local(self.net.addr())
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRoute {
    /// Its table.
    pub table: u32,
    /// `rtm_protocol`: who made it.
    pub protocol: u8,
    /// Whether packets are sent on, rather than refused.
    pub unicast: bool,
    /// Whether they are taken in by this host itself.
    pub to_this_host: bool,
    /// Where to; prefix length 0 for the default route.
    pub destination: IpNet,
    /// Next hop, where there is one.
    pub via: Option<IpAddr>,
    /// Indices of the links it leaves by.
    pub links: Vec<u32>,
}

impl SeenRoute {
    /// From the payload of RTM_NEWROUTE; `None` for what is no route to a net: cache entries,
    /// multicast and link-local destinations, and what of the local table is not ours.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let family = *payload.first()?;
        let prefix = *payload.get(1)?;
        let mut table = u32::from(*payload.get(4)?);
        if u32_at(payload, 8)? & CLONED != 0 {
            return None;
        }
        let mut destination = match family {
            FAMILY_V4 => IpAddr::from([0; 4]),
            FAMILY_V6 => IpAddr::from([0; 16]),
            _ => return None,
        };
        let mut via = None;
        let mut links = Vec::new();
        for (kind, value) in attributes(payload.get(12..)?) {
            match kind {
                rta::DESTINATION => destination = ip(value)?,
                rta::LINK => links.extend(u32_at(value, 0)),
                rta::GATEWAY => via = ip(value),
                rta::MULTIPATH => links.extend(next_hops(value)),
                rta::TABLE => table = u32_at(value, 0)?,
                _ => {}
            }
        }
        let protocol = *payload.get(5)?;
        let kept = table != LOCAL || protocol == OUR_ROUTES;
        let wanted = kept && !destination.is_multicast() && !is_link_local(destination);
        wanted.then_some(Self {
            table,
            protocol,
            unicast: *payload.get(7)? == UNICAST,
            to_this_host: *payload.get(7)? == TO_THIS_HOST,
            destination: IpNet::new(destination, prefix).ok()?,
            via,
            links,
        })
    }

    /// Whether it is a route of the main table that sends packets on.
    pub fn is_main(&self) -> bool {
        self.table == MAIN && self.unicast
    }

    /// Whether it is a route of ours by which this host takes packets in.
    pub fn is_our_local(&self) -> bool {
        self.table == LOCAL && self.to_this_host && self.protocol == OUR_ROUTES
    }

    /// Whether it is a default route.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

/// The number in an RTM_NEWNSID; `None` where none is assigned.
pub fn namespace_number(payload: &[u8]) -> Option<i32> {
    // struct rtgenmsg is one byte, padded.
    let mut attributes = attributes(payload.get(4..)?);
    let number = attributes
        .find_map(|(kind, value)| if kind == NAMESPACE_NUMBER { u32_at(value, 0) } else { None });
    number.map(u32::cast_signed).filter(|number| *number >= 0)
}

/// Links of RTA_MULTIPATH (struct rtnexthop: length, flags, hops, index).
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut links = Vec::new();
    while let (Some(length), Some(index)) = (u16_at(bytes, 0), u32_at(bytes, 4)) {
        links.push(index);
        bytes = bytes.get(usize::from(length.max(8)).next_multiple_of(4)..).unwrap_or_default();
    }
    links
}

/// The attributes in `bytes`, type without flags and value; ends at the first malformed one.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

fn text(value: &[u8]) -> String {
    let end = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(end).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_off_and_malformed_messages_are_no_panic() {
        let mut message = vec![0u8; 16];
        message.extend([8, 0, 4, 0, 0xdc, 5, 0, 0, 200, 0, 3, 0, b'x']);
        for end in 0..message.len() {
            let _ = SeenLink::parse(&message[..end]);
            let _ = SeenAddress::parse(&message[..end]);
            let _ = SeenRoute::parse(&message[..end]);
        }
        let link = SeenLink::parse(&message).unwrap();
        assert_eq!((link.mtu, link.name.as_str()), (1500, ""));
    }

    #[test]
    fn of_the_local_table_only_our_routes_are_seen() {
        // struct rtmsg of ::1/128, type local, and RTA_OIF.
        let route = |table: u32, protocol: u8| {
            let mut message = vec![10, 128, 0, 0, table as u8, protocol, 0, TO_THIS_HOST];
            message.extend([0; 4]);
            message.extend([20, 0, 1, 0]);
            message.extend(std::net::Ipv6Addr::LOCALHOST.octets());
            message.extend([8, 0, 4, 0, 7, 0, 0, 0]);
            SeenRoute::parse(&message)
        };
        let ours = route(LOCAL, OUR_ROUTES).unwrap();
        assert!(ours.is_our_local() && !ours.is_main());
        assert_eq!((ours.destination.to_string().as_str(), &*ours.links), ("::1/128", &[7][..]));
        assert_eq!(route(LOCAL, 2), None);
        assert!(!route(MAIN, OUR_ROUTES).unwrap().is_our_local());
    }

    #[test]
    fn a_link_in_the_garbage_is_ours_and_no_longer_marked() {
        let link = SeenLink {
            alias: format!("{MARK_PREFIX}a"),
            group: GARBAGE_GROUP,
            ..SeenLink::default()
        };
        assert!(link.is_ours() && !link.is_marked());
    }
}
