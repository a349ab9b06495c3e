//! Tells neighbours and the host itself that an address has another MAC address from now on.
//!
//! Frames go out of the bridge as if the container had sent them: each other port gets a copy, and
//! the bridge's own table learns nothing, since it learns from what comes in by a port. The host's
//! entry does not hear what the host sends, so it is written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily as RouteFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::wire::{Mode, Request, Wire};
use crate::kernel::{Announcement, KernelError};
use crate::model::MacAddr;

/// ETH_P_ARP (uapi linux/if_ether.h).
const ARP: [u8; 2] = [0x08, 0x06];
/// ETH_P_IPV6.
const IPV6: [u8; 2] = [0x86, 0xdd];
/// IPPROTO_ICMPV6 (uapi linux/in6.h).
const ICMPV6: u8 = 58;

/// A packet socket and the links that frames can leave by.
#[derive(Debug)]
pub struct Announcer {
    /// Opened once: closing one waits for a grace period, some 20 ms.
    socket: Option<OwnedFd>,
    links: BTreeMap<u32, LinkAddr>,
}

impl Announcer {
    /// With the links there are; none of them is used before something is announced.
    pub fn new() -> Self {
        let mut announcer = Self { socket: None, links: BTreeMap::new() };
        announcer.learn();
        announcer
    }

    /// Reads which links there are: a look at the whole host, made when a bridge comes so that no
    /// attach has to. Of nix, only `getifaddrs` makes the address of a link for a packet socket.
    pub fn learn(&mut self) {
        match getifaddrs() {
            Ok(found) => {
                let links = found.filter_map(|link| link.address?.as_link_addr().copied());
                let index = |link: &LinkAddr| u32::try_from(link.ifindex()).ok();
                self.links = links.filter_map(|link| Some((index(&link)?, link))).collect();
            }
            Err(error) => tracing::debug!(%error, "links are not listed"),
        }
    }

    /// Announces in both ways; one that fails does not keep the other.
    pub fn announce(&mut self, wire: &mut Wire, told: &Announcement) {
        let bridge = match wire.index(told.bridge.as_str()) {
            Ok(index) => index,
            Err(error) => return tracing::debug!(%error, "nobody is there to be told"),
        };
        for address in &told.addresses {
            tracing::debug!(bridge = %told.bridge, mac = %told.mac, %address, "announced");
            if let Err(error) = replace_entry(wire, bridge, told.mac, *address) {
                tracing::warn!(bridge = %told.bridge, %address, %error, "the host's entry stays");
            }
            if let Err(error) = self.send(bridge, &frame(told.mac, *address)) {
                tracing::warn!(bridge = %told.bridge, %address, %error, "neighbours are not told");
            }
        }
    }

    fn send(&mut self, bridge: u32, frame: &[u8]) -> Result<(), KernelError> {
        let refused = |errno: Errno| KernelError::new(errno as i32, "");
        if !self.links.contains_key(&bridge) {
            self.learn();
        }
        let to = *self.links.get(&bridge).ok_or_else(|| refused(Errno::ENODEV))?;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open().map_err(refused)?,
        };
        let sent = sendto(socket.as_raw_fd(), frame, &to, MsgFlags::empty());
        self.socket = Some(socket);
        sent.map(drop).map_err(refused)
    }
}

/// Without a protocol: nothing is received, so it costs the datapath nothing.
fn open() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Packet, SockType::Raw, flags, None)
}

/// Writes the host's own entry, if it has one. STALE: believed, and confirmed when it is used.
fn replace_entry(
    wire: &mut Wire,
    bridge: u32,
    mac: MacAddr,
    address: IpAddr,
) -> Result<(), KernelError> {
    let (family, destination) = match address {
        IpAddr::V4(address) => (RouteFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (RouteFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = bridge;
    message.header.state = NeighbourState::Stale;
    message.attributes = vec![
        NeighbourAttribute::Destination(destination),
        NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()),
    ];
    let request = Request::new(RouteNetlinkMessage::NewNeighbour(message), Mode::Overwrite);
    match wire.send(vec![request]) {
        Err(error) if error.errno == Errno::ENOENT as i32 => Ok(()),
        result => result,
    }
}

fn frame(mac: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_announcement(mac, address),
        IpAddr::V6(address) => neighbour_advertisement(mac, address),
    }
}

/// RFC 5227 section 3: a request whose sender and target are the announced address. Every kernel
/// overwrites what it has for the sender; `arp_accept` is about making new entries.
fn arp_announcement(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    /// Ethernet, IPv4, lengths 6 and 4, request (RFC 826).
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let (mac, address) = (mac.bytes(), address.octets());
    [&[0xff; 6][..], &mac, &ARP, &REQUEST, &mac, &address, &[0; 6], &address].concat()
}

/// RFC 4861 section 7.2.6: unsolicited, to all nodes, with the Override flag.
fn neighbour_advertisement(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    /// 33:33 and the low 32 bits of ff02::1 (RFC 2464 section 7).
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    /// Type 136, code 0, before the checksum.
    const ADVERTISEMENT: [u8; 2] = [136, 0];
    /// After it: Override.
    const FLAGS: [u8; 4] = [0x20, 0, 0, 0];
    /// Target link-layer address, one unit of 8 bytes.
    const TARGET_MAC: [u8; 2] = [2, 1];
    /// Packets that a router sent on have less, and are not believed.
    const HOP_LIMIT: u8 = 255;
    let (mac, source, all) = (mac.bytes(), address.octets(), ALL_NODES.octets());
    let rest = [&FLAGS[..], &source, &TARGET_MAC, &mac].concat();
    let length = [0, 32];
    let pseudo = [&source[..], &all, &[0, 0], &length, &[0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo[..], &ADVERTISEMENT, &rest].concat());
    let header = [&[0x60, 0, 0, 0][..], &length, &[ICMPV6, HOP_LIMIT], &source, &all].concat();
    [&ALL_NODES_MAC[..], &mac, &IPV6, &header, &ADVERTISEMENT, &sum, &rest].concat()
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).filter_map(|word| word.try_into().ok());
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [_, _, high, low] = (!folded).to_be_bytes();
    [high, low]
}
