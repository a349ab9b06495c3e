//! Every option of the bridge driver: what a network and an endpoint with published ports become,
//! as text that is read in the diff; and what cannot be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netagent::driver::bridge::OPTIONS;
use netagent::engine::{EndpointRequest, Engine, Mode, NetworkRequest, PortRequest, SubnetRequest};
use netagent::model::{PortRange, Protocol, Reach};

use crate::goldens::check_golden;
use crate::kit::{Machine, facts};
use crate::scenarios::*;

const BRIDGE: &str = "com.docker.network.bridge.";
const NETWORK: &str = "com.docker.network.";

/// A network of both families whose endpoint publishes 8080:80, 53:53/udp on one address each, and
/// 9000-9001 as they are.
struct Case {
    name: &'static str,
    reach: Reach,
    options: &'static [(&'static str, &'static str)],
}

const fn case(name: &'static str, options: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, reach: Reach::External, options }
}

const fn internal(name: &'static str, options: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, reach: Reach::Internal, options }
}

const CASES: &[Case] = &[
    case("none", &[]),
    case("name", &[("com.docker.network.bridge.name", "br-web")]),
    case("icc_off", &[("com.docker.network.bridge.enable_icc", "false")]),
    case("masquerade_off", &[("com.docker.network.bridge.enable_ip_masquerade", "false")]),
    case("host_binding_v4", &[("com.docker.network.bridge.host_binding_ipv4", "192.0.2.1")]),
    case("host_binding_v6", &[("com.docker.network.bridge.host_binding_ipv4", "::1")]),
    case("host_binding_every", &[("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0")]),
    case("mode_v4_routed", &[("com.docker.network.bridge.gateway_mode_ipv4", "routed")]),
    case("mode_v6_routed", &[("com.docker.network.bridge.gateway_mode_ipv6", "routed")]),
    case(
        "modes_routed",
        &[
            ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "routed"),
        ],
    ),
    case(
        "modes_unprotected",
        &[
            ("com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "nat-unprotected"),
        ],
    ),
    internal("internal", &[]),
    internal(
        "modes_isolated",
        &[
            ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "isolated"),
        ],
    ),
    case("inhibit", &[("com.docker.network.bridge.inhibit_ipv4", "true")]),
    internal("inhibit_internal", &[("com.docker.network.bridge.inhibit_ipv4", "1")]),
    case("trusted", &[("com.docker.network.bridge.trusted_host_interfaces", "eth1:vxlan.1")]),
    case(
        "sources",
        &[
            ("com.docker.network.host_ipv4", "192.0.2.7"),
            ("com.docker.network.host_ipv6", "2001:db8::7"),
        ],
    ),
    case("mtu", &[("com.docker.network.driver.mtu", "1400")]),
    case("prefix", &[("com.docker.network.container_iface_prefix", "lan")]),
    case(
        "announcements",
        &[
            ("com.docker.network.advertise_addr_nmsgs", "0"),
            ("com.docker.network.advertise_addr_ms", "100"),
        ],
    ),
    case("default_bridge", &[("com.docker.network.bridge.default_bridge", "false")]),
];

fn request(reach: Reach, options: &[(&str, &str)]) -> NetworkRequest {
    let mut request = network(WEB, "web", "10.1.0.0/24");
    request.subnets.push(subnet("fd00:1::/64"));
    request.reach = reach;
    request.options = options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    request
}

fn asked() -> Vec<PortRequest> {
    let dns = |host: &str| PortRequest {
        protocol: Protocol::Udp,
        host: Some(host.parse().unwrap()),
        ..port(53, 53)
    };
    vec![port(8080, 80), dns("192.0.2.1"), dns("2001:db8::1"), port(9000, 9000), port(9001, 9001)]
}

fn endpoint(reach: Reach) -> EndpointRequest {
    let ports = if reach == Reach::External { asked() } else { vec![] };
    sandboxed(ONE, WEB, ports)
}

#[test]
fn every_option_has_the_objects_of_its_golden() {
    for Case { name, reach, options } in CASES {
        let machine = Machine::new();
        machine.host.add_namespace(SANDBOX);
        let mut engine = machine.engine();
        create(&mut engine, request(*reach, options)).unwrap();
        let steps = machine.log.len();
        engine.create_endpoint(endpoint(*reach)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = |ops: Vec<netagent::object::Op>| {
            ops.iter().map(|op| format!("{op}\n")).collect::<String>()
        };
        let mut made = machine.log.since(0);
        let attached = made.split_off(steps);
        let text = format!("# the network\n{}# an endpoint\n{}", text(made), text(attached));
        check_golden(&format!("options/{name}"), &text);
        let before = machine.host.listing();
        engine.reconcile().unwrap();
        assert_eq!(machine.host.listing(), before, "{name}: a second look finds all well");
        engine.delete_endpoint(WEB, ONE).unwrap();
        engine.delete_network(WEB, Mode::Apply).unwrap();
        assert_eq!(
            machine.host.listing(),
            Machine::new().host.listing(),
            "{name}: nothing is left"
        );
    }
}

#[test]
fn every_option_of_the_table_has_a_golden() {
    let tried: BTreeSet<&str> =
        CASES.iter().flat_map(|case| case.options).map(|(key, _)| *key).collect();
    let known: BTreeSet<&str> = OPTIONS.iter().map(|row| row.key).collect();
    assert_eq!(tried, known);
    assert!(known.iter().all(|key| key.starts_with(BRIDGE) || key.starts_with(NETWORK)));
}

#[track_caller]
fn refused(engine: &mut Engine, request: NetworkRequest, says: &str) {
    let error = engine.create_network(request, Mode::Apply).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let machine = Machine::new();
    let before = machine.host.listing();
    let mut engine = machine.engine();
    let isolated = [("com.docker.network.bridge.gateway_mode_ipv4", "isolated")];
    refused(
        &mut engine,
        request(Reach::External, &isolated),
        "only be used for an internal network",
    );
    let small = [("com.docker.network.driver.mtu", "1279")];
    refused(&mut engine, request(Reach::External, &small), "IPv6 needs at least 1280");

    let mut two = docker_network(WEB, "172.18.0.0/16", "172.18.0.1");
    two.subnets.push(subnet("172.19.0.0/16"));
    refused(&mut engine, two, "one IPv4 subnet");

    let gateway = |pool: &str, aux: &[(&str, &str)]| {
        let mut request = request(Reach::External, &[]);
        request.subnets.truncate(1);
        let aux = aux.iter().map(|(name, address)| ((*name).into(), address.parse().unwrap()));
        let (pool, aux) = (pool.parse().unwrap(), aux.collect());
        request.subnets[0] = SubnetRequest { pool, aux, ..subnet("10.1.0.0/24") };
        request
    };
    let mut last = gateway("10.1.0.0/31", &[("other", "10.1.0.1")]);
    last.subnets[0].gateway = Some("10.1.0.0".parse().unwrap());
    refused(&mut engine, last, "leave no address for an endpoint");
    let mut only = gateway("10.1.0.4/32", &[]);
    only.subnets[0].gateway = Some("10.1.0.4".parse().unwrap());
    refused(&mut engine, only, "leave no address for an endpoint");
    refused(
        &mut engine,
        NetworkRequest {
            reach: Reach::Internal,
            ..gateway("10.1.0.0/24", &[("DefaultGatewayIPv4", "10.1.0.9")])
        },
        "an internal network has no default gateway",
    );
    let outside = gateway("10.1.0.0/24", &[("DefaultGatewayIPv4", "10.2.0.9")]);
    refused(&mut engine, outside, "10.2.0.9");
    assert_eq!(machine.host.listing(), before);
}

#[test]
fn two_networks_on_one_bridge_name_are_refused_by_the_name_of_the_first() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let name = [("com.docker.network.bridge.name", "br-web")];
    create(&mut engine, request(Reach::External, &name)).unwrap();
    let mut second = network(DB, "db", "10.2.0.0/24");
    second.options = [("com.docker.network.bridge.name".to_owned(), "br-web".to_owned())].into();
    refused(&mut engine, second, "network \"web\" has a bridge of this name");
}

#[test]
fn a_subnet_of_two_addresses_has_room_for_two_endpoints_where_no_gateway_is_needed() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    for (mode, options) in [
        ("isolated", [("com.docker.network.bridge.gateway_mode_ipv4", "isolated")]),
        ("inhibited", [("com.docker.network.bridge.inhibit_ipv4", "true")]),
    ] {
        let mut request = request(Reach::Internal, &options);
        request.subnets = vec![subnet("10.1.0.0/31")];
        create(&mut engine, request).unwrap();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (id, path) in [(ONE, "/run/netns/one"), (TWO, "/run/netns/two")] {
            machine.host.add_namespace(path);
            let mut guest = sandboxed(id, WEB, vec![]);
            guest.name = Some(path.into());
            guest.attach = netagent::engine::AttachRequest::Netns {
                path: path.into(),
                interface: None,
                default_route: true,
            };
            let made = engine.create_endpoint(guest).unwrap();
            addresses.extend(made.addresses());
        }
        addresses.sort_unstable();
        assert_eq!(addresses, ["10.1.0.0", "10.1.0.1"].map(|text| text.parse::<IpAddr>().unwrap()));
        for id in [ONE, TWO] {
            engine.delete_endpoint(WEB, id).unwrap();
        }
        engine.delete_network(WEB, Mode::Apply).unwrap();
        assert!(engine.intent().network(WEB).is_none(), "{mode}");
    }
}

#[test]
fn containers_use_the_gateway_that_the_user_names() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let mut request = docker_network(WEB, "172.18.0.0/16", "172.18.0.1");
    request.subnets[0].aux =
        [("DefaultGatewayIPv4".to_owned(), "172.18.0.254".parse().unwrap())].into();
    create(&mut engine, request).unwrap();
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
    let joined = engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    assert_eq!(joined.gateway, Some("172.18.0.254".parse().unwrap()));
}

#[test]
fn a_loopback_port_of_ipv6_is_relayed_where_bridged_packets_are_filtered() {
    for filtered in [false, true] {
        let machine =
            Machine::with(netagent::model::Facts { bridged_v6_filtered: filtered, ..facts() });
        machine.host.add_namespace(SANDBOX);
        let mut engine = machine.engine();
        create(&mut engine, request(Reach::External, &[])).unwrap();
        engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).unwrap();
        let relayed = machine.log.since(0).iter().any(|op| {
            matches!(op.object(), netagent::object::Object::Hold(hold) if hold.relay.is_some())
        });
        assert_eq!(relayed, filtered);
        let listing = machine.host.listing();
        assert_eq!(listing.contains("::1/128 dev"), !filtered, "{listing}");
    }
}

#[test]
fn requests_that_differ_by_their_address_only_get_the_same_port() {
    let machine = Machine::new();
    machine.host.add_namespace(SANDBOX);
    let mut engine = machine.engine();
    create(&mut engine, request(Reach::External, &[])).unwrap();
    let on = |host: &str| PortRequest {
        host: Some(host.parse().unwrap()),
        host_ports: None,
        ..port(1, 80)
    };
    machine.host.occupy(Protocol::Tcp, "127.0.0.2".parse().unwrap(), 32768);
    engine
        .create_endpoint(sandboxed(ONE, WEB, vec![on("127.0.0.1"), on("127.0.0.2"), on("::1")]))
        .unwrap();
    let ports: Vec<PortRange> =
        engine.ports().iter().map(|holder| holder.published.host_ports).collect();
    assert_eq!(ports, vec![PortRange::single(32769).unwrap(); 3]);
}
