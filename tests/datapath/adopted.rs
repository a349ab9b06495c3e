//! Networks on bridges of the operator's, by what packets may do and by what is left of the bridge:
//! its own addresses, its other ports, and what the host itself could do before.

use std::net::IpAddr;
use std::time::Duration;

use crate::support::{Findings, Lab, Place, until};

const NAME: &str = "com.docker.network.bridge.name=br0";
const ICC: &str = "com.docker.network.bridge.enable_icc=false";

/// The operator's bridge `br0`, 192.168.7.10/24 and fd00:7::10/64, with two hosts on it.
fn with_lan() -> Option<(Lab, Place, Place)> {
    let lab = Lab::start()?;
    for line in [
        "ip link add br0 type bridge",
        "ip addr add 192.168.7.10/24 dev br0",
        "ip addr add fd00:7::10/64 dev br0 nodad",
        "ip link set br0 up",
    ] {
        shell(&lab, line);
    }
    let (one, two) = (lan_host(&lab, "lan1", 20), lan_host(&lab, "lan2", 21));
    Some((lab, one, two))
}

fn shell(lab: &Lab, line: &str) -> String {
    lab.run(&["sh", "-ec", line])
}

/// A host on the operator's bridge, which sends by this one.
fn lan_host(lab: &Lab, name: &str, number: u8) -> Place {
    let place = lab.sandbox(name);
    for line in [
        format!("ip link add port-{name} type veth peer name eth0 netns {name}"),
        format!("ip link set port-{name} master br0 up"),
        format!("ip -n {name} addr add 192.168.7.{number}/24 dev eth0"),
        format!("ip -n {name} addr add fd00:7::{number}/64 dev eth0 nodad"),
        format!("ip -n {name} link set eth0 up"),
        format!("ip -n {name} route add default via 192.168.7.10"),
        format!("ip -n {name} route add default via fd00:7::10"),
    ] {
        shell(lab, &line);
    }
    place
}

/// All there is to know of the bridge, but for timers.
fn bridge(lab: &Lab) -> String {
    shell(
        lab,
        "ip -d -o link show br0 | sed 's/[a-z_]*_timer *[0-9.]*//g; s/qlen [0-9]*//';
         ip -o addr show br0 | sed 's/ tentative//'; ip route show dev br0; ip -6 route show dev br0;
         bridge link show | grep -v nae- | sed 's/^[0-9]*: //';
         sysctl -a 2>/dev/null | grep -F '.br0.'",
    )
}

/// What of it must not change even while a network uses it.
fn never_changed(lab: &Lab) -> String {
    shell(
        lab,
        r"ip -d -o link show br0 | sed 's/[a-z_]*_timer *[0-9.]*//g';
         ip -o addr show br0 | sed 's/ tentative//' | grep -v ' 172.30.1.1/\| fd00:30::1/';
         sysctl -a 2>/dev/null | grep -F '.br0.' | grep -v 'forwarding\|route_localnet'",
    )
}

/// A network of its own subnets on the operator's bridge.
fn apart(lab: &Lab, options: &[&str]) {
    let mut args = vec!["-o", NAME, "--ipv6", "--subnet", "fd00:30::/64"];
    args.extend(options);
    lab.network("web", "172.30.1.0/24", &args);
}

#[test]
fn containers_on_the_operators_bridge_have_a_network_of_their_own_with_bridge_nf_on() {
    containers_have_a_network_of_their_own(true);
}

#[test]
fn containers_on_the_operators_bridge_have_a_network_of_their_own_with_bridge_nf_off() {
    containers_have_a_network_of_their_own(false);
}

fn containers_have_a_network_of_their_own(bridge_nf: bool) {
    let Some((lab, lan, lan2)) = with_lan() else { return };
    lab.bridge_nf(bridge_nf);
    let steady = never_changed(&lab);
    lab.start_agent();
    apart(&lab, &[]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let mate = lab.attach("web", "mate", &[]).place;
    let (host, neighbour) = (lab.host(), lab.neighbour());
    let _web = [80, 81].map(|port| web.place.tcp_listener(&format!("[::]:{port}"), "web"));
    let _world = neighbour.tcp_listener("[::]:7000", "world");
    let _lan = lan.tcp_listener("[::]:7000", "lan");

    let mut findings = Findings::default();
    for from in [&host, &mate] {
        findings.hears(from, "web", &format!("tcp:{}:81", web.v4));
        findings.hears(from, "web", &format!("tcp:[{}]:81", web.v6));
    }
    for from in [&lan, &neighbour] {
        findings.nothing(from, &format!("tcp:{}:80", web.v4));
        findings.nothing(from, &format!("tcp:{}:81", web.v4));
    }
    findings.nothing(&lan, &format!("tcp:[{}]:81", web.v6));
    for from in [&host, &neighbour, &lan, &mate, &web.place] {
        findings.hears(from, "web", "tcp:10.99.0.1:8080");
    }
    for to in ["tcp:192.168.7.10:8080", "tcp:[fd00:7::10]:8080"] {
        findings.hears(&lan, "web", to);
    }
    for to in ["tcp:127.0.0.1:8080", "tcp:[::1]:8080"] {
        findings.hears(&host, "web", to);
    }
    // Bridged or routed back, out by the uplink: with the address of the way out.
    for (who, to, own) in [
        ("world", "tcp:10.99.0.2:7000", "10.99.0.1"),
        ("world", "tcp:[fd99::2]:7000", "fd99::1"),
        ("lan", "tcp:192.168.7.20:7000", "192.168.7.10"),
        ("lan", "tcp:[fd00:7::20]:7000", "fd00:7::10"),
    ] {
        match web.place.try_hears(who, to) {
            Ok(saw) => {
                let saw = saw.map(|saw| saw.to_canonical());
                let says = format!("{to} sees {own}, not {saw:?}");
                findings.holds(&says, saw == Some(own.parse::<IpAddr>().unwrap()));
            }
            Err(why) => findings.holds(&why, false),
        }
    }
    match lan.try_hears("web", "tcp:192.168.7.10:8080") {
        Ok(saw) => {
            let saw = saw.map(|saw| saw.to_canonical());
            findings.holds("web sees who calls", saw == Some("192.168.7.20".parse().unwrap()));
        }
        Err(why) => findings.holds(&why, false),
    }
    // Others on the bridge are no business of ours: neither cut off nor let through.
    for to in ["tcp:192.168.7.20:7000", "tcp:[fd00:7::20]:7000"] {
        findings.hears(&lan2, "lan", to);
        findings.hears(&host, "lan", to);
    }
    findings.nothing(&lan, "tcp:10.99.0.2:7000");
    let now = never_changed(&lab);
    findings.holds(&format!("the bridge was:\n{steady}\nand is:\n{now}"), now == steady);
}

#[test]
fn containers_in_the_operators_subnet_are_hosts_of_it_with_bridge_nf_on() {
    containers_in_the_operators_subnet_are_hosts_of_it(true);
}

#[test]
fn containers_in_the_operators_subnet_are_hosts_of_it_with_bridge_nf_off() {
    containers_in_the_operators_subnet_are_hosts_of_it(false);
}

fn containers_in_the_operators_subnet_are_hosts_of_it(bridge_nf: bool) {
    let Some((lab, lan, lan2)) = with_lan() else { return };
    lab.bridge_nf(bridge_nf);
    // The operator routes between the bridge and the uplink.
    lab.sysctl("net.ipv4.ip_forward", "1");
    let steady = never_changed(&lab);
    lab.start_agent();
    let among = ["-o", NAME, "--ip-range", "192.168.7.128/25"];
    lab.network("web", "192.168.7.0/24", &among);
    let web = lab.attach("web", "web", &["8080:80"]);
    let neighbour = lab.neighbour();
    let _web = [80, 81].map(|port| web.place.tcp_listener(&format!("0.0.0.0:{port}"), "web"));
    let _world = neighbour.tcp_listener("0.0.0.0:7000", "world");
    let _lan = lan.tcp_listener("0.0.0.0:7000", "lan");

    let mut findings = Findings::default();
    for from in [&lan, &lan2, &lab.host()] {
        findings.hears(from, "web", &format!("tcp:{}:81", web.v4));
        findings.hears(from, "web", "tcp:192.168.7.10:8080");
    }
    findings.hears(&neighbour, "web", "tcp:10.99.0.1:8080");
    findings.nothing(&neighbour, &format!("tcp:{}:81", web.v4));
    let saw = web.place.hears("lan", "tcp:192.168.7.20:7000");
    findings.holds("bridged with its own address", saw == Some(web.v4.parse().unwrap()));
    let saw = web.place.hears("world", "tcp:10.99.0.2:7000");
    findings.holds("masqueraded beyond", saw == Some("10.99.0.1".parse().unwrap()));
    // What the operator routes goes on as it did, with the addresses it had.
    findings.hears(&neighbour, "lan", "tcp:192.168.7.20:7000");
    let saw = lan.hears("world", "tcp:10.99.0.2:7000");
    findings.holds("others are not masqueraded", saw == Some("192.168.7.20".parse().unwrap()));
    findings.hears(&lan2, "lan", "tcp:192.168.7.20:7000");
    let now = never_changed(&lab);
    findings.holds(&format!("the bridge was:\n{steady}\nand is:\n{now}"), now == steady);
}

#[test]
fn without_icc_only_containers_are_deaf_on_the_operators_bridge_with_bridge_nf_on() {
    without_icc_only_containers_are_deaf(true);
}

#[test]
fn without_icc_only_containers_are_deaf_on_the_operators_bridge_with_bridge_nf_off() {
    without_icc_only_containers_are_deaf(false);
}

fn without_icc_only_containers_are_deaf(bridge_nf: bool) {
    let Some((lab, lan, lan2)) = with_lan() else { return };
    lab.bridge_nf(bridge_nf);
    lab.start_agent();
    apart(&lab, &["-o", ICC]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let mate = lab.attach("web", "mate", &[]);
    let _web = web.place.tcp_listener("[::]:80", "web");
    let _lan = lan.tcp_listener("[::]:7000", "lan");
    let mut findings = Findings::default();
    findings.hears(&lab.host(), "web", &format!("tcp:{}:80", web.v4));
    findings.nothing(&mate.place, &format!("tcp:{}:80", web.v4));
    findings.nothing(&mate.place, &format!("tcp:[{}]:80", web.v6));
    findings.hears(&mate.place, "web", "tcp:10.99.0.1:8080");
    findings.hears(&lan, "web", "tcp:192.168.7.10:8080");
    findings.hears(&lan2, "lan", "tcp:192.168.7.20:7000");
    findings.hears(&mate.place, "lan", "tcp:192.168.7.20:7000");
    // By the host, past the bridge's own refusal.
    for (from, to) in [(&mate, &web), (&web, &mate)] {
        let route = ["ip", "route", "add", &to.v4, "via", "172.30.1.1"];
        from.place.run(&route);
    }
    findings.nothing(&mate.place, &format!("tcp:{}:80", web.v4));
}

#[test]
fn an_internal_network_on_the_operators_bridge_has_no_way_out() {
    let Some((lab, lan, lan2)) = with_lan() else { return };
    lab.bridge_nf(true);
    lab.sysctl("net.ipv4.ip_forward", "1");
    lab.start_agent();
    apart(&lab, &["--internal"]);
    let vault = lab.attach("web", "vault", &[]);
    let mate = lab.attach("web", "mate", &[]).place;
    let _vault = vault.place.tcp_listener("[::]:80", "vault");
    let _lan = lan.tcp_listener("[::]:7000", "lan");
    let _world = lab.neighbour().tcp_listener("0.0.0.0:7000", "world");
    let mut findings = Findings::default();
    for to in [format!("tcp:{}:80", vault.v4), format!("tcp:[{}]:80", vault.v6)] {
        findings.hears(&mate, "vault", &to);
        findings.hears(&lab.host(), "vault", &to);
        findings.nothing(&lan, &to);
    }
    findings.nothing(&lab.neighbour(), &format!("tcp:{}:80", vault.v4));
    vault.place.run(&["ip", "route", "add", "default", "via", "172.30.1.1"]);
    for to in ["tcp:10.99.0.2:7000", "tcp:192.168.7.20:7000"] {
        findings.nothing(&vault.place, to);
    }
    findings.hears(&lan, "world", "tcp:10.99.0.2:7000");
    findings.hears(&lan2, "lan", "tcp:192.168.7.20:7000");
}

#[test]
fn the_bridge_of_the_default_route_serves_containers_and_the_host_alike() {
    for bridge_nf in [true, false] {
        let Some(lab) = Lab::start() else { return };
        lab.bridge_nf(bridge_nf);
        for line in [
            "ip link add br0 type bridge",
            "ip addr del 10.99.0.1/24 dev uplink",
            "ip link set uplink master br0",
            "ip addr add 10.99.0.1/24 dev br0",
            "ip link set br0 up",
            "ip route add default via 10.99.0.2 dev br0",
        ] {
            shell(&lab, line);
        }
        let (host, neighbour) = (lab.host(), lab.neighbour());
        assert!(host.pings("10.99.0.2"), "the host reaches its neighbour");
        let before = bridge(&lab);
        lab.start_agent();
        lab.network("web", "172.30.1.0/24", &["-o", NAME]);
        let web = lab.attach("web", "web", &["8080:80"]);
        let mate = lab.attach("web", "mate", &[]).place;
        let _web = [80, 81].map(|port| web.place.tcp_listener(&format!("0.0.0.0:{port}"), "web"));
        let _world = neighbour.tcp_listener("0.0.0.0:7000", "world");
        let mut findings = Findings::default();
        findings.hears(&neighbour, "web", "tcp:10.99.0.1:8080");
        for port in [80, 81] {
            findings.nothing(&neighbour, &format!("tcp:{}:{port}", web.v4));
            findings.hears(&mate, "web", &format!("tcp:{}:{port}", web.v4));
        }
        let saw = web.place.hears("world", "tcp:10.99.0.2:7000");
        findings.holds("masqueraded", saw == Some("10.99.0.1".parse().unwrap()));
        let saw = host.hears("world", "tcp:10.99.0.2:7000");
        findings.holds("the host as before", saw == Some("10.99.0.1".parse().unwrap()));
        for name in ["web", "mate"] {
            lab.netagent(&["network", "disconnect", "web", name]);
        }
        lab.netagent(&["network", "rm", "web"]);
        lab.only_links(&["br0"]);
        assert_eq!(bridge(&lab), before, "bridge-nf {bridge_nf}");
    }
}

#[test]
fn the_operators_bridge_is_left_as_it_was() {
    let Some((lab, lan, _)) = with_lan() else { return };
    lab.sysctl("net.ipv4.conf.br0.promote_secondaries", "0");
    let before = bridge(&lab);
    lab.start_agent();
    apart(&lab, &[]);
    let web = lab.attach("web", "web", &["8080:80"]);
    // An address that the operator adds later must outlive ours, which the kernel has before it.
    shell(&lab, "ip addr add 172.30.1.77/24 dev br0");
    lab.kill_agent();
    lab.start_agent();
    let status = lab.netagent(&["status"]);
    assert!(!status.contains("br0\" is"), "{status}");
    let _web = web.place.tcp_listener("0.0.0.0:80", "web");
    lan.hears("web", "tcp:192.168.7.10:8080");
    lab.detach("web", &web);
    lab.netagent(&["network", "rm", "web"]);
    lab.only_links(&["br0", "port-lan1", "port-lan2"]);
    let left = shell(&lab, "ip -o -4 addr show br0");
    assert!(left.contains("172.30.1.77/24") && !left.contains("172.30.1.1/24"), "{left}");
    shell(&lab, "ip addr del 172.30.1.77/24 dev br0");
    assert_eq!(bridge(&lab), before);
}

#[test]
fn a_bridge_that_the_operator_makes_anew_is_used_again() {
    let Some((lab, lan, _)) = with_lan() else { return };
    lab.start_agent();
    apart(&lab, &[]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let _web = web.place.tcp_listener("0.0.0.0:80", "web");
    lan.hears("web", "tcp:192.168.7.10:8080");
    shell(&lab, "ip link del br0");
    until("the agent reports it", Duration::from_secs(10), || {
        let status = lab.try_netagent(&["status"]);
        format!("{}{}", status.out, status.err).contains("\"br0\" is gone").then_some(())
    });
    let refused = lab.try_netagent(&["network", "connect", "web", "lan2"]).expect_err();
    assert!(refused.contains("br0"), "{refused}");
    for line in [
        "ip link add br0 type bridge",
        "ip addr add 192.168.7.10/24 dev br0",
        "ip link set br0 up",
        "ip link set port-lan1 master br0",
    ] {
        shell(&lab, line);
    }
    lan.hears_within(Duration::from_secs(15), "web", "tcp:192.168.7.10:8080");
    lab.host().hears("web", &format!("tcp:{}:80", web.v4));
}

#[test]
fn what_is_no_bridge_is_refused() {
    let Some(lab) = Lab::with_agent() else { return };
    shell(&lab, "ip link add veth0 type veth peer name veth1");
    let mut names = vec!["veth0", "uplink"];
    if lab.try_run(&["ip", "tuntap", "add", "tap0", "mode", "tap"]).ok {
        names.push("tap0");
    }
    let links = lab.links();
    for name in names {
        let option = format!("com.docker.network.bridge.name={name}");
        let refused = lab.try_netagent(&["network", "create", "-o", &option, "web"]);
        assert_eq!(refused.code, 4, "{refused:?}");
        let says = format!("existing interface {name} is not a bridge");
        assert!(refused.err.contains(&says), "{}", refused.err);
    }
    assert_eq!(lab.links(), links);
}
