//! Which host ports an endpoint gets: fixed ones as they are, the others the first that are free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::index::PortIndex;
use crate::driver;
use crate::model::{
    EndpointId, EndpointSpec, Error, Family, HostAddress, NetworkSpec, PortRange, PortRequest,
    Protocol, Published, Result, unfit_for_host,
};

/// What has been found taken on the host while choosing.
pub(in crate::engine) type Refused = BTreeSet<(Protocol, u16)>;

/// One container port that gets one host port, the same on several addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wish {
    pub(super) protocol: Protocol,
    pub(super) container: u16,
    /// One of these, or an ephemeral one.
    pub(super) host_ports: Option<PortRange>,
    /// No two of them meet.
    pub(super) hosts: Vec<HostAddress>,
}

impl Wish {
    /// The only host port that will do.
    pub(super) fn fixed(&self) -> Option<u16> {
        self.host_ports.filter(|ports| ports.count() == 1).map(PortRange::first)
    }

    /// What it is with this host port.
    pub(super) fn at(&self, port: u16) -> Vec<Published> {
        let Some(host_ports) = PortRange::single(port) else { return Vec::new() };
        let published = |host: &HostAddress| Published {
            protocol: self.protocol,
            host: *host,
            host_ports,
            container_first: self.container,
        };
        self.hosts.iter().map(published).collect()
    }
}

/// What to bind for the ports that an endpoint asks for. Requests that differ only by their host
/// address get the same host port, as Docker does it.
pub(super) fn wishes(
    network: &NetworkSpec,
    endpoint: &EndpointSpec,
    asked: &[PortRequest],
) -> Result<Vec<Wish>> {
    let mut wishes: BTreeMap<(Protocol, u16, Option<PortRange>), Vec<Wish>> = BTreeMap::new();
    for request in asked {
        let Some(host) = binding(network, endpoint, request)? else { continue };
        let PortRequest { protocol, container, host_ports, .. } = *request;
        let same = wishes.entry((protocol, container, host_ports)).or_default();
        let fits = |wish: &&mut Wish| wish.hosts.iter().all(|other| !host.meets(*other));
        match same.iter_mut().find(fits) {
            Some(wish) => wish.hosts.push(host),
            None => same.push(Wish { protocol, container, host_ports, hosts: vec![host] }),
        }
    }
    Ok(wishes.into_values().flatten().collect())
}

/// Where a request is bound on the host; `None` where its family is routed.
fn binding(
    network: &NetworkSpec,
    endpoint: &EndpointSpec,
    request: &PortRequest,
) -> Result<Option<HostAddress>> {
    let has = |family| endpoint.addresses().any(|address| Family::of(address) == family);
    let translated = |family| has(family) && driver::translates(network, family);
    let host = request.host.map_or_else(|| driver::host_binding(network), HostAddress::At);
    let address = match host {
        HostAddress::Any => {
            return Ok(match (translated(Family::V4), translated(Family::V6)) {
                (true, true) => Some(HostAddress::Any),
                (true, false) => Some(HostAddress::ANY_V4),
                (false, true) => Some(HostAddress::ANY_V6),
                (false, false) => None,
            });
        }
        HostAddress::At(address) => address,
    };
    let family = Family::of(address);
    if !has(family) {
        return Err(Error::usage(
            format!("host address {address}"),
            format!("the endpoint has no {family} address to lead it to"),
        )
        .advise(format!("enable {family} on the network, or publish on another address")));
    }
    match translated(family) {
        true => check_host(address).map(|()| Some(host)),
        false => Ok(None),
    }
}

/// Refuses what no port can be bound to.
fn check_host(address: IpAddr) -> Result<()> {
    match unfit_for_host(address) {
        Some(why) => Err(Error::usage(format!("host address {address}"), why)),
        None => Ok(()),
    }
}

/// The single ports chosen so far; asked once a port, so answered without going through them.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    ports: Vec<Published>,
    hosts: BTreeMap<(Protocol, u16), Vec<HostAddress>>,
}

impl Chosen {
    pub(super) fn push(&mut self, wish: &Wish, port: u16) {
        let hosts = self.hosts.entry((wish.protocol, port)).or_default();
        hosts.extend(&wish.hosts);
        self.ports.extend(wish.at(port));
    }

    /// Whether one of them meets these: a wildcard meets every address.
    pub(super) fn meets(&self, protocol: Protocol, hosts: &[HostAddress], port: u16) -> bool {
        let there = self.hosts.get(&(protocol, port)).into_iter().flatten();
        there.into_iter().any(|other| hosts.iter().any(|host| host.meets(*other)))
    }

    /// All of them, consecutive ones that lead to consecutive ports joined.
    pub(super) fn into_blocks(self) -> Vec<Published> {
        coalesce(self.ports)
    }
}

/// What is free for an endpoint.
pub(super) struct Free<'a> {
    pub(super) index: &'a PortIndex,
    pub(super) endpoint: EndpointId,
    pub(super) ephemeral: (u16, u16),
    pub(super) refused: &'a Refused,
}

impl Free<'_> {
    /// Whether nobody has the port where the wish needs it.
    pub(super) fn is_free(&self, wish: &Wish, port: u16, chosen: &Chosen) -> bool {
        let Some(single) = PortRange::single(port) else { return false };
        let others = |host: &HostAddress| {
            let mut owners = self.index.owners(wish.protocol, *host, single);
            owners.any(|owner| owner != self.endpoint)
        };
        !self.refused.contains(&(wish.protocol, port))
            && !chosen.meets(wish.protocol, &wish.hosts, port)
            && !wish.hosts.iter().any(others)
    }

    /// A port for a wish that leaves a choice: the first free of its range, or the next ephemeral
    /// one behind that given out last, as Docker does.
    pub(super) fn choose(&self, wish: &Wish, chosen: &Chosen) -> Result<u16> {
        let free = |port: &u16| self.is_free(wish, *port, chosen);
        let host = wish.hosts.first().map_or_else(String::new, ToString::to_string);
        if let Some(ports) = wish.host_ports {
            return ports.iter().find(free).ok_or_else(|| {
                Error::conflict(
                    format!("port {host}:{ports}/{}", wish.protocol),
                    "every port of the range is taken",
                )
            });
        }
        let (low, high) = self.ephemeral;
        let start = self.index.cursor.clamp(low.saturating_sub(1), high).saturating_add(1);
        (start..=high).chain(low..start.min(high)).find(free).ok_or_else(|| {
            Error::unavailable(
                format!("an ephemeral {} port", wish.protocol),
                format!("all of {low}-{high} are taken"),
            )
            .advise("widen net.ipv4.ip_local_port_range")
        })
    }
}

/// Joins consecutive ports that lead to consecutive ports.
fn coalesce(mut ports: Vec<Published>) -> Vec<Published> {
    ports.sort_unstable();
    let mut joined: Vec<Published> = Vec::new();
    for port in ports {
        if let Some(last) = joined.last_mut()
            && (last.protocol, last.host) == (port.protocol, port.host)
            && last.host_ports.last().checked_add(1) == Some(port.host_ports.first())
            && last.container_ports().last().checked_add(1) == Some(port.container_first)
            && let Some(longer) = PortRange::new(last.host_ports.first(), port.host_ports.last())
        {
            last.host_ports = longer;
            continue;
        }
        joined.push(port);
    }
    joined
}
