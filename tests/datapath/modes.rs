//! Options of a network, by what packets may do: gateway modes, trusted links, source addresses,
//! both families, with bridged packets filtered and not.

use std::net::IpAddr;

use crate::support::attach::Sandbox;
use crate::support::{Findings, Lab, Place};

const MODE_V4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE_V6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";

/// A network of both families, 172.30.N.0/24 and fd00:N::/64.
fn dual(lab: &Lab, number: u8, name: &str, options: &[String]) {
    let (v4, v6) = (format!("172.30.{number}.0/24"), format!("fd00:{number}::/64"));
    let mut args = vec!["--ipv6", "--subnet", &v6];
    for option in options {
        args.extend(["-o", option]);
    }
    lab.network(name, &v4, &args);
    // The way back that an operator sets up where addresses are routed.
    lab.neighbour().run(&["ip", "-6", "route", "add", &v6, "via", "fd99::1"]);
}

fn modes(mode: &str) -> Vec<String> {
    vec![format!("{MODE_V4}={mode}"), format!("{MODE_V6}={mode}")]
}

/// Listeners of both families on 80 and 81.
fn serve(sandbox: &Sandbox, who: &str) -> [crate::support::place::Listener; 2] {
    [80, 81].map(|port| sandbox.place.tcp_listener(&format!("[::]:{port}"), who))
}

/// The container's own addresses, as a caller writes them.
fn direct(sandbox: &Sandbox, port: u16) -> [String; 2] {
    [format!("tcp:{}:{port}", sandbox.v4), format!("tcp:[{}]:{port}", sandbox.v6)]
}

/// The host's addresses on the uplink.
fn on_host(port: u16) -> [String; 2] {
    [format!("tcp:10.99.0.1:{port}"), format!("tcp:[fd99::1]:{port}")]
}

fn expect(findings: &mut Findings, from: &Place, who: &str, to: &[String; 2], open: bool) {
    for to in to {
        match open {
            true => findings.hears(from, who, to),
            false => findings.nothing(from, to),
        }
    }
}

#[test]
fn gateway_modes_let_in_what_they_say_with_bridge_nf_on() {
    gateway_modes_let_in_what_they_say(true);
}

#[test]
fn gateway_modes_let_in_what_they_say_with_bridge_nf_off() {
    gateway_modes_let_in_what_they_say(false);
}

/// From the next host and from another network, both families: the host's port, the published port
/// at the container's own address, one that is not published, and echo requests.
fn gateway_modes_let_in_what_they_say(bridge_nf: bool) {
    let Some(lab) = Lab::with_agent() else { return };
    lab.bridge_nf(bridge_nf);
    dual(&lab, 9, "other", &[]);
    let other = lab.attach("other", "other", &[]).place;
    let neighbour = lab.neighbour();
    let mut findings = Findings::default();
    for (number, mode, by_host, published, unpublished, echo) in [
        (1, "nat", true, false, false, false),
        (2, "nat-unprotected", true, true, true, true),
        (3, "routed", false, true, false, true),
    ] {
        dual(&lab, number, mode, &modes(mode));
        let port = 8080 + u16::from(number);
        let web = lab.attach(mode, mode, &[&format!("{port}:80")]);
        let mate = lab.attach(mode, &format!("{mode}-mate"), &[]).place;
        let _web = serve(&web, mode);
        for from in [&neighbour, &other] {
            expect(&mut findings, from, mode, &on_host(port), by_host);
            expect(&mut findings, from, mode, &direct(&web, 80), published);
            expect(&mut findings, from, mode, &direct(&web, 81), unpublished);
            for address in [&web.v4, &web.v6] {
                let says = format!("{mode}: {} pings {address}: {echo}", from.name);
                findings.holds(&says, from.pings(address) == echo);
            }
        }
        // The host itself and neighbours reach everything in each of them.
        for from in [&lab.host(), &mate] {
            expect(&mut findings, from, mode, &direct(&web, 81), true);
        }
    }
}

#[test]
fn what_is_routed_leaves_with_its_own_address_and_what_is_translated_does_not() {
    let Some(lab) = Lab::with_agent() else { return };
    let _world = lab.neighbour().tcp_listener("[::]:7000", "world");
    let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    for (number, mode, own) in
        [(1, "nat", false), (2, "nat-unprotected", false), (3, "routed", true)]
    {
        dual(&lab, number, mode, &modes(mode));
        let web = lab.attach(mode, mode, &[]);
        let (v4, v6) = match own {
            true => (address(&web.v4), address(&web.v6)),
            false => (address("10.99.0.1"), address("fd99::1")),
        };
        let mapped = |saw: Option<IpAddr>| saw.map(|saw| saw.to_canonical());
        assert_eq!(mapped(web.place.hears("world", "tcp:10.99.0.2:7000")), v4, "{mode}");
        assert_eq!(web.place.hears("world", "tcp:[fd99::2]:7000"), v6, "{mode}");
    }
}

#[test]
fn packets_leave_with_the_address_that_the_network_names() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.run(&["ip", "addr", "add", "10.99.0.7/24", "dev", "uplink"]);
    lab.run(&["ip", "-6", "addr", "add", "fd99::7/64", "dev", "uplink", "nodad"]);
    let options =
        ["com.docker.network.host_ipv4=10.99.0.7", "com.docker.network.host_ipv6=fd99::7"];
    dual(&lab, 1, "web", &options.map(str::to_owned));
    let web = lab.attach("web", "web", &[]).place;
    let _v4 = lab.neighbour().tcp_listener("0.0.0.0:7000", "world");
    let _v6 = lab.neighbour().tcp_listener("[fd99::2]:7001", "world");
    assert_eq!(web.hears("world", "tcp:10.99.0.2:7000"), Some("10.99.0.7".parse().unwrap()));
    assert_eq!(web.hears("world", "tcp:[fd99::2]:7001"), Some("fd99::7".parse().unwrap()));
}

#[test]
fn a_trusted_link_reaches_published_ports_at_the_containers_own_address() {
    let Some(lab) = Lab::with_agent() else { return };
    dual(&lab, 1, "web", &[format!("{TRUSTED}=uplink")]);
    dual(&lab, 2, "other", &[]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let other = lab.attach("other", "other", &[]).place;
    let _web = serve(&web, "web");
    let mut findings = Findings::default();
    expect(&mut findings, &lab.neighbour(), "web", &direct(&web, 80), true);
    expect(&mut findings, &lab.neighbour(), "web", &direct(&web, 81), false);
    expect(&mut findings, &lab.neighbour(), "web", &on_host(8080), true);
    expect(&mut findings, &other, "web", &direct(&web, 80), false);
}

#[test]
fn an_isolated_network_has_no_host_in_it() {
    let Some(lab) = Lab::with_agent() else { return };
    let options: Vec<String> = modes("isolated");
    let mut args = vec!["--internal", "--ipv6", "--subnet", "fd00:1::/64"];
    for option in &options {
        args.extend(["-o", option]);
    }
    lab.network("closed", "172.30.1.0/30", &args);
    let one = lab.attach("closed", "one", &[]);
    let two = lab.attach("closed", "two", &[]);
    let _one = serve(&one, "one");
    let mut findings = Findings::default();
    expect(&mut findings, &two.place, "one", &direct(&one, 80), true);
    expect(&mut findings, &lab.host(), "one", &direct(&one, 80), false);
    let bridge = lab.links().into_iter().find(|link| link.starts_with("nab-")).unwrap();
    let shown = lab.run(&["ip", "addr", "show", "dev", &bridge]);
    findings.holds(&format!("the bridge has no address:\n{shown}"), !shown.contains("inet"));
    let [first, second] =
        [&one.v4, &two.v4].map(|text| text.rsplit('.').next().unwrap().to_owned());
    findings.holds("the first address is a container's", first == "1" && second == "2");
}

#[test]
fn two_containers_fill_a_subnet_of_two_addresses() {
    let Some(lab) = Lab::with_agent() else { return };
    let inhibit = "com.docker.network.bridge.inhibit_ipv4=true";
    lab.network("pair", "172.30.1.0/31", &["--internal", "-o", inhibit]);
    let one = lab.attach("pair", "one", &[]);
    let two = lab.attach("pair", "two", &[]);
    let _one = serve(&one, "one");
    two.place.hears("one", &format!("tcp:{}:80", one.v4));
    let full = lab.sandbox("three");
    let error = lab.try_netagent(&["network", "connect", "pair", "three"]).expect_err();
    assert!(error.contains("172.30.1.0/31"), "{error}");
    assert!(!full.run(&["ip", "-o", "link"]).contains("eth0"));
}

#[test]
fn another_host_can_be_the_gateway() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &["--aux-address", "DefaultGatewayIPv4=172.30.1.254"]);
    let web = lab.attach("web", "web", &[]);
    let routes = web.place.run(&["ip", "route", "show", "default"]);
    assert!(routes.contains("via 172.30.1.254 "), "{routes}");
}

#[test]
fn neighbours_are_deaf_without_icc_in_both_families_with_bridge_nf_on() {
    neighbours_are_deaf_without_icc_in_both_families(true);
}

#[test]
fn neighbours_are_deaf_without_icc_in_both_families_with_bridge_nf_off() {
    neighbours_are_deaf_without_icc_in_both_families(false);
}

fn neighbours_are_deaf_without_icc_in_both_families(bridge_nf: bool) {
    let Some(lab) = Lab::with_agent() else { return };
    lab.bridge_nf(bridge_nf);
    dual(&lab, 1, "shy", &["com.docker.network.bridge.enable_icc=false".to_owned()]);
    dual(&lab, 2, "other", &[]);
    let shy = lab.attach("shy", "shy", &["8080:80"]);
    let mate = lab.attach("shy", "mate", &[]).place;
    let other = lab.attach("other", "other", &[]).place;
    let _shy = serve(&shy, "shy");
    let mut findings = Findings::default();
    for port in [80, 81] {
        expect(&mut findings, &mate, "shy", &direct(&shy, port), false);
    }
    for address in [&shy.v4, &shy.v6] {
        findings.holds(&format!("no echo from {address}"), !mate.pings(address));
    }
    for from in [&mate, &other, &lab.neighbour(), &lab.host()] {
        expect(&mut findings, from, "shy", &on_host(8080), true);
    }
    expect(&mut findings, &lab.host(), "shy", &direct(&shy, 80), true);
    findings.holds("the gateway is reached", mate.pings("172.30.1.1") && mate.pings("fd00:1::1"));
}

#[test]
fn a_port_of_a_container_without_ipv6_is_not_offered_over_ipv6() {
    let Some(lab) = Lab::with_agent() else { return };
    dual(&lab, 1, "six", &[]);
    lab.network("four", "172.30.2.0/24", &[]);
    let four = lab.attach("four", "four", &["8080:80"]);
    let _four = four.place.tcp_listener("0.0.0.0:80", "four");
    let mut findings = Findings::default();
    findings.hears(&lab.neighbour(), "four", "tcp:10.99.0.1:8080");
    // Refused, not silent: nobody holds the port there.
    for (from, to) in [(lab.neighbour(), "[fd99::1]:8080"), (lab.host(), "[::1]:8080")] {
        let answer = from.tcp(to, std::time::Duration::from_secs(4));
        let refused = answer == crate::support::place::Answer::Refused;
        findings.holds(&format!("{} is refused at {to}: {answer}", from.name), refused);
    }
    let own = lab.host().tcp_listener("[fd99::1]:8080", "own");
    findings.hears(&lab.neighbour(), "own", "tcp:[fd99::1]:8080");
    drop(own);
}

#[test]
fn an_operators_own_translation_of_one_address_goes_on_working() {
    let Some(lab) = Lab::start() else { return };
    lab.run(&["ip", "addr", "add", "10.99.0.7/24", "dev", "uplink"]);
    lab.start_agent();
    dual(&lab, 1, "web", &[]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let _web = serve(&web, "web");
    let _own = lab.host().tcp_listener("10.99.0.1:9999", "own");
    lab.run(&[
        "iptables",
        "-t",
        "nat",
        "-A",
        "PREROUTING",
        "-d",
        "10.99.0.7",
        "-p",
        "tcp",
        "--dport",
        "8080",
        "-j",
        "DNAT",
        "--to-destination",
        "10.99.0.1:9999",
    ]);
    lab.neighbour().hears("own", "tcp:10.99.0.7:8080");
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
}
