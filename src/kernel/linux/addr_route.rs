//! Addresses and routes, on the host and in sandboxes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use nix::errno::Errno;
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::seen::{OUR_ROUTES, SeenAddress};
use super::wire::{Mode, Request, Wire};
use crate::kernel::KernelError;
use crate::object::{Address, Route};

/// Adds an address; EEXIST where the link has it.
pub fn create_address(wire: &mut Wire, address: &Address) -> Result<(), KernelError> {
    let index = wire.index(address.link.as_str())?;
    let message = RouteNetlinkMessage::NewAddress(address_message(index, address.net));
    wire.send(vec![Request::new(message, Mode::Create)])
}

/// Removes an address; EADDRNOTAVAIL where the link has it not.
pub fn delete_address(wire: &mut Wire, address: &Address) -> Result<(), KernelError> {
    let link = wire.index(address.link.as_str())?;
    wire.send(vec![withdrawal(&SeenAddress { link, net: address.net })])
}

/// The message that removes an address.
pub fn withdrawal(address: &SeenAddress) -> Request {
    let message = RouteNetlinkMessage::DelAddress(address_message(address.link, address.net));
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

/// Adds a route; EEXIST where there is one to this destination.
pub fn create_route(wire: &mut Wire, route: &Route) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRoute(route_message(wire, route)?);
    wire.send(vec![Request::new(message, Mode::Create)])
        .map_err(|error| whose_route(wire, route, error))
}

/// EEXIST is said of any route to the destination: tells by which link that one leaves.
fn whose_route(wire: &mut Wire, route: &Route, mut error: KernelError) -> KernelError {
    if error.errno != Errno::EEXIST as i32 {
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
    wire.send(vec![Request::new(message, Mode::Replace)])
}

/// Removes a route; ESRCH where there is none.
pub fn delete_route(wire: &mut Wire, route: &Route) -> Result<(), KernelError> {
    let mut message = route_message(wire, route)?;
    // Whoever made it, and however.
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::NoWhere;
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
    // What was seen without a next hop is written back without one.
    if route.via.is_unspecified() {
        return Ok(message.scope(RouteScope::Link).build());
    }
    Ok(message.gateway(route.via).map_err(|error| invalid(&error))?.build())
}
