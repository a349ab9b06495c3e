//! What a user of an unmodified dockerd gets: real daemon, real containers, real packets.

mod support;
#[path = "docker/update.rs"]
mod update;

use std::time::Duration;

use serde_json::Value;
use support::{Findings, Lab, driver, until};

const ICC: &str = "com.docker.network.bridge.enable_icc=false";

#[test]
fn networks_are_made_listed_inspected_and_removed() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("plain", "172.30.1.0/24", &["--gateway", "172.30.1.254"]);
    lab.docker_network("ours", "172.30.2.0/24", &["--ipam-driver", "netagent"]);
    let listed = lab.docker(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
    assert!(listed.contains("plain netagent local"), "{listed}");
    assert!(listed.contains("ours netagent local"), "{listed}");
    let shown = lab.docker(&["network", "inspect", "plain", "ours"]);
    assert!(shown.contains("172.30.1.254") && shown.contains("172.30.2.0/24"), "{shown}");
    assert_eq!(lab.links().len(), 2, "each network has a bridge: {:?}", lab.links());
    lab.docker(&["network", "rm", "plain", "ours"]);
    lab.nothing_left();
}

#[test]
fn published_ports_answer_from_everywhere_with_bridge_nf_on() {
    published_ports_answer_from_everywhere(true);
}

#[test]
fn published_ports_answer_from_everywhere_with_bridge_nf_off() {
    published_ports_answer_from_everywhere(false);
}

fn published_ports_answer_from_everywhere(bridge_nf: bool) {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.bridge_nf(bridge_nf);
    lab.docker_network("web", "172.30.1.0/24", &[]);
    lab.docker_network("other", "172.30.2.0/24", &[]);
    let ports = ["-p", "8080:80", "-p", "5353:53/udp", "-p", "127.0.0.1:8081:80"];
    let web = lab.container("web", &[&["--network", "web"], &ports[..]].concat());
    let mate = lab.container("mate", &["--network", "web"]);
    let other = lab.container("other", &["--network", "other"]);
    let docker0 = lab.container("docker0", &[]);
    let _dns = web.udp_listener("0.0.0.0:53", "dns");
    let (host, neighbour) = (lab.host(), lab.neighbour());

    let mut findings = Findings::default();
    for from in [&host, &neighbour, &other, &docker0, &web, &mate] {
        findings.hears(from, "web", "tcp:10.99.0.1:8080");
        findings.hears(from, "dns", "udp:10.99.0.1:5353");
    }
    for from in [&web, &mate] {
        findings.hears(from, "web", "tcp:172.30.1.1:8080");
        findings.hears(from, "dns", "udp:172.30.1.1:5353");
    }
    for to in ["tcp:127.0.0.1:8080", "tcp:127.0.0.1:8081", "tcp:172.30.1.1:8080"] {
        findings.hears(&host, "web", to);
    }
    findings.hears(&host, "dns", "udp:127.0.0.1:5353");
    for from in [&neighbour, &other, &docker0, &mate] {
        findings.nothing(from, "tcp:10.99.0.1:8081");
    }
}

#[test]
fn ports_that_are_not_published_are_closed_to_other_hosts() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    lab.container("web", &["--network", "web", "--ip", "172.30.1.9", "-p", "8080:80"]);
    lab.host().hears("web", "tcp:172.30.1.9:81");
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    let mut findings = Findings::default();
    findings.nothing(&lab.neighbour(), "tcp:172.30.1.9:81");
    findings.nothing(&lab.neighbour(), "tcp:172.30.1.9:80");
    findings.nothing(&lab.neighbour(), "tcp:10.99.0.1:81");
    let own = lab.host().tcp_listener("10.99.0.1:81", "host");
    findings.hears(&lab.neighbour(), "host", "tcp:10.99.0.1:81");
    drop(own);
    findings.holds("a ping from this host is answered", lab.host().pings("172.30.1.9"));
    findings.holds("a ping from another host is not answered", {
        !lab.neighbour().pings("172.30.1.9")
    });
}

#[test]
fn networks_are_isolated_from_each_other_and_from_dockers() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("red", "172.30.1.0/24", &[]);
    lab.docker_network("blue", "172.30.2.0/24", &[]);
    let red = lab.container("red", &["--network", "red", "--ip", "172.30.1.9"]);
    let blue = lab.container("blue", &["--network", "blue", "--ip", "172.30.2.9"]);
    let docker0 = lab.container("docker0", &[]);
    let at_docker0 = lab.address("docker0", "bridge");
    for (who, address) in [("red", "172.30.1.9"), ("blue", "172.30.2.9"), ("docker0", &at_docker0)]
    {
        lab.host().hears(who, &format!("tcp:{address}:80"));
    }
    let mut findings = Findings::default();
    findings.nothing(&red, "tcp:172.30.2.9:80");
    findings.nothing(&blue, "tcp:172.30.1.9:80");
    findings.nothing(&docker0, "tcp:172.30.1.9:80");
    findings.nothing(&red, &format!("tcp:{at_docker0}:80"));
    findings.holds("the host can ping blue", lab.host().pings("172.30.2.9"));
    findings.holds("red cannot ping blue", !red.pings("172.30.2.9"));
    findings.holds("red reaches the world", red.pings("10.99.0.2"));
}

#[test]
fn without_icc_neighbours_reach_only_published_ports_with_bridge_nf_on() {
    without_icc_neighbours_reach_only_published_ports(true);
}

#[test]
fn without_icc_neighbours_reach_only_published_ports_with_bridge_nf_off() {
    without_icc_neighbours_reach_only_published_ports(false);
}

fn without_icc_neighbours_reach_only_published_ports(bridge_nf: bool) {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.bridge_nf(bridge_nf);
    lab.docker_network("shy", "172.30.1.0/24", &["-o", ICC]);
    lab.container("web", &["--network", "shy", "--ip", "172.30.1.9", "-p", "8080:80"]);
    let mate = lab.container("mate", &["--network", "shy"]);
    lab.host().hears("web", "tcp:172.30.1.9:81");
    let mut findings = Findings::default();
    findings.nothing(&mate, "tcp:172.30.1.9:80");
    findings.nothing(&mate, "tcp:172.30.1.9:81");
    findings.hears(&mate, "web", "tcp:10.99.0.1:8080");
    findings.hears(&lab.neighbour(), "web", "tcp:10.99.0.1:8080");
    findings.holds("mate reaches the world", mate.pings("10.99.0.2"));
}

#[test]
fn an_internal_network_has_no_way_out_or_in() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("vault", "172.30.1.0/24", &["--internal"]);
    lab.docker_network("open", "172.30.2.0/24", &[]);
    let vault = lab.container("vault", &["--network", "vault", "--ip", "172.30.1.9"]);
    let mate = lab.container("mate", &["--network", "vault"]);
    let open = lab.container("open", &["--network", "open"]);
    mate.hears("vault", "tcp:172.30.1.9:80");
    lab.host().hears("vault", "tcp:172.30.1.9:80");
    let routes = vault.run(&["ip", "route"]);
    assert!(!routes.contains("default"), "an internal network has a default route:\n{routes}");
    let mut findings = Findings::default();
    findings.holds("dockerd did not add a way out of its own", {
        !lab.links().contains(&"docker_gwbridge".to_owned())
    });
    findings.nothing(&lab.neighbour(), "tcp:172.30.1.9:80");
    findings.nothing(&open, "tcp:172.30.1.9:80");
    vault.run(&["ip", "route", "add", "default", "via", "172.30.1.1"]);
    findings.holds("it reaches its gateway", vault.pings("172.30.1.1"));
    findings.holds("no way out even with a default route", !vault.pings("10.99.0.2"));
}

#[test]
fn address_mac_mtu_and_interface_prefix_are_as_asked() {
    let Some(lab) = Lab::with_dockerd() else { return };
    let mtu = "com.docker.network.driver.mtu=1400";
    let prefix = "com.docker.network.container_iface_prefix=net";
    lab.docker_network("odd", "172.30.1.0/24", &["-o", mtu, "-o", prefix]);
    let asked = ["--ip", "172.30.1.77", "--mac-address", "02:00:00:00:12:34"];
    let odd = lab.container("odd", &[&["--network", "odd"], &asked[..]].concat());
    let link = odd.run(&["ip", "addr", "show", "dev", "net0"]);
    for part in ["mtu 1400", "02:00:00:00:12:34", "172.30.1.77/24"] {
        assert!(link.contains(part), "no {part} in:\n{link}");
    }
    lab.host().hears("odd", "tcp:172.30.1.77:80");
}

#[test]
fn ports_follow_the_gateway_endpoint() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("zeta", "172.30.1.0/24", &[]);
    lab.docker_network("alpha", "172.30.2.0/24", &[]);
    let both = lab.container("both", &["--network", "zeta", "-p", "8080:80"]);
    let published_on = |network: &str| {
        until(&format!("the port is published on {network}"), Duration::from_secs(10), || {
            let ports = lab.ports();
            (ports.len() == 1 && ports[0]["Network"] == network).then_some(())
        });
        lab.neighbour().hears("both", "tcp:10.99.0.1:8080");
    };
    published_on("zeta");
    lab.docker(&["network", "connect", "alpha", "both"]);
    published_on("alpha");
    assert!(both.run(&["ip", "route"]).contains("default via 172.30.2.1"), "the gateway moved");
    lab.docker(&["network", "disconnect", "alpha", "both"]);
    published_on("zeta");
    lab.docker(&["rm", "-f", "both"]);
    assert!(lab.ports().is_empty());
}

#[test]
fn a_range_of_ports_is_published_and_shown_as_one() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let options = ["--network", "web", "--ip", "172.30.1.9", "-p", "9000-9002:80-82"];
    let web = lab.container("web", &options);
    let _next = web.tcp_listener("0.0.0.0:83", "web");
    lab.host().hears("web", "tcp:172.30.1.9:83");
    let mut findings = Findings::default();
    for port in 9000..=9002 {
        findings.hears(&lab.neighbour(), "web", &format!("tcp:10.99.0.1:{port}"));
        findings.hears(&lab.host(), "web", &format!("tcp:127.0.0.1:{port}"));
    }
    findings.nothing(&lab.neighbour(), "tcp:10.99.0.1:9003");
    let shown = lab.netagent(&["ports"]);
    findings.holds(&format!("`netagent ports` shows 9000-9002:\n{shown}"), {
        shown.contains("9000-9002")
    });
}

#[test]
fn a_port_without_a_number_gets_one_that_netagent_shows() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    lab.container("web", &["--network", "web", "-p", "80"]);
    let ports = lab.ports();
    let port = ports[0]["HostPorts"].as_str().unwrap();
    lab.neighbour().hears("web", &format!("tcp:10.99.0.1:{port}"));
}

#[test]
fn a_taken_port_is_named_and_leaves_nothing_behind() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let bridge = lab.links();
    let bridge: Vec<&str> = bridge.iter().map(String::as_str).collect();
    let squatter = lab.host().tcp_listener("0.0.0.0:8080", "squatter");
    let error = lab.try_container("web", &["--network", "web", "-p", "8080:80"]).expect_err();
    assert!(error.contains("8080"), "{error}");
    lab.only_links(&bridge);
    assert!(lab.ports().is_empty());
    drop(squatter);
    lab.docker(&["rm", "-f", "web"]);
    lab.container("web", &["--network", "web", "-p", "8080:80"]);
    let error = lab.try_container("late", &["--network", "web", "-p", "8080:80"]).expect_err();
    assert!(error.contains("8080"), "{error}");
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    let stolen = lab.host().enter(|| std::net::TcpListener::bind("0.0.0.0:8080"));
    assert!(stolen.is_err(), "another process could bind a published port");
    let error = lab.try_container("docks", &["-p", "8080:80"]).expect_err();
    assert!(error.contains("8080"), "dockerd published the same port: {error}");
}

#[test]
fn stop_start_restart_and_rm_leave_nothing() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let bridge = lab.links();
    let bridge: Vec<&str> = bridge.iter().map(String::as_str).collect();
    let neighbour = lab.neighbour();
    let options = ["--network", "web", "-p", "8080:80", "-p", "5353:53/udp"];
    lab.container("web", &options);
    neighbour.hears("web", "tcp:10.99.0.1:8080");
    lab.docker(&["stop", "-t", "1", "web"]);
    lab.only_links(&bridge);
    neighbour.hears_nothing("tcp:10.99.0.1:8080");
    assert!(lab.ports().is_empty(), "a stopped container has published ports");
    lab.docker(&["start", "web"]);
    lab.container_place("web");
    neighbour.hears("web", "tcp:10.99.0.1:8080");
    lab.docker(&["restart", "-t", "1", "web"]);
    lab.container_place("web");
    neighbour.hears("web", "tcp:10.99.0.1:8080");
    lab.docker(&["rm", "-f", "web"]);
    lab.only_links(&bridge);
    lab.docker(&["network", "rm", "web"]);
    lab.nothing_left();
}

#[test]
fn ghosts_of_a_killed_dockerd_are_replaced() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let always = ["--restart", "always"];
    let options = ["--network", "web", "--ip", "172.30.1.9", "-p", "8080:80"];
    lab.container("web", &[&always[..], &options[..]].concat());
    lab.container("mate", &["--restart", "always", "--network", "web"]);
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    lab.kill_dockerd();
    lab.start_dockerd();
    lab.neighbour().hears_within(Duration::from_secs(40), "web", "tcp:10.99.0.1:8080");
    lab.container_place("mate").hears("web", "tcp:172.30.1.9:80");
    until("one endpoint a container is left", Duration::from_secs(20), || {
        let shown = lab.netagent(&["-j", "network", "inspect", "web"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let network = shown.get(0).unwrap_or(&shown).clone();
        (network["Containers"].as_object().unwrap().len() == 2).then_some(())
    });
    assert_eq!(lab.ports().len(), 1);
    until("one link a container is left", Duration::from_secs(20), || {
        (lab.links().len() == 3).then_some(())
    });
    lab.docker(&["rm", "-f", "web", "mate"]);
    lab.docker(&["network", "rm", "web"]);
    lab.nothing_left();
}

#[test]
fn live_restored_containers_are_no_ghosts() {
    let Some(lab) = Lab::start() else { return };
    lab.start_agent();
    lab.start_dockerd_with(&["--live-restore"]);
    lab.docker_network("web", "172.30.1.0/24", &["--ipam-driver", "netagent"]);
    lab.container("web", &["--network", "web", "-p", "8080:80"]);
    until("names are known", Duration::from_secs(10), || {
        lab.ports().iter().all(|port| port["Endpoint"] == "web").then_some(())
    });
    let before = (lab.links(), lab.ports());
    lab.kill_dockerd();
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    lab.start_dockerd_with(&["--live-restore"]);
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    // Longer than the agent takes to be sure that something is dead.
    let begin = std::time::Instant::now();
    until("a quarter of a minute has passed", Duration::from_secs(20), || {
        lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
        (begin.elapsed() > Duration::from_secs(15)).then_some(())
    });
    assert_eq!((lab.links(), lab.ports()), before);
    let mate = lab.container("mate", &["--network", "web"]);
    let address = lab.address("web", "web");
    assert_ne!(address, lab.address("mate", "web"), "its address was given out again");
    mate.hears("web", &format!("tcp:{address}:80"));
    lab.docker(&["rm", "-f", "web", "mate"]);
    lab.docker(&["network", "rm", "web"]);
    lab.nothing_left();
}

#[test]
fn containers_that_start_and_end_at_once_do_not_disturb_each_other() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &["--ipam-driver", "netagent"]);
    let docker = lab.client();
    let all = |what: &str| {
        let one = format!("{docker} {what} >/dev/null || touch /run/failed &");
        let line = format!("for n in 1 2 3 4 5 6 7 8; do {one} done; wait; ! test -e /run/failed");
        lab.run(&["bash", "-c", &line]);
    };
    let run = "run -d --name web$n --network web -p 808$n:80 lab serve web$n 80";
    all(run);
    let mut findings = Findings::default();
    for n in 1..=8 {
        lab.container_place(&format!("web{n}"));
        findings.hears(&lab.neighbour(), &format!("web{n}"), &format!("tcp:10.99.0.1:808{n}"));
    }
    drop(findings);
    all("rm -f web$n");
    all(run);
    lab.neighbour().hears_within(Duration::from_secs(10), "web5", "tcp:10.99.0.1:8085");
    all("rm -f web$n");
    lab.docker(&["network", "rm", "web"]);
    lab.nothing_left();
}

#[test]
fn a_container_that_is_started_again_is_found_at_once() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let mate = lab.container("mate", &["--network", "web", "--ip", "172.30.1.5"]);
    for name in ["first", "second"] {
        lab.container(name, &["--network", "web", "--ip", "172.30.1.9", "-p", "8080:80"]);
        let mut findings = Findings::default();
        findings.hears(&mate, name, "tcp:172.30.1.9:80");
        findings.hears(&lab.neighbour(), name, "tcp:10.99.0.1:8080");
        lab.docker(&["rm", "-f", name]);
    }
}

/// Nobody asks again: what was remembered of the old place is replaced.
#[test]
fn an_address_that_moves_to_another_mac_is_found_at_once() {
    let Some(lab) = Lab::with_dockerd() else { return };
    let v6 = ["--ipv6", "--subnet", "fd00:30::/64", "--gateway", "fd00:30::1"];
    lab.docker_network("web", "172.30.1.0/24", &v6);
    let mate = lab.container("mate", &["--network", "web", "--ip", "172.30.1.5"]);
    let addresses = ["172.30.1.9", "fd00:30::9"];
    let at = ["--network", "web", "--ip", addresses[0], "--ip6", addresses[1]];
    for (name, mac) in [("first", "02:00:00:00:00:01"), ("second", "02:00:00:00:00:02")] {
        let place = lab.container(name, &[&at[..], &["--mac-address", mac]].concat());
        let _v6 = place.tcp_listener("[::]:8000", name);
        let mut findings = Findings::default();
        for from in [&mate, &lab.host()] {
            if name == "second" {
                let heard = || from.remembers(mac, &addresses);
                until("its new place is known", Duration::from_secs(1), || heard().then_some(()));
            }
            findings.hears(from, name, "tcp:172.30.1.9:80");
            findings.hears(from, name, "tcp:[fd00:30::9]:8000");
            findings.holds("it is remembered where it is", from.remembers(mac, &addresses));
        }
        lab.docker(&["rm", "-f", name]);
    }
}

#[test]
fn traffic_outlives_the_agent_and_a_new_agent_takes_over() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let options = ["--network", "web", "--ip", "172.30.1.9", "-p", "8080:80", "-p", "5353:53/udp"];
    let web = lab.container("web", &options);
    let _dns = web.udp_listener("0.0.0.0:53", "dns");
    let works = || {
        let mut findings = Findings::default();
        findings.hears(&lab.neighbour(), "web", "tcp:10.99.0.1:8080");
        findings.hears(&lab.neighbour(), "dns", "udp:10.99.0.1:5353");
        findings.hears(&lab.host(), "web", "tcp:127.0.0.1:8080");
        findings.nothing(&lab.neighbour(), "tcp:172.30.1.9:81");
    };
    // Names are read from Docker's API a moment later.
    until("names are known", Duration::from_secs(10), || {
        lab.ports().iter().all(|port| port["Endpoint"] == "web").then_some(())
    });
    let before = (lab.links(), lab.ports());
    works();
    lab.kill_agent();
    works();
    lab.start_agent();
    works();
    assert_eq!((lab.links(), lab.ports()), before, "the new agent changed something");
    lab.stop_agent();
    works();
    lab.start_agent();
    let mate = lab.container("mate", &["--network", "web"]);
    mate.hears("web", "tcp:172.30.1.9:80");
    lab.docker(&["rm", "-f", "web", "mate"]);
    lab.docker(&["network", "rm", "web"]);
    lab.nothing_left();
}

#[test]
fn a_network_removed_while_the_agent_was_down_is_cleared() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("gone", "172.30.1.0/24", &[]);
    lab.docker_network("stays", "172.30.2.0/24", &[]);
    lab.stop_dockerd();
    lab.kill_agent();
    // dockerd's own list is lost: the same as `docker network rm`, which takes dockerd 75 seconds
    // while the plugin is down.
    lab.run(&["rm", &format!("{}/network/files/local-kv.db", lab.data("docker"))]);
    lab.start_dockerd();
    lab.start_agent();
    // Two views of Docker's API, ten seconds apart, must agree before anything is removed.
    lab.only_links_within(Duration::from_secs(40), &[]);
    lab.docker_network("gone", "172.30.1.0/24", &[]);
    lab.container("web", &["--network", "gone", "-p", "8080:80"]);
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
}

#[test]
fn a_misspelt_option_is_refused_with_the_right_one() {
    let Some(lab) = Lab::with_dockerd() else { return };
    let create = ["network", "create", "-d", &driver(), "-o"];
    let misspelt = "com.docker.network.driver.mtuu=1400";
    let error = lab.try_docker(&[&create[..], &[misspelt, "web"]].concat()).expect_err();
    assert!(error.contains("did you mean \"com.docker.network.driver.mtu\""), "{error}");
    assert!(!lab.docker(&["network", "ls"]).contains(" web "));
    lab.nothing_left();
}

#[test]
fn lists_show_dockers_names_and_rm_names_dockers_command() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &["--label", "tier=front"]);
    until("netagent knows the network's name", Duration::from_secs(10), || {
        lab.netagent(&["network", "ls"]).contains(" web ").then_some(())
    });
    lab.container("shop", &["--network", "web", "-p", "8080:80"]);
    until("netagent knows the container's name", Duration::from_secs(10), || {
        lab.netagent(&["ports"]).contains("shop").then_some(())
    });
    let refused = lab.try_netagent(&["network", "rm", "web"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.err.contains("docker network rm web"), "{}", refused.err);
    lab.neighbour().hears("shop", "tcp:10.99.0.1:8080");
}

#[test]
fn a_dockerd_started_later_keeps_its_guard_and_the_operator_comes_first() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("early", "172.30.9.0/24", &[]);
    let early = lab.attach("early", "early", &["8090:80"]);
    let _early = early.place.tcp_listener("0.0.0.0:80", "early");
    let neighbour = lab.neighbour();
    neighbour.hears("early", "tcp:10.99.0.1:8090");
    assert_eq!(lab.run(&["sysctl", "-n", "net.ipv4.ip_forward"]), "0", "dockerd would stay open");
    lab.start_dockerd();
    lab.docker_network("web", "172.30.1.0/24", &[]);
    lab.container("web", &["--network", "web", "-p", "8080:80"]);
    lab.container("docks", &["-p", "8070:80"]);
    let docks = lab.address("docks", "bridge");
    lab.host().hears("docks", &format!("tcp:{docks}:81"));

    let rules = lab.run(&["iptables", "-S"]);
    assert!(rules.contains("-P FORWARD DROP"), "{rules}");
    let mut findings = Findings::default();
    findings.hears(&neighbour, "early", "tcp:10.99.0.1:8090");
    findings.hears(&neighbour, "web", "tcp:10.99.0.1:8080");
    findings.hears(&neighbour, "docks", "tcp:10.99.0.1:8070");
    findings.nothing(&neighbour, &format!("tcp:{docks}:81"));
    drop(findings);

    let operator = "-p tcp -s 10.99.0.2 -m conntrack --ctorigdstport 8080 -j DROP";
    lab.run(&["sh", "-c", &format!("iptables -I DOCKER-USER {operator}")]);
    neighbour.hears_nothing("tcp:10.99.0.1:8080");
    neighbour.hears("early", "tcp:10.99.0.1:8090");
    lab.run(&["sh", "-c", &format!("iptables -D DOCKER-USER {operator}")]);
    neighbour.hears("web", "tcp:10.99.0.1:8080");
}

#[test]
fn addresses_come_without_a_subnet() {
    let Some(lab) = Lab::with_dockerd() else { return };
    for name in ["one", "two"] {
        lab.docker(&["network", "create", "-d", &driver(), "--ipam-driver", "netagent", name]);
    }
    let subnet = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
    let one = lab.docker(&["network", "inspect", "-f", subnet, "one"]);
    let two = lab.docker(&["network", "inspect", "-f", subnet, "two"]);
    assert!(one.ends_with("/24") && two.ends_with("/24") && one != two, "{one} {two}");
    assert!(!one.starts_with("172.17."), "docker0 has 172.17.0.0/16, and we took {one}");
    let web = lab.container("web", &["--network", "one"]);
    lab.host().hears("web", &format!("tcp:{}:80", lab.address("web", "one")));
    assert!(web.pings("10.99.0.2"));
    lab.docker(&["rm", "-f", "web"]);
    lab.docker(&["network", "rm", "one", "two"]);
    lab.nothing_left();
}

#[test]
fn containers_find_each_other_by_name() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &[]);
    lab.container("web", &["--network", "web", "--ip", "172.30.1.9"]);
    lab.container("mate", &["--network", "web"]);
    let found = lab.docker(&["exec", "mate", "nslookup", "web", "127.0.0.11"]);
    assert!(found.contains("172.30.1.9"), "{found}");
}

#[test]
fn ipv6_reaches_the_gateway_and_neighbours() {
    let Some(lab) = Lab::with_dockerd() else { return };
    let v6 = ["--ipv6", "--subnet", "fd00:30::/64", "--gateway", "fd00:30::1"];
    lab.docker_network("six", "172.30.1.0/24", &v6);
    let a = lab.container("ann", &["--network", "six", "--ip6", "fd00:30::a"]);
    let b = lab.container("bob", &["--network", "six", "--ip6", "fd00:30::b"]);
    let _b = b.tcp_listener("[::]:8000", "bob");
    until("neighbours hear each other", Duration::from_secs(10), || {
        a.pings("fd00:30::b").then_some(())
    });
    a.hears("bob", "tcp:[fd00:30::b]:8000");
    assert!(a.pings("fd00:30::1"), "the gateway does not answer");
    let routes = a.run(&["ip", "-6", "route"]);
    assert!(routes.contains("default via fd00:30::1"), "{routes}");
}

/// Docker's own option: a bridge that exists is used, and outlives the network.
#[test]
fn a_bridge_that_exists_is_used_and_left_in_place() {
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.run(&["ip", "link", "add", "br0", "type", "bridge"]);
    lab.run(&["ip", "addr", "add", "192.168.7.10/24", "dev", "br0"]);
    lab.run(&["ip", "link", "set", "br0", "up"]);
    let before = lab.run(&["ip", "-o", "-4", "addr", "show", "br0"]);
    let name = "com.docker.network.bridge.name=br0";
    lab.docker_network("web", "172.30.1.0/24", &["-o", name]);
    let refused = lab.try_docker(&["network", "create", "-d", &driver(), "-o", name, "second"]);
    let error = refused.expect_err();
    assert!(error.contains("br0") || error.contains("web"), "{error}");
    let web = lab.container("web", &["--network", "web", "-p", "8080:80"]);
    let mate = lab.container("mate", &["--network", "web"]);
    let mut findings = Findings::default();
    for from in [&lab.host(), &lab.neighbour(), &mate, &web] {
        findings.hears(from, "web", "tcp:10.99.0.1:8080");
    }
    findings.hears(&mate, "web", &format!("tcp:{}:81", lab.address("web", "web")));
    findings.nothing(&lab.neighbour(), &format!("tcp:{}:81", lab.address("web", "web")));
    findings.holds("mate reaches the world", mate.pings("10.99.0.2"));
    drop(findings);
    lab.docker(&["rm", "-f", "web", "mate"]);
    lab.docker(&["network", "rm", "web"]);
    lab.only_links(&["br0"]);
    assert_eq!(lab.run(&["ip", "-o", "-4", "addr", "show", "br0"]), before);

    lab.run(&["ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"]);
    let veth = "com.docker.network.bridge.name=veth0";
    let refused = lab.try_docker(&["network", "create", "-d", &driver(), "-o", veth, "bad"]);
    assert!(refused.expect_err().contains("existing interface veth0 is not a bridge"));
}
