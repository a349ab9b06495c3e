//! Random hosts with networks of every mode and option, and random packets that matter there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use netagent::firewall::oracle::{Load, Packet, State, World};
use netagent::kernel::fake::Fake;
use netagent::model::{
    Attach, BridgeOwner, BridgeSpec, DriverSpec, EndpointId, EndpointSpec, Facts, ForeignBridge,
    GatewayMode, HostAddress, Icc, Ipam, LinkName, MacAddr, Masquerade, Mtu, NetworkId,
    NetworkSpec, Origin, PortRange, PortRequest, Protocol, Published, Reach, Subnet, Uplink,
};
use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// The host's addresses on its uplinks.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Addresses that packets of a network leave with.
const CHOSEN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const CHOSEN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
/// Links that are there whatever networks there are; `lan` and `docker0` may be bridges.
const LINKS: [&str; 5] = ["up0", "up1", "lan", "docker0", "lo"];
const NETWORKS: u8 = 3;
/// Containers of a network have addresses that end in 2 and 3.
const CONTAINERS: u8 = 2;

fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

/// Which families a network has; at least one.
#[derive(Debug, Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

/// Network `number`: bridge `nab-NUMBER`, 10.NUMBER.0.0/24 and fd00:NUMBER::/64.
fn network(number: u8, reach: Reach, families: Families, bridge: BridgeSpec) -> NetworkSpec {
    let subnet = |pool: String| Subnet {
        pool: pool.parse().unwrap(),
        gateway: None,
        range: None,
        aux: BTreeMap::new(),
    };
    let v4 = families.v4.then(|| subnet(format!("10.{number}.0.0/24")));
    let v6 = families.v6.then(|| subnet(format!("fd00:{number}::/64")));
    NetworkSpec {
        id: NetworkId::from_bytes([number; 32]),
        name: None,
        origin: Origin::Netagent,
        driver: DriverSpec::Bridge(bridge),
        ipam: Ipam::Netagent,
        subnets: v4.into_iter().chain(v6).collect(),
        reach,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        created_ms: 0,
    }
}

fn mode(reach: Reach) -> impl Strategy<Value = GatewayMode> {
    let modes = GatewayMode::ALL.into_iter();
    let fits = |mode: &GatewayMode| reach == Reach::Internal || *mode != GatewayMode::Isolated;
    let modes: Vec<GatewayMode> = modes.filter(fits).chain([GatewayMode::Nat]).collect();
    select(modes)
}

fn host_binding() -> impl Strategy<Value = HostAddress> {
    let certain = select(vec![HostAddress::At(HOST.into()), HostAddress::At(HOST_V6.into())]);
    prop_oneof![3 => Just(HostAddress::Any), 1 => certain]
}

fn bridge(number: u8, reach: Reach) -> impl Strategy<Value = BridgeSpec> {
    let icc = select(vec![Icc::Allow, Icc::Deny]);
    let owner = select(vec![BridgeOwner::Netagent, BridgeOwner::Operator]);
    let masquerade = select(vec![Masquerade::On, Masquerade::On, Masquerade::Off]);
    let sources = (option::weighted(0.3, Just(CHOSEN)), option::weighted(0.3, Just(CHOSEN_V6)));
    // Another network of ours may be trusted as any link.
    let others = vec!["up0", "lan", "nab-0"];
    let trusted = prop_oneof![1 => Just(vec![]), 2 => subsequence(others, 1..=3)];
    let modes = (mode(reach), mode(reach));
    ((owner, icc), masquerade, sources, modes, trusted, host_binding()).prop_map(
        move |(
            (owner, icc),
            masquerade,
            (source_v4, source_v6),
            (mode_v4, mode_v6),
            trusted,
            binding,
        )| {
            BridgeSpec {
                owner,
                icc,
                masquerade,
                source_v4,
                source_v6,
                mode_v4,
                mode_v6,
                trusted: trusted.into_iter().map(link).collect(),
                host_binding: binding,
                ..BridgeSpec::new(link(&format!("nab-{number}")), Mtu::ETHERNET)
            }
        },
    )
}

fn some_network(number: u8) -> impl Strategy<Value = Option<NetworkSpec>> {
    let reach = select(vec![Reach::External, Reach::External, Reach::External, Reach::Internal]);
    let families = select(vec![(true, true), (true, true), (true, false), (false, true)]);
    let spec = (reach, families).prop_flat_map(move |(reach, (v4, v6))| {
        let families = Families { v4, v6 };
        bridge(number, reach).prop_map(move |bridge| network(number, reach, families, bridge))
    });
    option::weighted(0.85, spec)
}

fn networks() -> impl Strategy<Value = Vec<NetworkSpec>> {
    let networks: Vec<_> = (0..NETWORKS).map(some_network).collect();
    networks.prop_map(|networks| networks.into_iter().flatten().collect())
}

/// A block of a few ports, not yet of an endpoint.
#[derive(Debug, Clone)]
struct Block {
    protocol: Protocol,
    host: HostAddress,
    host_ports: PortRange,
    container_first: u16,
    /// Which network and which of its containers.
    of: (u8, u8),
}

fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let at = |address: IpAddr| HostAddress::At(address);
    let hosts = select(vec![
        HostAddress::Any,
        HostAddress::Any,
        HostAddress::Any,
        HostAddress::ANY_V4,
        HostAddress::ANY_V6,
        at(HOST.into()),
        at(HOST_V6.into()),
        at(Ipv4Addr::LOCALHOST.into()),
        at(Ipv6Addr::LOCALHOST.into()),
    ]);
    let of = (0..NETWORKS, 0..CONTAINERS);
    let block = (protocol(), hosts, 80..84_u16, 0..3_u16, option::of(80..84_u16), of);
    let block = block.prop_map(|(protocol, host, first, more, container_first, of)| Block {
        protocol,
        host,
        host_ports: PortRange::new(first, first + more).unwrap(),
        container_first: container_first.unwrap_or(first),
        of,
    });
    vec(block, 4..16)
}

/// Requests with host addresses of each kind.
fn asked() -> impl Strategy<Value = Vec<PortRequest>> {
    let host = select(vec![
        None,
        None,
        Some(IpAddr::V4(HOST)),
        Some(Ipv4Addr::UNSPECIFIED.into()),
        Some(HOST_V6.into()),
    ]);
    let request = (protocol(), host, 80..86_u16).prop_map(|(protocol, host, container)| {
        PortRequest { protocol, host, container, host_ports: None }
    });
    vec(request, 0..5)
}

/// Where the engine binds a block: only for families that the endpoint has and its network
/// translates.
fn bound(host: HostAddress, network: &NetworkSpec) -> Option<HostAddress> {
    let DriverSpec::Bridge(bridge) = &network.driver;
    let v4 = bridge.mode_v4.translates() && network.v4().next().is_some();
    let v6 = bridge.mode_v6.translates() && network.v6().next().is_some();
    match host {
        HostAddress::Any => match (v4, v6) {
            (true, true) => Some(HostAddress::Any),
            (true, false) => Some(HostAddress::ANY_V4),
            (false, true) => Some(HostAddress::ANY_V6),
            (false, false) => None,
        },
        HostAddress::At(IpAddr::V4(_)) => v4.then_some(host),
        HostAddress::At(IpAddr::V6(_)) => v6.then_some(host),
    }
}

/// Whether two ports on these would be one. One on a certain address and one on all of them are
/// two: the former wins.
fn clash(one: HostAddress, other: HostAddress) -> bool {
    let all = |host| match host {
        HostAddress::Any => true,
        HostAddress::At(address) => address.is_unspecified(),
    };
    one == other || (all(one) && all(other) && one.meets(other))
}

/// The containers of the networks; of blocks that clash the first stays, as the engine does.
fn endpoints(
    networks: &[NetworkSpec],
    blocks: &[Block],
    asked: &[Vec<PortRequest>],
) -> Vec<EndpointSpec> {
    let mut taken: Vec<Published> = Vec::new();
    let mut endpoints = Vec::new();
    for network in networks {
        let [number, ..] = *network.id.as_bytes();
        for container in 0..CONTAINERS {
            let mut ports = Vec::new();
            let own = |block: &&Block| {
                block.of == (number, container) && network.reach == Reach::External
            };
            for block in blocks.iter().filter(own) {
                let Some(host) = bound(block.host, network) else { continue };
                let Block { protocol, host_ports, container_first, .. } = *block;
                let new = Published { protocol, host, host_ports, container_first };
                let meets = |old: &&Published| {
                    old.protocol == protocol
                        && old.host_ports.overlaps(host_ports)
                        && clash(old.host, host)
                };
                if taken.iter().find(meets).is_none() {
                    taken.push(new);
                    ports.push(new);
                }
            }
            let last = container + 2;
            let place = usize::from(number * CONTAINERS + container);
            let v4 = Ipv4Net::new(Ipv4Addr::new(10, number, 0, last), 24).unwrap();
            let v6 = format!("fd00:{number}::{last}/64").parse::<Ipv6Net>().unwrap();
            endpoints.push(EndpointSpec {
                id: EndpointId::from_bytes([place as u8; 32]),
                network: network.id,
                origin: Origin::Netagent,
                name: None,
                v4: network.v4().next().map(|_| v4),
                v6: network.v6().next().map(|_| v6),
                mac: MacAddr::from_id(&[place as u8; 32]),
                attach: Attach::HandOff,
                sysctls: BTreeMap::new(),
                naming: Default::default(),
                asked: asked.get(place).cloned().unwrap_or_default(),
                publishes: true,
                ports,
            });
        }
    }
    endpoints
}

fn facts() -> impl Strategy<Value = Facts> {
    let forwards = (any::<bool>(), option::of(any::<bool>()));
    let uplinks = vec((any::<bool>(), any::<bool>(), forwards), 3);
    let ipv6 = weighted(0.9);
    let routers = (any::<bool>(), any::<bool>());
    let facts = (routers, ipv6, weighted(0.2), uplinks);
    facts.prop_map(|((router, router_v6), ipv6, bridged_v6_filtered, uplinks)| {
        let there = LINKS.iter().zip(uplinks).filter(|(_, (there, ..))| *there);
        let uplinks = there.map(|(name, (_, default_route, (forwarding_v4, forwarding_v6)))| {
            let (name, learned_v6) = (link(name), None);
            Uplink { name, default_route, forwarding_v4, forwarding_v6, learned_v6 }
        });
        let uplinks = uplinks.collect();
        Facts { uplinks, router, router_v6, ipv6, bridged_v6_filtered, ..Fake::ordinary() }
    })
}

/// The operator's bridge that a network uses, by its number one that forwards or not.
fn adopted(network: &NetworkSpec) -> Option<(LinkName, Option<ForeignBridge>)> {
    let DriverSpec::Bridge(spec) = &network.driver;
    let [number, ..] = *network.id.as_bytes();
    let bridge = ForeignBridge {
        mtu: spec.mtu,
        forwarding_v4: number == 0,
        forwarding_v6: [Some(true), Some(false), None].get(usize::from(number)).copied().flatten(),
        route_localnet: false,
        up: true,
        filtered_v4: true,
        filtered_v6: true,
        addresses: BTreeSet::new(),
        next_hops: BTreeSet::new(),
        nets: BTreeSet::new(),
    };
    (spec.owner == BridgeOwner::Operator).then(|| (spec.bridge.clone(), Some(bridge)))
}

pub fn world() -> impl Strategy<Value = World> {
    let foreign = subsequence(vec!["lan", "docker0"], 0..=2);
    let asked = vec(asked(), usize::from(NETWORKS * CONTAINERS));
    (networks(), blocks(), asked, facts(), foreign).prop_map(
        |(networks, blocks, asked, mut facts, foreign)| {
            let endpoints = endpoints(&networks, &blocks, &asked);
            facts.foreign_links = networks.iter().filter_map(adopted).collect();
            let foreign_bridges: BTreeSet<LinkName> = foreign.into_iter().map(link).collect();
            World { networks, endpoints, facts, foreign_bridges }
        },
    )
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

/// Any link, also of a network that is not there in this world.
fn some_link() -> impl Strategy<Value = Option<LinkName>> {
    let bridges = (0..NETWORKS).map(|number| format!("nab-{number}"));
    let bridges = bridges.clone().chain(bridges);
    let names: Vec<String> = LINKS.iter().map(ToString::to_string).chain(bridges).collect();
    option::weighted(0.9, select(names).prop_map(|name| link(&name)))
}

/// Both addresses of one family: of containers, the edges of subnets, the host, loopback, others.
fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let mut v4 = vec![Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 255, 255, 255)];
    v4.extend([HOST; 8]);
    v4.extend([Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(224, 0, 0, 251)]);
    let fixed = ["::1", "::2", "2001:db8::9", "fe80::2", "febf:ffff::1", "fec0::2", "ff02::fb"];
    let mut v6: Vec<Ipv6Addr> = fixed.iter().map(|address| address.parse().unwrap()).collect();
    v6.extend([HOST_V6; 8]);
    for number in 0..NETWORKS {
        v4.extend([0, 2, 3, 2, 255].map(|last| Ipv4Addr::new(10, number, 0, last)));
        v4.push(Ipv4Addr::new(10, number, 1, 0));
        let ends = ["", "2", "3", "2", "ffff:ffff:ffff:ffff"];
        v6.extend(ends.map(|end| match end.contains(':') {
            true => format!("fd00:{number}:0:0:{end}").parse().unwrap(),
            false => format!("fd00:{number}::{end}").parse::<Ipv6Addr>().unwrap(),
        }));
        v6.push(format!("fd00:{number}:0:1::").parse().unwrap());
    }
    let two_v4 = (select(v4.clone()), select(v4)).prop_map(|(a, b)| (IpAddr::V4(a), b.into()));
    let two_v6 = (select(v6.clone()), select(v6)).prop_map(|(a, b)| (IpAddr::V6(a), b.into()));
    prop_oneof![two_v4, two_v6]
}

fn load() -> impl Strategy<Value = Load> {
    let port = (protocol(), 79..87_u16).prop_map(|(protocol, port)| Load::Port(protocol, port));
    prop_oneof![8 => port, 2 => Just(Load::Icmp), 1 => Just(Load::Other)]
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let state = select(vec![State::New, State::New, State::New, State::Known, State::Invalid]);
    let links = (some_link(), some_link(), weighted(0.2));
    let flags = (weighted(0.7), weighted(0.2), weighted(0.05));
    (links, addresses(), flags, load(), state).prop_map(
        |(
            (from, to, back),
            (source, destination),
            (as_looks, translated, ended),
            carries,
            state,
        )| {
            // Random links are seldom the same, and neighbours' packets matter.
            let to = if back && to.is_some() { from.clone() } else { to };
            // Any address may be this host's; most often those are that look like it.
            let looks = destination == IpAddr::V4(HOST)
                || destination == IpAddr::V6(HOST_V6)
                || destination.is_loopback();
            let to_this_host = looks == as_looks;
            Packet {
                from,
                to,
                source,
                destination,
                to_this_host,
                carries,
                state,
                translated,
                ended,
            }
        },
    )
}
