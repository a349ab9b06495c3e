//! Interfaces that netagent places by itself: into containers of an unmodified dockerd, under a name
//! that was asked for or behind another prefix than dockerd's own, and into any namespace.

mod support;

use std::time::Duration;

use support::version::Version;
use support::{Findings, Lab, Place, until};

const IFNAME: &str = "com.docker.network.endpoint.ifname=lan0";
const PREFIX: [&str; 2] = ["-o", "com.docker.network.container_iface_prefix=lan"];
const IPV6: [&str; 5] = ["--ipv6", "--subnet", "fd00:31::/64", "--gateway", "fd00:31::1"];

macro_rules! on_each_docker {
    ($arguments:expr => $($case:ident)+) => {$(
        mod $case {
            #[test]
            fn docker_20_10() {
                super::run(super::Version::V20, $arguments, super::$case);
            }
            #[test]
            fn docker_26_1() {
                super::run(super::Version::V26, $arguments, super::$case);
            }
            #[test]
            fn docker_28_5() {
                super::run(super::Version::V28, $arguments, super::$case);
            }
        }
    )+};
}

on_each_docker! { &["--live-restore"] =>
    names_outlive_a_dockerd_that_ends
    names_outlive_a_dockerd_that_is_killed
}

on_each_docker! { &[] =>
    a_named_interface_carries_packets_and_leaves_nothing
    a_named_interface_beside_dockers_bridge
    dockers_bridge_beside_a_named_interface
    a_prefix_numbers_interfaces_beside_each_other
    sysctls_are_written_or_refused_and_leave_nothing
    a_name_that_is_taken_or_dockers_own
    a_container_may_start_with_a_name
    an_agent_that_starts_takes_placed_interfaces_over
    ipv6_is_there_or_not_at_all
}

fn run(version: Version, arguments: &[&str], case: fn(&Lab, Version)) {
    let Some(lab) = Lab::with_agent_beside(version) else { return };
    lab.start_dockerd_with(arguments);
    // Names are learned together with what this dockerd can do.
    lab.docker_network("probe", "172.30.99.0/24", &[]);
    until("the agent knows this dockerd", Duration::from_secs(20), || {
        lab.netagent(&["network", "ls"]).contains(" probe ").then_some(())
    });
    lab.docker(&["network", "rm", "probe"]);
    case(&lab, version);
}

/// `docker network connect --driver-opt OPTION… --ip IP NETWORK web`.
fn connect_command<'a>(network: &'a str, ip: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["network", "connect", "--ip", ip];
    args.extend(options.iter().flat_map(|option| ["--driver-opt", *option]));
    args.extend([network, "web"]);
    args
}

#[track_caller]
fn connect(lab: &Lab, network: &str, ip: &str, options: &[&str]) {
    lab.docker(&connect_command(network, ip, options));
}

#[track_caller]
fn refuses(lab: &Lab, network: &str, options: &[&str], why: &str) {
    let error = lab.try_docker(&connect_command(network, "172.30.1.8", options)).expect_err();
    assert!(error.contains(why), "{error}");
}

/// Names of the interfaces in a container, in order.
fn interfaces(place: &Place) -> Vec<String> {
    let listed = place.run(&["ip", "-o", "link"]);
    let names = listed.lines().filter_map(|line| line.split(": ").nth(1));
    let mut names: Vec<String> =
        names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect();
    names.sort();
    names
}

/// Those that are deleted are there for a moment, under a name of garbage.
#[track_caller]
fn has_interfaces(place: &Place, names: &[&str]) {
    let gone = until("deleted interfaces are gone", Duration::from_secs(10), || {
        let found = interfaces(place);
        (!found.iter().any(|name| name.starts_with("nag-"))).then_some(found)
    });
    assert_eq!(gone, names);
}

fn shows(place: &Place, interface: &str) -> String {
    place.run(&["ip", "addr", "show", "dev", interface])
}

/// dockerd's own DNS in the container knows `name`.
#[track_caller]
fn resolves(lab: &Lab, name: &str) {
    until(&format!("\"{name}\" is found"), Duration::from_secs(15), || {
        lab.try_docker(&["exec", "web", "nslookup", name, "127.0.0.11"]).ok.then_some(())
    });
}

fn a_named_interface_carries_packets_and_leaves_nothing(lab: &Lab, _: Version) {
    lab.docker_network("first", "172.30.0.0/24", &[]);
    lab.docker_network("named", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "first", "-p", "8080:80"]);
    let mate = lab.container("mate", &["--network", "named"]);
    let before = lab.links();
    connect(lab, "named", "172.30.1.9", &[IFNAME]);
    has_interfaces(&web, &["eth0", "lan0", "lo"]);
    let link = shows(&web, "lan0");
    for part in ["state UP", "172.30.1.9/24 brd 172.30.1.255"] {
        assert!(link.contains(part), "no {part} in:\n{link}");
    }
    let mac = lab.docker(&[
        "inspect",
        "-f",
        "{{(index .NetworkSettings.Networks \"named\").MacAddress}}",
        "web",
    ]);
    assert!(link.contains(&mac), "no {mac} in:\n{link}");
    let mut findings = Findings::default();
    findings.hears(&mate, "web", "tcp:172.30.1.9:80");
    findings.hears(&lab.host(), "web", "tcp:172.30.1.9:80");
    findings.hears(&lab.neighbour(), "web", "tcp:10.99.0.1:8080");
    findings.hears(&web, "mate", &format!("tcp:{}:80", lab.address("mate", "named")));
    findings.holds("it reaches the world", web.pings("10.99.0.2"));
    drop(findings);
    resolves(lab, "mate");

    // dockerd's own numbering does not notice.
    lab.docker_network("third", "172.30.2.0/24", &[]);
    connect(lab, "third", "172.30.2.9", &[]);
    has_interfaces(&web, &["eth0", "eth1", "lan0", "lo"]);
    lab.docker(&["network", "disconnect", "third", "web"]);
    lab.docker(&["network", "disconnect", "named", "web"]);
    has_interfaces(&web, &["eth0", "lo"]);
    lab.docker(&["network", "rm", "third"]);
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    lab.only_links(&before);
    connect(lab, "named", "172.30.1.9", &[IFNAME]);
    mate.hears("web", "tcp:172.30.1.9:80");
    lab.docker(&["rm", "-f", "web", "mate"]);
    lab.docker(&["network", "rm", "first", "named"]);
    lab.nothing_left();
}

fn docks(lab: &Lab) {
    lab.docker(&["network", "create", "--subnet", "172.31.0.0/24", "docks"]);
}

fn a_named_interface_beside_dockers_bridge(lab: &Lab, _: Version) {
    docks(lab);
    lab.docker_network("named", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "docks", "--ip", "172.31.0.9"]);
    connect(lab, "named", "172.30.1.9", &[IFNAME]);
    has_interfaces(&web, &["eth0", "lan0", "lo"]);
    both_work(lab, &web, "named");
    lab.docker(&["network", "disconnect", "docks", "web"]);
    has_interfaces(&web, &["lan0", "lo"]);
    lab.host().hears("web", "tcp:172.30.1.9:80");
    connect(lab, "docks", "172.31.0.9", &[]);
    both_work(lab, &web, "named");
    lab.docker(&["rm", "-f", "web"]);
    lab.docker(&["network", "rm", "named", "docks"]);
    lab.nothing_left();
}

fn dockers_bridge_beside_a_named_interface(lab: &Lab, _: Version) {
    docks(lab);
    lab.docker_network("named", "172.30.1.0/24", &PREFIX);
    let web = lab.container("web", &["--network", "named", "--ip", "172.30.1.9"]);
    connect(lab, "docks", "172.31.0.9", &[]);
    has_interfaces(&web, &["eth0", "lan0", "lo"]);
    both_work(lab, &web, "named");
    lab.docker(&["network", "disconnect", "named", "web"]);
    has_interfaces(&web, &["eth0", "lo"]);
    connect(lab, "named", "172.30.1.9", &[]);
    has_interfaces(&web, &["eth0", "lan0", "lo"]);
    both_work(lab, &web, "named");
    lab.docker(&["rm", "-f", "web"]);
    lab.docker(&["network", "rm", "named", "docks"]);
    lab.nothing_left();
}

#[track_caller]
fn both_work(lab: &Lab, web: &Place, network: &str) {
    let mut findings = Findings::default();
    findings.hears(&lab.host(), "web", "tcp:172.30.1.9:80");
    findings.hears(&lab.host(), "web", "tcp:172.31.0.9:80");
    findings.holds("it reaches the world", web.pings("10.99.0.2"));
    drop(findings);
    let shown = lab.docker(&["network", "inspect", network]);
    assert!(shown.contains("172.30.1.9/24"), "{shown}");
}

fn names_outlive_a_dockerd_that_ends(lab: &Lab, version: Version) {
    names_outlive(lab, version, Lab::stop_dockerd);
}

fn names_outlive_a_dockerd_that_is_killed(lab: &Lab, version: Version) {
    names_outlive(lab, version, Lab::kill_dockerd);
}

fn names_outlive(lab: &Lab, version: Version, end: fn(&Lab)) {
    docks(lab);
    lab.docker_network("named", "172.30.1.0/24", &[]);
    lab.docker_network(
        "prefixed",
        "172.30.2.0/24",
        &["-o", "com.docker.network.container_iface_prefix=wan"],
    );
    lab.docker_network("later", "172.30.3.0/24", &[]);
    let web = lab.container("web", &["--network", "docks", "--ip", "172.31.0.9"]);
    lab.container("mate", &["--network", "named"]);
    connect(lab, "named", "172.30.1.9", &[IFNAME]);
    connect(lab, "prefixed", "172.30.2.9", &[]);
    has_interfaces(&web, &["eth0", "lan0", "lo", "wan0"]);
    resolves(lab, "mate");
    let before = lab.links();
    end(lab);
    lab.host().hears("web", "tcp:172.30.1.9:80");
    lab.start_dockerd_with(&["--live-restore"]);
    assert_eq!(lab.links(), before, "the restart changed something");
    resolves(lab, "mate");
    both_work(lab, &web, "named");
    connect(lab, "later", "172.30.3.9", &[]);
    has_interfaces(&web, &["eth0", "eth1", "lan0", "lo", "wan0"]);
    lab.host().hears("web", "tcp:172.30.3.9:80");
    resolves(lab, "mate");
    lab.docker(&["network", "disconnect", "later", "web"]);
    lab.docker(&["network", "disconnect", "prefixed", "web"]);
    has_interfaces(&web, &["eth0", "lan0", "lo"]);
    lab.host().hears("web", "tcp:172.30.1.9:80");
    assert!(web.pings("10.99.0.2"), "the way out is lost");
    lab.docker(&["network", "disconnect", "named", "web"]);
    connect(lab, "named", "172.30.1.9", &[IFNAME]);
    // 28 would not survive that a second placed link leaves a restored sandbox: it gets the link
    // itself, and remembers a lan0.
    let again = if version < Version::V28 { "lan0" } else { "lan1" };
    has_interfaces(&web, &["eth0", again, "lo"]);
    lab.host().hears("web", "tcp:172.30.1.9:80");
    lab.docker(&["rm", "-f", "web", "mate"]);
    lab.docker(&["network", "rm", "named", "prefixed", "later", "docks"]);
    lab.nothing_left();
}

fn a_prefix_numbers_interfaces_beside_each_other(lab: &Lab, _: Version) {
    lab.docker_network("one", "172.30.1.0/24", &PREFIX);
    lab.docker_network("two", "172.30.2.0/24", &PREFIX);
    lab.docker_network("three", "172.30.3.0/24", &PREFIX);
    let web = lab.container("web", &["--network", "one", "--ip", "172.30.1.9", "-p", "8080:80"]);
    has_interfaces(&web, &["lan0", "lo"]);
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    connect(lab, "two", "172.30.2.9", &[]);
    connect(lab, "three", "172.30.3.9", &[]);
    has_interfaces(&web, &["lan0", "lan1", "lan2", "lo"]);
    let mut findings = Findings::default();
    for address in ["172.30.1.9", "172.30.2.9", "172.30.3.9"] {
        findings.hears(&lab.host(), "web", &format!("tcp:{address}:80"));
    }
    findings.hears(&lab.neighbour(), "web", "tcp:10.99.0.1:8080");
    drop(findings);
    lab.docker(&["network", "disconnect", "two", "web"]);
    has_interfaces(&web, &["lan0", "lan2", "lo"]);
    connect(lab, "two", "172.30.2.9", &[]);
    has_interfaces(&web, &["lan0", "lan1", "lan2", "lo"]);
    lab.docker(&["restart", "-t", "1", "web"]);
    let web = lab.container_place("web");
    has_interfaces(&web, &["lan0", "lan1", "lan2", "lo"]);
    lab.neighbour().hears_within(Duration::from_secs(10), "web", "tcp:10.99.0.1:8080");
    lab.docker(&["rm", "-f", "web"]);
    lab.docker(&["network", "rm", "one", "two", "three"]);
    lab.nothing_left();
}

fn sysctls_are_written_or_refused_and_leave_nothing(lab: &Lab, _: Version) {
    docks(lab);
    lab.docker_network("named", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "docks"]);
    let before = lab.links();
    let before: Vec<&str> = before.iter().map(String::as_str).collect();
    // In quotes: the CLI takes a comma for the end of an option.
    let sysctls = |list: &str| format!("\"com.docker.network.endpoint.sysctls={list}\"");
    let bad = sysctls("net.ipv4.ip_forward=1");
    refuses(lab, "named", &[IFNAME, &bad], "unrecognised network interface sysctl");
    let missing = sysctls("net.ipv4.conf.IFNAME.no_such_thing=1");
    refuses(
        lab,
        "named",
        &[IFNAME, &missing],
        "there is no sysctl net.ipv4.conf.lan0.no_such_thing",
    );
    let maybe = sysctls("net.ipv4.conf.IFNAME.log_martians=maybe");
    refuses(lab, "named", &[IFNAME, &maybe], "does not take \"maybe\"");
    has_interfaces(&web, &["eth0", "lo"]);
    lab.only_links(&before);
    let good = sysctls("net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.app_solicit=3");
    connect(lab, "named", "172.30.1.9", &[IFNAME, &good]);
    let value = |name: &str| web.run(&["sysctl", "-n", name]).trim().to_owned();
    assert_eq!(value("net.ipv4.conf.lan0.log_martians"), "1");
    assert_eq!(value("net.ipv4.neigh.lan0.app_solicit"), "3");
    assert_eq!(value("net.ipv4.conf.lan0.accept_redirects"), "0");
    assert_eq!(value("net.ipv6.conf.lan0.disable_ipv6"), "1");
    lab.host().hears("web", "tcp:172.30.1.9:80");
}

fn a_name_that_is_taken_or_dockers_own(lab: &Lab, _: Version) {
    docks(lab);
    lab.docker_network("named", "172.30.1.0/24", &[]);
    lab.docker_network("other", "172.30.2.0/24", &[]);
    let web = lab.container("web", &["--network", "docks", "--ip", "172.31.0.9"]);
    connect(lab, "named", "172.30.1.9", &[IFNAME]);
    let again = connect_command("other", "172.30.2.9", &[IFNAME]);
    let error = lab.try_docker(&again).expect_err();
    assert!(error.contains("has a link \"lan0\""), "{error}");
    has_interfaces(&web, &["eth0", "lan0", "lo"]);
    let dockers = "com.docker.network.endpoint.ifname=eth7";
    connect(lab, "other", "172.30.2.9", &[dockers]);
    has_interfaces(&web, &["eth0", "eth1", "lan0", "lo"]);
    lab.host().hears("web", "tcp:172.30.2.9:80");
    both_work(lab, &web, "named");
}

fn a_container_may_start_with_a_name(lab: &Lab, version: Version) {
    lab.docker_network("named", "172.30.1.0/24", &[]);
    let network = format!("name=named,ip=172.30.1.9,driver-opt={IFNAME}");
    // 20.10 takes no options of an endpoint at `docker run`.
    let options = if version < Version::V26 {
        vec!["--network", "named", "--ip", "172.30.1.9"]
    } else {
        vec!["--network", &network]
    };
    let web = lab.container("web", &[&options[..], &["-p", "8080:80"]].concat());
    // 26 has no sandbox yet, and gives the first interface of this prefix the name by itself.
    let name = if version < Version::V26 { "eth0" } else { "lan0" };
    has_interfaces(&web, &[name, "lo"]);
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    assert!(web.run(&["ip", "route"]).contains(&format!("default via 172.30.1.1 dev {name}")));
    let shown = shows(&web, name);
    assert!(!shown.contains("inet6"), "a network without IPv6:\n{shown}");
    lab.docker(&["restart", "-t", "1", "web"]);
    has_interfaces(&lab.container_place("web"), &[name, "lo"]);
    lab.neighbour().hears_within(Duration::from_secs(10), "web", "tcp:10.99.0.1:8080");
    lab.docker(&["rm", "-f", "web"]);
    lab.docker(&["network", "rm", "named"]);
    lab.nothing_left();
}

fn an_agent_that_starts_takes_placed_interfaces_over(lab: &Lab, _: Version) {
    docks(lab);
    lab.docker_network("named", "172.30.1.0/24", &[]);
    let web = lab.container("web", &["--network", "docks", "--ip", "172.31.0.9"]);
    connect(lab, "named", "172.30.1.9", &[IFNAME]);
    let (links, inside) = (lab.links(), shows(&web, "lan0"));
    lab.kill_agent();
    lab.start_agent();
    assert_eq!(
        (lab.links(), shows(&web, "lan0")),
        (links, inside),
        "the new agent changed something"
    );
    both_work(lab, &web, "named");
    // The container ends while nobody looks.
    let pid = lab.docker(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    lab.kill_agent();
    lab.run(&["kill", "-KILL", &pid]);
    lab.start_agent();
    until("dockerd knows that it ended", Duration::from_secs(60), || {
        let running = lab.docker(&["inspect", "-f", "{{.State.Running}}", "web"]);
        (running == "false").then_some(())
    });
    lab.docker(&["start", "web"]);
    let web = lab.container_place("web");
    until("it is connected again", Duration::from_secs(20), || {
        lab.host().try_hears("web", "tcp:172.30.1.9:80").ok()
    });
    let names = interfaces(&web);
    assert_eq!(names.len(), 3, "{names:?}");
    lab.docker(&["rm", "-f", "web"]);
    lab.docker(&["network", "rm", "named", "docks"]);
    lab.nothing_left();
}

fn ipv6_is_there_or_not_at_all(lab: &Lab, _: Version) {
    docks(lab);
    lab.docker_network("four", "172.30.2.0/24", &[]);
    lab.docker_network("both", "172.30.1.0/24", &IPV6);
    let web = lab.container("web", &["--network", "docks"]);
    connect(lab, "both", "172.30.1.9", &["com.docker.network.endpoint.ifname=six0"]);
    connect(lab, "four", "172.30.2.9", &[IFNAME]);
    let (six, four) = (shows(&web, "six0"), shows(&web, "lan0"));
    assert!(six.contains("inet6 fd00:31::") && six.contains("scope link"), "{six}");
    assert!(!four.contains("inet6"), "{four}");
    let value = |name: &str| web.run(&["sysctl", "-n", name]).trim().to_owned();
    assert_eq!(value("net.ipv6.conf.six0.accept_ra"), "0");
    assert_eq!(value("net.ipv6.conf.six0.accept_redirects"), "0");
    until("the gateway answers", Duration::from_secs(10), || web.pings("fd00:31::1").then_some(()));
}

#[test]
fn a_namespace_gets_the_name_and_sysctls_asked_for_and_no_ipv6_it_has_not() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("four", "172.30.1.0/24", &[]);
    let box_ = lab.sandbox("box");
    let sysctls = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.arp_ignore=2";
    let connect = ["network", "connect", "--ip", "172.30.1.9", "--driver-opt", IFNAME];
    let missing = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.no_such_thing=1";
    let refused =
        lab.try_netagent(&[&connect[..], &["--driver-opt", missing, "four", "box"]].concat());
    assert!(refused.err.contains("there is no sysctl"), "{}", refused.err);
    assert!(!box_.run(&["ip", "-o", "link"]).contains("lan0"), "something is left");
    lab.netagent(&[&connect[..], &["--driver-opt", sysctls, "four", "box"]].concat());
    let value = |name: &str| box_.run(&["sysctl", "-n", name]).trim().to_owned();
    assert_eq!(value("net.ipv4.conf.lan0.log_martians"), "1");
    assert_eq!(value("net.ipv4.conf.lan0.arp_ignore"), "2");
    let shown = shows(&box_, "lan0");
    assert!(shown.contains("state UP") && !shown.contains("inet6"), "{shown}");
    let _box = box_.tcp_listener("0.0.0.0:80", "box");
    lab.host().hears("box", "tcp:172.30.1.9:80");
    lab.netagent(&["network", "disconnect", "four", "box"]);
    lab.netagent(&["network", "rm", "four"]);
    lab.nothing_left();
}
