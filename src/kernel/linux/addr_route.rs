//! Addresses and routes, on the host and in sandboxes.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use nix::errno::Errno;
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::seen::{OUR_ADDRESSES, OUR_ROUTES, SeenLink};
use super::sysctl;
use super::wire::{Mode, Request, Wire, no_such_link};
use crate::kernel::KernelError;
use crate::object::{Address, Hop, Netns, Route};

/// Metric of the routes that the kernel makes for the subnets of IPv6 addresses (IP6_RT_PRIO_ADDRCONF
/// in net/ip6_route.h).
const PREFIX_ROUTE: u32 = 256;

/// RT_TABLE_LOCAL (uapi linux/rtnetlink.h).
const LOCAL_TABLE: u32 = 255;

/// Adds an address; EEXIST where the link has it. On a link of others' it carries our mark.
pub fn create_address(wire: &mut Wire, address: &Address) -> Result<(), KernelError> {
    let link = needed(wire, address)?;
    let mut message = address_message(link.index, address.net);
    if address.netns != Netns::Host || link.is_ours() {
        return wire.send(vec![added(message)]);
    }
    message.attributes.push(AddressAttribute::Protocol(OUR_ADDRESSES.into()));
    let IpNet::V6(net) = address.net else { return wire.send(vec![added(message)]) };
    // Deprecated, or the host might take it instead of its own when it sends by this link
    // (RFC 6724, section 5); but for the subnet itself, whose hosts may know no other way back.
    let mut life = CacheInfo::default();
    life.ifa_valid = u32::MAX;
    message.attributes.push(AddressAttribute::CacheInfo(life));
    wire.send(vec![added(message)])?;
    let route = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(net.network(), net.prefix_len())
        .output_interface(link.index)
        .pref_source(net.addr())
        .priority(PREFIX_ROUTE)
        .protocol(RouteProtocol::Kernel)
        .build();
    // It goes with the address, as the one that it replaces would.
    wire.send(vec![Request::new(RouteNetlinkMessage::NewRoute(route), Mode::Replace)])
}

fn added(message: AddressMessage) -> Request {
    Request::new(RouteNetlinkMessage::NewAddress(message), Mode::Create)
}

/// Removes an address; EADDRNOTAVAIL where the link has it not.
pub fn delete_address(wire: &mut Wire, address: &Address) -> Result<(), KernelError> {
    let link = needed(wire, address)?;
    let remove = withdrawal(link.index, address.net);
    match address.netns == Netns::Host && !link.is_ours() {
        true => keeping_others(wire, &link, address, remove),
        false => wire.send(vec![remove]),
    }
}

/// Without promotion the kernel takes all later addresses of a subnet along with its first one, and
/// routes with them. Those come back in the same system call, which is performed whole even where
/// we are killed; meanwhile each is also there with a prefix of its own, so that no route goes that
/// names it.
fn keeping_others(
    wire: &mut Wire,
    link: &SeenLink,
    address: &Address,
    remove: Request,
) -> Result<(), KernelError> {
    let promotes =
        |name: &str| sysctl::host_is_on(&format!("net/ipv4/conf/{name}/promote_secondaries"));
    let net = match address.net {
        IpNet::V4(net) if !promotes("all") && !promotes(&link.name) => net,
        IpNet::V4(_) | IpNet::V6(_) => return wire.send(vec![remove]),
    };
    let (mut going, mut alone) = (Vec::new(), BTreeSet::new());
    for message in wire.address_messages()? {
        let Some(other) = local_v4(&message).filter(|_| message.header.index == link.index) else {
            continue;
        };
        let header = &message.header;
        let later = header.flags.contains(AddressHeaderFlags::Secondary) && other != net.addr();
        if header.prefix_len == 32 {
            alone.insert(other);
        } else if later && header.prefix_len == net.prefix_len() && net.contains(&other) {
            going.push((other, message));
        }
    }
    let whole = going.iter().map(|(other, _)| Ipv4Net::from(*other));
    let stand_ins: Vec<Ipv4Net> = whole.filter(|net| !alone.contains(&net.addr())).collect();
    let mut requests: Vec<Request> =
        stand_ins.iter().map(|net| added(address_message(link.index, (*net).into()))).collect();
    requests.push(remove);
    requests.extend(going.into_iter().map(|(_, message)| {
        // It is there still where ours was not the first.
        Request::new(RouteNetlinkMessage::NewAddress(message), Mode::Replace)
    }));
    requests.extend(stand_ins.into_iter().map(|net| withdrawal(link.index, net.into())));
    wire.send(requests)
}

/// The address itself, which on a point-to-point link is not IFA_ADDRESS.
fn local_v4(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| {
        let AddressAttribute::Local(IpAddr::V4(local)) = attribute else { return None };
        Some(*local)
    })
}

fn needed(wire: &mut Wire, address: &Address) -> Result<SeenLink, KernelError> {
    let name = address.link.as_str();
    wire.link(name)?.ok_or_else(|| no_such_link(name))
}

/// The message that removes an address.
pub fn withdrawal(link: u32, net: IpNet) -> Request {
    let message = RouteNetlinkMessage::DelAddress(address_message(link, net));
    Request::new(message, Mode::Existing)
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(net.addr(), net.prefix_len())
                .build();
            // We give each address once; waiting a second for duplicates would only make a new
            // container's first packets fail.
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
        }
    }
}

/// Adds a route; EEXIST where there is one to this destination, for a local one by this link.
pub fn create_route(wire: &mut Wire, route: &Route) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRoute(route_message(wire, route)?);
    let mode = match route.hop {
        Hop::Via(_) => Mode::Create,
        Hop::Local => BESIDE_OTHERS,
    };
    wire.send(vec![Request::new(message, mode)]).map_err(|error| whose_route(wire, route, error))
}

/// An address that is local to several links needs a route for each of them. They do not stand in
/// for each other: ::1 is looked up for the link that a packet came in by.
const BESIDE_OTHERS: Mode = Mode::Append;

/// EEXIST is said of any route to the destination: tells by which link that one leaves.
fn whose_route(wire: &mut Wire, route: &Route, mut error: KernelError) -> KernelError {
    if error.errno != Errno::EEXIST as i32 || route.hop == Hop::Local {
        return error;
    }
    let routes = wire.routes().unwrap_or_default();
    let destination = route.destination.trunc();
    let there = routes.iter().find(|there| there.is_main() && there.destination == destination);
    let index = there.and_then(|there| there.links.first());
    let link = index.and_then(|index| wire.link_at(*index).ok().flatten());
    if let Some(link) = link {
        error.text = format!("there is a route to {destination} by link \"{}\"", link.name);
    }
    error
}

/// Puts a route in the place of the one to its destination.
pub fn change_route(wire: &mut Wire, route: &Route) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRoute(route_message(wire, route)?);
    let mode = match route.hop {
        Hop::Via(_) => Mode::Replace,
        // It would take the place of another link's.
        Hop::Local => BESIDE_OTHERS,
    };
    wire.send(vec![Request::new(message, mode)])
}

/// Removes a route; ESRCH where there is none.
pub fn delete_route(wire: &mut Wire, route: &Route) -> Result<(), KernelError> {
    let mut message = route_message(wire, route)?;
    if route.hop != Hop::Local {
        // Whoever made it, and however. What the kernel itself has in the local table must stay.
        message.header.protocol = RouteProtocol::Unspec;
        message.header.scope = RouteScope::NoWhere;
    }
    wire.send(vec![Request::new(RouteNetlinkMessage::DelRoute(message), Mode::Existing)])
}

fn route_message(wire: &mut Wire, route: &Route) -> Result<RouteMessage, KernelError> {
    let index = wire.index(route.link.as_str())?;
    let invalid =
        |error: &dyn std::fmt::Display| KernelError::new(Errno::EINVAL as i32, format!("{error}"));
    let destination = route.destination.trunc();
    let message = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination.addr(), destination.prefix_len())
        .map_err(|error| invalid(&error))?
        .output_interface(index)
        .protocol(RouteProtocol::Other(OUR_ROUTES));
    match route.hop {
        Hop::Local => {
            Ok(message.table_id(LOCAL_TABLE).kind(RouteType::Local).scope(RouteScope::Host).build())
        }
        // What was seen without a next hop is written back without one.
        Hop::Via(via) if via.is_unspecified() => Ok(message.scope(RouteScope::Link).build()),
        Hop::Via(via) => Ok(message.gateway(via).map_err(|error| invalid(&error))?.build()),
    }
}
