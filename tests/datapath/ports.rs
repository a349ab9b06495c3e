//! Published ports on the host's own [::1], and the sockets that hold ports.
#![allow(clippy::unwrap_used, reason = "test code: a failed step should panic")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::attach::Sandbox;
use crate::support::place::Answer;
use crate::support::{Findings, Lab, until};

/// A lab whose `web` publishes on every address, on [::1] alone, and a range of other numbers.
fn dual_stack(bridge_nf: bool, options: &[&str]) -> Option<(Lab, Sandbox)> {
    let lab = Lab::with_agent()?;
    lab.bridge_nf(bridge_nf);
    let options = [&["--ipv6", "--subnet", "fd00:30:1::/64"], options].concat();
    lab.network("web", "172.30.1.0/24", &options);
    let ports: Vec<String> = ["tcp", "udp"]
        .iter()
        .flat_map(|protocol| {
            let bindings = ["8001:80", "[::1]:8002:80", "8080-8083:8080-8083"];
            bindings.map(|binding| format!("{binding}/{protocol}"))
        })
        .collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let web = lab.attach("web", "web", &ports);
    Some((lab, web))
}

/// Whether this machine's bridged packets can pass netfilter; without, all is as with it off.
fn filters_bridged(lab: &Lab) -> bool {
    lab.inside("/proc/sys/net/bridge").exists()
}

fn notes(lab: &Lab) -> Vec<(String, String)> {
    let text = |port: &Value, key: &str| port[key].as_str().unwrap_or_default().to_owned();
    let ports = lab.ports();
    ports.iter().map(|port| (text(port, "HostPorts"), text(port, "Note"))).collect()
}

#[test]
fn ports_answer_on_loopback_v6_with_bridge_nf_on() {
    ports_answer_on_loopback_v6(true, &[]);
}

#[test]
fn ports_answer_on_loopback_v6_with_bridge_nf_off() {
    ports_answer_on_loopback_v6(false, &[]);
}

#[test]
fn ports_answer_on_loopback_v6_where_neighbours_may_not_talk() {
    ports_answer_on_loopback_v6(false, &["-o", "com.docker.network.bridge.enable_icc=false"]);
}

/// By the kernel where it can lead [::1], by the relay where it cannot; and `ports` says which.
fn ports_answer_on_loopback_v6(bridge_nf: bool, options: &[&str]) {
    let Some((lab, web)) = dual_stack(bridge_nf, options) else { return };
    let other = lab.attach("web", "other", &["8003:80", "8003:80/udp"]);
    let listeners = [("web", &web), ("other", &other)].map(|(who, sandbox)| {
        let place = &sandbox.place;
        (place.tcp_listener("[::]:80", who), place.udp_listener("[::]:80", who))
    });
    let _range =
        (web.place.tcp_listener("[::]:8082", "82"), web.place.udp_listener("[::]:8082", "82"));
    let (host, neighbour) = (lab.host(), lab.neighbour());
    let mut findings = Findings::default();
    for protocol in ["tcp", "udp"] {
        findings.hears(&host, "web", &format!("{protocol}:[::1]:8001"));
        findings.hears(&host, "web", &format!("{protocol}:[::1]:8002"));
        findings.hears(&host, "82", &format!("{protocol}:[::1]:8082"));
        findings.hears(&host, "other", &format!("{protocol}:[::1]:8003"));
        findings.hears(&host, "web", &format!("{protocol}:127.0.0.1:8001"));
        findings.hears(&host, "web", &format!("{protocol}:[fd99::1]:8001"));
        findings.hears(&neighbour, "web", &format!("{protocol}:[fd99::1]:8001"));
        findings.nothing(&host, &format!("{protocol}:127.0.0.1:8002"));
        findings.nothing(&host, &format!("{protocol}:[fd99::1]:8002"));
        findings.nothing(&neighbour, &format!("{protocol}:[fd99::1]:8002"));
    }
    let relay = (bridge_nf || !options.is_empty()) && filters_bridged(&lab);
    for (port, note) in notes(&lab) {
        let due = if relay { "[::1]: relay, needs the daemon" } else { "" };
        findings.holds(&format!("{port} is noted \"{due}\", not \"{note}\""), note == due);
    }
    lab.stop_agent();
    for protocol in ["tcp", "udp"] {
        findings.hears(&neighbour, "web", &format!("{protocol}:[fd99::1]:8001"));
        let loopback = format!("{protocol}:[::1]:8001");
        match relay {
            true => findings.nothing(&host, &loopback),
            false => findings.hears(&host, "web", &loopback),
        }
    }
    drop(listeners);
}

#[test]
fn a_closed_port_refuses_on_loopback_v6_with_bridge_nf_on() {
    a_closed_port_refuses_on_loopback_v6(true);
}

#[test]
fn a_closed_port_refuses_on_loopback_v6_with_bridge_nf_off() {
    a_closed_port_refuses_on_loopback_v6(false);
}

fn a_closed_port_refuses_on_loopback_v6(bridge_nf: bool) {
    let Some((lab, _web)) = dual_stack(bridge_nf, &[]) else { return };
    for to in ["[::1]:8001", "[::1]:8002", "[::1]:8083"] {
        let answer = lab.host().tcp(to, Duration::from_secs(4));
        assert_eq!(answer, Answer::Refused, "{to}");
    }
}

/// What the agent's descriptors are: `socket`, `anon_inode:bpf-prog`, …
fn descriptors(lab: &Lab) -> Vec<String> {
    let path = lab.inside("/proc").join(lab.agent_pid()).join("fd");
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    let targets = fs::read_dir(path).unwrap().flatten().filter_map(target);
    targets.map(|target: PathBuf| target.to_string_lossy().into_owned()).collect()
}

fn relay_threads(lab: &Lab) -> usize {
    let tasks = lab.inside("/proc").join(lab.agent_pid()).join("task");
    let name = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
    let names = fs::read_dir(tasks).unwrap().flatten().filter_map(name);
    names.filter(|name| name.trim_end() == "relay").count()
}

#[test]
fn two_hundred_ports_cost_a_socket_each_and_one_program_and_one_relay_together() {
    let Some(lab) = Lab::with_agent() else { return };
    let relay = lab.bridge_nf(true);
    lab.network("web", "172.30.1.0/24", &["--ipv6", "--subnet", "fd00:30:1::/64"]);
    let held = |lab: &Lab| {
        let table = lab.host().run(&["ss", "-Hltn6"]) + &lab.host().run(&["ss", "-Hlun6"]);
        table.lines().filter(|line| line.contains(":80")).count()
    };
    let ports = ["8000-8099:9000-9099", "8000-8099:9000-9099/udp"];
    let before = descriptors(&lab).len();
    let web = lab.attach("web", "web", &ports);
    let descriptors = descriptors(&lab);
    assert_eq!(held(&lab), 200);
    assert_eq!(lab.host().run(&["ss", "-Hltun4"]), "", "IPv4 has none of its own");
    let programs = descriptors.iter().filter(|target| target.contains("bpf-prog")).count();
    assert!(programs <= 1, "{programs} programs");
    // Where the kernel refuses eBPF, the log says so.
    let log = fs::read_to_string(lab.log("agent")).unwrap();
    assert_eq!(programs == 0, log.contains("no eBPF"), "{log}");
    // Beside them: the program, and what the relay waits with.
    let others = descriptors.len() - before - 200;
    assert!(others <= 8, "{others} more descriptors");
    assert_eq!(relay_threads(&lab), usize::from(relay));
    lab.detach("web", &web);
    until("the relay ends", Duration::from_secs(5), || (relay_threads(&lab) == 0).then_some(()));
    assert_eq!(held(&lab), 0);
}

#[test]
fn an_sctp_port_is_published_where_it_cannot_be_reserved_and_that_is_said_once() {
    let Some(lab) = Lab::with_agent() else { return };
    let sctp = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)).is_ok();
    lab.network("web", "172.30.1.0/24", &[]);
    lab.attach("web", "one", &["2905:2905/sctp", "2909:2909/sctp"]);
    lab.attach("web", "two", &["2907:2907/sctp"]);
    let due = if sctp { "" } else { "not reserved: this kernel has no SCTP sockets" };
    let noted = notes(&lab);
    assert_eq!(noted.len(), 3, "{noted:?}");
    assert!(noted.iter().all(|(_, note)| note == due), "{noted:?}");
    assert_eq!(lab.netagent(&["ports"]).matches("not reserved").count(), if sctp { 0 } else { 3 });
    let map = lab.host().run(&["nft", "list", "map", "inet", "netagent", "any_ports"]);
    assert!(map.contains("sctp . 2909 : 172.30.1.2 . 2909"), "{map}");
    let log = fs::read_to_string(lab.log("agent")).unwrap();
    let said = log.matches("no SCTP sockets").count();
    assert_eq!(said, usize::from(!sctp), "{log}");
    lab.sandbox("three");
    let publish = ["network", "connect", "web", "three", "--publish", "2911:2911/sctp"];
    let ran = lab.try_netagent(&publish);
    assert!(ran.ok, "{ran:?}");
    assert_eq!(ran.err.contains("port 2911/sctp: not reserved"), !sctp, "{ran:?}");
}

#[test]
fn a_descriptor_limit_that_is_too_low_is_told_in_numbers() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    lab.run(&["prlimit", "--pid", &lab.agent_pid(), "--nofile=150:150"]);
    lab.sandbox("web");
    let publish = ["network", "connect", "-p", "8000-8199:8000-8199", "web", "web"];
    let error = lab.try_netagent(&publish).expect_err();
    for words in ["EMFILE", "200 were to be held", "may have 150 in all", "LimitNOFILE="] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(lab.ports(), Vec::<Value>::new());
    lab.netagent(&["network", "connect", "-p", "8000-8009:8000-8009", "web", "web"]);
}

#[test]
fn a_host_that_begins_or_ceases_to_filter_bridged_packets_is_followed() {
    let Some((lab, web)) = dual_stack(false, &[]) else { return };
    let _web = web.place.tcp_listener("[::]:80", "web");
    let routes = || lab.host().run(&["ip", "-6", "route", "show", "table", "local", "::1"]);
    for bridge_nf in [true, false, true] {
        let relay = lab.bridge_nf(bridge_nf) && bridge_nf;
        lab.host().hears_within(Duration::from_secs(20), "web", "tcp:[::1]:8001");
        until("the host is as it should be", Duration::from_secs(20), || {
            let noted = notes(&lab).iter().any(|(_, note)| note.contains("relay"));
            (noted == relay).then_some(())
        });
        let noted = notes(&lab).iter().any(|(_, note)| note.contains("relay"));
        assert_eq!(noted, relay);
        assert!(relay || routes().contains("nab-"), "{}", routes());
        let status = lab.api("GET", "/v1/status", &Value::Null);
        assert_eq!(status["Drift"], serde_json::json!([]), "{status}");
    }
}
