//! Networks that change while containers run: what is refused, what stays, what is told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netagent::engine::{EndpointRequest, Engine, Mode, NetworkChange, PortRequest};
use netagent::firewall::admission::Occasion;
use netagent::firewall::model::Value;
use netagent::kernel::fake::Fake;
use netagent::kernel::faulty::{Fault, When};
use netagent::model::{ErrorClass, Facts, Ipam, Mtu, Origin, PortRange, Protocol, Reach};
use netagent::object::{Element, Object, Op};
use netagent::store::Change;

use crate::kit::{Machine, facts};
use crate::scenarios::*;

fn started(ready: fn(&mut Engine, &Fake)) -> (Machine, Engine) {
    let machine = Machine::new();
    let mut engine = machine.engine();
    ready(&mut engine, &machine.host);
    (machine, engine)
}

/// What is published, as `netagent ports` has it.
fn published(engine: &Engine) -> Vec<String> {
    engine.ports().iter().map(|holder| holder.published.to_string()).collect()
}

/// The refusal of a change; the host and the records are as they were.
#[track_caller]
fn refused(machine: &Machine, engine: &mut Engine, change: &NetworkChange) -> String {
    let state = |engine: &Engine| {
        (machine.host.listing(), engine.intent().clone(), engine.book().clone(), published(engine))
    };
    let (before, stored) = (state(engine), machine.stored().intent);
    let error = engine.update_network(WEB, change, Mode::Apply).unwrap_err();
    assert_eq!(state(engine), before, "{error}");
    assert_eq!(machine.stored().intent, stored, "{error}");
    assert!(error.to_string().starts_with("update network \"web\""), "{error}");
    assert_ne!(error.class, ErrorClass::Stuck, "{error}");
    error.to_string()
}

#[test]
fn what_cannot_be_changed_is_refused_with_the_reason() {
    let (machine, mut engine) = started(with_busy_network);
    for (options, expected) in [
        (&[("name", "br-web")][..], "cannot be changed: the bridge would be another link"),
        (&[("container_iface_prefix", "net")], "cannot be changed"),
        (&[("default_bridge", "true")], "docker0"),
        (&[("mtu", "twelve")], "mtu"),
        (&[("enable_icc", "maybe")], "enable_icc"),
        (&[("gateway_mode_ipv4", "isolated")], "can only be used for an internal network"),
        (&[("host_binding_ipv4", "fd00::1")], "the endpoint has no IPv6 address"),
    ] {
        let error = refused(&machine, &mut engine, &change(options));
        assert!(error.contains(expected), "{error}");
    }
    let unknown = NetworkChange {
        options: [("com.docker.network.driver.mtuu".into(), String::new())].into(),
        ..NetworkChange::default()
    };
    let error = refused(&machine, &mut engine, &unknown);
    assert!(error.contains("did you mean \"com.docker.network.driver.mtu\"?"), "{error}");
}

#[test]
fn further_subnets_that_cannot_be_are_refused() {
    let (machine, mut engine) = started(with_busy_network);
    create(&mut engine, network(DB, "db", "10.2.0.0/24")).unwrap();
    for (pools, expected) in [
        (&["10.1.0.0/25"][..], "overlaps 10.1.0.0/24 of network \"web\""),
        (&["10.2.0.0/16"], "overlaps 10.2.0.0/24 of network \"db\""),
        (&["10.3.0.0/24", "10.3.0.0/25"], "overlaps 10.3.0.0/24 of the same network"),
        (&["198.51.100.0/24"], "the host already uses"),
        (&["127.1.0.0/24"], "cannot use loopback"),
    ] {
        let subnets = pools.iter().map(|pool| subnet(pool)).collect();
        let error =
            refused(&machine, &mut engine, &NetworkChange { subnets, ..NetworkChange::default() });
        assert!(error.contains(expected), "{error}");
    }
    let small =
        NetworkChange { subnets: vec![subnet("fd00:9::/64")], ..change(&[("mtu", "1200")]) };
    let error = refused(&machine, &mut engine, &small);
    assert!(error.contains("IPv6 needs at least 1280 bytes"), "{error}");
}

#[test]
fn what_dockerd_keeps_of_its_networks_is_refused_and_the_rest_is_changed() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let request = docker_network(WEB, "172.18.0.0/16", "172.18.0.1");
    create(&mut engine, request.clone()).unwrap();
    let labels = NetworkChange { labels: [("a".into(), "b".into())].into(), ..change(&[]) };
    let dropped = NetworkChange { dropped_labels: ["a".into()].into(), ..change(&[]) };
    let further = NetworkChange { subnets: vec![subnet("10.9.0.0/24")], ..change(&[]) };
    for change in [labels, dropped, further] {
        let error = engine.update_network(WEB, &change, Mode::Apply).unwrap_err();
        assert_eq!(error.class, ErrorClass::Conflict);
        assert!(error.to_string().contains("the network was made by Docker"), "{error}");
    }
    update(&mut engine, WEB, &[("mtu", "1400"), ("enable_icc", "false")]).unwrap();
    // dockerd asks for its networks again when it starts, with the options it has kept.
    let before = machine.host.listing();
    create(&mut engine, request).unwrap();
    assert_eq!(machine.host.listing(), before);
}

#[test]
fn ports_keep_their_numbers_where_the_setting_lets_them() {
    let (machine, mut engine) = started(with_busy_network);
    let before = published(&engine);
    let steps = |machine: &Machine, start: usize| machine.log.since(start);
    let start = machine.log.len();
    update(&mut engine, WEB, &[("gateway_mode_ipv4", "nat-unprotected")]).unwrap();
    update(&mut engine, WEB, &[("enable_ip_masquerade", "false"), ("mtu", "1300")]).unwrap();
    assert_eq!(published(&engine), before);
    let holds = |op: &Op| matches!(op.object(), Object::Hold(_));
    assert!(!steps(&machine, start).iter().any(holds), "a socket was let go");

    update(&mut engine, WEB, &[("host_binding_ipv4", "192.0.2.1")]).unwrap();
    let moved: Vec<String> =
        before.iter().map(|line| line.replace("0.0.0.0:", "192.0.2.1:")).collect();
    let mut now = published(&engine);
    now.sort();
    let mut moved: Vec<String> =
        moved.iter().map(|line| line.replace("*:", "192.0.2.1:")).collect();
    moved.sort();
    assert_eq!(now, moved, "8080, the range and the ephemeral port");
    update(&mut engine, WEB, &[("host_binding_ipv4", "")]).unwrap();
    assert_eq!(published(&engine), before);
}

#[test]
fn routing_withdraws_host_ports_and_translating_chooses_them_again() {
    let (machine, mut engine) = started(with_busy_network);
    let whole = machine.host.listing();
    update(&mut engine, WEB, &[("gateway_mode_ipv4", "routed")]).unwrap();
    assert_eq!(published(&engine), Vec::<String>::new());
    assert!(machine.host.listing().contains("opened"), "{}", machine.host.listing());
    update(&mut engine, WEB, &[("gateway_mode_ipv4", "nat")]).unwrap();
    assert_eq!(published(&engine).len(), 5, "{:?}", published(&engine));
    update(&mut engine, WEB, &[("gateway_mode_ipv4", "")]).unwrap();
    assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
    assert_eq!(machine.host.listing().lines().count(), whole.lines().count());
}

/// A network update that a running container contradicts.
#[test]
fn a_port_that_somebody_has_refuses_the_whole_change_by_name() {
    let (machine, mut engine) = started(with_busy_network);
    update(&mut engine, WEB, &[("host_binding_ipv4", "192.0.2.1")]).unwrap();
    create(&mut engine, network(DB, "db", "10.2.0.0/24")).unwrap();
    let other = EndpointRequest {
        id: None,
        name: Some("other".into()),
        ..sandboxed(TWO, DB, vec![PortRequest { host: Some(host("192.0.2.2")), ..port(8080, 80) }])
    };
    engine.create_endpoint(other).unwrap();
    for binding in ["192.0.2.2", "0.0.0.0"] {
        let error = refused(&machine, &mut engine, &change(&[("host_binding_ipv4", binding)]));
        assert!(
            error.contains(":8080/tcp: endpoint \"other\" of network \"db\" has published it"),
            "{error}"
        );
    }
    // A program that is none of ours: the kernel knows.
    machine.host.occupy(Protocol::Tcp, host("192.0.2.3"), 8080);
    let error = refused(&machine, &mut engine, &change(&[("host_binding_ipv4", "192.0.2.3")]));
    assert!(error.contains("port 8080/tcp"), "{error}");
    update(&mut engine, WEB, &[("host_binding_ipv4", "192.0.2.4")]).unwrap();
}

fn host(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn a_port_of_our_choice_gives_way_to_who_has_it_on_the_new_address() {
    let (machine, mut engine) = started(with_sandbox);
    let any = PortRequest { host_ports: None, ..port(1, 80) };
    let range = PortRequest { host_ports: PortRange::new(8000, 8003), ..port(1, 81) };
    update(&mut engine, WEB, &[("host_binding_ipv4", "127.0.0.1")]).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![any, range])).unwrap();
    let numbers = |engine: &Engine| {
        let ports = engine.ports();
        let mut numbers: Vec<u16> =
            ports.iter().map(|holder| holder.published.host_ports.first()).collect();
        numbers.sort();
        numbers
    };
    let [low, high] = numbers(&engine)[..] else { panic!("{:?}", engine.ports()) };
    for taken in [low, high] {
        machine.host.occupy(Protocol::Tcp, host("192.0.2.1"), taken);
    }
    update(&mut engine, WEB, &[("host_binding_ipv4", "192.0.2.1")]).unwrap();
    let now = numbers(&engine);
    assert_eq!(now[0], 8001);
    assert!(now[1] > high, "{now:?}");
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let (machine, mut engine) = started(with_busy_network);
    let further = NetworkChange {
        subnets: vec![subnet("fd00:9::/64")],
        ..change(&[("mtu", "1400"), ("host_binding_ipv4", "127.0.0.1")])
    };
    let (before, start) = (machine.host.listing(), machine.log.len());
    let (intent, book) = (engine.intent().clone(), engine.book().clone());
    let dry = engine.update_network(WEB, &further, Mode::DryRun).unwrap();
    assert_eq!((machine.host.listing(), machine.log.len()), (before, start));
    assert_eq!((engine.intent(), engine.book()), (&intent, &book));
    let done = engine.update_network(WEB, &further, Mode::Apply).unwrap();
    assert_eq!(dry, done);
    assert_eq!(done.plan.ops(), machine.log.since(start));
    let again = engine.update_network(WEB, &change(&[("mtu", "1400")]), Mode::Apply).unwrap();
    assert!(again.plan.is_empty(), "{}", again.plan);
}

#[test]
fn all_elements_change_in_one_transaction() {
    let (machine, mut engine) = started(with_busy_network);
    let start = machine.log.len();
    let options = [
        ("enable_icc", "false"),
        ("mtu", "1300"),
        ("gateway_mode_ipv4", "routed"),
        ("trusted_host_interfaces", "lan0"),
    ];
    update(&mut engine, WEB, &options).unwrap();
    let ops = machine.log.since(start);
    let is_element = |op: &&Op| matches!(op.object(), Object::Element(_));
    let first = ops.iter().position(|op| is_element(&op)).unwrap();
    let together = ops[first..].iter().take_while(is_element).count();
    assert_eq!(together, ops.iter().filter(is_element).count(), "{ops:#?}");
    assert!(together > 5);
}

#[test]
fn a_smaller_mtu_comes_from_the_ends_and_a_larger_one_from_the_bridge() {
    for (mtu, bridge_first) in [("1300", false), ("9000", true)] {
        let (machine, mut engine) = started(with_busy_network);
        let start = machine.log.len();
        update(&mut engine, WEB, &[("mtu", mtu)]).unwrap();
        let names: Vec<String> = machine.log.since(start).iter().map(|op| op.key().name).collect();
        let bridge = names.iter().position(|name| name.starts_with("nab-")).unwrap();
        assert_eq!((names.len(), bridge), (3, if bridge_first { 0 } else { 2 }), "{names:?}");
    }
}

/// Where our chains never see neighbours' packets, the bridge refuses them.
#[test]
fn without_br_netfilter_icc_isolates_the_ports_that_are_there() {
    let machine = Machine::with(Facts { bridge_netfilter: false, ..facts() });
    let mut engine = machine.engine();
    with_busy_network(&mut engine, &machine.host);
    let isolated = || machine.host.listing().matches(" isolated ").count();
    for (icc, count) in [("false", 2), ("true", 0)] {
        update(&mut engine, WEB, &[("enable_icc", icc)]).unwrap();
        assert_eq!(isolated(), count, "{}", machine.host.listing());
    }
}

#[test]
fn the_mtu_stays_as_it_was_resolved_unless_it_is_changed() {
    let (machine, mut engine) = started(with_busy_network);
    drop(engine);
    let facts = Facts { default_mtu: Mtu::new(1500).unwrap(), ..facts() };
    machine.host.set_facts(facts);
    engine = machine.engine();
    let mtu = |engine: &Engine| {
        let netagent::model::DriverSpec::Bridge(bridge) =
            engine.intent().network(WEB).unwrap().spec.driver.clone();
        bridge.mtu.bytes()
    };
    update(&mut engine, WEB, &[("enable_icc", "false")]).unwrap();
    assert_eq!(mtu(&engine), 1450);
    update(&mut engine, WEB, &[("mtu", "1400")]).unwrap();
    update(&mut engine, WEB, &[("mtu", "")]).unwrap();
    assert_eq!(mtu(&engine), 1500, "that of the host by now");
}

#[test]
fn an_interface_that_cannot_be_found_is_named_or_refuses() {
    let (machine, mut engine) = started(with_busy_network);
    let link = netagent::driver::host_end(ONE).name.parse().unwrap();
    machine.host.hide_other_end(&link);
    let error = refused(&machine, &mut engine, &change(&[("mtu", "1300")]));
    assert!(error.contains("endpoint \"box\": its interface"), "{error}");
    let updated = engine.update_network(WEB, &change(&[("mtu", "9000")]), Mode::Apply).unwrap();
    assert_eq!(updated.out_of_reach, ["box"]);
}

#[test]
fn an_endpoint_whose_container_is_gone_stands_in_nobodys_way() {
    let (machine, mut engine) = started(with_busy_network);
    machine.host.end_namespace(SANDBOX);
    update(&mut engine, WEB, &[("mtu", "1300"), ("host_binding_ipv4", "127.0.0.1")]).unwrap();
    engine.reconcile().unwrap();
    update(&mut engine, WEB, &[("mtu", "1200"), ("host_binding_ipv4", "")]).unwrap();
    assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
}

/// What an update of these options ended and what holds after it, by sets and ports; `None` where
/// it looked through no flows.
fn judged(
    machine: &Machine,
    engine: &mut Engine,
    options: &[(&str, &str)],
) -> Option<[Vec<String>; 2]> {
    let looks = machine.host.admissions().len();
    update(engine, WEB, options).unwrap();
    let admissions = machine.host.admissions().split_off(looks);
    let [admission] = admissions.concat().try_into().map_err(|_| ()).ok()?;
    assert_eq!(admission.occasion, Occasion::Change);
    assert_eq!(admission.containers, BTreeSet::from([host("10.1.0.2"), host("10.1.0.3")]));
    let names = |elements: &[Element]| {
        let names: BTreeSet<String> = elements
            .iter()
            .map(|element| match element.set.is_port_map() {
                true => {
                    let address = element.key.iter().find(|v| matches!(v, Value::Address(_)));
                    address.map_or("any".to_owned(), |address| address.to_string())
                }
                false => element.set.to_string(),
            })
            .collect();
        names.into_iter().collect()
    };
    Some([names(&admission.gone), names(&admission.holding)])
}

#[test]
fn flows_are_looked_through_where_other_packets_are_let_in_than_before() {
    let (machine, mut engine) = started(with_busy_network);
    for options in
        [&[("mtu", "1300")][..], &[("enable_icc", "false")], &[("enable_ip_masquerade", "false")]]
    {
        assert_eq!(judged(&machine, &mut engine, options), None, "{options:?}");
    }
    let lists = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (option, gone, holding) in [
        (
            ("gateway_mode_ipv4", "nat-unprotected"),
            &[][..],
            &["127.0.0.1", "any", "unprotected"][..],
        ),
        (("gateway_mode_ipv4", "nat"), &["unprotected"], &["127.0.0.1", "any"]),
        (("trusted_host_interfaces", "lan0"), &[], &["127.0.0.1", "any", "opened", "trusted"]),
        (("trusted_host_interfaces", ""), &["opened", "trusted"], &["127.0.0.1", "any"]),
        (("host_binding_ipv4", "127.0.0.1"), &["any"], &["127.0.0.1"]),
        // What is published on the host's loopback is opened to nobody.
        (("gateway_mode_ipv4", "routed"), &["127.0.0.1"], &["routed"]),
        (("host_binding_ipv4", ""), &[], &["opened", "routed"]),
        (("gateway_mode_ipv4", "nat"), &["opened", "routed"], &["127.0.0.1", "any"]),
    ] {
        let found = judged(&machine, &mut engine, &[option]);
        assert_eq!(found, Some([lists(gone), lists(holding)]), "{option:?}");
    }
}

/// Killed before it had ended the flows that it forbade, the agent ends them when it starts.
#[test]
fn a_start_looks_through_the_flows_of_every_network() {
    let (machine, mut engine) = started(with_busy_network);
    create(&mut engine, network(DB, "db", "10.2.0.0/24")).unwrap();
    drop(engine);
    let looks = machine.host.admissions().len();
    let _engine = machine.engine();
    let admissions = machine.host.admissions().split_off(looks).concat();
    let bridges: Vec<_> = admissions.iter().map(|known| known.containers.len()).collect();
    assert_eq!(bridges.iter().sum::<usize>(), 2, "{admissions:?}");
    assert_eq!(admissions.len(), 2);
    assert!(admissions.iter().all(|known| known.occasion == Occasion::Start));
}

/// Elements that a crash left are taken away at the next start, and the flows by them end.
#[test]
fn a_start_ends_what_came_in_by_elements_that_it_removes() {
    let (machine, mut engine) = started(with_busy_network);
    let start = machine.log.len();
    update(&mut engine, WEB, &[("gateway_mode_ipv4", "routed")]).unwrap();
    let is_element = |op: &&Op| matches!(op.object(), Object::Element(_));
    let at = start + machine.log.since(start).iter().position(|op| is_element(&op)).unwrap();

    let machine = Machine::new();
    let fault = Fault::Crash { at, when: When::Before };
    let crashed = machine.survives(|| {
        let mut engine = machine.start(fault).unwrap();
        with_busy_network(&mut engine, &machine.host);
        update(&mut engine, WEB, &[("gateway_mode_ipv4", "routed")])
    });
    assert!(crashed.is_none());
    let _engine = machine.engine();
    let admissions = machine.host.admissions().concat();
    let gone = &admissions.last().unwrap().gone;
    assert!(gone.iter().any(|element| element.set.is_port_map()), "{gone:?}");
}

/// The record of a network is on disk before those of its endpoints.
#[test]
fn a_crash_between_network_and_endpoints_is_finished_by_the_next_start() {
    for options in [
        &[("gateway_mode_ipv4", "routed")][..],
        &[("host_binding_ipv4", "127.0.0.1")],
        &[("gateway_mode_ipv4", "nat-unprotected"), ("host_binding_ipv4", "192.0.2.1")],
    ] {
        let (machine, mut engine) = started(with_busy_network);
        update(&mut engine, WEB, options).unwrap();
        let (expected, ports) = (engine.intent().clone(), published(&engine));
        let listing = machine.host.listing();
        let changed = expected.network(WEB).unwrap().clone();
        drop(engine);

        let (machine, engine) = started(with_busy_network);
        drop(engine);
        machine.store(&[Change::PutNetwork(Box::new(changed))]);
        let mut engine = machine.engine();
        assert_eq!(published(&engine), ports, "{options:?}");
        assert_eq!(engine.intent(), &expected, "{options:?}");
        assert_eq!(machine.host.listing(), listing, "{options:?}");
        assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
        assert_eq!(engine.status().unwrap().problems, vec![]);
        assert_eq!(machine.stored().intent, expected, "{options:?}");
    }
}

#[test]
fn labels_change_records_alone() {
    let (machine, mut engine) = started(with_busy_network);
    let set = |pairs: &[(&str, &str)], dropped: &[&str]| NetworkChange {
        labels: pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        dropped_labels: dropped.iter().map(|key| (*key).into()).collect(),
        ..NetworkChange::default()
    };
    let start = machine.log.len();
    for change in [set(&[("a", "1"), ("b", "2")], &[]), set(&[("a", "3")], &["b", "c"])] {
        engine.update_network(WEB, &change, Mode::Apply).unwrap();
    }
    assert_eq!(machine.log.len(), start);
    let labels = [("a".to_owned(), "3".to_owned())].into();
    assert_eq!(machine.stored().intent.network(WEB).unwrap().spec.labels, labels);
}

#[test]
fn a_further_subnet_gives_out_addresses_and_goes_with_the_network() {
    let (machine, mut engine) = started(with_web);
    let before = machine.host.listing();
    let subnets = vec![subnet("10.9.0.0/24"), subnet("fd00:9::/64")];
    let further = NetworkChange { subnets, ..NetworkChange::default() };
    engine.update_network(WEB, &further, Mode::Apply).unwrap();
    drop(engine);
    engine = machine.engine();
    machine.host.add_namespace(SANDBOX);
    let v4 = Some("10.9.0.9/24".parse().unwrap());
    let made = engine.create_endpoint(EndpointRequest { v4, ..sandboxed(ONE, WEB, vec![]) });
    let made = made.unwrap();
    assert_eq!((made.v4, made.v6.unwrap().to_string()), (v4, "fd00:9::2/64".to_owned()));
    engine.delete_endpoint(WEB, ONE).unwrap();
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert_eq!(engine.book().pools().count(), 0);
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    assert_eq!(machine.host.listing(), before);
}

/// An isolated network has no gateway; it gets one when it stops being isolated.
#[test]
fn a_network_that_is_not_isolated_any_more_gets_its_gateway() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let isolated = change(&[("gateway_mode_ipv4", "isolated")]).options;
    let request = netagent::engine::NetworkRequest {
        reach: Reach::Internal,
        options: isolated,
        origin: Origin::Netagent,
        ipam: Ipam::Netagent,
        ..network(WEB, "web", "10.1.0.0/24")
    };
    create(&mut engine, request).unwrap();
    let gateway = |engine: &Engine| engine.intent().network(WEB).unwrap().spec.subnets[0].gateway;
    assert_eq!(gateway(&engine), None);
    update(&mut engine, WEB, &[("gateway_mode_ipv4", "")]).unwrap();
    assert_eq!(gateway(&engine), Some(host("10.1.0.1")));
    assert!(machine.host.listing().contains("10.1.0.1/24"), "{}", machine.host.listing());
}

/// A ghost's port is free, but a dry run does not bury it.
#[test]
fn a_ghost_gives_its_port_away_and_a_dry_run_lets_it_rest() {
    let (machine, mut engine) = started(with_published);
    create(&mut engine, network(DB, "db", "10.2.0.0/24")).unwrap();
    update(&mut engine, DB, &[("host_binding_ipv4", "127.0.0.1")]).unwrap();
    update(&mut engine, WEB, &[("host_binding_ipv4", "192.0.2.1")]).unwrap();
    machine.host.add_namespace(SANDBOX);
    engine.create_endpoint(sandboxed(TWO, DB, vec![port(8080, 80)])).unwrap();
    let wider = change(&[("host_binding_ipv4", "192.0.2.1")]);
    let refused = engine.update_network(DB, &wider, Mode::Apply).unwrap_err();
    assert!(refused.to_string().contains("has published it"), "{refused}");
    machine.host.end_namespace("/var/run/docker/netns/c1");
    engine.update_network(DB, &wider, Mode::DryRun).unwrap();
    assert!(engine.intent().endpoint(ONE).is_some());
    engine.update_network(DB, &wider, Mode::Apply).unwrap();
    assert!(engine.intent().endpoint(ONE).is_none());
    assert_eq!(published(&engine), ["192.0.2.1:8080->80/tcp"]);
}

#[test]
fn the_mtu_of_an_operators_bridge_is_the_operators() {
    let (machine, mut engine) = started(with_bridge);
    create(&mut engine, adopting(APART)).unwrap();
    let error = refused(&machine, &mut engine, &change(&[("mtu", "1300")]));
    assert!(error.contains("bridge \"br0\" exists and has an MTU of 1500"), "{error}");
}
