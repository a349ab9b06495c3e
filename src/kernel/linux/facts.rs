//! What planning must know of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipnet::IpNet;

use super::seen::{SeenLink, SeenRoute};
use super::sysctl;
use super::wire::Wire;
use crate::kernel::KernelError;
use crate::model::{Facts, LinkName, Mark, Mtu, Uplink};

/// The kernel's own default (net/ipv4/af_inet.c), where the sysctl cannot be read.
const EPHEMERAL_PORTS: (u16, u16) = (32768, 60999);

/// RTPROT_RA (uapi linux/rtnetlink.h): learned from a router's advertisement.
const FROM_ROUTER: u8 = 9;

/// Reads the host.
pub fn read(wire: &mut Wire, mark: Mark, iptables: bool) -> Result<Facts, KernelError> {
    let links: BTreeMap<u32, SeenLink> =
        wire.links()?.into_iter().map(|link| (link.index, link)).collect();
    let routes = wire.routes()?;
    let is_foreign = |index: &u32| links.get(index).is_some_and(|link| !link.is_ours());
    let mut taken: BTreeSet<IpNet> = routes
        .iter()
        .filter(|route| !route.is_default())
        .filter(|route| route.links.is_empty() || route.links.iter().any(is_foreign))
        .map(|route| route.destination.trunc())
        .collect();
    let addresses = wire.addresses()?;
    taken.extend(
        addresses
            .iter()
            .filter(|address| is_foreign(&address.link) && !address.is_link_local())
            .map(|address| address.net.trunc()),
    );
    // A pool inside the host's own subnet is possible, but not over its address or its next hop.
    let foreign = |route: &&SeenRoute| route.links.iter().any(is_foreign);
    taken.extend(routes.iter().filter(foreign).filter_map(|route| route.via).map(IpNet::from));
    let own = addresses.iter().filter(|address| is_foreign(&address.link));
    taken.extend(own.map(|address| IpNet::from(address.net.addr())));
    let exists = |key: &str| Path::new("/proc/sys").join(key).exists();
    Ok(Facts {
        default_mtu: default_mtu(&links, &routes),
        uplinks: uplinks(&links, &routes),
        router: sysctl::host_is_on("net/ipv4/ip_forward"),
        router_v6: sysctl::host_is_on("net/ipv6/conf/all/forwarding"),
        bridge_netfilter: exists("net/bridge/bridge-nf-call-iptables"),
        force_forwarding: exists("net/ipv6/conf/all/force_forwarding"),
        ipv6: sysctl::host_has_ipv6(),
        iptables,
        mark,
        taken,
        foreign_links: links
            .values()
            .filter(|link| !link.is_ours())
            .filter_map(|link| link.name.parse().ok())
            .collect(),
        ephemeral_ports: ephemeral_ports().unwrap_or(EPHEMERAL_PORTS),
    })
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
