//! Gateway modes, and other options that change who may reach a container directly.

use std::time::Duration;

use crate::rig::{dual_stack, link_local, ninth, reaches};
use crate::support::version::Version;
use crate::support::{Findings, Lab, Place, driver, until};

const MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4=true";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";

/// A network `mode` with number `n` in that gateway mode, and in it a container of the same name:
/// port 80 is published at 808N, 81 is not; by IPv6 that is 8000 at 800N, and 8001.
fn in_mode(lab: &Lab, mode: &str, n: u8) -> Place {
    let (four, six) = (format!("{MODE_4}={mode}"), format!("{MODE_6}={mode}"));
    dual_stack(lab, mode, n, &["-o", &four, "-o", &six]);
    let (web, other) = (format!("808{n}:80"), format!("800{n}:8000"));
    ninth(lab, mode, mode, n, &["-p", &web, "-p", &other])
}

/// Where a container of [`in_mode`] answers directly: published ports, and then the others.
fn directly(n: u8) -> ([String; 2], [String; 2]) {
    let at = |port: &str, six: &str| {
        [format!("tcp:172.30.{n}.9:{port}"), format!("tcp:[fd00:30:{n}::9]:{six}")]
    };
    (at("80", "8000"), at("81", "8001"))
}

fn route_to_containers(neighbour: &Place) {
    neighbour.run(&["ip", "-6", "route", "add", "fd00:30::/32", "via", "fd99::1"]);
}

/// From a network with NAT to a routed one: its published ports and pings; not the other way.
pub fn bridge_inc_routed(lab: &Lab) {
    let routed = in_mode(lab, "routed", 1);
    let nat = in_mode(lab, "nat", 2);
    let _listeners = ["[::]:8000", "[::]:8001"].map(|at| routed.tcp_listener(at, "routed"));
    let _nat = nat.tcp_listener("[::]:8000", "nat");
    let (published, others) = directly(1);
    let mut findings = Findings::default();
    for to in &published {
        findings.hears(&nat, "routed", to);
    }
    for to in others.iter().chain(&directly(2).0) {
        findings.hears(
            &lab.host(),
            if to.contains("1.9") || to.contains(":1::9") { "routed" } else { "nat" },
            to,
        );
    }
    for to in &others {
        findings.nothing(&nat, to);
    }
    for to in &directly(2).0 {
        findings.nothing(&routed, to);
    }
    for n in ["172.30.1.9", "fd00:30:1::9"] {
        findings.holds(&format!("nat pings {n}"), reaches(&nat, n));
    }
    for n in ["172.30.2.9", "fd00:30:2::9"] {
        findings.holds(&format!("routed does not ping {n}"), !routed.pings(n));
    }
}

/// A host port exists in the modes with NAT only.
pub fn access_to_published_port_by_mode(lab: &Lab) {
    dual_stack(lab, "client", 9, &[]);
    let client = ninth(lab, "client", "client", 9, &[]);
    let mut findings = Findings::default();
    for (n, mode) in [(1, "nat"), (2, "nat-unprotected"), (3, "routed")] {
        let server = in_mode(lab, mode, n);
        let _six = server.tcp_listener("[::]:8000", mode);
        let at_host = [format!("tcp:10.99.0.1:808{n}"), format!("tcp:[fd99::1]:800{n}")];
        for to in &at_host {
            if mode == "routed" {
                findings.nothing(&client, to);
                findings.nothing(&lab.neighbour(), to);
            } else {
                findings.hears(&client, mode, to);
                findings.hears(&lab.neighbour(), mode, to);
            }
        }
    }
}

/// By its own address a container is reached from another network: not with NAT, and at its
/// published ports when routed. Whether the unprotected mode opens it to other networks too is not
/// the same in all versions of dockerd, and is left open here.
pub fn inter_network_direct_routing_by_mode(lab: &Lab) {
    dual_stack(lab, "client", 9, &[]);
    let client = ninth(lab, "client", "client", 9, &[]);
    direct_access(lab, &client, &["nat", "routed"]);
}

/// The same from another machine, which reaches everything in the unprotected mode.
pub fn direct_routing_open_ports_by_mode(lab: &Lab) {
    let neighbour = lab.neighbour();
    route_to_containers(&neighbour);
    direct_access(lab, &neighbour, &["nat", "routed", "nat-unprotected"]);
}

fn direct_access(lab: &Lab, from: &Place, modes: &[&str]) {
    let mut findings = Findings::default();
    for (n, mode) in (1..).zip(modes.iter().copied()) {
        let server = in_mode(lab, mode, n);
        let _listeners = ["[::]:8000", "[::]:8001"].map(|at| server.tcp_listener(at, mode));
        let (published, others) = directly(n);
        for to in published.iter().chain(&others) {
            findings.hears(&lab.host(), mode, to);
        }
        for to in &published {
            if mode == "nat" { findings.nothing(from, to) } else { findings.hears(from, mode, to) }
        }
        for to in &others {
            if mode == "nat-unprotected" {
                findings.hears(from, mode, to);
            } else {
                findings.nothing(from, to);
            }
        }
        for address in [format!("172.30.{n}.9"), format!("fd00:30:{n}::9")] {
            let answers = from.pings(&address);
            findings.holds(&format!("{mode}: ping to {address}"), answers == (mode != "nat"));
        }
    }
}

/// Two containers on a /31: nothing takes an address of it for a gateway.
pub fn point_to_point(lab: &Lab) {
    let isolated = format!("{MODE_4}=isolated");
    for (n, option) in [(0, INHIBIT), (2, &isolated)] {
        let (network, ann, bob) = (format!("net{n}"), format!("ann{n}"), format!("bob{n}"));
        let subnet = format!("172.30.1.{n}/31");
        lab.docker_network(&network, &subnet, &["--internal", "-o", option]);
        let first = lab.container(&ann, &["--network", &network]);
        let second = lab.container(&bob, &["--network", &network]);
        let addresses = [lab.address(&ann, &network), lab.address(&bob, &network)];
        let mut sorted = addresses.clone();
        sorted.sort();
        assert_eq!(sorted, [format!("172.30.1.{n}"), format!("172.30.1.{}", n + 1)]);
        let mut findings = Findings::default();
        findings.hears(&first, &bob, &format!("tcp:{}:80", addresses[1]));
        findings.hears(&second, &ann, &format!("tcp:{}:80", addresses[0]));
    }
}

/// An isolated network: no address on the bridge, containers talk, the host does not reach them.
pub fn isolated(lab: &Lab) {
    let (four, six) = (format!("{MODE_4}=isolated"), format!("{MODE_6}=isolated"));
    let create = ["network", "create", "-d", &driver(), "-o", &four, "open"].map(str::to_owned);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let error = lab.try_docker(&create).expect_err();
    assert!(error.contains("internal"), "isolated without --internal: {error}");
    dual_stack(lab, "vault", 1, &["--internal", "-o", &four, "-o", &six]);
    let bridge = lab.links().remove(0);
    let vault = ninth(lab, "vault", "vault", 1, &[]);
    let mate = lab.container("mate", &["--network", "vault"]);
    let _six = vault.tcp_listener("[::]:8000", "vault");
    let shown = lab.run(&["ip", "-o", "addr", "show", "dev", &bridge]);
    let mut findings = Findings::default();
    findings.holds(&format!("no address on the bridge: {shown}"), shown.is_empty());
    findings.hears(&mate, "vault", "tcp:172.30.1.9:80");
    findings.hears(&mate, "vault", "tcp:[fd00:30:1::9]:8000");
    findings.nothing(&lab.host(), "tcp:172.30.1.9:80");
    findings.nothing(&lab.host(), "tcp:[fd00:30:1::9]:8000");
    let local = format!("{}%{bridge}", link_local(&vault));
    findings.holds("nor by its link-local address", !lab.host().pings(&local));
    findings.holds("no way out", !vault.pings("10.99.0.2"));
    findings.nothing(&lab.neighbour(), "tcp:172.30.1.9:80");
}

/// Packets that leave get the address that was asked for.
pub fn host_ipv4_bridge_label(lab: &Lab) {
    lab.run(&["ip", "addr", "add", "10.99.0.50/24", "dev", "uplink"]);
    lab.run(&[
        "ip",
        "-6",
        "addr",
        "add",
        "fd99::50/64",
        "dev",
        "uplink",
        "nodad",
        "preferred_lft",
        "0",
    ]);
    let four = "com.docker.network.host_ipv4=10.99.0.50";
    let six = "com.docker.network.host_ipv6=fd99::50";
    dual_stack(lab, "web", 1, &["-o", four, "-o", six]);
    dual_stack(lab, "plain", 2, &[]);
    let web = ninth(lab, "web", "web", 1, &[]);
    let plain = ninth(lab, "plain", "plain", 2, &[]);
    let _listener = lab.neighbour().tcp_listener("[::]:9000", "next");
    assert!(reaches(&web, "fd99::2") && reaches(&plain, "fd99::2"));
    let seen = |from: &Place, to: &str| {
        let seen = from.hears("next", to).expect("the listener tells whom it sees");
        seen.to_canonical().to_string()
    };
    assert_eq!(seen(&web, "tcp:10.99.0.2:9000"), "10.99.0.50");
    assert_eq!(seen(&plain, "tcp:10.99.0.2:9000"), "10.99.0.1");
    assert_eq!(seen(&web, "tcp:[fd99::2]:9000"), "fd99::50");
    assert_eq!(seen(&plain, "tcp:[fd99::2]:9000"), "fd99::1");
}

/// Per family: with NAT a host port and no direct access, routed the other way round.
pub fn disable_nat(lab: &Lab) {
    let neighbour = lab.neighbour();
    route_to_containers(&neighbour);
    let mut findings = Findings::default();
    for (n, four, six) in [(1, "nat", "routed"), (2, "routed", "nat"), (3, "routed", "routed")] {
        let name = format!("net{n}");
        let (mode_4, mode_6) = (format!("{MODE_4}={four}"), format!("{MODE_6}={six}"));
        dual_stack(lab, &name, n, &["-o", &mode_4, "-o", &mode_6]);
        let published = format!("808{n}:8000");
        let web = ninth(lab, &name, &name, n, &["-p", &published]);
        let _listener = web.tcp_listener("[::]:8000", &name);
        let by_family = [
            (four, format!("tcp:10.99.0.1:808{n}"), format!("tcp:172.30.{n}.9:8000")),
            (six, format!("tcp:[fd99::1]:808{n}"), format!("tcp:[fd00:30:{n}::9]:8000")),
        ];
        for (mode, at_host, direct) in &by_family {
            let (open, closed) = if *mode == "nat" { (at_host, direct) } else { (direct, at_host) };
            findings.hears(&neighbour, &name, open);
            findings.nothing(&neighbour, closed);
        }
    }
}

/// A port of a routed network is open although another network is the way out.
pub fn routed_non_gateway(lab: &Lab) {
    let routed = format!("{MODE_4}=routed");
    lab.docker_network("alpha", "172.30.1.0/24", &[]);
    lab.docker_network("zeta", "172.30.2.0/24", &["-o", &routed]);
    let networks = ["--network", "alpha", "--network", "name=zeta,ip=172.30.2.9"];
    let both = lab.container("both", &[&networks[..], &["-p", "8080:80"]].concat());
    let routes = both.run(&["ip", "route", "show", "default"]);
    assert!(routes.contains("via 172.30.1.1 "), "{routes}");
    let mut findings = Findings::default();
    findings.hears(&lab.neighbour(), "both", "tcp:10.99.0.1:8080");
    // Answers by the other network would come from the wrong side.
    both.run(&["ip", "route", "add", "10.99.0.2/32", "via", "172.30.2.1"]);
    findings.hears(&lab.host(), "both", "tcp:172.30.2.9:81");
    findings.hears(&lab.neighbour(), "both", "tcp:172.30.2.9:80");
    findings.nothing(&lab.neighbour(), "tcp:172.30.2.9:81");
}

/// A trusted link may reach published ports at the container's own address; others may not.
pub fn allow_direct_remote_access_on_exposed_port(lab: &Lab) {
    let trusted = format!("{TRUSTED}=lan:uplink");
    dual_stack(lab, "open", 1, &["-o", &trusted]);
    dual_stack(lab, "closed", 2, &[]);
    let neighbour = lab.neighbour();
    route_to_containers(&neighbour);
    let mut findings = Findings::default();
    for (n, name) in [(1, "open"), (2, "closed")] {
        let (four, six) = (format!("808{n}:80"), format!("800{n}:8000"));
        let web = ninth(lab, name, name, n, &["-p", &four, "-p", &six]);
        let _six = web.tcp_listener("[::]:8000", name);
        for to in &directly(n).0 {
            findings.hears(&lab.host(), name, to);
            if name == "open" {
                findings.hears(&neighbour, name, to);
            } else {
                findings.nothing(&neighbour, to);
            }
        }
        findings.hears(&neighbour, name, &format!("tcp:10.99.0.1:808{n}"));
    }
}

/// A name of the user's for the interface; dockerd's own numbering goes on beside it.
pub fn custom_ifname_with_matching_dynamic_prefix(lab: &Lab) {
    for (n, name) in [(1, "first"), (2, "named"), (3, "third")] {
        lab.docker_network(name, &format!("172.30.{n}.0/24"), &[]);
    }
    lab.docker(&["network", "create", "--subnet", "172.30.4.0/24", "docks"]);
    let prefix = "com.docker.network.container_iface_prefix=net";
    lab.docker_network("prefixed", "172.30.5.0/24", &["-o", prefix]);
    let web = lab.container("web", &["--network", "first"]);
    let ifname = "com.docker.network.endpoint.ifname=shop0";
    let named =
        ["network", "connect", "--driver-opt", ifname, "--ip", "172.30.2.9", "named", "web"];
    let plain = |network: &'static str| vec!["network", "connect", network, "web"];
    let orders = [
        vec![named.to_vec(), plain("docks"), plain("third"), plain("prefixed")],
        vec![plain("prefixed"), plain("docks"), named.to_vec(), plain("third")],
    ];
    for (at, order) in orders.iter().enumerate() {
        for connect in order {
            lab.docker(connect);
        }
        let shown = web.run(&["ip", "-4", "-o", "addr"]);
        let interface_of = |subnet: &str| {
            let line = shown.lines().find(|line| line.contains(&format!(" {subnet}")));
            line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default().to_owned()
        };
        let mut findings = Findings::default();
        // dockerd before 28 gives no number twice: then only the prefix is certain.
        let again = lab.version < Version::V28 && at == 1;
        for (subnet, prefix, number, dockerds) in [
            ("172.30.1.", "eth", "0", false),
            ("172.30.2.9/24", "shop", "0", false),
            ("172.30.4.", "eth", "1", again),
            ("172.30.3.", "eth", "2", again),
            ("172.30.5.", "net", "0", again),
        ] {
            let name = interface_of(subnet);
            let rest = name.strip_prefix(prefix);
            let right = match dockerds {
                true => rest.is_some_and(|rest| rest.parse::<u32>().is_ok()),
                false => rest == Some(number),
            };
            findings.holds(&format!("{prefix}{number} has {subnet}: {shown}"), right);
        }
        findings.hears(&lab.host(), "web", "tcp:172.30.2.9:80");
        findings.holds("it gets out", web.pings("10.99.0.2"));
        drop(findings);
        for network in ["named", "docks", "third", "prefixed"] {
            lab.docker(&["network", "disconnect", network, "web"]);
        }
        until("the interfaces are gone", Duration::from_secs(10), || {
            (web.run(&["ip", "-4", "-o", "addr"]).lines().count() == 2).then_some(())
        });
    }
    // dockerd would give that name itself.
    let ifname = "com.docker.network.endpoint.ifname=eth7";
    let made = lab.try_docker(&["network", "connect", "--driver-opt", ifname, "named", "web"]);
    assert!(made.ok || made.err.contains("eth7"), "{made:?}");
    lab.docker(&["network", "connect", "docks", "web"]);
}
