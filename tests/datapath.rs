//! What packets may do, without Docker: namespaces attached through the API, real packets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "datapath/adopted.rs"]
mod adopted;
#[path = "datapath/modes.rs"]
mod modes;
#[path = "datapath/ports.rs"]
mod ports;
mod support;
#[path = "datapath/survival.rs"]
mod survival;
#[path = "datapath/update.rs"]
mod update;

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;
use support::{Findings, Lab, until};

#[test]
fn published_ports_answer_where_they_are_bound_with_bridge_nf_on() {
    published_ports_answer_where_they_are_bound(true);
}

#[test]
fn published_ports_answer_where_they_are_bound_with_bridge_nf_off() {
    published_ports_answer_where_they_are_bound(false);
}

/// Every protocol × binding × caller. A port bound to the uplink's address answers there for
/// everybody, one bound to 127.0.0.1 for the host alone, a wildcard everywhere.
fn published_ports_answer_where_they_are_bound(bridge_nf: bool) {
    let Some(lab) = Lab::with_agent() else { return };
    lab.bridge_nf(bridge_nf);
    lab.network("web", "172.30.1.0/24", &[]);
    lab.network("other", "172.30.2.0/24", &[]);
    let ports: Vec<String> = ["tcp", "udp"]
        .iter()
        .flat_map(|protocol| {
            let bindings = ["8001", "10.99.0.1:8002", "127.0.0.1:8003"];
            bindings.map(|binding| format!("{binding}:80/{protocol}"))
        })
        .collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let web = lab.attach("web", "web", &ports).place;
    let mate = lab.attach("web", "mate", &[]).place;
    let other = lab.attach("other", "other", &[]).place;
    let (host, neighbour) = (lab.host(), lab.neighbour());
    let _tcp = web.tcp_listener("0.0.0.0:80", "web");
    let _udp = web.udp_listener("0.0.0.0:80", "web");

    let mut findings = Findings::default();
    for protocol in ["tcp", "udp"] {
        for from in [&host, &neighbour, &other, &mate, &web] {
            findings.hears(from, "web", &format!("{protocol}:10.99.0.1:8001"));
            findings.hears(from, "web", &format!("{protocol}:10.99.0.1:8002"));
            findings.nothing(from, &format!("{protocol}:10.99.0.1:8003"));
        }
        for from in [&mate, &web] {
            findings.hears(from, "web", &format!("{protocol}:172.30.1.1:8001"));
            findings.nothing(from, &format!("{protocol}:172.30.1.1:8002"));
        }
        findings.hears(&host, "web", &format!("{protocol}:127.0.0.1:8001"));
        findings.nothing(&host, &format!("{protocol}:127.0.0.1:8002"));
        findings.hears(&host, "web", &format!("{protocol}:127.0.0.1:8003"));
        findings.nothing(&neighbour, &format!("{protocol}:172.30.1.2:80"));
        findings.nothing(&other, &format!("{protocol}:172.30.1.2:80"));
        findings.hears(&mate, "web", &format!("{protocol}:172.30.1.2:80"));
        findings.hears(&host, "web", &format!("{protocol}:172.30.1.2:80"));
    }
}

#[test]
fn a_published_port_shows_the_callers_address() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["8080:80"]).place;
    let _web = web.tcp_listener("0.0.0.0:80", "web");
    let saw = lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    assert_eq!(saw, Some(IpAddr::from([10, 99, 0, 2])));
}

#[test]
fn what_leaves_has_the_hosts_address_unless_masquerade_is_off() {
    let Some(lab) = Lab::with_agent() else { return };
    let off = "com.docker.network.bridge.enable_ip_masquerade=false";
    lab.network("masked", "172.30.1.0/24", &[]);
    lab.network("plain", "172.30.2.0/24", &["-o", off]);
    let masked = lab.attach("masked", "masked", &[]).place;
    let plain = lab.attach("plain", "plain", &[]);
    let _world = lab.neighbour().tcp_listener("0.0.0.0:7000", "world");
    let saw = masked.hears("world", "tcp:10.99.0.2:7000");
    assert_eq!(saw, Some(IpAddr::from([10, 99, 0, 1])), "masqueraded");
    let saw = plain.place.hears("world", "tcp:10.99.0.2:7000");
    assert_eq!(saw, Some(plain.v4.parse().unwrap()), "with its own address");
}

#[test]
fn networks_are_isolated_with_bridge_nf_on() {
    networks_are_isolated(true);
}

#[test]
fn networks_are_isolated_with_bridge_nf_off() {
    networks_are_isolated(false);
}

fn networks_are_isolated(bridge_nf: bool) {
    let Some(lab) = Lab::with_agent() else { return };
    lab.bridge_nf(bridge_nf);
    let shy = "com.docker.network.bridge.enable_icc=false";
    lab.network("red", "172.30.1.0/24", &[]);
    lab.network("shy", "172.30.2.0/24", &["-o", shy]);
    lab.network("vault", "172.30.3.0/24", &["--internal"]);
    let red = lab.attach("red", "red", &[]);
    let red_mate = lab.attach("red", "red-mate", &[]);
    let shy = lab.attach("shy", "shy", &["8080:80"]);
    let shy_mate = lab.attach("shy", "shy-mate", &[]);
    let vault = lab.attach("vault", "vault", &[]);
    let vault_mate = lab.attach("vault", "vault-mate", &[]);
    let to = |sandbox: &support::attach::Sandbox| format!("tcp:{}:80", sandbox.v4);
    let listeners = [("red", &red), ("shy", &shy), ("vault", &vault)]
        .map(|(who, sandbox)| sandbox.place.tcp_listener("0.0.0.0:80", who));

    let mut findings = Findings::default();
    for (who, sandbox) in [("red", &red), ("shy", &shy), ("vault", &vault)] {
        findings.hears(&lab.host(), who, &to(sandbox));
        findings.nothing(&lab.neighbour(), &to(sandbox));
    }
    findings.hears(&red_mate.place, "red", &to(&red));
    findings.hears(&vault_mate.place, "vault", &to(&vault));
    findings.nothing(&shy_mate.place, &to(&shy));
    findings.hears(&shy_mate.place, "shy", "tcp:10.99.0.1:8080");
    findings.hears(&red.place, "shy", "tcp:10.99.0.1:8080");
    findings.nothing(&vault.place, "tcp:10.99.0.1:8080");
    for (from, there) in [(&red, &shy), (&red, &vault), (&shy, &red), (&vault, &red)] {
        findings.nothing(&from.place, &to(there));
    }
    findings.holds("red reaches the world", red.place.pings("10.99.0.2"));
    findings.holds("shy reaches the world", shy.place.pings("10.99.0.2"));
    let routes = vault.place.run(&["ip", "route"]);
    findings.holds("an internal network has no default route", !routes.contains("default"));
    vault.place.run(&["ip", "route", "add", "default", "via", "172.30.3.1"]);
    findings.holds("an internal network has no way out", !vault.place.pings("10.99.0.2"));
    drop(listeners);
}

/// The worst host: one that accepts packets for 127/8 from the wire, as `route_localnet` on the
/// uplink makes it. The neighbour really sends them; before the agent is there, they arrive.
#[test]
fn the_wire_does_not_reach_the_hosts_loopback() {
    let Some(lab) = Lab::start() else { return };
    let (host, neighbour) = (lab.host(), lab.neighbour());
    lab.sysctl("net.ipv4.conf.uplink.route_localnet", "1");
    lab.run(&[
        "sh",
        "-c",
        "ip netns exec neighbour sysctl -qw net.ipv4.conf.eth0.route_localnet=1",
    ]);
    neighbour.run(&["ip", "route", "flush", "table", "local", "root", "127.0.0.0/8"]);
    neighbour.run(&["ip", "route", "add", "127.0.0.0/8", "via", "10.99.0.1"]);
    let secret = host.udp_listener("127.0.0.1:7777", "secret");
    let attack = |to: &str| neighbour.udp(to, Duration::from_millis(750));
    attack("127.0.0.1:7777");
    assert!(secret.heard() > 0, "the rig's attack does not even reach an unguarded host");

    lab.start_agent();
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["127.0.0.1:8053:53/udp", "8054:53/udp"]).place;
    let dns = web.udp_listener("0.0.0.0:53", "dns");
    host.hears("dns", "udp:127.0.0.1:8053");
    let before = (secret.heard(), dns.heard());
    for to in ["127.0.0.1:7777", "127.0.0.1:8053", "127.0.0.1:8054", "127.1.2.3:8054"] {
        attack(to);
    }
    assert_eq!((secret.heard(), dns.heard()), before, "packets from the wire reached 127.0.0.0/8");
    neighbour.hears("dns", "udp:10.99.0.1:8054");
}

#[test]
fn the_mtu_is_that_of_the_way_out() {
    let Some(lab) = Lab::start() else { return };
    lab.run(&["ip", "link", "set", "uplink", "mtu", "1420"]);
    lab.neighbour().run(&["ip", "link", "set", "eth0", "mtu", "1420"]);
    lab.start_agent();
    lab.network("web", "172.30.1.0/24", &[]);
    lab.network("jumbo", "172.30.2.0/24", &["-o", "com.docker.network.driver.mtu=9000"]);
    let web = lab.attach("web", "web", &[]);
    let jumbo = lab.attach("jumbo", "jumbo", &[]);
    let jumbo_mate = lab.attach("jumbo", "jumbo-mate", &[]);
    let big = |from: &support::Place, size: &str, to: &str| {
        from.try_run(&["ping", "-n", "-c1", "-W2", "-M", "do", "-s", size, to]).is_ok()
    };
    // 28 bytes are the headers of IPv4 and ICMP.
    let mut findings = Findings::default();
    findings.holds("1420 bytes pass to the world", big(&web.place, "1392", "10.99.0.2"));
    findings.holds("1421 bytes do not", !big(&web.place, "1393", "10.99.0.2"));
    findings.holds("9000 bytes pass where asked", big(&jumbo.place, "8972", &jumbo_mate.v4));
    let links = lab.run(&["ip", "-o", "link", "show", "type", "bridge"]);
    findings.holds(&format!("the bridge has it too:\n{links}"), links.contains("mtu 1420"));
}

#[test]
fn ipv6_reaches_the_gateway_and_neighbours() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("six", "172.30.1.0/24", &["--ipv6", "--subnet", "fd00:30::/64"]);
    let one = lab.attach("six", "one", &[]);
    let two = lab.attach("six", "two", &[]);
    let _two = two.place.tcp_listener("[::]:80", "two");
    let mut findings = Findings::default();
    findings.hears(&one.place, "two", &format!("tcp:[{}]:80", two.v6));
    findings.hears(&lab.host(), "two", &format!("tcp:[{}]:80", two.v6));
    findings.holds("the gateway answers", one.place.pings("fd00:30::1"));
    let routes = one.place.run(&["ip", "-6", "route"]);
    findings.holds(&format!("default route by the gateway:\n{routes}"), {
        routes.contains("default via fd00:30::1")
    });
    lab.neighbour().run(&["ip", "-6", "route", "add", "fd00:30::/64", "via", "fd99::1"]);
    findings.holds("the neighbour speaks IPv6 with the host", lab.neighbour().pings("fd99::1"));
    findings.nothing(&lab.neighbour(), &format!("tcp:[{}]:80", two.v6));
}

#[test]
fn the_last_network_leaves_the_host_as_it_was() {
    let Some(lab) = Lab::with_agent() else { return };
    let state = || {
        let sysctls = "sysctl -a 2>/dev/null | grep -E 'forwarding|route_localnet|accept_ra '";
        let rules = "iptables-save | grep ^-; ip6tables-save | grep ^-; true";
        [lab.run(&["sh", "-c", sysctls]), lab.run(&["sh", "-c", rules]), lab.nft_tables().join(";")]
    };
    let before = state();
    lab.network("web", "172.30.1.0/24", &["--ipv6", "--subnet", "fd00:30::/64"]);
    let web = lab.attach("web", "web", &["8080:80"]);
    lab.detach("web", &web);
    lab.netagent(&["network", "rm", "web"]);
    lab.nothing_left();
    assert_eq!(state(), before);
}

#[test]
fn a_missing_namespace_is_refused_and_leaves_nothing() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let links = lab.links();
    let body = json!({"netns": "/run/netns/nowhere", "publish": ["8080:80"]}).to_string();
    let (status, answer) = lab.try_api("POST", "/v1/networks/web/endpoints", &body).unwrap();
    assert!(status >= 400, "{status} {answer}");
    assert!(answer.to_string().contains("/run/netns/nowhere"), "{answer}");
    assert_eq!(lab.links(), links);
    assert!(lab.ports().is_empty(), "a failed attach holds ports");
    lab.netagent(&["network", "rm", "web"]);
    lab.nothing_left();
}

#[test]
fn a_dry_run_shows_the_plan_and_changes_nothing() {
    let Some(lab) = Lab::with_agent() else { return };
    let create = ["network", "create", "--dry-run", "--subnet", "172.30.1.0/24", "web"];
    let ran = lab.try_netagent(&create);
    assert!(ran.ok || ran.code == 7, "{ran:?}");
    assert!(ran.out.contains("+ link") && ran.out.contains("bridge"), "{}", ran.out);
    lab.nothing_left();
    assert!(!lab.netagent(&["network", "ls"]).contains("web"));
}

#[test]
fn exit_codes_tell_what_is_wrong() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let cases: [(&[&str], i32); 5] = [
        (&["network", "inspect", "nowhere"], 3),
        (&["network", "rm", "nowhere"], 3),
        (&["network", "create", "--subnet", "172.30.1.0/25", "overlap"], 4),
        (&["network", "create", "--subnet", "nonsense", "bad"], 2),
        (&["network", "inspect", "web"], 0),
    ];
    let mut findings = Findings::default();
    for (args, code) in cases {
        let ran = lab.try_netagent(args);
        findings.holds(&format!("exit {code}, not {ran:?}"), ran.code == code);
    }
}

#[test]
fn a_second_agent_is_refused() {
    let Some(lab) = Lab::with_agent() else { return };
    let (state, plugins) = (lab.data("state"), "/run/docker/plugins");
    let dirs = ["--state-dir", &state, "--runtime-dir", "/run/netagent"];
    let ran =
        lab.try_netagent(&[&["daemon"], &dirs[..], &["--docker-plugin-dir", plugins]].concat());
    assert!(!ran.ok && ran.err.contains("netagent"), "{ran:?}");
    lab.netagent(&["status"]);
}

/// Whoever talked to the first holder of an address hears the second, without waiting for what it
/// remembers of the first to grow old.
#[test]
fn a_container_that_is_started_again_is_found_at_once() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let mate = lab.attach("web", "mate", &[]).place;
    for name in ["first", "second"] {
        let netns = format!("/run/netns/{name}");
        let body = json!({"netns": netns, "ip": "172.30.1.9", "publish": ["8080:80"]});
        let sandbox = lab.attach_to("web", lab.sandbox(name), &body);
        let _listener = sandbox.place.tcp_listener("0.0.0.0:80", name);
        let mut findings = Findings::default();
        findings.hears(&mate, name, "tcp:172.30.1.9:80");
        findings.hears(&lab.host(), name, "tcp:172.30.1.9:80");
        findings.hears(&lab.neighbour(), name, "tcp:10.99.0.1:8080");
        lab.detach("web", &sandbox);
    }
}

/// Nobody asks again: what was remembered of the old place is replaced.
#[test]
fn an_address_that_moves_to_another_mac_is_found_at_once() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &["--ipv6", "--subnet", "fd00:30::/64"]);
    let mate = lab.attach("web", "mate", &[]).place;
    let addresses = ["172.30.1.9", "fd00:30::9"];
    for (name, mac) in [("first", "02:00:00:00:00:01"), ("second", "02:00:00:00:00:02")] {
        let netns = format!("/run/netns/{name}");
        let body = json!({"netns": netns, "ip": addresses[0], "ip6": addresses[1], "mac": mac});
        let moved = lab.attach_to("web", lab.sandbox(name), &body);
        let _listener = moved.place.tcp_listener("[::]:80", name);
        let mut findings = Findings::default();
        for place in [&mate, &lab.host()] {
            if name == "second" {
                let heard = || place.remembers(mac, &addresses);
                until("its new place is known", Duration::from_secs(1), || heard().then_some(()));
            }
            findings.hears(place, name, "tcp:172.30.1.9:80");
            findings.hears(place, name, "tcp:[fd00:30::9]:80");
            findings.holds("it is remembered where it is", place.remembers(mac, &addresses));
        }
        lab.detach("web", &moved);
    }
}

/// A client that never pauses keeps the kernel's memory of its flow alive; it must not lead to the
/// container that had the port before, nor to nobody because nobody had it when the flow began.
#[test]
fn a_udp_client_that_never_pauses_reaches_who_has_the_port_now() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let client = lab.neighbour().enter(|| UdpSocket::bind("10.99.0.2:40000")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let asks = |who: &str| {
        until(&format!("{who} answers the old flow"), Duration::from_secs(3), || {
            let mut buffer = [0; 64];
            client.send_to(b"who?", "10.99.0.1:5353").unwrap();
            let size = client.recv(&mut buffer).ok()?;
            buffer[..size].starts_with(who.as_bytes()).then_some(())
        });
    };
    for _ in 0..3 {
        let _ = client.send_to(b"too early", "10.99.0.1:5353");
        let _ = client.recv(&mut [0; 64]);
    }
    for name in ["first", "second"] {
        let sandbox = lab.attach("web", name, &["5353:53/udp"]);
        let _listener = sandbox.place.udp_listener("0.0.0.0:53", name);
        asks(name);
        lab.detach("web", &sandbox);
    }
}
