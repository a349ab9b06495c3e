//! Published ports by IPv6.

use crate::rig::{dual_stack, host_port, link_local, ninth, reaches};
use crate::support::{Findings, Lab, Place};

/// A container on a network of both families; 8000 is published at 8080, by UDP 54 at 5354.
fn server(lab: &Lab) -> (Place, impl Sized) {
    dual_stack(lab, "server", 1, &[]);
    let server = ninth(lab, "server", "server", 1, &["-p", "8080:8000", "-p", "5354:54/udp"]);
    let tcp = server.tcp_listener("[::]:8000", "server");
    let udp = server.udp_listener("[::]:54", "echo");
    (server, (tcp, udp))
}

/// `from` calls both ports of [`server`] at these addresses of the host.
fn calls(findings: &mut Findings, from: &Place, addresses: &[&str]) {
    for address in addresses {
        findings.hears(from, "server", &format!("tcp:[{address}]:8080"));
        findings.hears(from, "echo", &format!("udp:[{address}]:5354"));
    }
}

pub fn port_mapped_hairpin_tcp_by_ipv6(lab: &Lab) {
    let (_server, _listeners) = server(lab);
    dual_stack(lab, "client", 2, &[]);
    let client = ninth(lab, "client", "client", 2, &[]);
    assert!(reaches(&client, "fd99::1"));
    client.hears("server", "tcp:[fd99::1]:8080");
}

pub fn port_mapped_hairpin_udp_by_ipv6(lab: &Lab) {
    let (_server, _listeners) = server(lab);
    dual_stack(lab, "client", 2, &[]);
    let client = ninth(lab, "client", "client", 2, &[]);
    assert!(reaches(&client, "fd99::1"));
    client.hears("echo", "udp:[fd99::1]:5354");
}

pub fn access_published_port_from_host_by_ipv6(lab: &Lab) {
    for bridge_nf in [true, false] {
        lab.bridge_nf(bridge_nf);
        let (_server, _listeners) = server(lab);
        let mut findings = Findings::default();
        calls(&mut findings, &lab.host(), &["fd99::1", "fd00:30:1::1", "::1"]);
        drop(findings);
        lab.docker(&["rm", "-f", "server"]);
        lab.docker(&["network", "rm", "server"]);
    }
}

/// The neighbour is seen as itself.
pub fn access_published_port_from_remote_host_by_ipv6(lab: &Lab) {
    let (_server, _listeners) = server(lab);
    let seen = Some("fd99::2".parse().unwrap());
    assert_eq!(lab.neighbour().hears("server", "tcp:[fd99::1]:8080"), seen);
    assert_eq!(lab.neighbour().hears("echo", "udp:[fd99::1]:5354"), seen);
}

pub fn access_published_port_from_ctr_by_ipv6(lab: &Lab) {
    let (server, _listeners) = server(lab);
    let mate = lab.container("mate", &["--network", "server"]);
    assert!(reaches(&mate, "fd00:30:1::1"));
    let mut findings = Findings::default();
    for from in [&server, &mate] {
        calls(&mut findings, from, &["fd99::1", "fd00:30:1::1"]);
    }
}

pub fn access_published_port_from_another_network_by_ipv6(lab: &Lab) {
    let (_server, _listeners) = server(lab);
    dual_stack(lab, "client", 2, &[]);
    let client = ninth(lab, "client", "client", 2, &[]);
    assert!(reaches(&client, "fd00:30:2::1"));
    let mut findings = Findings::default();
    calls(&mut findings, &client, &["fd99::1", "fd00:30:1::1", "fd00:30:2::1"]);
}

/// A port on [::1] is closed to other machines and to link-local callers.
pub fn access_port_published_on_loopback_address_by_ipv6(lab: &Lab) {
    dual_stack(lab, "web", 1, &[]);
    let web = ninth(lab, "web", "web", 1, &["-p", "[::1]:8080:8000"]);
    let _listener = web.tcp_listener("[::]:8000", "web");
    let mut findings = Findings::default();
    findings.hears(&lab.host(), "web", "tcp:[::1]:8080");
    findings.nothing(&lab.host(), "tcp:127.0.0.1:8080");
    findings.nothing(&lab.neighbour(), "tcp:[fd99::1]:8080");
    findings.nothing(&lab.neighbour(), "tcp:[fd00:30:1::1]:8080");
    findings.holds("the caller has a link-local address", !link_local(&web).is_empty());
}

/// Without a host address, both families have one port number.
pub fn mix_any_with_specific_host_addrs_by_ipv6(lab: &Lab) {
    dual_stack(lab, "web", 1, &[]);
    let ports = ["-p", "8000", "-p", "[::1]::8000", "-p", "127.0.0.1::8000"];
    let web = ninth(lab, "web", "web", 1, &ports);
    let _listener = web.tcp_listener("[::]:8000", "web");
    let any = host_port(lab, "*", "8000");
    let (six, four) = (host_port(lab, "::1", "8000"), host_port(lab, "127.0.0.1", "8000"));
    let mut findings = Findings::default();
    findings.hears(&lab.neighbour(), "web", &format!("tcp:10.99.0.1:{any}"));
    findings.hears(&lab.neighbour(), "web", &format!("tcp:[fd99::1]:{any}"));
    findings.hears(&lab.host(), "web", &format!("tcp:[::1]:{six}"));
    findings.hears(&lab.host(), "web", &format!("tcp:127.0.0.1:{four}"));
}

/// A container without IPv6 has no port on the host's IPv6 addresses.
pub fn ports_of_a_container_without_ipv6(lab: &Lab) {
    lab.docker_network("four", "172.30.1.0/24", &[]);
    lab.container("web", &["--network", "four", "-p", "8080:80"]);
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    let mut findings = Findings::default();
    findings.nothing(&lab.neighbour(), "tcp:[fd99::1]:8080");
    let held = lab.ports();
    findings.holds(&format!("none is shown: {held:?}"), {
        held.iter().all(|port| port["HostIP"] == "0.0.0.0")
    });
}
