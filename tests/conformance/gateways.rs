//! Which network is a container's way out, and what its ports do when that changes.

use std::time::Duration;

use serde_json::Value;

use crate::rig::{dual_stack, inspect};
use crate::support::version::Version;
use crate::support::{Findings, Lab, Place, driver, until};

const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

/// Waits until the one published port is on `network`, and it answers. The network's id is asked
/// for: its name is learnt later.
#[track_caller]
fn published_on(lab: &Lab, network: &str) {
    let id = inspect(lab, network, "{{.Id}}");
    until(&format!("the port is published on {network}"), Duration::from_secs(10), || {
        let on_it = |port: &Value| {
            let shown = port["Network"].as_str().unwrap();
            shown == network || id.starts_with(shown)
        };
        let ports = lab.ports();
        (!ports.is_empty() && ports.iter().all(on_it)).then_some(())
    });
    lab.neighbour().hears("both", "tcp:10.99.0.1:8080");
}

#[track_caller]
fn way_out(place: &Place, family: &str, gateway: &str) {
    let routes = place.run(&["ip", family, "route", "show", "default"]);
    assert!(routes.contains(&format!("default via {gateway} ")), "not by {gateway}: {routes}");
    assert_eq!(routes.lines().count(), 1, "{routes}");
}

/// The way out is that of the network that dockerd chooses, and ports go with it, forth and back: a
/// network of both families comes first, an internal one never; since 28 each family has a gateway
/// of its own.
pub fn gateway_selection(lab: &Lab) {
    dual_stack(lab, "dual", 1, &[]);
    lab.docker_network("alpha", "172.30.2.0/24", &[]);
    lab.docker_network("inner", "172.30.3.0/24", &["--internal"]);
    let both = lab.container("both", &["--network", "inner", "-p", "8080:80"]);
    assert!(!both.run(&["ip", "route"]).contains("default"));
    lab.docker(&["network", "connect", "dual", "both"]);
    way_out(&both, "-4", "172.30.1.1");
    way_out(&both, "-6", "fd00:30:1::1");
    published_on(lab, "dual");
    lab.docker(&["network", "connect", "alpha", "both"]);
    way_out(&both, "-4", "172.30.1.1");
    way_out(&both, "-6", "fd00:30:1::1");
    published_on(lab, "dual");
    lab.docker(&["network", "disconnect", "dual", "both"]);
    way_out(&both, "-4", "172.30.2.1");
    published_on(lab, "alpha");
    lab.docker(&["network", "connect", "dual", "both"]);
    lab.docker(&["network", "disconnect", "alpha", "both"]);
    way_out(&both, "-4", "172.30.1.1");
    published_on(lab, "dual");
    if lab.version >= Version::V28 {
        let driver = driver();
        let six = ["--ipv4=false", "--ipv6", "--subnet", "fd00:30:4::/64", "only-six"];
        lab.docker(&[&["network", "create", "-d", &driver], &six[..]].concat());
        lab.docker(&["network", "connect", "alpha", "both"]);
        lab.docker(&["network", "connect", "only-six", "both"]);
        lab.docker(&["network", "disconnect", "dual", "both"]);
        way_out(&both, "-4", "172.30.2.1");
        way_out(&both, "-6", "fd00:30:4::1");
        lab.neighbour().hears("both", "tcp:10.99.0.1:8080");
    }
    lab.docker(&["network", "disconnect", "inner", "both"]);
    lab.neighbour().hears("both", "tcp:10.99.0.1:8080");
}

/// Where the next network cannot publish the port because it is taken, the container goes on
/// without it and can be used.
pub fn gateway_error_on_net_disconnect(lab: &Lab) {
    lab.docker_network("alpha", "172.30.1.0/24", &["-o", &format!("{HOST_BINDING}=127.0.0.1")]);
    lab.docker_network("zeta", "172.30.2.0/24", &["-o", &format!("{HOST_BINDING}=10.99.0.1")]);
    let both = lab.container("both", &["--network", "alpha", "-p", "8080:80"]);
    lab.docker(&["network", "connect", "zeta", "both"]);
    lab.host().hears("both", "tcp:127.0.0.1:8080");
    let squatter = lab.host().tcp_listener("10.99.0.1:8080", "squatter");
    let failed = lab.try_docker(&["network", "disconnect", "alpha", "both"]);
    let mut findings = Findings::default();
    let running = inspect(lab, "both", "{{.State.Running}}");
    findings.holds(&format!("it runs on ({failed:?})"), running == "true");
    findings.hears(&lab.neighbour(), "squatter", "tcp:10.99.0.1:8080");
    findings.nothing(&lab.host(), "tcp:127.0.0.1:8080");
    findings.hears(&lab.host(), "both", &format!("tcp:{}:80", lab.address("both", "zeta")));
    findings.holds("no port is left", lab.ports().is_empty());
    let networks =
        inspect(lab, "both", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
    findings.holds(&format!("it is on zeta only: {networks}"), networks == "zeta");
    drop(squatter);
    lab.docker(&["restart", "-t", "1", "both"]);
    let both_again = lab.container_place("both");
    findings.hears(&lab.neighbour(), "both", "tcp:10.99.0.1:8080");
    findings.holds("it gets out again", both_again.pings("10.99.0.2"));
    drop(both);
}

/// `gw-priority` when the container is made: the highest is the way out; equal ones go by name.
pub fn create_with_priority(lab: &Lab) {
    for (n, name) in [(1, "alpha"), (2, "beta"), (3, "gamma")] {
        dual_stack(lab, name, n, &[]);
    }
    for (priorities, winner) in [([0, 10, 5], 2), ([-1, -5, 0], 3), ([3, 3, 3], 1)] {
        let [a, b, c] = priorities.map(|p| p.to_string());
        let (a, b, c) = (
            format!("name=alpha,gw-priority={a}"),
            format!("name=beta,gw-priority={b}"),
            format!("name=gamma,gw-priority={c}"),
        );
        let networks = ["--network", &a, "--network", &b, "--network", &c, "-p", "8080:80"];
        let both = lab.container("both", &networks);
        way_out(&both, "-4", &format!("172.30.{winner}.1"));
        way_out(&both, "-6", &format!("fd00:30:{winner}::1"));
        published_on(lab, ["alpha", "beta", "gamma"][winner - 1]);
        lab.docker(&["rm", "-f", "both"]);
    }
}

/// `gw-priority` of later connections moves the way out and the ports.
pub fn connect_with_priority(lab: &Lab) {
    for (n, name) in [(1, "alpha"), (2, "beta"), (3, "gamma")] {
        lab.docker_network(name, &format!("172.30.{n}.0/24"), &[]);
    }
    let both = lab.container("both", &["--network", "name=alpha,gw-priority=1", "-p", "8080:80"]);
    published_on(lab, "alpha");
    for (network, priority, winner) in [("beta", "0", "alpha"), ("gamma", "2", "gamma")] {
        lab.docker(&["network", "connect", "--gw-priority", priority, network, "both"]);
        published_on(lab, winner);
    }
    way_out(&both, "-4", "172.30.3.1");
    lab.docker(&["network", "disconnect", "gamma", "both"]);
    published_on(lab, "alpha");
    way_out(&both, "-4", "172.30.1.1");
    lab.docker(&["network", "disconnect", "alpha", "both"]);
    published_on(lab, "beta");
    lab.docker(&["network", "connect", "--gw-priority", "-7", "alpha", "both"]);
    published_on(lab, "beta");
}

/// A connection that fails late takes its interface back, and the container keeps what it had.
pub fn join_error(lab: &Lab) {
    lab.docker_network("inner", "172.30.1.0/24", &["--internal"]);
    lab.docker_network("outer", "172.30.2.0/24", &[]);
    lab.container("holder", &["--network", "outer", "-p", "8080:80"]);
    let both = lab.container("both", &["--network", "inner", "-p", "8080:80"]);
    let links = lab.links();
    let connect = ["network", "connect", "outer", "both"];
    let error = lab.try_docker(&connect).expect_err();
    let mut findings = Findings::default();
    findings.holds(&format!("the port is named: {error}"), error.contains("8080"));
    let shown = both.run(&["ip", "-o", "link"]);
    findings.holds(&format!("no eth1: {shown}"), !shown.contains("eth1"));
    // `docker inspect` is not asked: up to 28.5 it goes on showing the network, with dockerd's own
    // driver too.
    let routes = both.run(&["ip", "route"]);
    findings.holds(&format!("no way out: {routes}"), !routes.contains("default"));
    findings.hears(&lab.host(), "both", &format!("tcp:{}:80", lab.address("both", "inner")));
    let names: Vec<&str> = links.iter().map(String::as_str).collect();
    drop(findings);
    lab.only_links(&names);
    lab.docker(&["rm", "-f", "holder"]);
    lab.docker(&connect);
    published_on(lab, "outer");
    assert!(both.pings("10.99.0.2"));
}
