//! Bridges and who reaches whom across them.

use crate::rig::{
    dual_stack, forward_policy, has_addresses, inspect, link_local, ninth, reaches, settle,
};
use crate::support::version::Version;
use crate::support::{Findings, Lab, driver};

const ICC: &str = "com.docker.network.bridge.enable_icc=false";

/// Containers of one network reach each other by name and by every address; with ICC off, by none.
pub fn bridge_icc(lab: &Lab) {
    for (n, options) in [(1, &[][..]), (2, &["--internal"]), (3, &["-o", ICC])] {
        let network = format!("net{n}");
        dual_stack(lab, &network, n, options);
        let (ann_is, bob_is) = (format!("ann{n}"), format!("bob{n}"));
        let ann = lab.container(&ann_is, &["--network", &network]);
        let bob = ninth(lab, &bob_is, &network, n, &[]);
        let _six = bob.tcp_listener("[::]:8000", &bob_is);
        let local = format!("{}%eth0", link_local(&bob));
        let (four, six) = (format!("172.30.{n}.9"), format!("fd00:30:{n}::9"));
        lab.host().hears(&bob_is, &format!("tcp:{four}:80"));
        let by_name = lab.docker(&["exec", &ann_is, "nslookup", &bob_is, "127.0.0.11"]);
        let mut findings = Findings::default();
        findings.holds(&format!("{bob_is} is found by name: {by_name}"), by_name.contains(&four));
        if options.contains(&ICC) {
            findings.nothing(&ann, &format!("tcp:{four}:80"));
            findings.nothing(&ann, &format!("tcp:[{six}]:8000"));
            settle(&ann);
            settle(&bob);
            for address in [&four, &six, &local] {
                findings.holds(&format!("no ping to {address} without ICC"), !ann.pings(address));
            }
        } else {
            findings.hears(&ann, &bob_is, &format!("tcp:{four}:80"));
            findings.hears(&ann, &bob_is, &format!("tcp:[{six}]:8000"));
            for address in [&four, &six, &local] {
                findings
                    .holds(&format!("a ping to {address}, {options:?}"), reaches(&ann, address));
            }
        }
    }
}

/// Containers of two networks do not, whatever iptables' policy is.
pub fn bridge_inc(lab: &Lab) {
    dual_stack(lab, "red", 1, &[]);
    dual_stack(lab, "blue", 2, &[]);
    let red = ninth(lab, "red", "red", 1, &[]);
    let blue = ninth(lab, "blue", "blue", 2, &[]);
    let _red = red.tcp_listener("[::]:8000", "red");
    let _blue = blue.tcp_listener("[::]:8000", "blue");
    let local = format!("{}%eth0", link_local(&blue));
    for (who, n) in [("red", 1), ("blue", 2)] {
        lab.host().hears(who, &format!("tcp:172.30.{n}.9:80"));
        lab.host().hears(who, &format!("tcp:[fd00:30:{n}::9]:8000"));
    }
    let mut findings = Findings::default();
    for policy in ["ACCEPT", "DROP"] {
        forward_policy(lab, policy);
        findings.nothing(&red, "tcp:172.30.2.9:80");
        findings.nothing(&red, "tcp:[fd00:30:2::9]:8000");
        findings.nothing(&blue, "tcp:172.30.1.9:80");
        findings.nothing(&blue, "tcp:[fd00:30:1::9]:8000");
        for address in ["172.30.2.9", "fd00:30:2::9", &local] {
            findings.holds(&format!("no ping from red to {address}"), !red.pings(address));
        }
    }
}

/// A container reaches a port that another network publishes, by the host's address.
pub fn access_to_published_port(lab: &Lab) {
    dual_stack(lab, "server", 1, &[]);
    dual_stack(lab, "client", 2, &[]);
    ninth(lab, "server", "server", 1, &["-p", "8080:80"]);
    let client = ninth(lab, "client", "client", 2, &[]);
    let docker0 = lab.container("docker0", &[]);
    let mut findings = Findings::default();
    for from in [&client, &docker0] {
        findings.hears(from, "server", "tcp:10.99.0.1:8080");
        findings.nothing(from, "tcp:10.99.0.1:80");
    }
}

/// By the container's own address it does not, published or not.
pub fn inter_network_direct_routing(lab: &Lab) {
    dual_stack(lab, "server", 1, &[]);
    dual_stack(lab, "client", 2, &[]);
    let server = ninth(lab, "server", "server", 1, &["-p", "8080:80", "-p", "8000:8000"]);
    let _six = server.tcp_listener("[::]:8000", "server");
    let client = ninth(lab, "client", "client", 2, &[]);
    let docker0 = lab.container("docker0", &[]);
    for to in ["tcp:172.30.1.9:80", "tcp:172.30.1.9:81", "tcp:[fd00:30:1::9]:8000"] {
        lab.host().hears("server", to);
    }
    let mut findings = Findings::default();
    for from in [&client, &docker0] {
        for to in ["tcp:172.30.1.9:80", "tcp:172.30.1.9:81", "tcp:172.30.1.9:8000"] {
            findings.nothing(from, to);
        }
        findings.holds("no ping", !from.pings("172.30.1.9"));
    }
    findings.nothing(&client, "tcp:[fd00:30:1::9]:8000");
    findings.holds("no ping", !client.pings("fd00:30:1::9"));
}

/// From an internal network the host and the own subnet are reached, nothing else.
pub fn internal_nw_connectivity(lab: &Lab) {
    dual_stack(lab, "vault", 1, &["--internal"]);
    dual_stack(lab, "open", 2, &[]);
    let vault = ninth(lab, "vault", "vault", 1, &[]);
    let mate = lab.container("mate", &["--network", "vault"]);
    let open = ninth(lab, "open", "open", 2, &[]);
    let _six = vault.tcp_listener("[::]:8000", "vault");
    let _host = lab.host().tcp_listener("[::]:9000", "host");
    let mut findings = Findings::default();
    for to in ["tcp:172.30.1.9:80", "tcp:[fd00:30:1::9]:8000"] {
        findings.hears(&mate, "vault", to);
        findings.hears(&lab.host(), "vault", to);
        findings.nothing(&open, to);
        findings.nothing(&lab.neighbour(), to);
    }
    findings.hears(&vault, "host", "tcp:172.30.1.1:9000");
    findings.hears(&vault, "host", "tcp:[fd00:30:1::1]:9000");
    for address in ["10.99.0.2", "fd99::2", "172.30.2.9", "fd00:30:2::9"] {
        findings.holds(&format!("no ping to {address}"), !vault.pings(address));
    }
    for family in ["-4", "-6"] {
        let routes = vault.run(&["ip", family, "route"]);
        findings.holds(&format!("no default route: {routes}"), !routes.contains("default"));
    }
}

/// A rule of somebody else's at the end of FORWARD that drops everything breaks nothing.
pub fn drop_in_forward_chain(lab: &Lab) {
    for command in ["iptables", "ip6tables"] {
        lab.run(&[command, "-A", "FORWARD", "-j", "DROP"]);
    }
    dual_stack(lab, "web", 1, &[]);
    let web = ninth(lab, "web", "web", 1, &["-p", "8080:80"]);
    let mut findings = Findings::default();
    findings.hears(&lab.neighbour(), "web", "tcp:10.99.0.1:8080");
    findings.holds("out by IPv4", reaches(&web, "10.99.0.2"));
    findings.holds("out by IPv6", reaches(&web, "fd99::2"));
}

/// `docker run` with two networks: two interfaces with addresses.
pub fn create_with_multi_networks(lab: &Lab) {
    lab.docker_network("red", "172.30.1.0/24", &[]);
    lab.docker_network("blue", "172.30.2.0/24", &[]);
    let both = lab.container("both", &["--network", "red", "--network", "blue"]);
    let shown = both.run(&["ip", "-4", "-o", "addr"]);
    let mut findings = Findings::default();
    for address in [lab.address("both", "red"), lab.address("both", "blue")] {
        findings.holds(&format!("{address} in {shown}"), shown.contains(&format!(" {address}/24")));
        findings.hears(&lab.host(), "both", &format!("tcp:{address}:80"));
    }
    findings.holds(&format!("two interfaces: {shown}"), shown.lines().count() == 3);
}

/// `--ipv6` alone gives a subnet of unique local addresses: with our IPAM always, with Docker's
/// since 28.
pub fn create_with_ipv6_defaults_to_ula_prefix(lab: &Lab) {
    let mut ipams = vec!["netagent"];
    if lab.version >= Version::V28 {
        ipams.push("default");
    }
    for ipam in ipams {
        let driver = driver();
        let name = format!("by-{ipam}");
        lab.docker(&["network", "create", "-d", &driver, "--ipam-driver", ipam, "--ipv6", &name]);
        let web = lab.container(&name, &["--network", &name]);
        let shown = web.run(&["ip", "-6", "-o", "addr", "show", "scope", "global"]);
        assert!(shown.contains(" fd"), "{ipam}: {shown}");
        assert!(has_addresses(&web, "-4"));
        assert!(web.run(&["ip", "-6", "route"]).contains("default via fd"));
    }
}

/// A network's way out makes no router of a host that was none, and leaves iptables' policy alone.
pub fn filter_forward_policy(lab: &Lab) {
    lab.stop_dockerd();
    lab.run(&["sh", "-c", "iptables -P FORWARD ACCEPT; iptables -F; iptables -X"]);
    lab.sysctl("net.ipv4.ip_forward", "0");
    lab.start_dockerd_with(&["--bridge=none", "--ip-forward=false"]);
    let stranger = lab.sandbox("stranger");
    lab.run(&["ip", "link", "add", "lan", "type", "veth", "peer", "eth0", "netns", "stranger"]);
    lab.run(&["ip", "addr", "add", "10.98.0.1/24", "dev", "lan"]);
    lab.run(&["ip", "link", "set", "lan", "up"]);
    for line in
        ["addr add 10.98.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.98.0.1"]
    {
        let argv: Vec<&str> = ["ip"].into_iter().chain(line.split(' ')).collect();
        stranger.run(&argv);
    }
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "web", "-p", "8080:80"]);
    let policy = lab.run(&["iptables", "-S", "FORWARD"]);
    let mut findings = Findings::default();
    findings.holds(&format!("the policy stays: {policy}"), policy.contains("-P FORWARD ACCEPT"));
    findings.holds("the container gets out", reaches(&web, "10.99.0.2"));
    findings.hears(&lab.neighbour(), "web", "tcp:10.99.0.1:8080");
    findings.holds("the stranger reaches the host", stranger.pings("10.98.0.1"));
    findings.holds("but not through it", !stranger.pings("10.99.0.2"));
    findings.hears(&stranger, "web", "tcp:10.98.0.1:8080");
}

/// Options that dockerd adds to each new network of the driver.
pub fn default_network_opts(lab: &Lab) {
    lab.stop_dockerd();
    let mtu = format!("{}=com.docker.network.driver.mtu=1400", driver());
    lab.start_dockerd_with(&["--default-network-opt", &mtu]);
    lab.docker_network("plain", "172.30.1.0/24", &[]);
    lab.docker_network("odd", "172.30.2.0/24", &["-o", "com.docker.network.driver.mtu=1300"]);
    lab.docker(&[
        "network",
        "create",
        "--config-only",
        "--subnet",
        "172.30.3.0/24",
        "-o",
        "com.docker.network.driver.mtu=1200",
        "wanted",
    ]);
    lab.docker(&["network", "create", "-d", &driver(), "--config-from", "wanted", "copy"]);
    let mut findings = Findings::default();
    for (network, mtu) in [("plain", "1400"), ("odd", "1300"), ("copy", "1200")] {
        let place = lab.container(&format!("on-{network}"), &["--network", network]);
        let link = place.run(&["ip", "link", "show", "eth0"]);
        findings
            .holds(&format!("{network} has {mtu}: {link}"), link.contains(&format!("mtu {mtu} ")));
    }
    let bridges = lab.run(&["ip", "-o", "link", "show", "type", "bridge"]);
    for mtu in ["1400", "1300", "1200"] {
        findings.holds(
            &format!("a bridge has {mtu}: {bridges}"),
            bridges.contains(&format!("mtu {mtu} ")),
        );
    }
}

/// A network that cannot be made leaves no bridge.
pub fn network_create_error_no_bridge(lab: &Lab) {
    let driver = driver();
    let create = ["network", "create", "-d", &driver, "--subnet", "172.30.1.0/24"];
    let mut findings = Findings::default();
    for (option, in_error) in [
        ("com.docker.network.bridge.name=uplink", "uplink"),
        ("com.docker.network.bridge.name=name-with-17-char", "15"),
        ("com.docker.network.driver.mtu=12", "68"),
    ] {
        let error = lab.try_docker(&[&create[..], &["-o", option, "web"]].concat()).expect_err();
        findings.holds(&format!("{in_error} in {error}"), error.contains(in_error));
        findings.holds(&format!("{option}: no link is left"), lab.links().is_empty());
    }
    let networks = lab.docker(&["network", "ls", "--format", "{{.Name}}"]);
    findings.holds("no network is left", !networks.contains("web"));
    lab.docker(&[&create[..], &["web"]].concat());
    findings.holds("the subnet is free", inspect(lab, "web", "{{.Driver}}") == driver);
}
