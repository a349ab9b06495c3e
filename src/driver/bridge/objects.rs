//! From specs to kernel objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::driver::blocks::{derived, host_end_name, sandbox_end_name};
use crate::driver::endpoint::sysctl_path;
use crate::firewall::policy;
use crate::model::{
    Attach, BridgeOwner, BridgeSpec, EndpointPhase, EndpointSpec, Facts, Family, GatewayAddress,
    GatewayMode, HostAddress, Icc, LinkName, MacAddr, Mtu, NetworkId, NetworkSpec, PortRange,
    PortRequest, Protocol, Published, Reach, Subnet,
};
use crate::object::{
    Address, Hold, Hop, Link, LinkKind, MARK_PREFIX, Netns, Object, Peer, Relay, Revert, Route,
    Sysctl, Wanted,
};

const LOCALHOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const LOOPBACK_V6: HostAddress = HostAddress::At(LOCALHOST_V6);

/// A bridge of our own naming: `nab-` and 11 hexadecimal digits of the network's id.
pub fn bridge_name(id: NetworkId) -> LinkName {
    derived("nab-", &id.hex(11))
}

/// The bridge, its gateway addresses and sysctls, and what it means to the policy.
///
/// A bridge of the operator's is no object: it only gets what gateway addresses it lacks, while it
/// is there.
pub fn network_objects(network: &NetworkSpec, bridge: &BridgeSpec, facts: &Facts) -> Vec<Wanted> {
    let mut objects = policy::network_elements(network, bridge);
    if bridge.owner == BridgeOwner::Netagent {
        objects.extend(own_bridge(network, bridge, facts));
    }
    if !is_gone(bridge, facts) {
        objects.extend(gateways(network, bridge));
    }
    wanted(objects, format!("network \"{}\"", network.label()))
}

/// Whether the network's bridge is the operator's, and not there.
pub fn is_gone(bridge: &BridgeSpec, facts: &Facts) -> bool {
    bridge.owner == BridgeOwner::Operator && facts.foreign_bridge(&bridge.bridge).is_none()
}

fn own_bridge(network: &NetworkSpec, bridge: &BridgeSpec, facts: &Facts) -> Vec<Object> {
    let mut objects = vec![Object::Link(Link {
        netns: Netns::Host,
        name: bridge.bridge.clone(),
        kind: LinkKind::Bridge { filter_bridged: filters_bridged(bridge, facts) },
        mtu: bridge.mtu,
        // A bridge takes the lowest MAC of its ports, so it would change whenever a container
        // leaves and neighbours would hold a dead entry. Its own address keeps it stable.
        mac: Some(MacAddr::from_id(network.id.as_bytes())),
        master: None,
        alias: format!("{MARK_PREFIX}{}", network.id.short()),
        serving: true,
    })];
    objects.extend(sysctls(network, bridge, facts));
    if answers_on_loopback_v6(network, bridge, facts) {
        objects.push(Object::Route(Route {
            netns: Netns::Host,
            destination: Ipv6Net::from(Ipv6Addr::LOCALHOST).into(),
            hop: Hop::Local,
            link: bridge.bridge.clone(),
        }));
    }
    objects
}

fn gateways(network: &NetworkSpec, bridge: &BridgeSpec) -> Vec<Object> {
    let gateway = |subnet: &Subnet| {
        let address = subnet.gateway.filter(|address| is_on_bridge(bridge, *address))?;
        let (netns, link) = (Netns::Host, bridge.bridge.clone());
        Some(Object::Address(Address { netns, link, net: with_prefix(address, subnet.pool) }))
    };
    network.subnets.iter().filter_map(gateway).collect()
}

/// Whether our chains see what neighbours send each other, whatever the host-wide setting.
fn filters_bridged(bridge: &BridgeSpec, facts: &Facts) -> bool {
    let ours = bridge.owner == BridgeOwner::Netagent;
    ours && bridge.icc == Icc::Deny && facts.bridge_netfilter
}

/// Whether the bridge gets the gateway's address from us.
pub(super) fn is_on_bridge(bridge: &BridgeSpec, gateway: IpAddr) -> bool {
    let inhibited = gateway.is_ipv4() && bridge.gateway_v4 == GatewayAddress::Inhibited;
    let kept = bridge.kept.contains(&gateway);
    bridge.mode_for(gateway) != GatewayMode::Isolated && !inhibited && !kept
}

/// Whether the network publishes ports of IPv6 at all.
fn publishes_v6(network: &NetworkSpec, bridge: &BridgeSpec) -> bool {
    network.reach == Reach::External && bridge.mode_v6.translates() && network.v6().next().is_some()
}

/// Whether the kernel can lead [::1] to a container: the answers come in by the bridge for ::1,
/// which takes a route, and must not have been translated before, as bridged packets that pass
/// netfilter are.
fn answers_on_loopback_v6(network: &NetworkSpec, bridge: &BridgeSpec, facts: &Facts) -> bool {
    let bridged = facts.bridged_v6_filtered || filters_bridged(bridge, facts);
    let ours = bridge.owner == BridgeOwner::Netagent;
    ours && publishes_v6(network, bridge) && facts.ipv6 && !bridged
}

/// Whether [::1] takes a relay instead.
fn relays_loopback_v6(network: &NetworkSpec, bridge: &BridgeSpec, facts: &Facts) -> bool {
    let led = answers_on_loopback_v6(network, bridge, facts);
    publishes_v6(network, bridge) && facts.ipv6 && !led
}

fn with_prefix(address: IpAddr, pool: IpNet) -> IpNet {
    match address {
        IpAddr::V4(address) => Ipv4Net::new(address, pool.prefix_len()).map(IpNet::V4),
        IpAddr::V6(address) => Ipv6Net::new(address, pool.prefix_len()).map(IpNet::V6),
    }
    .unwrap_or(pool)
}

/// What the bridge needs below /proc/sys: forwarding, 127/8 for ports published on loopback, and
/// no router advertisements or redirects believed from containers (CVE-2020-13401).
fn sysctls(network: &NetworkSpec, spec: &BridgeSpec, facts: &Facts) -> Vec<Object> {
    let bridge = &spec.bridge;
    let sysctl = |key: String, value: &str| {
        Object::Sysctl(Sysctl {
            netns: Netns::Host,
            key,
            value: value.into(),
            revert: Revert::WithLink,
        })
    };
    let v4 = |name: &str, value| sysctl(format!("net/ipv4/conf/{bridge}/{name}"), value);
    let v6 = |name: &str, value| sysctl(format!("net/ipv6/conf/{bridge}/{name}"), value);
    let mut sysctls = vec![
        v4("forwarding", "1"),
        v4("route_localnet", "1"),
        v4("accept_redirects", "0"),
        v4("send_redirects", "0"),
    ];
    if !facts.ipv6 || spec.mtu < Mtu::IPV6 {
        return sysctls;
    }
    if network.v6().next().is_none() || spec.mode_v6 == GatewayMode::Isolated {
        sysctls.push(v6("disable_ipv6", "1"));
        return sysctls;
    }
    sysctls.extend([
        v6("disable_ipv6", "0"),
        v6("accept_ra", "0"),
        v6("accept_redirects", "0"),
        v6("accept_dad", "0"),
    ]);
    if facts.force_forwarding {
        sysctls.push(v6("force_forwarding", "1"));
    }
    sysctls
}

/// The veth pair, its sandbox addresses where netagent plumbs it, and its published ports.
pub fn endpoint_objects(
    network: &NetworkSpec,
    bridge: &BridgeSpec,
    endpoint: &EndpointSpec,
    phase: EndpointPhase,
    facts: &Facts,
) -> Vec<Wanted> {
    let mut objects = Vec::new();
    let has_link = match endpoint.attach {
        Attach::AtJoin => false,
        Attach::HandOff => true,
        // What was placed in a sandbox is not given back, as dockerd does.
        Attach::Netns { .. } => phase != EndpointPhase::Leaving,
    };
    if has_link {
        objects.push(host_end(network, bridge, endpoint, phase, facts));
    }
    if let Attach::Netns { path, interface, default_route, .. } = &endpoint.attach
        && has_link
    {
        let netns = Netns::Path(path.clone());
        let nets = endpoint.v4.map(IpNet::V4).into_iter().chain(endpoint.v6.map(IpNet::V6));
        for net in nets {
            let (netns, link) = (netns.clone(), interface.clone());
            objects.push(Object::Address(Address {
                netns: netns.clone(),
                link: link.clone(),
                net,
            }));
            let gateway = network.gateway_for(net.addr()).filter(|_| *default_route);
            objects.extend(gateway.map(|via| {
                let (destination, hop) = (default_route_of(via), Hop::Via(via));
                Object::Route(Route { netns, destination, hop, link })
            }));
        }
    }
    let contained = endpoint.addresses();
    objects.extend(contained.flat_map(|it| policy::container_elements(network, bridge, it)));
    objects.extend(port_objects(network, bridge, endpoint, facts));
    wanted(objects, format!("endpoint \"{}\" of network \"{}\"", endpoint.label(), network.label()))
}

fn host_end(
    network: &NetworkSpec,
    bridge: &BridgeSpec,
    endpoint: &EndpointSpec,
    phase: EndpointPhase,
    facts: &Facts,
) -> Object {
    let ours = bridge.owner == BridgeOwner::Netagent;
    // Where our chains never see neighbours' packets, the bridge refuses them.
    let isolates = match ours {
        true => !facts.bridge_netfilter,
        false => !sees_neighbours(network, bridge, facts),
    };
    Object::Link(Link {
        netns: Netns::Host,
        name: host_end_name(endpoint.id),
        kind: LinkKind::Veth {
            peer: peer(bridge, endpoint, phase, facts),
            isolated: bridge.icc == Icc::Deny && isolates,
        },
        mtu: bridge.mtu,
        mac: if ours { None } else { port_mac(network.id) },
        master: (!is_gone(bridge, facts)).then(|| bridge.bridge.clone()),
        alias: format!("{MARK_PREFIX}{}/{}", network.id.short(), endpoint.id.short()),
        serving: true,
    })
}

/// Whether our chains see what neighbours on the operator's bridge send each other. Then ports are
/// not isolated: br_netfilter would send on by the bridge, and not by the host, what goes to a
/// neighbour's published port.
fn sees_neighbours(network: &NetworkSpec, bridge: &BridgeSpec, facts: &Facts) -> bool {
    facts.foreign_bridge(&bridge.bridge).is_none_or(|bridge| {
        (bridge.filtered_v4 || network.v4().next().is_none())
            && (bridge.filtered_v6 || network.v6().next().is_none())
    })
}

/// The MAC address of the ports of an operator's bridge. A bridge takes the lowest of its ports',
/// unless it was given one: with the highest first byte ours is never it while there are others,
/// and being the same for all it does not change when a container leaves.
fn port_mac(id: NetworkId) -> Option<MacAddr> {
    let [_, b, c, d, e, f] = MacAddr::from_id(id.as_bytes()).bytes();
    MacAddr::new([0xfe, b, c, d, e, f])
}

/// Held sockets, translations, and what may be reached at the container's own address.
fn port_objects(
    network: &NetworkSpec,
    bridge: &BridgeSpec,
    endpoint: &EndpointSpec,
    facts: &Facts,
) -> Vec<Object> {
    let addresses: Vec<IpAddr> = endpoint.addresses().collect();
    let relayed = relays_loopback_v6(network, bridge, facts);
    let mut objects = Vec::new();
    for published in &endpoint.ports {
        let relay = relay(published, endpoint).filter(|_| relayed);
        objects.push(Object::Hold(Hold {
            protocol: published.protocol,
            host: published.host,
            ports: published.host_ports,
            relay,
        }));
        let on_loopback_alone = published.host == LOOPBACK_V6;
        if !(relay.is_some() && on_loopback_alone) {
            objects.extend(policy::port_elements(published, &addresses));
        }
        if relay.is_some() {
            objects.extend(policy::port_elements(&to_itself(published), &[LOCALHOST_V6]));
        }
    }
    if network.reach == Reach::External {
        for address in addresses {
            let opened = opened_ports(bridge, endpoint, address).into_iter();
            let element = |(protocol, ports)| policy::opened_element(protocol, ports, address);
            objects.extend(opened.map(element));
        }
    }
    objects
}

/// What is sent to [::1] stays there for the relay to take: a translation that changes nothing,
/// and is found before those of every address.
fn to_itself(published: &Published) -> Published {
    let container_first = published.host_ports.first();
    Published { host: LOOPBACK_V6, container_first, ..*published }
}

/// Where [::1] is relayed to for a port that is published on it.
fn relay(published: &Published, endpoint: &EndpointSpec) -> Option<Relay> {
    let on_loopback = match published.host {
        HostAddress::Any | HostAddress::ANY_V6 | LOOPBACK_V6 => true,
        HostAddress::At(_) => false,
    };
    let to = endpoint.v6?.addr();
    let translated = published.protocol != Protocol::Sctp;
    (on_loopback && translated).then_some(Relay { to, first: published.container_first })
}

/// Ports that answer at the container's own address: where packets are routed all that are asked
/// for, where they are translated those in force, for trusted links. What is published on the
/// host's loopback is for the host alone, which reaches containers anyway.
fn opened_ports(
    bridge: &BridgeSpec,
    endpoint: &EndpointSpec,
    address: IpAddr,
) -> Vec<(Protocol, PortRange)> {
    let family = Family::of(address);
    let mut ports: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    match bridge.mode_for(address) {
        GatewayMode::Routed => {
            let of_family = |port: &&PortRequest| {
                let host = port.host.map_or(bridge.host_binding, HostAddress::At);
                leaves_host(host, family)
            };
            let asked = endpoint.asked.iter().filter(of_family);
            ports.extend(asked.map(|port| (port.protocol, port.container)));
        }
        GatewayMode::Nat | GatewayMode::NatUnprotected if !bridge.trusted.is_empty() => {
            let of_family = |port: &&Published| leaves_host(port.host, family);
            for port in endpoint.ports.iter().filter(of_family) {
                ports.extend(port.container_ports().iter().map(|number| (port.protocol, number)));
            }
        }
        GatewayMode::Nat | GatewayMode::NatUnprotected | GatewayMode::Isolated => {}
    }
    runs(ports)
}

/// Whether a port on this host address is for others of the family.
fn leaves_host(host: HostAddress, family: Family) -> bool {
    let alone = matches!(host, HostAddress::At(address) if address.is_loopback());
    host.is_of(family) && !alone
}

/// Consecutive ports of one protocol as ranges.
fn runs(ports: BTreeSet<(Protocol, u16)>) -> Vec<(Protocol, PortRange)> {
    let mut runs: Vec<(Protocol, PortRange)> = Vec::new();
    for (protocol, port) in ports {
        let longer = runs
            .last()
            .filter(|(last, range)| *last == protocol && range.last().checked_add(1) == Some(port));
        match longer.and_then(|(_, range)| PortRange::new(range.first(), port)) {
            Some(longer) => {
                runs.pop();
                runs.push((protocol, longer));
            }
            None => runs.extend(PortRange::single(port).map(|single| (protocol, single))),
        }
    }
    runs
}

fn default_route_of(via: IpAddr) -> IpNet {
    match via {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

fn peer(bridge: &BridgeSpec, endpoint: &EndpointSpec, phase: EndpointPhase, facts: &Facts) -> Peer {
    match (&endpoint.attach, phase) {
        (Attach::AtJoin, _) => Peer::Elsewhere,
        (Attach::HandOff, EndpointPhase::Creating | EndpointPhase::Ready) => {
            // dockerd writes the sysctls once it has the link, from 27 on.
            let (name, sysctls) = (sandbox_end_name(endpoint.id), BTreeMap::new());
            Peer::At { netns: Netns::Host, name, mac: endpoint.mac, sysctls }
        }
        (
            Attach::HandOff,
            EndpointPhase::Joined | EndpointPhase::Leaving | EndpointPhase::Deleting,
        ) => Peer::Elsewhere,
        (Attach::Netns { path, interface, .. }, _) => Peer::At {
            netns: Netns::Path(path.clone()),
            name: interface.clone(),
            mac: endpoint.mac,
            sysctls: sandbox_sysctls(bridge, endpoint, interface, facts),
        },
    }
}

/// What the interface needs below /proc/sys of its sandbox: no IPv6 where the endpoint has none, and
/// where it has some, that alone: the sandbox's default may be off, and no neighbour is a router.
/// What the user asks for counts more.
fn sandbox_sysctls(
    bridge: &BridgeSpec,
    endpoint: &EndpointSpec,
    interface: &LinkName,
    facts: &Facts,
) -> BTreeMap<String, String> {
    let v6: &[(&str, &str)] = match endpoint.v6 {
        _ if !facts.ipv6 || bridge.mtu < Mtu::IPV6 => &[],
        None => &[("disable_ipv6", "1")],
        Some(_) => &[("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_redirects", "0")],
    };
    let ours = [("ipv4", ("accept_redirects", "0"))].into_iter();
    let ours = ours.chain(v6.iter().map(|setting| ("ipv6", *setting)));
    let ours = ours.map(|(family, (name, value))| {
        (format!("net/{family}/conf/{interface}/{name}"), value.to_owned())
    });
    let users = endpoint.sysctls.iter();
    let users = users.map(|(name, value)| (sysctl_path(name, interface), value.clone()));
    ours.chain(users).collect()
}

fn wanted(objects: Vec<Object>, why: String) -> Vec<Wanted> {
    objects.into_iter().map(|object| Wanted::new(object, why.clone())).collect()
}
