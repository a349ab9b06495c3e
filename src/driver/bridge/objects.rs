//! From specs to kernel objects.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::driver::blocks::{derived, host_end_name, sandbox_end_name};
use crate::firewall::policy;
use crate::model::{
    Attach, BridgeSpec, EndpointPhase, EndpointSpec, Facts, Icc, LinkName, MacAddr, Mtu, NetworkId,
    NetworkSpec,
};
use crate::object::{
    Address, Hold, Link, LinkKind, MARK_PREFIX, Netns, Object, Peer, Revert, Route, Sysctl, Wanted,
};

/// A bridge of our own naming: `nab-` and 11 hexadecimal digits of the network's id.
pub fn bridge_name(id: NetworkId) -> LinkName {
    derived("nab-", &id.hex(11))
}

/// The bridge, its gateway addresses and sysctls, and what it means to the policy.
pub fn network_objects(network: &NetworkSpec, bridge: &BridgeSpec, facts: &Facts) -> Vec<Wanted> {
    let mut objects = policy::network_elements(network, bridge);
    objects.push(Object::Link(Link {
        netns: Netns::Host,
        name: bridge.bridge.clone(),
        kind: LinkKind::Bridge {
            filter_bridged: bridge.icc == Icc::Deny && facts.bridge_netfilter,
        },
        mtu: bridge.mtu,
        // A bridge takes the lowest MAC of its ports, so it would change whenever a container
        // leaves and neighbours would hold a dead entry. Its own address keeps it stable.
        mac: Some(MacAddr::from_id(network.id.as_bytes())),
        master: None,
        alias: format!("{MARK_PREFIX}{}", network.id.short()),
        serving: true,
    }));
    objects.extend(sysctls(network, &bridge.bridge, bridge.mtu, facts));
    for subnet in &network.subnets {
        let Some(gateway) = subnet.gateway else { continue };
        objects.push(Object::Address(Address {
            netns: Netns::Host,
            link: bridge.bridge.clone(),
            net: with_prefix(gateway, subnet.pool),
        }));
    }
    wanted(objects, format!("network \"{}\"", network.label()))
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
fn sysctls(network: &NetworkSpec, bridge: &LinkName, mtu: Mtu, facts: &Facts) -> Vec<Object> {
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
    if !facts.ipv6 || mtu < Mtu::IPV6 {
        return sysctls;
    }
    if network.v6().next().is_none() {
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
    let mut objects = vec![Object::Link(Link {
        netns: Netns::Host,
        name: host_end_name(endpoint.id),
        kind: LinkKind::Veth {
            peer: peer(endpoint, phase),
            // Without br_netfilter our chains never see neighbours' packets: the bridge refuses.
            isolated: bridge.icc == Icc::Deny && !facts.bridge_netfilter,
        },
        mtu: bridge.mtu,
        mac: None,
        master: Some(bridge.bridge.clone()),
        alias: format!("{MARK_PREFIX}{}/{}", network.id.short(), endpoint.id.short()),
        serving: true,
    })];
    if let Attach::Netns { path, interface, default_route, .. } = &endpoint.attach {
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
                Object::Route(Route { netns, destination: default_route_of(via), via, link })
            }));
        }
    }
    if let Some(container) = endpoint.v4 {
        for published in &endpoint.ports {
            objects.push(Object::Hold(Hold {
                protocol: published.protocol,
                host: published.host,
                ports: published.host_ports,
            }));
            objects.extend(policy::port_elements(published, container.addr()));
        }
    }
    wanted(objects, format!("endpoint \"{}\" of network \"{}\"", endpoint.label(), network.label()))
}

fn default_route_of(via: IpAddr) -> IpNet {
    match via {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

fn peer(endpoint: &EndpointSpec, phase: EndpointPhase) -> Peer {
    match (&endpoint.attach, phase) {
        (Attach::HandOff, EndpointPhase::Creating | EndpointPhase::Ready) => {
            Peer::At { netns: Netns::Host, name: sandbox_end_name(endpoint.id), mac: endpoint.mac }
        }
        (
            Attach::HandOff,
            EndpointPhase::Joined | EndpointPhase::Leaving | EndpointPhase::Deleting,
        ) => Peer::Elsewhere,
        (Attach::Netns { path, interface, .. }, _) => Peer::At {
            netns: Netns::Path(path.clone()),
            name: interface.clone(),
            mac: endpoint.mac,
        },
    }
}

fn wanted(objects: Vec<Object>, why: String) -> Vec<Wanted> {
    objects.into_iter().map(|object| Wanted::new(object, why.clone())).collect()
}
