//! Published ports, from everywhere they may be called from, and from where they may not.

use crate::rig::{forward_policy, host_port, ninth};
use crate::support::{Findings, Lab};

/// From another network to the host's address and back to a container.
pub fn port_mapped_hairpin_tcp(lab: &Lab) {
    lab.docker_network("server", "172.30.1.0/24", &[]);
    lab.docker_network("client", "172.30.2.0/24", &[]);
    lab.container("server", &["--network", "server", "-p", "80"]);
    let client = lab.container("client", &["--network", "client"]);
    let port = host_port(lab, "0.0.0.0", "80");
    client.hears("server", &format!("tcp:10.99.0.1:{port}"));
}

/// The same by UDP: the answer comes from where the question went.
pub fn port_mapped_hairpin_udp(lab: &Lab) {
    lab.docker_network("server", "172.30.1.0/24", &[]);
    lab.docker_network("client", "172.30.2.0/24", &[]);
    let server = lab.container("server", &["--network", "server", "-p", "54/udp"]);
    let _echo = server.udp_listener("0.0.0.0:54", "echo");
    let client = lab.container("client", &["--network", "client"]);
    let port = host_port(lab, "0.0.0.0", "54");
    client.hears("echo", &format!("udp:10.99.0.1:{port}"));
}

/// The host calls it at each of its own addresses.
pub fn access_published_port_from_host(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "web", "-p", "8080:80", "-p", "5353:53/udp"]);
    let _dns = web.udp_listener("0.0.0.0:53", "dns");
    let mut findings = Findings::default();
    for address in ["127.0.0.1", "127.1.2.3", "10.99.0.1", "172.30.1.1", "172.17.0.1"] {
        findings.hears(&lab.host(), "web", &format!("tcp:{address}:8080"));
        findings.hears(&lab.host(), "dns", &format!("udp:{address}:5353"));
    }
}

/// Another machine calls it, and is seen as itself.
pub fn access_published_port_from_remote_host(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "web", "-p", "8080:8000", "-p", "5353:53/udp"]);
    let _tcp = web.tcp_listener("0.0.0.0:8000", "web");
    let _dns = web.udp_listener("0.0.0.0:53", "dns");
    let seen = Some("10.99.0.2".parse().unwrap());
    assert_eq!(lab.neighbour().hears("web", "tcp:10.99.0.1:8080"), seen);
    assert_eq!(lab.neighbour().hears("dns", "udp:10.99.0.1:5353"), seen);
}

/// The container itself and its neighbours call it by every address of the host.
pub fn access_published_port_from_ctr(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "web", "-p", "8080:80"]);
    let mate = lab.container("mate", &["--network", "web"]);
    let mut findings = Findings::default();
    for from in [&web, &mate] {
        for address in ["10.99.0.1", "172.30.1.1"] {
            findings.hears(from, "web", &format!("tcp:{address}:8080"));
        }
    }
}

/// A container of another network calls it by the host's address and by either gateway's.
pub fn access_published_port_from_another_network(lab: &Lab) {
    lab.docker_network("server", "172.30.1.0/24", &[]);
    lab.docker_network("client", "172.30.2.0/24", &[]);
    let server =
        lab.container("server", &["--network", "server", "-p", "8080:80", "-p", "54:54/udp"]);
    let _echo = server.udp_listener("0.0.0.0:54", "echo");
    let client = lab.container("client", &["--network", "client"]);
    let mut findings = Findings::default();
    for address in ["10.99.0.1", "172.30.1.1", "172.30.2.1"] {
        findings.hears(&client, "server", &format!("tcp:{address}:8080"));
        findings.hears(&client, "echo", &format!("udp:{address}:54"));
    }
}

/// A machine that has a route to the containers finds no port of theirs open, and no answer to a
/// ping, whatever iptables' policy is.
pub fn direct_routing_open_ports(lab: &Lab) {
    crate::rig::dual_stack(lab, "web", 1, &[]);
    let web = ninth(lab, "web", "web", 1, &["-p", "8080:80", "-p", "8000:8000"]);
    let _six = web.tcp_listener("[::]:8000", "web");
    let neighbour = lab.neighbour();
    neighbour.run(&["ip", "-6", "route", "add", "fd00:30:1::/64", "via", "fd99::1"]);
    lab.host().hears("web", "tcp:172.30.1.9:81");
    lab.host().hears("web", "tcp:[fd00:30:1::9]:8000");
    neighbour.hears("web", "tcp:10.99.0.1:8080");
    let mut findings = Findings::default();
    for policy in ["ACCEPT", "DROP"] {
        forward_policy(lab, policy);
        for to in ["tcp:172.30.1.9:80", "tcp:172.30.1.9:81", "tcp:[fd00:30:1::9]:8000"] {
            findings.nothing(&neighbour, to);
        }
        findings.holds("no ping by IPv4", !neighbour.pings("172.30.1.9"));
        findings.holds("no ping by IPv6", !neighbour.pings("fd00:30:1::9"));
    }
}

/// Ports that are only exposed, or published on a loopback address, are not open to another machine.
pub fn direct_remote_access_on_exposed_port(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let ports = ["--expose", "80", "-p", "127.0.0.1:8081:81", "-p", "8082:82"];
    let place = ["--network", "web", "--ip", "172.30.1.9"];
    lab.container("web", &[&place[..], &ports[..]].concat());
    let mut findings = Findings::default();
    for port in 80..=82 {
        findings.hears(&lab.host(), "web", &format!("tcp:172.30.1.9:{port}"));
        findings.nothing(&lab.neighbour(), &format!("tcp:172.30.1.9:{port}"));
    }
    findings.hears(&lab.neighbour(), "web", "tcp:10.99.0.1:8082");
}

/// A port that is published on 127.0.0.1 is closed to a machine that sends packets to that address.
pub fn access_port_published_on_loopback_address(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let ports = ["-p", "127.0.0.1:8080:80", "-p", "127.0.0.1:5353:53/udp"];
    let web = lab.container("web", &[&["--network", "web"], &ports[..]].concat());
    let mate = lab.container("mate", &["--network", "web"]);
    let dns = web.udp_listener("0.0.0.0:53", "dns");
    lab.host().hears("web", "tcp:127.0.0.1:8080");
    lab.host().hears("dns", "udp:127.0.0.1:5353");
    let heard = dns.heard();
    let mut findings = Findings::default();
    for (place, link, gateway) in
        [(&lab.neighbour(), "eth0", "10.99.0.1"), (&mate, "eth0", "172.30.1.1")]
    {
        findings.nothing(place, &format!("tcp:{gateway}:8080"));
        // No loopback of its own, so that the packets leave.
        place.run(&["ip", "link", "set", "lo", "down"]);
        place.run(&["ip", "route", "add", "127.0.0.1/32", "via", gateway, "dev", link]);
        place.run(&["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"]);
        findings.nothing(place, "tcp:127.0.0.1:8080");
        findings.nothing(place, "udp:127.0.0.1:5353");
    }
    findings.holds("no datagram came through", dns.heard() == heard);
}

/// One container port on all addresses and on a specific one, both with ports of their own choice.
pub fn mix_any_with_specific_host_addrs(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let ports = ["-p", "80", "-p", "127.0.0.1::80", "-p", "54/udp", "-p", "127.0.0.1::54/udp"];
    let web = lab.container("web", &[&["--network", "web"], &ports[..]].concat());
    let _echo = web.udp_listener("0.0.0.0:54", "echo");
    let (any, one) = (host_port(lab, "0.0.0.0", "80"), host_port(lab, "127.0.0.1", "80"));
    let (any_udp, one_udp) = (host_port(lab, "0.0.0.0", "54"), host_port(lab, "127.0.0.1", "54"));
    assert_ne!(any, one);
    assert_ne!(any_udp, one_udp);
    let mut findings = Findings::default();
    for address in ["10.99.0.1", "127.0.0.1"] {
        findings.hears(&lab.host(), "web", &format!("tcp:{address}:{any}"));
        findings.hears(&lab.host(), "echo", &format!("udp:{address}:{any_udp}"));
    }
    findings.hears(&lab.host(), "web", &format!("tcp:127.0.0.1:{one}"));
    findings.hears(&lab.host(), "echo", &format!("udp:127.0.0.1:{one_udp}"));
    findings.hears(&lab.neighbour(), "web", &format!("tcp:10.99.0.1:{any}"));
    findings.nothing(&lab.neighbour(), &format!("tcp:10.99.0.1:{one}"));
    findings.nothing(&lab.neighbour(), &format!("udp:10.99.0.1:{one_udp}"));
}

/// Two containers share a port on different loopback addresses.
pub fn port_mapping_on_distinct_loopback_addrs(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    for (name, address) in [("two", "127.0.0.2"), ("three", "127.0.0.3")] {
        let (tcp, udp) = (format!("{address}:8080:80"), format!("{address}:8080:54/udp"));
        lab.container(name, &["--network", "web", "-p", &tcp, "-p", &udp]);
    }
    let _two = lab.container_place("two").udp_listener("0.0.0.0:54", "two");
    let _three = lab.container_place("three").udp_listener("0.0.0.0:54", "three");
    let mut findings = Findings::default();
    for (name, address) in [("two", "127.0.0.2"), ("three", "127.0.0.3")] {
        findings.hears(&lab.host(), name, &format!("tcp:{address}:8080"));
        findings.hears(&lab.host(), name, &format!("udp:{address}:8080"));
    }
    findings.nothing(&lab.host(), "tcp:127.0.0.1:8080");
}

/// What can be written after `-p`, and what becomes of it: a table.
pub fn add_port_mappings(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let _busy = lab.host().tcp_listener("0.0.0.0:8001", "busy");
    // What is asked for, and who then answers where: from the host, or the error's words.
    type Row<'a> = (&'a [&'a str], Result<&'a [&'a str], &'a str>);
    let rows: &[Row] = &[
        (&["8000:80"], Ok(&["127.0.0.1:8000", "10.99.0.1:8000"])),
        (&["8000:80", "8002:80"], Ok(&["10.99.0.1:8000", "10.99.0.1:8002"])),
        (&["127.0.0.1:8000:80"], Ok(&["127.0.0.1:8000"])),
        (&["10.99.0.1:8000:80", "127.0.0.1:8000:80"], Ok(&["127.0.0.1:8000", "10.99.0.1:8000"])),
        (&["8000-8002:80"], Ok(&["10.99.0.1:8000"])),
        (&["8001-8002:80"], Ok(&["10.99.0.1:8002"])),
        (&["8010-8012:80-82"], Ok(&["10.99.0.1:8010", "10.99.0.1:8011", "10.99.0.1:8012"])),
        (&["8001:80"], Err("8001")),
        (&["8001-8001:80"], Err("8001")),
        (&["8000-8002:80-82"], Err("8001")),
        (&["192.0.2.1:8000:80"], Err("192.0.2.1")),
    ];
    let mut findings = Findings::default();
    for (asked, becomes) in rows {
        let mut options = vec!["--network", "web"];
        for port in *asked {
            options.extend(["-p", port]);
        }
        let made = lab.try_container("web", &options);
        match becomes {
            Ok(answers) => {
                findings.holds(&format!("{asked:?}: {}", made.err), made.ok);
                if made.ok {
                    lab.container_place("web");
                }
                for to in *answers {
                    findings.hears(&lab.host(), "web", &format!("tcp:{to}"));
                }
            }
            Err(words) => findings
                .holds(&format!("{asked:?} is refused for {words}: {}", made.err), {
                    !made.ok && made.err.contains(words)
                }),
        }
        lab.docker(&["rm", "-f", "web"]);
        findings.holds(&format!("{asked:?} leaves nothing"), lab.ports().is_empty());
    }
}
