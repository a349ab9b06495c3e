//! Networks on bridges of the operator's: used, never changed, never deleted.

use std::net::IpAddr;

use netagent::engine::{Engine, Mode, NetworkRequest};
use netagent::model::{
    BridgeOwner, BridgeSpec, DriverSpec, ErrorClass, Facts, ForeignBridge, Mtu, Reach,
};
use netagent::object::{
    Address, Kind, Link, LinkKind, MARK_PREFIX, Netns, Object, ObjectKey, Op, Peer,
};

use crate::kit::{Machine, facts};
use crate::scenarios::*;

const NAME: &str = "com.docker.network.bridge.name";
const MTU: &str = "com.docker.network.driver.mtu";

fn machine() -> Machine {
    let machine = Machine::new();
    with_bridge(&mut machine.engine(), &machine.host);
    machine.host.add_namespace(SANDBOX);
    machine
}

fn spec(engine: &Engine) -> BridgeSpec {
    let DriverSpec::Bridge(bridge) = &engine.intent().network(WEB).unwrap().spec.driver;
    bridge.clone()
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey { kind, netns: Netns::Host, name: name.into() }
}

/// What the engine did to things of the operator's: only a gateway and sysctls may be among it.
fn on_the_bridge(machine: &Machine) -> Vec<String> {
    let on = |op: &Op| match op.object() {
        Object::Link(link) => link.name.as_str() == LAN,
        Object::Address(address) => address.link.as_str() == LAN,
        Object::Route(route) => route.link.as_str() == LAN,
        Object::Sysctl(sysctl) => sysctl.key.contains(LAN),
        Object::Table(_) | Object::Element(_) | Object::Hold(_) | Object::Accept(_) => false,
    };
    machine.log.since(0).iter().filter(|op| on(op)).map(ToString::to_string).collect()
}

#[test]
fn the_operators_bridge_keeps_its_mtu_and_gets_what_it_lacks() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    let spec = spec(&engine);
    assert_eq!((spec.owner, spec.mtu), (BridgeOwner::Operator, Mtu::ETHERNET));
    assert!(spec.kept.is_empty());
    assert_eq!(
        on_the_bridge(&machine),
        [
            "+ sysctl   host net.ipv4.conf.br0.forwarding  = 1",
            "+ sysctl   host net.ipv4.conf.br0.route_localnet  = 1",
            "+ sysctl   host net.ipv6.conf.br0.force_forwarding  = 1",
            "+ address  host 10.1.0.1/24 dev br0",
            "+ address  host fd00:1::1/64 dev br0",
        ]
    );
}

#[test]
fn an_address_that_the_bridge_had_is_the_gateway_and_stays() {
    let machine = machine();
    let before = machine.host.listing();
    let mut engine = machine.engine();
    create(&mut engine, adopting(AMONG)).unwrap();
    let network = engine.intent().network(WEB).unwrap().spec.clone();
    let gateways: Vec<String> =
        network.subnets.iter().map(|subnet| subnet.gateway.unwrap().to_string()).collect();
    assert_eq!(gateways, ["192.168.7.10", "fd00:7::10"]);
    assert_eq!(spec(&engine).kept.len(), 2);
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert!(!on_the_bridge(&machine).iter().any(|op| op.contains("address")));
    assert_eq!(machine.host.listing(), before);
}

#[test]
fn an_internal_network_raises_nothing_on_the_bridge() {
    let machine = machine();
    let mut engine = machine.engine();
    let request = NetworkRequest { reach: Reach::Internal, ..adopting(APART) };
    create(&mut engine, request).unwrap();
    let done = on_the_bridge(&machine);
    assert!(done.iter().all(|op| op.contains("address")), "{done:?}");
}

#[test]
fn removal_leaves_the_bridge_as_it_was() {
    let machine = machine();
    machine.host.set_sysctl("net/ipv4/conf/br0/route_localnet", "1");
    let before = machine.host.listing();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).unwrap();
    drop(engine);
    let mut engine = machine.engine();
    engine.delete_endpoint(WEB, ONE).unwrap();
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert_eq!(machine.host.listing(), before);
    assert_eq!(engine.status().unwrap().host_sysctls, vec![]);
}

#[test]
fn a_host_that_became_a_router_keeps_forwarding_and_nothing_else() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    machine.host.set_router(true);
    engine.delete_network(WEB, Mode::Apply).unwrap();
    let listing = machine.host.listing();
    assert!(listing.contains("net/ipv4/conf/br0/forwarding = 1"), "{listing}");
    assert!(!listing.contains("route_localnet"), "{listing}");
}

#[test]
fn an_adopted_uplink_is_raised_once() {
    let lan = facts().uplinks[0].clone();
    let lan = netagent::model::Uplink { name: LAN.parse().unwrap(), ..lan };
    let machine = Machine::with(Facts { uplinks: vec![lan], ..facts() });
    let mut engine = machine.engine();
    with_bridge(&mut engine, &machine.host);
    let before = machine.host.listing();
    create(&mut engine, adopting(AMONG)).unwrap();
    let raised = on_the_bridge(&machine);
    let forwarding = raised.iter().filter(|op| op.contains("ipv4.conf.br0.forwarding")).count();
    assert_eq!(forwarding, 1, "{raised:?}");
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert_eq!(machine.host.listing(), before);
}

/// A bridge that the operator removes cannot be made again by us; when it is back, so are we.
#[test]
fn a_bridge_that_goes_is_reported_and_used_again_when_it_is_back() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).unwrap();
    let whole = machine.host.listing();

    machine.host.remove(&key(Kind::Link, LAN));
    engine.reconcile().unwrap();
    let status = engine.status().unwrap();
    assert_eq!(status.drift, Vec::<String>::new());
    let problems = format!("{:?}", status.problems);
    assert!(problems.contains("network \\\"web\\\"") && problems.contains("br0"), "{problems}");
    assert!(problems.contains("1 endpoints are cut off"), "{problems}");
    assert_eq!(status.problems.len(), 1, "{problems}");
    assert!(!machine.host.listing().contains("br0  bridge"));
    let refused = engine.create_endpoint(sandboxed(TWO, WEB, vec![])).unwrap_err();
    assert!(refused.to_string().contains("it is gone"), "{refused}");

    with_bridge(&mut engine, &machine.host);
    engine.reconcile().unwrap();
    assert_eq!(machine.host.listing(), whole);
    assert_eq!(engine.status().unwrap().problems, vec![]);
}

#[test]
fn after_a_boot_the_bridge_may_come_late() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    drop(engine);
    let machine = machine.rebooted();
    let mut engine = machine.engine();
    let status = engine.status().unwrap();
    assert_eq!((status.drift.len(), status.problems.len()), (0, 1), "{status:?}");
    assert!(!machine.host.listing().contains("address"));
    with_bridge(&mut engine, &machine.host);
    engine.reconcile().unwrap();
    let listing = machine.host.listing();
    assert!(listing.contains("10.1.0.1/24 dev br0"), "{listing}");
    assert_eq!(engine.status().unwrap().problems, vec![]);
}

#[test]
fn a_network_goes_while_its_bridge_is_gone() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    machine.host.remove(&key(Kind::Link, LAN));
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert_eq!(machine.host.listing(), "");
}

#[test]
fn ports_on_the_bridge_are_isolated_without_icc_and_never_lend_it_their_address() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    let start = machine.log.len();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
    let made = machine.log.since(start);
    let link = made.iter().find(|op| op.key().kind == Kind::Link);
    let Some(Object::Link(link)) = link.map(|op| op.object()) else { panic!("no link") };
    assert!(matches!(link.kind, LinkKind::Veth { isolated: true, .. }), "{link:?}");
    assert_eq!(link.mac.unwrap().bytes()[0], 0xfe);
    assert_eq!(link.master, Some(LAN.parse().unwrap()));
}

/// With bridged packets filtered our rules refuse neighbours; a port that is isolated as well would
/// not even hear what is sent to its published ports.
#[test]
fn ports_follow_the_hosts_setting_of_bridged_packets() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
    let isolated = || machine.host.listing().contains("veth mtu 1500 isolated");
    assert!(isolated());
    machine.host.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    engine.reconcile().unwrap();
    assert!(isolated(), "IPv6 passes unseen");
    machine.host.set_sysctl("net/bridge/bridge-nf-call-ip6tables", "1");
    engine.reconcile().unwrap();
    assert!(!isolated());
    assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
}

fn foreign(kind: LinkKind, name: &str) -> Object {
    Object::Link(Link {
        netns: Netns::Host,
        name: name.parse().unwrap(),
        kind,
        mtu: Mtu::ETHERNET,
        mac: None,
        master: None,
        alias: String::new(),
        serving: true,
    })
}

#[test]
fn what_does_not_fit_the_operators_bridge_is_refused() {
    let machine = machine();
    let bridge = LinkKind::Bridge { filter_bridged: false };
    let veth = LinkKind::Veth { peer: Peer::Elsewhere, isolated: false };
    machine.host.add_foreign(foreign(bridge, "docker0"));
    machine.host.add_foreign(foreign(veth, "tap0"));
    let before = machine.host.listing();
    let mut engine = machine.engine();
    for (key, value, class, says) in [
        (NAME, "tap0", ErrorClass::Conflict, "existing interface tap0 is not a bridge"),
        (NAME, "docker0", ErrorClass::Conflict, "Docker's own default network"),
        (MTU, "9000", ErrorClass::Usage, "has an MTU of 1500"),
        (MTU, "1400", ErrorClass::Usage, "has an MTU of 1500"),
    ] {
        let mut request = adopting(APART);
        request.options.insert(key.into(), value.into());
        let error = create(&mut engine, request).unwrap_err();
        assert_eq!(error.class, class, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut request = adopting(APART);
    request.options.insert(MTU.into(), "1500".into());
    create(&mut engine, request).unwrap();
    let second =
        NetworkRequest { id: Some(DB), name: None, ..adopting(["10.2.0.0/24", "fd00:2::/64"]) };
    let error = create(&mut engine, second).unwrap_err();
    assert!(error.to_string().contains("network \"web\""), "{error}");
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert_eq!(machine.host.listing(), before);
}

/// The router that this host sends by would lose its address to us.
#[test]
fn another_hosts_address_is_no_gateway_and_no_endpoints() {
    let router: IpAddr = "192.168.7.1".parse().unwrap();
    let bridge = ForeignBridge {
        mtu: Mtu::ETHERNET,
        forwarding_v4: false,
        forwarding_v6: Some(false),
        route_localnet: false,
        up: true,
        filtered_v4: false,
        filtered_v6: false,
        addresses: ["192.168.7.2/24".parse().unwrap()].into(),
        next_hops: [router].into(),
        nets: ["192.168.7.0/24", "192.168.7.1/32", "192.168.7.2/32"]
            .map(|net| net.parse().unwrap())
            .into(),
    };
    let foreign_links = [(LAN.parse().unwrap(), Some(bridge.clone()))].into();
    let machine = Machine::with(Facts { taken: bridge.nets, foreign_links, ..facts() });
    let mut engine = machine.engine();
    let mut request = adopting(AMONG);
    request.subnets.truncate(1);
    let mut routers = request.clone();
    routers.subnets[0].gateway = Some(router);
    let error = create(&mut engine, routers).unwrap_err().to_string();
    assert!(error.contains("another host's") && error.contains("--gateway 192.168.7.2"), "{error}");
    let (_, plan) = engine.create_network(request.clone(), Mode::DryRun).unwrap();
    assert!(!plan.to_string().contains("address"), "{plan}");
    // The same subnet on a bridge of our own would cut the host off.
    request.options.clear();
    let error = create(&mut engine, request).unwrap_err().to_string();
    assert!(error.contains("already uses"), "{error}");
}

#[test]
fn a_bridge_that_is_down_is_reported() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    let bridge = LinkKind::Bridge { filter_bridged: false };
    let Object::Link(link) = foreign(bridge, LAN) else { panic!() };
    machine.host.add_foreign(Object::Link(Link { serving: false, ..link }));
    engine.reconcile().unwrap();
    let problems = engine.status().unwrap().problems;
    assert!(problems.iter().any(|it| it.text.contains("ip link set br0 up")), "{problems:?}");
}

#[test]
fn the_operators_addresses_and_marks_are_told_apart() {
    let machine = machine();
    let mut engine = machine.engine();
    create(&mut engine, adopting(APART)).unwrap();
    let theirs = Address {
        netns: Netns::Host,
        link: LAN.parse().unwrap(),
        net: "10.1.0.77/24".parse().unwrap(),
    };
    machine.host.add_foreign(Object::Address(theirs));
    engine.reconcile().unwrap();
    assert!(machine.host.listing().contains("10.1.0.77/24 dev br0"));
    assert_eq!(engine.status().unwrap().problems, vec![]);
    assert!(!machine.host.listing().contains(&format!("{LAN}  {MARK_PREFIX}")));
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert!(machine.host.listing().contains("10.1.0.77/24 dev br0"));
}
