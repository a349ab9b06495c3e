//! What planning must know of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipnet::IpNet;

use super::accept::Available;
use super::seen::{SeenAddress, SeenLink, SeenRoute};
use super::sysctl;
use super::wire::Wire;
use crate::kernel::KernelError;
use crate::model::{Facts, ForeignBridge, LinkName, Mark, Mtu, Uplink};

/// The kernel's own default (net/ipv4/af_inet.c), where the sysctl cannot be read.
const EPHEMERAL_PORTS: (u16, u16) = (32768, 60999);

/// RTPROT_RA (uapi linux/rtnetlink.h): learned from a router's advertisement.
const FROM_ROUTER: u8 = 9;

/// Reads the host.
pub fn read(wire: &mut Wire, mark: Mark, iptables: Available) -> Result<Facts, KernelError> {
    let links: BTreeMap<u32, SeenLink> =
        wire.links()?.into_iter().map(|link| (link.index, link)).collect();
    let routes = wire.routes()?;
    let mut addresses = wire.addresses()?;
    addresses.retain(|address| !address.is_ours());
    let taken = taken(&links, &routes, &addresses);
    let exists = |key: &str| Path::new("/proc/sys").join(key).exists();
    Ok(Facts {
        default_mtu: default_mtu(&links, &routes),
        uplinks: uplinks(&links, &routes),
        router: sysctl::host_is_on("net/ipv4/ip_forward"),
        router_v6: sysctl::host_is_on("net/ipv6/conf/all/forwarding"),
        bridge_netfilter: exists("net/bridge/bridge-nf-call-iptables"),
        force_forwarding: exists("net/ipv6/conf/all/force_forwarding"),
        ipv6: sysctl::host_has_ipv6(),
        bridged_v6_filtered: sysctl::host_is_on("net/bridge/bridge-nf-call-ip6tables"),
        iptables: iptables.v4,
        ip6tables: iptables.v6,
        mark,
        foreign_links: links
            .values()
            .filter(|link| !link.is_ours())
            .filter_map(|link| {
                let name = link.name.parse().ok()?;
                let bridge = (link.kind == "bridge")
                    .then(|| foreign_bridge(link, &name, &routes, &addresses, &taken));
                Some((name, bridge))
            })
            .collect(),
        taken: taken.into_keys().collect(),
        ephemeral_ports: ephemeral_ports().unwrap_or(EPHEMERAL_PORTS),
    })
}

/// Subnets and addresses in use on links that are not ours, each with those links; with none it
/// is a route that leads nowhere.
fn taken(
    links: &BTreeMap<u32, SeenLink>,
    routes: &[SeenRoute],
    addresses: &[SeenAddress],
) -> BTreeMap<IpNet, BTreeSet<u32>> {
    let is_foreign = |index: &u32| links.get(index).is_some_and(|link| !link.is_ours());
    let mut taken: BTreeMap<IpNet, BTreeSet<u32>> = BTreeMap::new();
    for route in routes {
        let by: BTreeSet<u32> = route.links.iter().copied().filter(is_foreign).collect();
        if !route.is_default() && (route.links.is_empty() || !by.is_empty()) {
            taken.entry(route.destination.trunc()).or_default().extend(&by);
        }
        // A pool inside the host's own subnet is possible, but not over its address or its next
        // hop.
        if let Some(via) = route.via.filter(|_| !by.is_empty()) {
            taken.entry(via.into()).or_default().extend(&by);
        }
    }
    for address in addresses.iter().filter(|address| is_foreign(&address.link)) {
        taken.entry(address.net.addr().into()).or_default().insert(address.link);
        if !address.is_link_local() {
            taken.entry(address.net.trunc()).or_default().insert(address.link);
        }
    }
    taken
}

/// A bridge that a network may use, with what must not be lost by that.
fn foreign_bridge(
    link: &SeenLink,
    name: &LinkName,
    routes: &[SeenRoute],
    addresses: &[SeenAddress],
    taken: &BTreeMap<IpNet, BTreeSet<u32>>,
) -> ForeignBridge {
    let by = routes.iter().filter(|route| route.links.contains(&link.index));
    let own = addresses.iter().filter(|address| address.link == link.index);
    let alone = taken.iter().filter(|(_, links)| links.iter().eq([&link.index]));
    ForeignBridge {
        mtu: Mtu::new(link.mtu).unwrap_or(Mtu::ETHERNET),
        forwarding_v4: sysctl::host_is_on(&format!("net/ipv4/conf/{name}/forwarding")),
        forwarding_v6: sysctl::host(&format!("net/ipv6/conf/{name}/force_forwarding"))
            .map(|value| value != "0"),
        route_localnet: sysctl::host_is_on(&format!("net/ipv4/conf/{name}/route_localnet")),
        up: link.up,
        filtered_v4: link.filter_bridged
            || sysctl::host_is_on("net/bridge/bridge-nf-call-iptables"),
        filtered_v6: link.filter_bridged_v6
            || sysctl::host_is_on("net/bridge/bridge-nf-call-ip6tables"),
        addresses: own.map(|address| address.net).collect(),
        next_hops: by.filter_map(|route| route.via).collect(),
        nets: alone.map(|(net, _)| *net).collect(),
    }
}

/// The lowest of the links that default routes of either family go by.
fn default_mtu(links: &BTreeMap<u32, SeenLink>, routes: &[SeenRoute]) -> Mtu {
    let by = routes.iter().filter(|route| route.is_main() && route.is_default());
    by.flat_map(|route| &route.links)
        .filter_map(|index| Mtu::new(links.get(index).filter(|link| !link.is_ours())?.mtu))
        .min()
        .unwrap_or(Mtu::ETHERNET)
}

/// Links that carry routes of the main table and that our packets may leave or come in by: not
/// ours, not loopback, up, no port of a bridge, and no bridge of another owner's own containers
/// or machines, which is one without a default route.
fn uplinks(links: &BTreeMap<u32, SeenLink>, routes: &[SeenRoute]) -> Vec<Uplink> {
    let mut by: BTreeMap<u32, bool> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.is_main()) {
        for index in &route.links {
            *by.entry(*index).or_default() |= route.is_default();
        }
    }
    let learned: BTreeSet<u32> = routes
        .iter()
        .filter(|route| route.is_main() && route.is_default() && route.protocol == FROM_ROUTER)
        .flat_map(|route| route.links.iter().copied())
        .collect();
    let uplink = |(index, default_route): (&u32, &bool)| {
        let link = links.get(index)?;
        let carries = link.up && link.name != "lo" && !link.is_ours() && link.master.is_none();
        let name: LinkName = link.name.parse().ok()?;
        (carries && (link.kind != "bridge" || *default_route)).then(|| Uplink {
            default_route: *default_route,
            forwarding_v4: sysctl::host_is_on(&format!("net/ipv4/conf/{name}/forwarding")),
            forwarding_v6: sysctl::host(&format!("net/ipv6/conf/{name}/force_forwarding"))
                .map(|value| value != "0"),
            learned_v6: sysctl::host(&format!("net/ipv6/conf/{name}/accept_ra"))
                .filter(|_| learned.contains(index)),
            name,
        })
    };
    by.iter().filter_map(uplink).collect()
}

fn ephemeral_ports() -> Option<(u16, u16)> {
    let range = sysctl::host("net/ipv4/ip_local_port_range")?;
    let mut ports = range.split_ascii_whitespace();
    Some((ports.next()?.parse().ok()?, ports.next()?.parse().ok()?))
}
