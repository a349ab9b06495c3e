//! What is asked of flows when the policy changes agrees with what is asked of packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use netagent::driver;
use netagent::firewall::admission::{Admission, Flow, Occasion, Treatment, Tuple, Ways, lets_in};
use netagent::firewall::oracle::{Fate, Load, Packet, State, World};
use netagent::model::{DriverSpec, EndpointPhase, NetworkSpec, Reach};
use netagent::object::{Element, Object, Wanted};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::worlds::{packet, world};

/// What a network lets in.
fn admission(world: &World, network: &NetworkSpec) -> Admission {
    let DriverSpec::Bridge(bridge) = &network.driver;
    let own = || world.endpoints.iter().filter(|endpoint| endpoint.network == network.id);
    let mut wanted = driver::network_objects(network, &world.facts);
    for endpoint in own() {
        let phase = EndpointPhase::Joined;
        wanted.extend(driver::endpoint_objects(network, endpoint, phase, &world.facts));
    }
    let element = |wanted: Wanted| match wanted.object {
        Object::Element(element) => Some(element),
        _ => None,
    };
    let holding: Vec<Element> = wanted.into_iter().filter_map(element).filter(lets_in).collect();
    Admission {
        occasion: Occasion::Change,
        bridge: bridge.bridge.clone(),
        subnets: network.subnets.iter().map(|subnet| subnet.pool).collect(),
        containers: own().flat_map(|endpoint| endpoint.addresses()).collect(),
        gone: vec![],
        holding,
    }
}

/// Everything comes in by `up0`, but what networks send by their bridges.
fn ways(world: &World) -> Ways {
    let mut routes = BTreeMap::new();
    for net in ["0.0.0.0/0", "::/0"] {
        routes.insert(net.parse().unwrap(), "up0".parse().unwrap());
    }
    for network in &world.networks {
        let DriverSpec::Bridge(bridge) = &network.driver;
        routes.extend(network.subnets.iter().map(|subnet| (subnet.pool, bridge.bridge.clone())));
    }
    Ways { local: BTreeSet::new(), routes }
}

/// The flow that the packet begins, with answers from there.
fn flow(packet: &Packet, answers: SocketAddr) -> Flow {
    let (protocol, port) = match packet.carries {
        Load::Port(protocol, port) => (protocol.number(), Some(port)),
        Load::Icmp if packet.source.is_ipv4() => (1, None),
        Load::Icmp => (58, None),
        // GRE.
        Load::Other => (47, None),
    };
    let client = port.map(|_| 40000);
    let sent = Tuple {
        protocol,
        from: packet.source,
        to: packet.destination,
        from_port: client,
        to_port: port,
    };
    let answered = Tuple {
        from: answers.ip(),
        to: packet.source,
        from_port: port.map(|_| answers.port()),
        to_port: client,
        ..sent
    };
    Flow { sent, answered, related: false, ended: false }
}

/// The packet, had it been sent from outside a network straight to one of its containers.
fn sent_directly(
    world: &World,
    network: &NetworkSpec,
    container: IpAddr,
    packet: &Packet,
) -> Option<Packet> {
    let DriverSpec::Bridge(bridge) = &network.driver;
    let source = packet.source;
    let inside =
        |network: &NetworkSpec| network.subnets.iter().any(|subnet| subnet.pool.contains(&source));
    let on_link = matches!(source, IpAddr::V6(source) if source.is_unicast_link_local());
    let home = world.networks.iter().find(|network| inside(network));
    let from = match home.map(|home| &home.driver) {
        Some(DriverSpec::Bridge(bridge)) => bridge.bridge.clone(),
        None => "up0".parse().unwrap(),
    };
    let foreign = !source.is_loopback() && !on_link && source.is_ipv4() == container.is_ipv4();
    let external = home.is_none_or(|home| home.reach == Reach::External);
    (foreign && external && from != bridge.bridge).then(|| Packet {
        from: Some(from),
        to: Some(bridge.bridge.clone()),
        destination: container,
        to_this_host: false,
        state: State::New,
        translated: false,
        ended: false,
        ..packet.clone()
    })
}

/// Compares for one packet: whether something went in and whether something was refused.
fn compare(world: &World, packet: &Packet, met: &mut BTreeMap<&'static str, usize>) {
    let ways = ways(world);
    let treat = |admission: &Admission, flow: &Flow, ended| {
        admission.treatment(&Flow { ended, ..*flow }, &ways)
    };
    let external = world.networks.iter().filter(|network| network.reach == Reach::External);
    for network in external {
        let now = admission(world, network);
        for container in &now.containers {
            let Some(packet) = sent_directly(world, network, *container, packet) else { continue };
            let refused = world.fate(&packet) == Fate::Dropped;
            let port = match packet.carries {
                Load::Port(_, port) => port,
                Load::Icmp | Load::Other => 0,
            };
            let flow = flow(&packet, SocketAddr::new(*container, port));
            let (goes_on, ended) = match refused {
                true => (Treatment::End, Treatment::Leave),
                false => (Treatment::Leave, Treatment::Resume),
            };
            assert_eq!(treat(&now, &flow, false), goes_on, "{packet:?} {network:?}");
            assert_eq!(treat(&now, &flow, true), ended, "{packet:?} {network:?}");
            *met.entry(if refused { "refused" } else { "let in" }).or_default() += 1;
        }
        let Fate::Passes { translated_to: Some(to), .. } = world.fate(packet) else { continue };
        if !now.containers.contains(&to.ip()) {
            continue;
        }
        let flow = flow(packet, to);
        let closed = Admission { gone: now.holding.clone(), holding: vec![], ..now.clone() };
        assert_eq!(treat(&now, &flow, false), Treatment::Leave, "{packet:?}");
        assert_ne!(treat(&closed, &flow, false), Treatment::Leave, "{packet:?}");
        let elsewhere = Flow { sent: Tuple { to_port: Some(9), ..flow.sent }, ..flow };
        assert_eq!(treat(&closed, &elsewhere, false), Treatment::Leave, "an operator's own");
        *met.entry("translated").or_default() += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn flows_are_judged_as_their_first_packets_are(world in world(), packets in vec(packet(), 20)) {
        for packet in &packets {
            compare(&world, packet, &mut BTreeMap::new());
        }
    }
}

/// The comparison is worth what it meets.
#[test]
fn random_flows_are_let_in_refused_and_translated() {
    let mut runner = TestRunner::deterministic();
    let mut met = BTreeMap::new();
    for _ in 0..300 {
        let (world, packets) =
            (world(), vec(packet(), 20)).new_tree(&mut runner).unwrap().current();
        packets.iter().for_each(|packet| compare(&world, packet, &mut met));
    }
    assert_eq!(met.len(), 3, "{met:?}");
    assert!(met.values().all(|count| *count >= 50), "{met:?}");
}
