//! Networks that change while traffic flows: what is still allowed goes on, what is not stops.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step should panic")]

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::Value;

use crate::support::flow::{Flow, listen};
use crate::support::{Findings, Lab, Place, until};

fn key(name: &str) -> String {
    match name {
        "mtu" => "com.docker.network.driver.mtu".into(),
        "host_ipv4" => "com.docker.network.host_ipv4".into(),
        other => format!("com.docker.network.bridge.{other}"),
    }
}

/// `netagent network update -o … web`, with the last parts of Docker's keys.
#[track_caller]
fn update(lab: &Lab, options: &[&str]) {
    let options: Vec<String> = options
        .iter()
        .map(|option| {
            let (name, value) = option.split_once('=').unwrap();
            format!("{}={value}", key(name))
        })
        .collect();
    let mut args = vec!["network", "update"];
    args.extend(options.iter().flat_map(|option| ["-o", option]));
    args.push("web");
    assert_eq!(lab.netagent(&args), "web");
}

/// The steps that would make the host as intended.
fn drift(lab: &Lab) -> String {
    lab.api("GET", "/v1/status", &Value::Null)["Drift"].to_string()
}

#[test]
fn flows_outlive_every_change_that_allows_them_with_bridge_nf_on() {
    flows_outlive_every_change_that_allows_them(true);
}

#[test]
fn flows_outlive_every_change_that_allows_them_with_bridge_nf_off() {
    flows_outlive_every_change_that_allows_them(false);
}

/// Into a published port of both families, out, between neighbours and from the host, through one
/// change after the other.
fn flows_outlive_every_change_that_allows_them(bridge_nf: bool) {
    let Some(lab) = Lab::with_agent() else { return };
    lab.bridge_nf(bridge_nf);
    lab.network("web", "172.30.1.0/24", &["--ipv6", "--subnet", "fd00:1::/64"]);
    let web = lab.attach("web", "web", &["8080:80", "10.99.0.1:8081:80"]);
    let mate = lab.attach("web", "mate", &[]).place;
    let (host, neighbour) = (lab.host(), lab.neighbour());
    let (inside, outside) = (listen(&web.place, "[::]:80"), listen(&neighbour, "[::]:7000"));
    let direct = format!("{}:80", web.v4);
    let neighbours = Flow::open(&mate, &direct, &inside);
    let flows = [
        Flow::open(&neighbour, "10.99.0.1:8080", &inside),
        Flow::open(&neighbour, "[fd99::1]:8080", &inside),
        Flow::open(&neighbour, "10.99.0.1:8081", &inside),
        Flow::open(&web.place, "10.99.0.2:7000", &outside),
        Flow::open(&web.place, "[fd99::2]:7000", &outside),
        Flow::open(&host, &direct, &inside),
    ];
    for options in [
        &["mtu=1300"][..],
        &["mtu=9000"],
        &["mtu="],
        &["enable_ip_masquerade=false"],
        &["enable_ip_masquerade=true"],
        &["host_ipv4=10.99.0.1"],
        &["trusted_host_interfaces=uplink"],
        &["trusted_host_interfaces="],
        &["gateway_mode_ipv4=nat-unprotected", "gateway_mode_ipv6=nat-unprotected"],
        &["gateway_mode_ipv4=nat", "gateway_mode_ipv6="],
    ] {
        update(&lab, options);
        let what = options.join(" ");
        flows.iter().chain([&neighbours]).for_each(|flow| flow.goes_on(&what));
    }
    lab.netagent(&["network", "update", "--subnet", "172.30.9.0/24", "--label", "a=b", "web"]);
    flows.iter().chain([&neighbours]).for_each(|flow| flow.goes_on("a further subnet"));
    update(&lab, &["enable_icc=false"]);
    flows.iter().for_each(|flow| flow.goes_on("enable_icc=false"));
    neighbours.stops("enable_icc=false");
    update(&lab, &["enable_icc="]);
    flows.iter().for_each(|flow| flow.goes_on("enable_icc="));
    Flow::open(&mate, &direct, &inside).goes_on("enable_icc=");
    assert_eq!(drift(&lab), "[]");
}

#[test]
fn a_binding_that_is_taken_away_ends_the_flows_by_it_and_no_others() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["8080:80", "10.99.0.1:8081:80", "80/udp"]);
    let mate = lab.attach("web", "mate", &[]).place;
    let (host, neighbour) = (lab.host(), lab.neighbour());
    let inside = listen(&web.place, "0.0.0.0:80");
    let by_any = Flow::open(&neighbour, "10.99.0.1:8080", &inside);
    let by_loopback = Flow::open(&host, "127.0.0.1:8080", &inside);
    let by_address = Flow::open(&neighbour, "10.99.0.1:8081", &inside);
    let of_mate = Flow::open(&mate, &format!("{}:80", web.v4), &inside);
    let number = |lab: &Lab| {
        let ports = lab.ports();
        let udp = ports.iter().find(|port| port["Protocol"] == "udp").unwrap();
        udp["HostPorts"].as_str().unwrap().to_owned()
    };
    let before = number(&lab);
    update(&lab, &["host_binding_ipv4=127.0.0.1"]);
    by_any.stops("host_binding_ipv4=127.0.0.1");
    for flow in [&by_loopback, &by_address, &of_mate] {
        flow.goes_on("host_binding_ipv4=127.0.0.1");
    }
    assert_eq!(number(&lab), before, "a port of our choice keeps its number");
    update(&lab, &["host_binding_ipv4="]);
    for flow in [&by_loopback, &by_address, &of_mate] {
        flow.goes_on("host_binding_ipv4=");
    }
    Flow::open(&neighbour, "10.99.0.1:8080", &inside).goes_on("host_binding_ipv4=");
}

/// A client that never pauses, from one port all the time.
#[test]
fn udp_follows_a_binding_that_changes() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["5353:53/udp"]);
    let _dns = web.place.udp_listener("0.0.0.0:53", "dns");
    let client = lab.neighbour().enter(|| UdpSocket::bind("10.99.0.2:40000")).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let answered = || {
        client.send_to(b"who?", "10.99.0.1:5353").unwrap();
        client.recv(&mut [0; 64]).is_ok()
    };
    let soon = Duration::from_secs(5);
    for (binding, open) in [("", true), ("10.99.0.1", true), ("127.0.0.1", false), ("", true)] {
        update(&lab, &[&format!("host_binding_ipv4={binding}")]);
        // What is under way when the setting changes may be lost, and an answer may be late.
        until(&format!("bound to \"{binding}\", open: {open}"), soon, || {
            (answered() == open).then_some(())
        });
    }
}

/// Who sends first after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Client,
    Container,
}

/// A conversation in which nobody speaks unless told to.
struct Quiet {
    client: OwnedFd,
    container: OwnedFd,
}

impl Quiet {
    fn tcp(client: &Place, address: &str, listener: &TcpListener) -> Self {
        let call = client.enter(|| TcpStream::connect(address)).unwrap();
        let (server, _) = listener.accept().unwrap();
        Self::open(call.into(), server.into())
    }

    /// From one port of the neighbour's for all times.
    fn udp(client: (&Place, &str), server: (&Place, &str)) -> Self {
        let bind = |(place, address): (&Place, &str)| place.enter(|| UdpSocket::bind(address));
        let (call, answer) = (bind(client).unwrap(), bind(server).unwrap());
        call.connect(server.1).unwrap();
        answer.connect(client.1).unwrap();
        Self::open(call.into(), answer.into())
    }

    fn open(client: OwnedFd, container: OwnedFd) -> Self {
        let quiet = Self { client, container };
        assert!(quiet.talks(First::Client), "a flow that begins");
        assert!(quiet.talks(First::Container), "a flow that began");
        quiet
    }

    /// Whether something arrives, sent one way and then the other.
    fn talks(&self, first: First) -> bool {
        let (there, back) = match first {
            First::Client => (&self.client, &self.container),
            First::Container => (&self.container, &self.client),
        };
        // Both are tried: an answer may find a way that the question made for it.
        let arrived = [arrives(there, back), arrives(back, there)];
        assert_eq!(arrived[0], arrived[1], "{first:?} first: one way only");
        arrived[0]
    }
}

/// Whether what one socket sends comes to the other.
fn arrives(from: &OwnedFd, to: &OwnedFd) -> bool {
    let patience = TimeVal::milliseconds(600);
    setsockopt(to, sockopt::ReceiveTimeout, &patience).unwrap();
    let sent = send(from.as_raw_fd(), b"hello", MsgFlags::MSG_NOSIGNAL);
    sent.is_ok() && recv(to.as_raw_fd(), &mut [0; 64], MsgFlags::empty()) == Ok(5)
}

/// Connection tracking takes up a connection in the middle: were a forbidden flow only forgotten,
/// the container's next packet would open it outward, and what the client sends would be answers.
#[test]
fn a_flow_that_is_forbidden_stops_whoever_sends_next() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["8080:80", "5353:53/udp"]);
    let neighbour = lab.neighbour();
    let (open, closed) = (listen(&web.place, "0.0.0.0:80"), listen(&web.place, "0.0.0.0:81"));
    let at = |port: u16| format!("{}:{port}", web.v4);
    update(&lab, &["enable_ip_masquerade=false"]);
    for (round, first) in [First::Container, First::Client].into_iter().enumerate() {
        update(&lab, &["gateway_mode_ipv4=nat-unprotected"]);
        let tcp = |port, listener| Quiet::tcp(&neighbour, &at(port), listener);
        let udp = |mine: usize, port| {
            let mine = format!("10.99.0.2:{}", 40000 + mine);
            Quiet::udp((&neighbour, &mine), (&web.place, &at(port)))
        };
        let allowed = [tcp(80, &open), udp(10 + round, 53)];
        let forbidden = [tcp(81, &closed), udp(20 + round, 54)];
        update(&lab, &["gateway_mode_ipv4=routed"]);
        for (flow, protocol) in forbidden.iter().zip(["tcp", "udp"]) {
            assert!(!flow.talks(first), "{protocol}, {first:?} first");
            assert!(!flow.talks(First::Client), "{protocol}, the client after all");
        }
        for (flow, protocol) in allowed.iter().zip(["tcp", "udp"]) {
            assert!(flow.talks(first), "{protocol}, {first:?} first, and allowed");
        }
        // Allowed again it goes on from the same ports, though nobody has paused.
        update(&lab, &["gateway_mode_ipv4=nat-unprotected"]);
        assert!(forbidden[1].talks(first), "udp, allowed again");
        update(&lab, &["gateway_mode_ipv4=nat"]);
        for flow in allowed.iter().chain(&forbidden[1..]) {
            assert!(!flow.talks(first), "nat, {first:?} first");
        }
    }
}

/// The same number on the host and in the container: what the container sends leaves with the
/// address and the port that the client knows.
#[test]
fn a_published_connection_that_is_forbidden_stops_whoever_sends_next() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["80:80"]);
    let inside = listen(&web.place, "0.0.0.0:80");
    for first in [First::Container, First::Client] {
        let flow = Quiet::tcp(&lab.neighbour(), "10.99.0.1:80", &inside);
        let own = Quiet::tcp(&lab.host(), "10.99.0.1:80", &inside);
        update(&lab, &["host_binding_ipv4=127.0.0.1"]);
        assert!(!flow.talks(first), "{first:?} first");
        assert!(!own.talks(first), "the host's own, {first:?} first");
        update(&lab, &["host_binding_ipv4="]);
    }
}

/// As an agent leaves them that is killed in the middle of a change, with the old policy still there.
#[test]
fn flows_that_the_policy_would_not_let_begin_end_when_the_agent_starts() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &["-o", "com.docker.network.bridge.name=br-web"]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let (neighbour, inside) = (lab.neighbour(), listen(&web.place, "0.0.0.0:80"));
    let outside = listen(&neighbour, "0.0.0.0:7000");
    let published = Quiet::tcp(&neighbour, "10.99.0.1:8080", &inside);
    let out = Quiet::tcp(&web.place, "10.99.0.2:7000", &outside);
    let own = Quiet::tcp(&lab.host(), &format!("{}:80", web.v4), &inside);
    for first in [First::Container, First::Client] {
        lab.kill_agent();
        lab.run(&["nft", "add", "element", "inet", "netagent", "unprotected", "{ br-web }"]);
        let direct = Quiet::tcp(&neighbour, &format!("{}:80", web.v4), &inside);
        lab.start_agent();
        assert!(!direct.talks(first), "{first:?} first");
        for flow in [&published, &out, &own] {
            assert!(flow.talks(first), "{first:?} first, and allowed");
        }
    }
}

#[test]
fn gateway_modes_change_under_flows_that_both_allow() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &["--ipv6", "--subnet", "fd00:1::/64"]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let (host, neighbour) = (lab.host(), lab.neighbour());
    neighbour.run(&["ip", "-6", "route", "add", "fd00:1::/64", "via", "fd99::1"]);
    let (inside, other) = (listen(&web.place, "[::]:80"), listen(&web.place, "[::]:81"));
    let outside = listen(&neighbour, "[::]:7000");
    let modes = |mode: &str| {
        let options = [format!("gateway_mode_ipv4={mode}"), format!("gateway_mode_ipv6={mode}")];
        update(&lab, &options.each_ref().map(String::as_str));
    };
    let addresses = [format!("{}:", web.v4), format!("[{}]:", web.v6)];
    let direct = |port: &str, listener: &TcpListener| {
        let open = |address: &String| Flow::open(&neighbour, &format!("{address}{port}"), listener);
        addresses.each_ref().map(open)
    };
    let out = Flow::open(&web.place, "10.99.0.2:7000", &outside);
    let own = Flow::open(&host, &format!("{}81", addresses[0]), &other);
    let published = ["10.99.0.1:8080", "[fd99::1]:8080"]
        .map(|address| Flow::open(&neighbour, address, &inside));

    modes("nat-unprotected");
    let (open, closed) = (direct("80", &inside), direct("81", &other));
    modes("nat");
    closed.iter().chain(&open).for_each(|flow| flow.stops("nat-unprotected → nat"));
    published.iter().for_each(|flow| flow.goes_on("nat-unprotected → nat"));

    update(&lab, &["trusted_host_interfaces=uplink"]);
    let trusted = direct("80", &inside);
    modes("routed");
    published.iter().for_each(|flow| flow.stops("nat → routed"));
    trusted.iter().for_each(|flow| flow.goes_on("nat → routed"));
    assert!(lab.ports().is_empty(), "{:?}", lab.ports());
    update(&lab, &["trusted_host_interfaces="]);
    trusted.iter().for_each(|flow| flow.goes_on("what is routed needs no trust"));
    neighbour.hears_nothing("tcp:10.99.0.1:8080");

    modes("nat-unprotected");
    trusted.iter().for_each(|flow| flow.goes_on("routed → nat-unprotected"));
    Flow::open(&neighbour, "10.99.0.1:8080", &inside).goes_on("routed → nat-unprotected");
    for flow in [&out, &own] {
        flow.goes_on("all modes");
    }
}

#[test]
fn trust_that_is_withdrawn_ends_flows_by_that_link() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    lab.network("other", "172.30.2.0/24", &["-o", "com.docker.network.bridge.name=br-other"]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let other = lab.attach("other", "other", &[]).place;
    let inside = listen(&web.place, "0.0.0.0:80");
    update(&lab, &["trusted_host_interfaces=uplink:br-other"]);
    let direct = format!("{}:80", web.v4);
    let by_uplink = Flow::open(&lab.neighbour(), &direct, &inside);
    let by_bridge = Flow::open(&other, &direct, &inside);
    update(&lab, &["trusted_host_interfaces=br-other"]);
    by_uplink.stops("the uplink is trusted no more");
    by_bridge.goes_on("the uplink is trusted no more");
    update(&lab, &["trusted_host_interfaces="]);
    by_bridge.stops("nobody is trusted");
}

#[test]
fn the_mtu_changes_on_the_bridge_and_at_both_ends() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &[]);
    let mut findings = Findings::default();
    for mtu in ["1300", "9000", "1000", "1500"] {
        update(&lab, &[&format!("mtu={mtu}")]);
        for (place, count) in [(&lab.host(), 2), (&web.place, 1)] {
            let links = place.run(&["ip", "-o", "link"]);
            let names = [": nab-", ": nae-", ": eth0"];
            let ours: Vec<&str> =
                links.lines().filter(|l| names.iter().any(|name| l.contains(name))).collect();
            assert_eq!(ours.len(), count, "{links}");
            for line in ours {
                findings.holds(line, line.contains(&format!(" mtu {mtu} ")));
            }
        }
        let size = (mtu.parse::<u32>().unwrap() - 28).to_string();
        let ping = ["ping", "-n", "-c1", "-W2", "-M", "do", "-s", &size, "172.30.1.1"];
        findings.holds(&format!("{mtu} bytes pass"), web.place.try_run(&ping).is_ok());
    }
}

#[test]
fn what_cannot_be_changed_is_refused_and_nothing_happens() {
    let Some(lab) = Lab::with_agent() else { return };
    let bound = format!("{}=10.99.0.1", key("host_binding_ipv4"));
    lab.network("web", "172.30.1.0/24", &["-o", &bound]);
    lab.network("other", "172.30.2.0/24", &[]);
    let _web = lab.attach("web", "web", &["127.0.0.1:9000:90", "8080:80"]);
    let table = || lab.try_run(&["nft", "--stateless", "list", "table", "inet", "netagent"]).out;
    let before = (table(), lab.ports());
    let mut findings = Findings::default();
    let squatter = listen(&lab.host(), "127.0.0.1:8080");
    for (args, code, says) in [
        (&["-o", "com.docker.network.bridge.name=br-web"][..], 2, "cannot be changed"),
        (&["-o", "com.docker.network.driver.mtuu=1400"], 2, "did you mean"),
        (&["-o", "com.docker.network.bridge.gateway_mode_ipv4=isolated"], 2, "internal"),
        (&["-o", "com.docker.network.driver.mtu=1200", "--subnet", "fd00:9::/64"], 2, "1280"),
        (&["--subnet", "172.30.2.0/25"], 4, "network \"other\""),
        (&["--gateway", "172.30.9.1"], 2, "no --subnet contains it"),
        (&["--label", "a=b", "--label-rm", "a"], 2, "at once"),
        (&[], 2, "nothing to change"),
        (&["-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1"], 4, "is held by"),
    ] {
        let ran = lab.try_netagent(&[&["network", "update"], args, &["web"]].concat());
        let claim = format!("exit {code} and \"{says}\", not {ran:?}");
        findings.holds(&claim, ran.code == code && ran.err.contains(says));
    }
    let ran = lab.try_netagent(&["network", "update", "-o", "a=b", "nowhere"]);
    findings.holds(&format!("not found: {ran:?}"), ran.code == 3);
    drop(squatter);
    assert_eq!((table(), lab.ports()), before);
    let dry = ["network", "update", "--dry-run", "-o", "com.docker.network.driver.mtu=1300", "web"];
    let ran = lab.try_netagent(&dry);
    assert!(ran.code == 7 && ran.out.contains("bridge mtu 1500 → bridge mtu 1300"), "{ran:?}");
    assert_eq!((table(), lab.ports()), before);
}
