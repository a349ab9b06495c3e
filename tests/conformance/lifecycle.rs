//! What stays and what goes when containers, networks and daemons come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::rig::{NameServer, dual_stack, inspect};
use crate::support::{Findings, Lab, until};

/// A container that gets an address which another had makes the neighbours' entries right, without
/// being asked.
pub fn advertise_addresses(lab: &Lab) {
    dual_stack(lab, "web", 1, &[]);
    let mate = lab.container("mate", &["--network", "web"]);
    let options = ["--network", "web", "--ip", "172.30.1.9", "--ip6", "fd00:30:1::9"];
    let mac = |last: u8| format!("02:00:00:00:00:{last:02x}");
    let first = mac(1);
    lab.container("first", &[&options[..], &["--mac-address", &first]].concat());
    assert!(mate.pings("172.30.1.9") && mate.pings("fd00:30:1::9"));
    lab.docker(&["rm", "-f", "first"]);
    let second = mac(2);
    lab.container("second", &[&options[..], &["--mac-address", &second]].concat());
    for place in [&mate, &lab.host()] {
        for address in ["172.30.1.9", "fd00:30:1::9"] {
            until(&format!("{} has no old entry", place.name), Duration::from_secs(10), || {
                let entry = place.run(&["ip", "neigh", "show", address]);
                (!entry.contains(&first)).then_some(())
            });
        }
    }
    let mut findings = Findings::default();
    findings.hears(&mate, "second", "tcp:172.30.1.9:80");
    findings.hears(&lab.host(), "second", "tcp:172.30.1.9:80");
}

/// As many announcements as the network's option says: dockerd's own, and none of ours beside them.
pub fn advertise_addresses_as_often_as_asked(lab: &Lab) {
    let many = "com.docker.network.advertise_addr_nmsgs=2";
    let fast = "com.docker.network.advertise_addr_ms=200";
    lab.docker_network("web", "172.30.1.0/24", &["-o", many, "-o", fast]);
    let mate = lab.container("mate", &["--network", "web"]);
    let announcement = "arp saddr ip 172.30.1.9 arp daddr ip 172.30.1.9 counter";
    mate.run(&[
        "nft",
        "add table arp t; add chain arp t in { type filter hook input priority 0; }",
    ]);
    mate.run(&["nft", &format!("add rule arp t in {announcement}")]);
    let heard = || {
        let rules = mate.run(&["nft", "list", "chain", "arp", "t", "in"]);
        let count = rules.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.unwrap().parse::<u32>().unwrap()
    };
    lab.container("web", &["--network", "web", "--ip", "172.30.1.9"]);
    until("two announcements are heard", Duration::from_secs(10), || (heard() >= 2).then_some(()));
    // The container's own first packets come after them, and are none.
    let web = lab.container_place("web");
    assert!(web.pings("10.99.0.2"));
    assert_eq!(heard(), 2);
}

/// Generated MAC addresses stay different through restarts.
pub fn mac_addr_on_restart(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    for name in ["one", "two", "three"] {
        lab.container(name, &["--network", "web"]);
    }
    lab.docker(&["stop", "-t", "1", "one", "two"]);
    lab.container("four", &["--network", "web"]);
    lab.docker(&["start", "two", "one"]);
    let names = ["one", "two", "three", "four"];
    let addresses = names.map(|name| {
        let place = lab.container_place(name);
        let shown = place.run(&["ip", "-o", "link", "show", "eth0"]);
        let mac = shown.split("link/ether ").nth(1).unwrap()[..17].to_owned();
        let inspected = "{{(index .NetworkSettings.Networks \"web\").MacAddress}}";
        assert_eq!(inspect(lab, name, inspected), mac, "{name}");
        mac
    });
    assert_eq!(BTreeSet::from(addresses.clone()).len(), 4, "{addresses:?}");
    let four = lab.container_place("four");
    let mut findings = Findings::default();
    for name in ["one", "two", "three"] {
        findings.hears(&four, name, &format!("tcp:{}:80", lab.address(name, "web")));
    }
}

/// A MAC address that the user chose stays through restarts of the container and of dockerd.
pub fn cfgd_mac_addr_on_restart(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let mac = "02:00:00:00:12:34";
    let options = ["--network", "web", "--mac-address", mac, "--restart", "always"];
    lab.container("web", &options);
    let has_it = |when: &str| {
        let shown = lab.container_place("web").run(&["ip", "link", "show", "eth0"]);
        assert!(shown.contains(mac), "{when}: {shown}");
    };
    has_it("at first");
    lab.docker(&["restart", "-t", "1", "web"]);
    has_it("after a restart");
    lab.stop_dockerd();
    lab.start_dockerd();
    until("the container runs again", Duration::from_secs(40), || {
        (inspect(lab, "web", "{{.State.Running}}") == "true").then_some(())
    });
    has_it("after a restart of dockerd");
}

/// A network that is left takes its own lines out of `/etc/hosts`.
pub fn etc_hosts_disconnect(lab: &Lab) {
    dual_stack(lab, "red", 1, &[]);
    dual_stack(lab, "blue", 2, &[]);
    lab.container("web", &["--network", "red", "--hostname", "shop"]);
    lab.docker(&["network", "connect", "blue", "web"]);
    let hosts = || lab.docker(&["exec", "web", "cat", "/etc/hosts"]);
    let has = |part: &str, there: bool| {
        let hosts = hosts();
        assert_eq!(hosts.contains(part), there, "{part} in:\n{hosts}");
    };
    for part in ["172.30.1.", "172.30.2.", "fd00:30:1::", "fd00:30:2::"] {
        has(part, true);
    }
    lab.docker(&["network", "disconnect", "red", "web"]);
    has("172.30.1.", false);
    has("fd00:30:1::", false);
    has("172.30.2.", true);
    has("fd00:30:2::", true);
    has("127.0.0.1", true);
}

/// No name server elsewhere is reached from an internal network; with a further network it is.
pub fn internal_network_dns(lab: &Lab) {
    let server = NameServer::at(&lab.neighbour(), "10.99.0.2:53");
    lab.docker_network("vault", "172.30.1.0/24", &["--internal"]);
    lab.docker_network("open", "172.30.2.0/24", &[]);
    lab.container("web", &["--network", "vault", "--dns", "10.99.0.2"]);
    lab.container("mate", &["--network", "vault"]);
    let ask = |name: &str| lab.try_docker(&["exec", "web", "nslookup", name, "127.0.0.11"]);
    let mate = lab.address("mate", "vault");
    let found = ask("mate");
    assert!(found.out.contains(&mate), "names of the network are known: {found:?}");
    let refused = ask("test.example");
    assert!(!refused.out.contains(NameServer::ANSWER), "{refused:?}");
    assert_eq!(server.asked(), 0, "an internal network asked another host");
    lab.docker(&["network", "connect", "open", "web"]);
    let found = ask("test.example");
    assert!(found.out.contains(NameServer::ANSWER), "{found:?}");
    lab.docker(&["network", "disconnect", "open", "web"]);
    let asked = server.asked();
    assert!(!ask("other.example").out.contains(NameServer::ANSWER));
    assert_eq!(server.asked(), asked, "it asked after the network was left");
}

/// Ports are there again after dockerd was restarted, and after the agent was.
pub fn port_mapping_restore(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    let options =
        ["--network", "web", "--restart", "always", "-p", "8080:80", "-p", "127.0.0.1::81"];
    lab.container("web", &options);
    let answers = |when: &str| {
        let patience = Duration::from_secs(40);
        lab.neighbour().hears_within(patience, "web", "tcp:10.99.0.1:8080");
        until(&format!("one container's ports {when}"), patience, || {
            (lab.ports().len() == 2).then_some(())
        });
        let ports = lab.ports();
        let loopback = ports.iter().find(|port| port["HostIP"] == "127.0.0.1").unwrap();
        let port = loopback["HostPorts"].as_str().unwrap();
        lab.host().hears_within(patience, "web", &format!("tcp:127.0.0.1:{port}"));
    };
    answers("at first");
    lab.stop_dockerd();
    lab.neighbour().hears_nothing("tcp:10.99.0.1:8080");
    lab.start_dockerd();
    answers("after dockerd was restarted");
    lab.kill_agent();
    lab.start_agent();
    answers("after the agent was killed");
    lab.docker(&["rm", "-f", "web"]);
    lab.docker(&["network", "rm", "web"]);
    lab.nothing_left();
}

/// A port that is taken fails the start, once, whatever the restart policy is.
pub fn published_port_already_in_use(lab: &Lab) {
    lab.docker_network("web", "172.30.1.0/24", &[]);
    lab.container("first", &["--network", "web", "-p", "8080:80"]);
    // By its id until its name is learnt.
    let network = "{{(index .NetworkSettings.Networks \"web\").EndpointID}}";
    let owners = ["first".to_owned(), inspect(lab, "first", network)[..12].to_owned()];
    let options = ["--network", "web", "-p", "8080:80", "--restart", "always"];
    let error = lab.try_container("second", &options).expect_err();
    let mut findings = Findings::default();
    findings.holds(&format!("port and owner are named: {error}"), {
        error.contains("8080") && owners.iter().any(|owner| error.contains(owner))
    });
    let state = inspect(lab, "second", "{{.State.Status}} {{.RestartCount}}");
    findings.holds(&format!("no restart loop: {state}"), state == "created 0");
    findings.hears(&lab.neighbour(), "first", "tcp:10.99.0.1:8080");
    lab.docker(&["rm", "-f", "first"]);
    lab.docker(&["start", "second"]);
    lab.container_place("second");
    findings.hears(&lab.neighbour(), "second", "tcp:10.99.0.1:8080");
}
