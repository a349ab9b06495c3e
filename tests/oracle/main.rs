//! The rules and the oracle agree on every packet: two ways to say the policy, written apart.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code: a failed step should panic"
)]

mod rules;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netagent::firewall::oracle::{Fate, Packet, State, World};
use netagent::model::{
    BridgeSpec, DriverSpec, Facts, Icc, Ipam, LinkName, Mark, Masquerade, Mtu, NetworkId,
    NetworkSpec, Origin, PortRange, Protocol, Published, Reach, Subnet, Uplink,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use rules::Rules;

/// The host's address on its uplinks.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Links that are there whatever networks there are; `lan` and `docker0` may be bridges.
const LINKS: [&str; 5] = ["up0", "up1", "lan", "docker0", "lo"];
const NETWORKS: u8 = 3;

fn link(name: &str) -> LinkName {
    name.parse().unwrap()
}

/// Network `number`: bridge `nab-NUMBER`, 10.NUMBER.0.0/24 and fd00:NUMBER::/64.
fn network(number: u8, reach: Reach, icc: Icc, masquerade: Masquerade) -> NetworkSpec {
    let subnet = |pool: String| Subnet {
        pool: pool.parse().unwrap(),
        gateway: None,
        range: None,
        aux: Default::default(),
    };
    NetworkSpec {
        id: NetworkId::from_bytes([number; 32]),
        name: None,
        origin: Origin::Netagent,
        driver: DriverSpec::Bridge(BridgeSpec {
            bridge: link(&format!("nab-{number}")),
            mtu: Mtu::ETHERNET,
            icc,
            masquerade,
            host_binding: Ipv4Addr::UNSPECIFIED,
            interface_prefix: "eth".into(),
        }),
        ipam: Ipam::Netagent,
        subnets: vec![subnet(format!("10.{number}.0.0/24")), subnet(format!("fd00:{number}::/64"))],
        reach,
        labels: Default::default(),
        options: Default::default(),
        created_ms: 0,
    }
}

fn networks() -> impl Strategy<Value = Vec<NetworkSpec>> {
    let reach = select(vec![Reach::External, Reach::External, Reach::Internal]);
    let icc = select(vec![Icc::Allow, Icc::Deny]);
    let masquerade = select(vec![Masquerade::On, Masquerade::Off]);
    let settings = vec((proptest::bool::weighted(0.75), reach, icc, masquerade), NETWORKS as usize);
    settings.prop_map(|settings| {
        let there = (0..NETWORKS).zip(settings).filter(|(_, (there, ..))| *there);
        there.map(|(number, (_, reach, icc, masq))| network(number, reach, icc, masq)).collect()
    })
}

/// Blocks of a few ports; of those that meet on one address the first stays, as the engine does.
fn published() -> impl Strategy<Value = Vec<(Published, Ipv4Addr)>> {
    let hosts =
        select(vec![Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, HOST, Ipv4Addr::LOCALHOST]);
    let block = (protocol(), hosts, 80..84_u16, 0..3_u16, option::of(80..84_u16), 0..NETWORKS);
    vec(block, 0..8).prop_map(|blocks| {
        let mut kept: Vec<(Published, Ipv4Addr)> = Vec::new();
        for (protocol, host, first, more, container_first, network) in blocks {
            let host_ports = PortRange::new(first, first + more).unwrap();
            let container_first = container_first.unwrap_or(first);
            let new = Published { protocol, host, host_ports, container_first };
            if !kept.iter().any(|(old, _)| {
                (old.protocol, old.host) == (protocol, host) && old.host_ports.overlaps(host_ports)
            }) {
                kept.push((new, Ipv4Addr::new(10, network, 0, 2)));
            }
        }
        kept
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let forwards = (any::<bool>(), option::of(any::<bool>()));
    let uplinks = vec((any::<bool>(), any::<bool>(), forwards), 3);
    let routers = (any::<bool>(), any::<bool>());
    (routers, uplinks).prop_map(|((router, router_v6), uplinks)| Facts {
        default_mtu: Mtu::ETHERNET,
        uplinks: LINKS
            .iter()
            .zip(uplinks)
            .filter(|(_, (there, ..))| *there)
            .map(|(name, (_, default_route, (forwarding_v4, forwarding_v6)))| Uplink {
                name: link(name),
                default_route,
                forwarding_v4,
                forwarding_v6,
                learned_v6: None,
            })
            .collect(),
        router,
        router_v6,
        bridge_netfilter: true,
        force_forwarding: true,
        ipv6: true,
        iptables: true,
        mark: Mark::DEFAULT,
        taken: BTreeSet::new(),
        foreign_links: BTreeSet::new(),
        ephemeral_ports: (32768, 60999),
    })
}

fn world() -> impl Strategy<Value = World> {
    let foreign = subsequence(vec!["lan", "docker0"], 0..=2);
    (networks(), published(), facts(), foreign).prop_map(|(networks, published, facts, foreign)| {
        let foreign_bridges = foreign.into_iter().map(link).collect();
        World { networks, published, facts, foreign_bridges }
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp])
}

/// Any link, also of a network that is not there in this world.
fn some_link() -> impl Strategy<Value = Option<LinkName>> {
    let bridges = (0..NETWORKS).map(|number| format!("nab-{number}"));
    let names: Vec<String> = LINKS.iter().map(ToString::to_string).chain(bridges).collect();
    option::weighted(0.9, select(names).prop_map(|name| link(&name)))
}

/// Both addresses of one family: of containers, the edges of subnets, the host, loopback, others.
fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let mut v4 = vec![HOST, Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 255, 255, 255)];
    v4.push(Ipv4Addr::new(203, 0, 113, 9));
    for number in 0..NETWORKS {
        v4.extend([0, 1, 2, 255].map(|last| Ipv4Addr::new(10, number, 0, last)));
        v4.push(Ipv4Addr::new(10, number, 1, 0));
    }
    let v6: Vec<Ipv6Addr> = ["::1", "fd00::2", "fd00:1::2", "2001:db8::9"]
        .map(|address| address.parse().unwrap())
        .to_vec();
    let two_v4 = (select(v4.clone()), select(v4)).prop_map(|(a, b)| (IpAddr::V4(a), b.into()));
    let two_v6 = (select(v6.clone()), select(v6)).prop_map(|(a, b)| (IpAddr::V6(a), b.into()));
    prop_oneof![6 => two_v4, 1 => two_v6]
}

fn packet() -> impl Strategy<Value = Packet> {
    let port = option::weighted(0.9, (protocol(), 79..87_u16));
    let state = select(vec![State::New, State::New, State::Known, State::Invalid]);
    let links = (some_link(), some_link(), proptest::bool::weighted(0.3));
    let flags = (proptest::bool::weighted(0.7), proptest::bool::weighted(0.25));
    (links, addresses(), flags, port, state).prop_map(
        |((from, to, back), (source, destination), (as_looks, translated), port, state)| {
            // Random links are seldom the same, and neighbours' packets matter.
            let to = if back && to.is_some() { from.clone() } else { to };
            // Any address may be this host's; most often those are that look like it.
            let looks = destination == HOST || destination.is_loopback();
            let to_this_host = looks == as_looks;
            Packet { from, to, source, destination, to_this_host, port, state, translated }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rules_and_oracle_agree_on_every_packet(world in world(), packets in vec(packet(), 40)) {
        let rules = Rules::of(&world);
        for packet in packets {
            prop_assert_eq!(rules.fate(&packet), world.fate(&packet), "{:?}", packet);
        }
    }
}

/// Agreement is worth what the packets are worth: each fate is met often.
#[test]
fn random_packets_meet_every_fate() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut met = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..10_000 {
        let (world, packet) = (world(), packet()).new_tree(&mut runner).unwrap().current();
        let fate = match world.fate(&packet) {
            Fate::Dropped => "dropped".into(),
            Fate::Passes { marked, translated_to, source } => {
                format!("marked {marked}, translated {}, {source:?}", translated_to.is_some())
            }
        };
        *met.entry(fate).or_default() += 1;
    }
    assert_eq!(met.len(), 9, "{met:#?}");
    assert!(met.values().all(|count| *count >= 3), "{met:#?}");
}
