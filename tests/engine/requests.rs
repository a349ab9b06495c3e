//! What single requests promise: idempotence, ghosts, clashes, choices.

use std::net::Ipv4Addr;

use crate::kit::{Machine, facts};
use crate::scenarios::*;
use netagent::engine::{EndpointRequest, Mode, NetworkRequest, PortRequest, SubnetRequest};
use netagent::model::{
    DriverSpec, EndpointId, ErrorClass, Facts, NetworkId, Origin, PortRange, Protocol,
};
use netagent::object::{Link, LinkKind, Netns, Object, Peer};

pub const THREE: EndpointId = EndpointId::from_bytes([0x03; 32]);

#[test]
fn the_same_create_network_again_changes_nothing() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let request = docker_network(WEB, "172.18.0.0/16", "172.18.0.1");
    engine.create_network(request.clone(), Mode::Apply).unwrap();
    let steps = machine.log.len();
    engine.create_network(request.clone(), Mode::Apply).unwrap();
    assert_eq!(machine.log.len(), steps);
    let other = NetworkRequest { subnets: vec![subnet("172.19.0.0/16")], ..request };
    assert_eq!(engine.create_network(other, Mode::Apply).unwrap_err().class, ErrorClass::Conflict);
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_be_done() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let (_, plan) =
        engine.create_network(network(WEB, "web", "10.1.0.0/24"), Mode::DryRun).unwrap();
    assert!(plan.to_string().contains("bridge mtu 1450"), "{plan}");
    assert!(plan.to_string().contains("network \"web\""), "{plan}");
    assert_eq!(machine.log.len(), 0);
    assert_eq!(engine.intent().networks().count(), 0);
    assert_eq!(engine.book().pools().count(), 0);
}

#[test]
fn overlapping_subnets_name_the_network_that_has_them() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/16")).unwrap();
    let error = create(&mut engine, network(DB, "db", "10.1.5.0/24")).unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
    assert!(error.to_string().contains("network \"web\""), "{error}");
}

#[test]
fn a_subnet_that_would_cut_the_host_off_is_refused() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let error = create(&mut engine, network(WEB, "web", "198.51.0.0/16")).unwrap_err();
    assert!(error.to_string().contains("198.51.100.0/24"), "{error}");
}

#[test]
fn impossible_subnets_are_refused_by_what_is_wrong() {
    type Change = fn(&mut SubnetRequest);
    let cases: [(&str, Change, &str); 6] = [
        ("10.1.0.5/24", |_| {}, "10.1.0.0/24"),
        ("127.0.0.0/24", |_| {}, "loopback"),
        ("224.0.0.0/24", |_| {}, "multicast"),
        (
            "10.1.0.0/24",
            |subnet| subnet.range = Some("10.2.0.0/25".parse().unwrap()),
            "10.2.0.0/25",
        ),
        ("10.1.0.0/24", |subnet| subnet.gateway = Some("10.9.0.1".parse().unwrap()), "10.9.0.1"),
        (
            "10.1.0.0/24",
            |subnet| subnet.gateway = Some("10.1.0.255".parse().unwrap()),
            "10.1.0.255",
        ),
    ];
    let machine = Machine::new();
    let mut engine = machine.engine();
    for (pool, change, names) in cases {
        let mut request = network(WEB, "web", "10.1.0.0/24");
        request.subnets = vec![subnet(pool)];
        change(&mut request.subnets[0]);
        let error = create(&mut engine, request).unwrap_err();
        assert_eq!(error.class, ErrorClass::Usage, "{pool}: {error}");
        assert!(error.to_string().contains(names), "{pool}: {error}");
    }
    assert_eq!(machine.log.len(), 0);
}

#[test]
fn a_network_without_subnet_gets_one_that_nothing_uses() {
    let taken = Facts { taken: ["172.17.0.0/23".parse().unwrap()].into(), ..facts() };
    let machine = Machine::with(taken);
    let mut engine = machine.engine();
    let request = NetworkRequest { subnets: vec![], v6: true, ..network(WEB, "web", "10.0.0.0/8") };
    create(&mut engine, request).unwrap();
    let spec = &engine.intent().network(WEB).unwrap().spec;
    let pools: Vec<String> = spec.subnets.iter().map(|subnet| subnet.pool.to_string()).collect();
    assert_eq!(pools, ["172.17.2.0/24", "fd00:17::/64"]);
    assert_eq!(spec.subnets[0].gateway, Some("172.17.2.1".parse().unwrap()));
}

fn foreign_link(name: &str) -> Object {
    Object::Link(Link {
        netns: Netns::Host,
        name: name.parse().unwrap(),
        kind: LinkKind::Bridge { filter_bridged: false },
        mtu: facts().default_mtu,
        mac: None,
        master: None,
        alias: String::new(),
        serving: true,
    })
}

#[test]
fn two_networks_do_not_share_a_bridge() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let named = |id, name, pool| {
        let mut request = network(id, name, pool);
        request.options.insert("com.docker.network.bridge.name".into(), "br-web".into());
        request
    };
    create(&mut engine, named(WEB, "web", "10.1.0.0/24")).unwrap();
    let error = create(&mut engine, named(DB, "db", "10.2.0.0/24")).unwrap_err();
    assert!(error.to_string().contains("network \"web\""), "{error}");
}

#[test]
fn an_endpoint_at_a_live_address_ends_the_ghost_that_had_it() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
    engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    engine.publish(WEB, ONE, &[port(8080, 80)]).unwrap();
    engine.create_endpoint(docker_endpoint(TWO, WEB, "172.18.0.2/16")).unwrap();
    assert!(engine.intent().endpoint(ONE).is_none());
    engine.join(WEB, TWO, KEY.as_ref(), &[]).unwrap();
    engine.publish(WEB, TWO, &[port(8080, 80)]).unwrap();
    assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
}

#[test]
fn a_ghosts_port_is_free_when_its_containers_namespace_is_gone() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
    let joined = engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    machine.host.hand_over(joined.source.as_ref().unwrap(), "/var/run/docker/netns/c1");
    engine.publish(WEB, ONE, &[port(8080, 80)]).unwrap();

    engine.create_endpoint(docker_endpoint(TWO, WEB, "172.18.0.3/16")).unwrap();
    engine.join(WEB, TWO, KEY.as_ref(), &[]).unwrap();
    let error = engine.publish(WEB, TWO, &[port(8080, 80)]).unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);

    machine.host.end_namespace("/var/run/docker/netns/c1");
    engine.publish(WEB, TWO, &[port(8080, 80)]).unwrap();
    assert!(engine.intent().endpoint(ONE).is_none());
}

pub fn two_endpoints(machine: &Machine) -> netagent::engine::Engine {
    let mut engine = machine.engine();
    create(&mut engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    for (id, address) in [(ONE, "172.18.0.2/16"), (TWO, "172.18.0.3/16")] {
        engine.create_endpoint(docker_endpoint(id, WEB, address)).unwrap();
    }
    engine
}

#[test]
fn a_taken_port_is_refused_by_the_name_of_who_has_it() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    engine.publish(WEB, ONE, &[port(8080, 80)]).unwrap();
    let before = machine.host.listing();
    let specific = PortRequest { host: Some(Ipv4Addr::new(192, 0, 2, 1).into()), ..port(8080, 80) };
    for taken in [port(8080, 80), specific] {
        let error = engine.publish(WEB, TWO, &[port(9090, 90), taken]).unwrap_err();
        assert_eq!(error.class, ErrorClass::Conflict);
        assert!(error.to_string().contains(&ONE.short()), "{error}");
    }
    assert_eq!(machine.host.listing(), before);
}

#[test]
fn equal_ports_on_different_addresses_and_protocols_do_not_clash() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    let at =
        |last| PortRequest { host: Some(Ipv4Addr::new(192, 0, 2, last).into()), ..port(8080, 80) };
    engine.publish(WEB, ONE, &[at(1), PortRequest { protocol: Protocol::Udp, ..at(1) }]).unwrap();
    engine.publish(WEB, TWO, &[at(2)]).unwrap();
    assert_eq!(engine.ports().len(), 3);
}

#[test]
fn a_port_that_a_program_on_the_host_has_is_refused_and_nothing_is_published() {
    let machine = Machine::new();
    machine.host.occupy(Protocol::Tcp, Ipv4Addr::UNSPECIFIED.into(), 8080);
    let mut engine = two_endpoints(&machine);
    let before = machine.host.listing();
    let error = engine.publish(WEB, ONE, &[port(7070, 70), port(8080, 80)]).unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
    assert!(error.to_string().contains("8080/tcp"), "{error}");
    assert_eq!(machine.host.listing(), before);
    assert_eq!(engine.ports(), vec![]);
}

#[test]
fn free_choices_go_around_ports_that_the_host_uses() {
    let machine = Machine::new();
    for taken in [32768, 32769, 8000, 8001] {
        machine.host.occupy(Protocol::Tcp, Ipv4Addr::UNSPECIFIED.into(), taken);
    }
    let mut engine = two_endpoints(&machine);
    let ephemeral = PortRequest { host_ports: None, ..port(1, 7000) };
    let ranged = PortRequest { host_ports: PortRange::new(8000, 8010), ..port(1, 80) };
    engine.publish(WEB, ONE, &[ephemeral, ranged]).unwrap();
    let mut ports: Vec<u16> =
        engine.ports().iter().map(|port| port.published.host_ports.first()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [8002, 32770]);
    let steps = machine.log.len();
    engine.publish(WEB, ONE, &[ephemeral, ranged]).unwrap();
    assert_eq!(machine.log.len(), steps, "asked again, nothing changes");
}

#[test]
fn consecutive_ports_are_one_element_and_shifted_ones_one_each() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    let range: Vec<PortRequest> = (9000..9100).map(|number| port(number, number)).collect();
    engine.publish(WEB, ONE, &range).unwrap();
    let listing = machine.host.listing();
    assert_eq!(listing.matches("any_ranges 9000-9099 . tcp").count(), 1, "{listing}");
    assert_eq!(engine.ports().len(), 1);
    let shifted: Vec<PortRequest> = (7000..7003).map(|number| port(number, number + 1)).collect();
    engine.publish(WEB, TWO, &shifted).unwrap();
    assert_eq!(machine.host.listing().matches("+ port     any_ports").count(), 3);
}

#[test]
fn the_last_network_takes_everything_with_it() {
    let machine = Machine::new();
    let before = machine.host.listing();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    create(&mut engine, network(DB, "db", "10.2.0.0/24")).unwrap();
    assert_eq!(engine.status().unwrap().host_sysctls.len(), 1, "IPv4 forwarding of the uplink");
    engine.delete_network(WEB, Mode::Apply).unwrap();
    assert!(machine.host.listing().contains("uplink0/forwarding = 1"));
    engine.delete_network(DB, Mode::Apply).unwrap();
    assert_eq!(machine.host.listing(), before);
    assert_eq!(engine.status().unwrap().host_sysctls, vec![]);
    assert_eq!(engine.book().pools().count(), 0);
}

#[test]
fn a_network_of_ours_with_endpoints_is_not_removed() {
    let machine = Machine::new();
    machine.host.add_namespace(SANDBOX);
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
    let error = engine.delete_network(WEB, Mode::Apply).unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
    assert!(error.to_string().contains("box"), "{error}");
}

#[test]
fn a_namespace_that_vanished_is_named() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    let before = machine.host.listing();
    let error = engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap_err();
    assert!(error.to_string().contains(SANDBOX), "{error}");
    assert_eq!(machine.host.listing(), before);
}

#[test]
fn an_exhausted_pool_is_named_and_a_released_address_is_given_out_again() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/30")).unwrap();
    machine.host.add_namespace(SANDBOX);
    machine.host.add_namespace("/run/netns/other");
    engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
    let second = EndpointRequest { name: Some("late".into()), ..sandboxed(TWO, WEB, vec![]) };
    let error = engine.create_endpoint(second.clone()).unwrap_err();
    assert!(error.to_string().contains("10.1.0.0/30"), "{error}");
    engine.delete_endpoint(WEB, ONE).unwrap();
    engine.create_endpoint(second).unwrap();
}

#[test]
fn what_carries_our_mark_without_a_record_is_reported_and_collected_on_request() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let mut stray = foreign_link("nab-00000000000");
    let Object::Link(link) = &mut stray else { panic!("a link") };
    link.alias = "netagent:000000000000".into();
    link.kind = LinkKind::Veth { peer: Peer::Elsewhere, isolated: false };
    machine.host.add_foreign(stray);
    engine.reconcile().unwrap();
    assert!(machine.host.listing().contains("nab-00000000000"), "not removed unasked");
    assert_eq!(engine.status().unwrap().problems.len(), 1);
    let plan = engine.collect_garbage(Mode::DryRun).unwrap();
    assert_eq!(plan.steps.len(), 1);
    engine.collect_garbage(Mode::Apply).unwrap();
    assert!(!machine.host.listing().contains("nab-00000000000"));
    assert_eq!(engine.status().unwrap().problems, vec![]);
}

#[test]
fn a_host_that_became_a_router_stays_one() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    machine.host.set_router(true);
    engine.reconcile().unwrap();
    engine.delete_network(WEB, Mode::Apply).unwrap();
    let listing = machine.host.listing();
    assert!(listing.contains("net/ipv4/conf/uplink0/forwarding = 1"), "{listing}");
    assert!(!listing.contains("force_forwarding"), "{listing}");
}

#[test]
fn networks_are_found_by_name_id_and_unambiguous_beginning() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    let near = NetworkId::from_bytes({
        let mut id = [0x3f; 32];
        id[31] = 0;
        id
    });
    let mut second = network(near, "near", "10.2.0.0/24");
    second.options.insert("com.docker.network.bridge.name".into(), "near".into());
    create(&mut engine, second).unwrap();
    assert_eq!(engine.find_network("web").unwrap(), WEB);
    assert_eq!(engine.find_network(&near.to_string()).unwrap(), near);
    assert_eq!(engine.find_network("3f3f").unwrap_err().class, ErrorClass::Usage);
    assert_eq!(engine.find_network("nope").unwrap_err().class, ErrorClass::NotFound);
}

#[test]
fn mtu_and_origin_are_as_asked() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    let spec = &engine.intent().network(WEB).unwrap().spec;
    assert_eq!(spec.origin, Origin::Docker);
    let DriverSpec::Bridge(bridge) = &spec.driver;
    assert_eq!(bridge.mtu, facts().default_mtu);
}

#[test]
fn publishing_nothing_withdraws() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    let before = machine.host.listing();
    engine.publish(WEB, ONE, &[port(8080, 80)]).unwrap();
    engine.publish(WEB, ONE, &[]).unwrap();
    assert_eq!(machine.host.listing(), before);
}

#[test]
fn a_second_interface_in_a_sandbox_gets_the_next_number() {
    let machine = Machine::new();
    machine.host.add_namespace(SANDBOX);
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    create(&mut engine, network(DB, "db", "10.2.0.0/24")).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
    engine.create_endpoint(sandboxed(TWO, DB, vec![])).unwrap();
    let listing = machine.host.listing();
    assert!(listing.contains("peer box eth0") && listing.contains("peer box eth1"), "{listing}");
}

#[test]
fn a_network_made_here_gives_out_addresses_after_a_reboot() {
    let machine = Machine::new();
    let mut request = network(WEB, "web", "10.1.0.0/24");
    request.subnets[0].aux.insert("printer".into(), "10.1.0.2".parse().unwrap());
    create(&mut machine.engine(), request).unwrap();
    let machine = machine.rebooted();
    let mut engine = machine.engine();
    assert!(machine.host.listing().contains("nab-3f3f3f3f3f3"), "the bridge is back");
    machine.host.add_namespace(SANDBOX);
    let endpoint = engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
    assert_eq!(endpoint.v4.unwrap().to_string(), "10.1.0.3/24", "not the gateway, not the printer");
}

#[test]
fn a_vanished_namespace_is_named_and_keeps_nothing_else() {
    let machine = Machine::new();
    machine.host.add_namespace(SANDBOX);
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).unwrap();
    machine.host.end_namespace(SANDBOX);
    engine.reconcile().unwrap();
    let status = engine.status().unwrap();
    assert_eq!(status.drift, Vec::<String>::new());
    assert_eq!(status.problems.len(), 1, "{:?}", status.problems);
    assert!(status.problems[0].subject.contains("box"), "{:?}", status.problems);
    assert!(!machine.host.listing().contains("8080"), "its port is free");

    // Another namespace at the same path is not the one we were asked to plumb.
    machine.host.add_namespace(SANDBOX);
    engine.reconcile().unwrap();
    assert!(!machine.host.listing().contains("peer box"), "{}", machine.host.listing());
    engine.delete_endpoint(WEB, ONE).unwrap();
    engine.reconcile().unwrap();
    assert_eq!(engine.status().unwrap().problems, vec![]);
    engine.delete_network(WEB, Mode::Apply).unwrap();
}

#[test]
fn a_host_that_routes_already_goes_on_routing() {
    let routing = Facts { router_v6: true, ..facts() };
    let machine = Machine::with(routing);
    machine.host.set_sysctl("net/ipv4/conf/uplink0/forwarding", "1");
    let mut engine = machine.engine();
    let mut request = network(WEB, "web", "10.1.0.0/24");
    request.subnets.push(subnet("fd00:1::/64"));
    create(&mut engine, request).unwrap();
    let listing = machine.host.listing();
    assert!(!listing.contains("policy   raised"), "{listing}");
    engine.delete_network(WEB, Mode::Apply).unwrap();
    let listing = machine.host.listing();
    assert!(listing.contains("net/ipv4/conf/uplink0/forwarding = 1"), "{listing}");
}

#[test]
fn before_force_forwarding_ipv6_is_raised_for_all_and_advertisements_are_still_believed() {
    let mut old = Facts { force_forwarding: false, ..facts() };
    old.uplinks[0].forwarding_v6 = None;
    old.uplinks[0].learned_v6 = Some("1".into());
    let machine = Machine::with(old);
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    assert!(!machine.host.listing().contains("ipv6/conf/all"), "no network has IPv6");
    let start = machine.log.len();
    let mut request = network(DB, "db", "10.2.0.0/24");
    request.subnets.push(subnet("fd00:1::/64"));
    create(&mut engine, request).unwrap();
    let steps: Vec<String> = machine.log.since(start).iter().map(ToString::to_string).collect();
    let at = |text: &str| steps.iter().position(|step| step.contains(text)).unwrap();
    assert!(at("uplink0.accept_ra  = 2") < at("ipv6.conf.all.forwarding  = 1"), "{steps:#?}");
    engine.delete_network(DB, Mode::Apply).unwrap();
    let listing = machine.host.listing();
    assert!(listing.contains("uplink0/accept_ra = 1"), "{listing}");
    assert!(!listing.contains("all/forwarding"), "{listing}");
}

#[test]
fn a_small_mtu_is_for_ipv4_alone() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let mut request = network(WEB, "web", "10.1.0.0/24");
    request.options.insert("com.docker.network.driver.mtu".into(), "600".into());
    create(&mut engine, request.clone()).unwrap();
    assert!(!machine.host.listing().contains("ipv6/conf/nab-"));
    engine.delete_network(WEB, Mode::Apply).unwrap();
    request.subnets.push(subnet("fd00:1::/64"));
    let error = create(&mut engine, request).unwrap_err();
    assert!(error.to_string().contains("1280"), "{error}");
}

#[test]
fn a_port_is_refused_while_any_of_its_owners_lives() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    engine.create_endpoint(docker_endpoint(THREE, WEB, "172.18.0.4/16")).unwrap();
    let at =
        |last| PortRequest { host: Some(Ipv4Addr::new(192, 0, 2, last).into()), ..port(8080, 80) };
    for (id, last) in [(ONE, 1), (TWO, 2)] {
        let joined = engine.join(WEB, id, KEY.as_ref(), &[]).unwrap();
        machine
            .host
            .hand_over(joined.source.as_ref().unwrap(), format!("/var/run/docker/netns/c{last}"));
        engine.publish(WEB, id, &[at(last)]).unwrap();
    }
    machine.host.end_namespace("/var/run/docker/netns/c1");
    let error = engine.publish(WEB, THREE, &[port(8080, 80)]).unwrap_err();
    assert!(error.to_string().contains(&TWO.short()), "the living one: {error}");
}

#[test]
fn what_is_being_removed_is_not_answered_as_done() {
    let machine = Machine::new();
    {
        let mut engine = machine.engine();
        create(&mut engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
        engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
    }
    let at = machine.log.len();
    let fault = netagent::kernel::faulty::Fault::Error {
        at: 0,
        errno: nix::errno::Errno::EBUSY as i32,
        when: netagent::kernel::faulty::When::Before,
    };
    let mut engine = machine.start(fault).unwrap();
    assert_eq!(machine.log.len(), at, "the restart had nothing to do");
    engine.delete_endpoint(WEB, ONE).unwrap_err();
    assert!(engine.join(WEB, ONE, KEY.as_ref(), &[]).is_err());
    assert!(engine.publish(WEB, ONE, &[port(8080, 80)]).is_err());
    engine.leave(WEB, ONE).unwrap();
    let again = docker_endpoint(ONE, WEB, "172.18.0.2/16");
    assert!(engine.create_endpoint(again).is_err());
    engine.reconcile().unwrap();
    assert!(engine.intent().endpoint(ONE).is_none(), "finished by the next look");
}

#[test]
fn a_port_on_an_address_that_nobody_can_bind_is_refused() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    let on = PortRequest { host: Some(Ipv4Addr::new(224, 0, 0, 1).into()), ..port(8080, 80) };
    let error = engine.publish(WEB, ONE, &[on]).unwrap_err();
    assert!(error.to_string().contains("224.0.0.1"), "{error}");
}

/// `ip netns del` takes the name away, not the namespace, as long as a process is in it.
#[test]
fn a_namespace_that_only_lost_its_name_keeps_its_link_and_its_ports() {
    let machine = Machine::new();
    machine.host.add_namespace(SANDBOX);
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).unwrap();
    machine.host.forget_namespace(std::path::Path::new(SANDBOX));
    let before = machine.host.listing();
    for _ in 0..2 {
        engine.reconcile().unwrap();
        let status = engine.status().unwrap();
        let problems: Vec<&str> = status.problems.iter().map(|problem| &*problem.text).collect();
        assert!(
            matches!(&problems[..], [one] if one.contains("lives, but not at")),
            "{problems:?}"
        );
        assert_eq!(status.drift, Vec::<String>::new());
        assert!(engine.collect_garbage(Mode::Apply).unwrap().steps.is_empty());
        assert_eq!(machine.host.listing(), before);
        drop(engine);
        engine = machine.engine();
    }
    engine.delete_endpoint(WEB, ONE).unwrap();
    assert!(!machine.host.listing().contains("nae-"), "{}", machine.host.listing());
}
