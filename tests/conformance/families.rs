//! IPv4 and IPv6, each of them with and without the other; sysctls of an interface.

use crate::rig::{NameServer, dual_stack, has_addresses, inspect, reaches};
use crate::support::{Findings, Lab, driver};

const NO_IPV6: &str = "net.ipv6.conf.all.disable_ipv6=1";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// A container that has IPv6 disabled, on a network without it: no IPv6 address, not even on `lo`.
pub fn disable_ipv6_addrs(lab: &Lab) {
    lab.docker_network("four", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "four", "--sysctl", NO_IPV6]);
    let shown = web.run(&["ip", "-6", "-o", "addr"]);
    assert_eq!(shown, "", "IPv6 addresses are left");
    lab.host().hears("web", &format!("tcp:{}:80", lab.address("web", "four")));
}

/// An endpoint's sysctl disables IPv6 on its interface, and on no other.
pub fn disable_ipv6_on_interface(lab: &Lab) {
    dual_stack(lab, "alpha", 1, &[]);
    // Up to 28.5 dockerd cannot announce an address that it has just lost, nor route by it: not
    // with its own driver either.
    dual_stack(lab, "zeta", 2, &["-o", "com.docker.network.advertise_addr_nmsgs=0"]);
    // Connected later: of several networks at once dockerd may try this one first as the way out.
    let web = lab.container("web", &["--network", "alpha"]);
    let off = format!("{SYSCTLS}=net.ipv6.conf.IFNAME.disable_ipv6=1");
    lab.docker(&["network", "connect", "--driver-opt", &off, "zeta", "web"]);
    let shown = web.run(&["ip", "-6", "-o", "addr", "show", "scope", "global"]);
    let mut findings = Findings::default();
    findings.holds(&format!("fd00:30:1:: in {shown}"), shown.contains("fd00:30:1::"));
    findings.holds(&format!("no fd00:30:2:: in {shown}"), !shown.contains("fd00:30:2::"));
    findings.hears(&lab.host(), "web", &format!("tcp:{}:80", lab.address("web", "zeta")));
}

/// A network without IPv4: its containers have none.
pub fn disable_ipv4(lab: &Lab) {
    let driver = driver();
    let subnet = ["--ipv4=false", "--ipv6", "--subnet", "fd00:30:1::/64"];
    lab.docker(&[&["network", "create", "-d", &driver], &subnet[..], &["six"]].concat());
    let web = lab.container("web", &["--network", "six", "--ip6", "fd00:30:1::9"]);
    let mate = lab.container("mate", &["--network", "six"]);
    let _six = web.tcp_listener("[::]:8000", "web");
    let mut findings = Findings::default();
    findings.holds("no IPv4 address", !has_addresses(&web, "-4"));
    findings.hears(&mate, "web", "tcp:[fd00:30:1::9]:8000");
    findings.hears(&lab.host(), "web", "tcp:[fd00:30:1::9]:8000");
    findings.holds("out by IPv6", reaches(&web, "fd99::2"));
    let bridge = lab.run(&["ip", "-4", "-o", "addr"]);
    findings.holds(&format!("no address on the bridge: {bridge}"), !bridge.contains("nab-"));
}

/// A network without IPv6: no IPv6 address in its containers, but `::1`.
pub fn non_ipv6_network(lab: &Lab) {
    lab.docker_network("four", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "four"]);
    let shown = web.run(&["ip", "-6", "-o", "addr"]);
    let mut findings = Findings::default();
    findings.holds(&format!("no address but lo's: {shown}"), !has_addresses(&web, "-6"));
    findings.holds(&format!("::1 on lo: {shown}"), shown.contains(" ::1/128"));
    findings.holds("no IPv6 route out", web.run(&["ip", "-6", "route"]).is_empty());
}

/// Sysctls of an endpoint reach its interface; names that are none of an interface are refused.
pub fn set_endpoint_sysctl(lab: &Lab) {
    lab.docker_network("one", "172.30.1.0/24", &[]);
    lab.docker_network("two", "172.30.2.0/24", &[]);
    let with =
        |network: &str, sysctls: &str| format!("name={network},\"driver-opt={SYSCTLS}={sysctls}\"");
    let several =
        with("one", "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0");
    let web = lab.container("web", &["--network", &several]);
    let value = |place: &crate::support::Place, key: &str| place.run(&["sysctl", "-n", key]);
    let mut findings = Findings::default();
    findings.holds("log_martians", value(&web, "net.ipv4.conf.eth0.log_martians").trim() == "1");
    findings.holds("forwarding", value(&web, "net.ipv4.conf.eth0.forwarding").trim() == "0");
    let option = format!("{SYSCTLS}=net.ipv4.conf.IFNAME.arp_ignore=2");
    lab.docker(&["network", "connect", "--driver-opt", &option, "two", "web"]);
    findings.holds("arp_ignore", value(&web, "net.ipv4.conf.eth1.arp_ignore").trim() == "2");
    for (sysctl, in_error) in [
        ("net.ipv4.ip_forward=1", "unrecognised network interface sysctl"),
        ("net.ipv4.conf.IFNAME.nosuch=1", "nosuch"),
    ] {
        let error = lab.try_container("bad", &["--network", &with("one", sysctl)]).expect_err();
        findings.holds(&format!("{in_error} in {error}"), error.contains(in_error));
        lab.try_docker(&["rm", "-f", "bad"]);
    }
}

/// A container that has IPv6 disabled gets no IPv6 address on a network that has it.
pub fn container_disabled_ipv6(lab: &Lab) {
    dual_stack(lab, "dual", 1, &[]);
    let web = lab.container("web", &["--network", "dual", "--sysctl", NO_IPV6]);
    let mut findings = Findings::default();
    let shown = web.run(&["ip", "-6", "-o", "addr"]);
    findings.holds(&format!("no IPv6 address: {shown}"), shown.is_empty());
    let address = "{{(index .NetworkSettings.Networks \"dual\").GlobalIPv6Address}}";
    findings.holds("none by docker inspect", inspect(lab, "web", address).is_empty());
    let hosts = lab.docker(&["exec", "web", "cat", "/etc/hosts"]);
    findings.holds(&format!("none in /etc/hosts: {hosts}"), !hosts.contains(':'));
    findings.hears(&lab.host(), "web", &format!("tcp:{}:80", lab.address("web", "dual")));
}

/// A name server elsewhere is asked from a network that has only IPv6.
pub fn ext_dns_in_ipv6_only_nw(lab: &Lab) {
    let server = NameServer::at(&lab.neighbour(), "[::]:53");
    let driver = driver();
    let subnet = ["--ipv4=false", "--ipv6", "--subnet", "fd00:30:1::/64"];
    lab.docker(&[&["network", "create", "-d", &driver], &subnet[..], &["six"]].concat());
    lab.container("web", &["--network", "six", "--dns", "fd99::2"]);
    let found = lab.docker(&["exec", "web", "nslookup", "test.example", "127.0.0.11"]);
    assert!(found.contains(NameServer::ANSWER), "{found}");
    assert!(server.asked() > 0);
}
