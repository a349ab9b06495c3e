//! Bridges and veth pairs: made, changed, taken out of service.
//!
//! A link that is not ours is never changed and never deleted, whatever its name.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::Path;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkMessage,
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::addr_route;
use super::garbage::Garbage;
use super::netns::{self, Wires};
use super::seen::{GARBAGE_GROUP, OUR_GROUP, SeenLink};
use super::sysctl;
use super::wire::{Mode, Request, Wire, no_such_link};
use crate::kernel::KernelError;
use crate::model::LinkName;
use crate::object::{Link, LinkKind, MARK_PREFIX, Netns, Peer};

/// Makes a link, ready for use: up, and a port of its bridge.
pub fn create(wires: &mut Wires<'_>, link: &Link) -> Result<(), KernelError> {
    match &link.kind {
        LinkKind::Bridge { filter_bridged } => {
            create_bridge(wires.of(&link.netns)?, link, *filter_bridged)
        }
        LinkKind::Veth { peer: Peer::Elsewhere, .. } => Err(KernelError::new(
            Errno::EOPNOTSUPP as i32,
            "its other end is in a container: the pair can be seen and deleted, not made",
        )),
        LinkKind::Veth { peer: Peer::At { netns, name, mac, sysctls }, isolated } => {
            let end = PeerEnd { netns, name, mac: mac.bytes(), sysctls };
            create_veth(wires, link, &end, *isolated)
        }
    }
}

/// The other end of a pair that is to be made.
struct PeerEnd<'a> {
    netns: &'a Netns,
    name: &'a LinkName,
    mac: [u8; 6],
    sysctls: &'a BTreeMap<String, String>,
}

fn new_link(message: LinkMessage, mode: Mode) -> Request {
    Request::new(RouteNetlinkMessage::NewLink(message), mode)
}

fn set_link(message: LinkMessage) -> Request {
    Request::new(RouteNetlinkMessage::SetLink(message), Mode::Existing)
}

fn create_bridge(wire: &mut Wire, link: &Link, filter: bool) -> Result<(), KernelError> {
    let mut bridge = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge)
        .name(link.name.to_string())
        .link_group(OUR_GROUP)
        .up();
    if let Some(mac) = link.mac {
        bridge = bridge.address(mac.bytes().to_vec());
    }
    if filter {
        bridge = bridge.set_info_data(filter_bridged(true));
    }
    wire.send(vec![new_link(bridge.build(), Mode::Create)])?;
    // A bridge whose MTU came with its creation takes that of its lowest port, and 1500 when it
    // loses the last one; an MTU that is set afterwards stays.
    let finish = LinkUnspec::new_with_name(link.name.as_str())
        .mtu(link.mtu.bytes())
        .alias(link.alias.clone());
    wire.send(vec![set_link(finish.build())])
}

fn filter_bridged(on: bool) -> InfoData {
    InfoData::Bridge(vec![InfoBridge::NfCallIpTables(on), InfoBridge::NfCallIp6Tables(on)])
}

/// One message makes the pair, each end in its namespace. The second, which names the host end,
/// waits for the first to succeed: the kernel goes on after a refusal, and with a foreign link of
/// that name it would mark that one as ours.
fn create_veth(
    wires: &mut Wires<'_>,
    link: &Link,
    end: &PeerEnd<'_>,
    isolated: bool,
) -> Result<(), KernelError> {
    let mut peer = LinkUnspec::new_with_name(end.name.as_str())
        .address(end.mac.to_vec())
        .mtu(link.mtu.bytes());
    let file = match end.netns {
        Netns::Host => None,
        Netns::Path(path) => Some(netns::open(path)?),
    };
    match &file {
        Some(file) => peer = peer.setns_by_fd(file.as_raw_fd()),
        None => peer = peer.link_group(OUR_GROUP),
    }
    let wire = wires.of(&link.netns)?;
    let mut pair = LinkVeth::new(link.name.as_str(), end.name.as_str())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
        .mtu(link.mtu.bytes())
        .link_group(OUR_GROUP)
        .up();
    if let Some(mac) = link.mac {
        pair = pair.address(mac.bytes().to_vec());
    }
    if let Some(master) = &link.master {
        pair = pair.controller(wire.index(master.as_str())?);
    }
    wire.send(vec![new_link(pair.build(), Mode::Create)])
        .map_err(|error| whose_name(wire, link, end, error))?;
    let mut finish = LinkUnspec::new_with_name(link.name.as_str()).alias(link.alias.clone());
    if link.master.is_some() {
        finish = finish.set_port_kind(InfoPortKind::Bridge).set_port_data(port(isolated, false));
    }
    if link.netns == Netns::Host && has_ipv6(&link.name) {
        finish = finish.append_extra_attribute(no_address_generation());
    }
    wire.send(vec![new_link(finish.build(), Mode::Existing)])?;
    if file.is_none() {
        return Ok(());
    }
    // Before it is up: a link without IPv6 never has an address of it, not for a moment.
    let sandbox = match wires.after(end.netns, || sysctl::write_all(end.sysctls)) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            // The other end has no mark yet by which its name could be freed later.
            let half = LinkUnspec::new_with_name(link.name.as_str()).build();
            let delete = Request::new(RouteNetlinkMessage::DelLink(half), Mode::Existing);
            wires.of(&link.netns)?.send(vec![delete])?;
            return Err(error);
        }
    };
    let up = |name: &str| LinkUnspec::new_with_name(name).up();
    sandbox.send(vec![
        set_link(up("lo").build()),
        set_link(up(end.name.as_str()).alias(link.alias.clone()).build()),
    ])
}

/// EEXIST is said of either end: tells which one's name is taken.
fn whose_name(
    wire: &mut Wire,
    link: &Link,
    end: &PeerEnd<'_>,
    mut error: KernelError,
) -> KernelError {
    let mut host_end_is_free = || matches!(wire.link(link.name.as_str()), Ok(None));
    if error.errno == Errno::EEXIST as i32 && error.text.is_empty() {
        error.text = match host_end_is_free() {
            true => format!("netns {} has a link \"{}\"", end.netns, end.name),
            false => format!("there is a link \"{}\"", link.name),
        };
    }
    error
}

/// Hairpin always (a container reaches its own published port); isolation only where it is asked
/// for or was there, since an old kernel does not know the attribute.
fn port(isolated: bool, was_isolated: bool) -> InfoPortData {
    let mut data = vec![InfoBridgePort::HairpinMode(true)];
    if isolated || was_isolated {
        data.push(InfoBridgePort::Isolated(isolated));
    }
    InfoPortData::BridgePort(data)
}

/// The host end needs no address, and its link-local one would cost every neighbour a multicast
/// report. Absent where the host has no IPv6 or the MTU is below 1280.
fn has_ipv6(link: &LinkName) -> bool {
    Path::new("/proc/sys/net/ipv6/conf").join(link.as_str()).exists()
}

fn no_address_generation() -> LinkAttribute {
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])])
}

/// Makes what is there what it shall be.
pub fn change(wires: &mut Wires<'_>, garbage: &mut Garbage, to: &Link) -> Result<(), KernelError> {
    let wire = wires.of(&to.netns)?;
    let seen = ours(wire, &to.name)?;
    let kind = match to.kind {
        LinkKind::Bridge { .. } => "bridge",
        LinkKind::Veth { .. } => "veth",
    };
    if seen.kind != kind {
        delete(wires, garbage, to)?;
        return create(wires, to);
    }
    if kind == "veth" && seen.mtu != to.mtu.bytes() {
        set_other_end(wires, &seen, to.mtu.bytes())?;
        let changed = change_this_end(wires, &seen, to);
        if changed.is_err() {
            // This end's refusal is what counts; if the other is refused too, it has ended.
            let _ = set_other_end(wires, &seen, seen.mtu);
        }
        return changed;
    }
    change_this_end(wires, &seen, to)
}

/// Gives a veth's other end its MTU, wherever it is. One that cannot be found keeps the one it has.
fn set_other_end(wires: &mut Wires<'_>, seen: &SeenLink, mtu: u32) -> Result<(), KernelError> {
    match other_end(wires, seen)? {
        Some((wire, index)) => {
            wire.send(vec![set_link(LinkUnspec::new_with_index(index).mtu(mtu).build())])
        }
        None => {
            tracing::warn!(link = seen.name, mtu, "its other end is not found and keeps its MTU");
            Ok(())
        }
    }
}

/// The socket and index of a veth's other end.
fn other_end<'a>(
    wires: &'a mut Wires<'_>,
    seen: &SeenLink,
) -> Result<Option<(&'a mut Wire, u32)>, KernelError> {
    if let Some(index) = seen.peer {
        return Ok(Some((wires.host(), index)));
    }
    let Some((index, netns)) = seen.peer_elsewhere else { return Ok(None) };
    let Some(wire) = wires.numbered(netns)? else { return Ok(None) };
    // A number is given again when its namespace has ended, and another one's link can have the
    // same index: it is the other end only if it leads back, and to this very namespace.
    let back = wire.link_at(index)?.filter(|peer| peer.kind == "veth");
    let Some((back, there)) = back.and_then(|peer| peer.peer_elsewhere) else { return Ok(None) };
    let host = wire.number_of(&netns::current()?)?;
    let leads_back = back == seen.index && host == Some(there);
    Ok(leads_back.then_some((wire, index)))
}

/// Whether a veth's other end can be found.
pub fn reaches_other_end(wires: &mut Wires<'_>, name: &LinkName) -> bool {
    let Ok(Some(seen)) = wires.host().link(name.as_str()) else { return false };
    matches!(other_end(wires, &seen), Ok(Some(_)))
}

fn change_this_end(wires: &mut Wires<'_>, seen: &SeenLink, to: &Link) -> Result<(), KernelError> {
    let wire = wires.of(&to.netns)?;
    let mut message = LinkUnspec::new_with_index(seen.index).up();
    if seen.mtu != to.mtu.bytes() {
        message = message.mtu(to.mtu.bytes());
    }
    if seen.alias != to.alias {
        message = message.alias(to.alias.clone());
    }
    if let Some(mac) = to.mac.filter(|mac| seen.mac != Some(*mac)) {
        message = message.address(mac.bytes().to_vec());
    }
    let master = match &to.master {
        None => None,
        Some(master) => Some(wire.index(master.as_str())?),
    };
    if seen.master != master {
        message = message.controller(master.unwrap_or(0));
    }
    let mut requests = vec![set_link(message.build())];
    let more = LinkUnspec::new_with_index(seen.index);
    match &to.kind {
        LinkKind::Bridge { filter_bridged: wanted } if *wanted != seen.filter_bridged => {
            let mut more = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Bridge);
            more = more.index(seen.index).set_info_data(filter_bridged(*wanted));
            requests.push(new_link(more.build(), Mode::Existing));
        }
        LinkKind::Bridge { .. } => {}
        LinkKind::Veth { isolated, .. } if master.is_some() => {
            let more = more
                .set_port_kind(InfoPortKind::Bridge)
                .set_port_data(port(*isolated, seen.isolated));
            requests.push(new_link(more.build(), Mode::Existing));
        }
        LinkKind::Veth { .. } => {}
    }
    wire.send(requests)
}

/// The link of this name; ENODEV where there is none, EPERM where it is not ours.
fn ours(wire: &mut Wire, name: &LinkName) -> Result<SeenLink, KernelError> {
    let seen = wire.link(name.as_str())?.ok_or_else(|| no_such_link(name.as_str()))?;
    if seen.is_ours() {
        return Ok(seen);
    }
    let text = format!("link \"{name}\" is foreign: its alias does not begin with {MARK_PREFIX}");
    Err(KernelError::new(Errno::EPERM as i32, text))
}

/// Takes a link out of service and leaves the wait for its end to the garbage collector: it is
/// down, without addresses and out of its bridge, and its name and its other end's are free.
pub fn delete(
    wires: &mut Wires<'_>,
    garbage: &mut Garbage,
    link: &Link,
) -> Result<(), KernelError> {
    let wire = wires.of(&link.netns)?;
    let seen = ours(wire, &link.name)?;
    if link.netns != Netns::Host {
        let message = LinkUnspec::new_with_index(seen.index).build();
        let delete = Request::new(RouteNetlinkMessage::DelLink(message), Mode::Existing);
        return wire.send(vec![delete]);
    }
    let mut belongings = Vec::new();
    // A port of ours has no address; a bridge that is only down would still answer for its own.
    if seen.master.is_none() {
        let addresses = wire.addresses()?;
        let own = addresses.iter().filter(|address| address.link == seen.index);
        belongings.extend(own.map(|own| addr_route::withdrawal(own.link, own.net)));
    }
    let shelve = |index: u32| LinkUnspec::new_with_index(index).name(shelved_name(index));
    // Renaming a link that is up needs Linux 6.2, hence two messages.
    if let Some(peer) = seen.peer {
        belongings.push(set_link(LinkUnspec::new_with_index(peer).down().build()));
        belongings.push(set_link(shelve(peer).build()));
    }
    if !belongings.is_empty() {
        // An address may have gone with another, the peer may have been taken by dockerd just now:
        // what counts is that the link itself goes.
        let _ = wire.send(belongings);
    }
    // The group comes first: what is announced from here on is garbage's, and wakes nobody.
    let mut down = LinkUnspec::new_with_index(seen.index).link_group(GARBAGE_GROUP).down();
    if seen.master.is_some() {
        down = down.nocontroller();
    }
    wire.send(vec![set_link(down.build())])?;
    match wire.send(vec![set_link(shelve(seen.index).build())]) {
        // The collector, called for another link, was faster.
        Err(error) if error.errno == Errno::ENODEV as i32 => {}
        shelved => shelved?,
    }
    garbage.put();
    if let LinkKind::Veth { peer: Peer::At { netns: netns @ Netns::Path(_), name, .. }, .. } =
        &link.kind
    {
        shelve_in_sandbox(wires, netns, name, &seen.alias)?;
    }
    Ok(())
}

/// Frees the other end's name in its sandbox, where the pair is still there to be found.
fn shelve_in_sandbox(
    wires: &mut Wires<'_>,
    netns: &Netns,
    name: &LinkName,
    alias: &str,
) -> Result<(), KernelError> {
    let wire = match wires.of(netns) {
        Ok(wire) => wire,
        Err(error) if netns::is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(peer) = wire.link(name.as_str())?.filter(|peer| peer.alias == alias) else {
        return Ok(());
    };
    let shelved = LinkUnspec::new_with_index(peer.index).name(shelved_name(peer.index));
    let shelved = wire.send(vec![
        set_link(LinkUnspec::new_with_index(peer.index).down().build()),
        set_link(shelved.build()),
    ]);
    match shelved {
        // The collector was faster.
        Err(error) if error.errno == Errno::ENODEV as i32 => Ok(()),
        other => other,
    }
}

/// Unique in a namespace, as the index is; at most 12 bytes.
fn shelved_name(index: u32) -> String {
    format!("nag-{index:x}")
}
