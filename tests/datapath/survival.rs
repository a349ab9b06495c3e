//! What outlives agents, namespaces, other programs' hands, and a reboot.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::{self, Lab, until};

#[test]
fn a_connection_outlives_the_agent() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let listener = web.place.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let mut call = lab.neighbour().enter(|| TcpStream::connect("10.99.0.1:8080")).unwrap();
    let (mut answer, _) = listener.accept().unwrap();
    call.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
    let mut still_there = || {
        answer.write_all(b"x").unwrap();
        call.read_exact(&mut [0]).expect("the connection broke");
    };
    still_there();
    lab.kill_agent();
    still_there();
    lab.start_agent();
    still_there();
    drop(listener);
    let _web = web.place.tcp_listener("0.0.0.0:80", "web");
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    lab.detach("web", &web);
    assert!(!web.place.run(&["ip", "-o", "link"]).contains("eth0"), "the interface is left");
    lab.neighbour().hears_nothing("tcp:10.99.0.1:8080");
    lab.netagent(&["network", "rm", "web"]);
    lab.nothing_left();
}

#[test]
fn a_namespace_that_vanished_is_let_go() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let lost = lab.attach("web", "lost", &["8080:80"]);
    let support::attach::Sandbox { place, endpoint, .. } = lost;
    lab.run(&["ip", "netns", "del", "lost"]);
    drop(place);
    until("the kernel takes the link away", Duration::from_secs(10), || {
        (lab.links().len() == 1).then_some(())
    });
    let path = format!("/v1/networks/web/endpoints/{endpoint}");
    let (status, answer) = lab.try_api("DELETE", &path, "").unwrap();
    assert!((200..300).contains(&status), "{status} {answer}");
    let web = lab.attach("web", "web", &["8080:80"]).place;
    let _web = web.tcp_listener("0.0.0.0:80", "web");
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
}

#[test]
fn a_bridge_that_somebody_deleted_or_set_down_is_repaired() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &["-o", "com.docker.network.bridge.name=br-web"]);
    let web = lab.attach("web", "web", &["8080:80"]).place;
    let _web = web.tcp_listener("0.0.0.0:80", "web");
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    for harm in ["set br-web down", "del br-web"] {
        lab.run(&["sh", "-c", &format!("ip link {harm}")]);
        lab.neighbour().hears_within(Duration::from_secs(15), "web", "tcp:10.99.0.1:8080");
    }
}

/// A table that is owned outlives a foreign flush; one that is not is made again.
#[test]
fn a_foreign_flush_of_nftables_opens_and_closes_nothing_for_long() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    let web = lab.attach("web", "web", &["8080:80"]);
    let _web = web.place.tcp_listener("0.0.0.0:80", "web");
    lab.neighbour().hears("web", "tcp:10.99.0.1:8080");
    let table = || lab.try_run(&["nft", "--stateless", "list", "table", "inet", "netagent"]).out;
    let before = table();
    assert!(before.contains("elements"), "{before}");
    lab.run(&["nft", "add", "table", "inet", "bystander"]);
    lab.run(&["nft", "flush", "ruleset"]);
    let left = lab.nft_tables();
    assert!(!left.iter().any(|table| table.contains("bystander")), "flushed nothing: {left:?}");
    if before.contains("flags owner") {
        assert_eq!(table(), before, "an owned table was changed");
    }
    let soon = Duration::from_secs(10);
    lab.neighbour().hears_within(soon, "web", "tcp:10.99.0.1:8080");
    lab.host().hears_within(soon, "web", "tcp:127.0.0.1:8080");
    lab.neighbour().hears_nothing(&format!("tcp:{}:80", web.v4));
    until("the table is as it was", soon, || (table() == before).then_some(()));
}

/// Nobody says that a namespace goes: its endpoint is a problem with its name, and no more.
#[test]
fn a_namespace_that_vanished_is_named_and_harms_nobody() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &[]);
    lab.network("other", "172.30.2.0/24", &[]);
    let other = lab.attach("other", "other", &["8081:80"]).place;
    let _other = other.tcp_listener("0.0.0.0:80", "other");
    let body = json!({"netns": "/run/netns/lost", "name": "ledger", "publish": ["8080:80"]});
    drop(lab.attach_to("web", lab.sandbox("lost"), &body));
    lab.run(&["ip", "netns", "del", "lost"]);
    let status = || lab.try_netagent(&["status"]);
    until("status names the endpoint", Duration::from_secs(15), || {
        let ran = status();
        (ran.code != 0 && ran.out.contains("ledger")).then_some(())
    });
    // The kernel takes its time with what was in the namespace.
    until("its link is gone", Duration::from_secs(15), || {
        let links = lab.try_run(&["ip", "-o", "link"]).out;
        (links.lines().filter(|line| line.contains(": nae-")).count() == 1).then_some(())
    });
    // A reconcile that makes and unmakes the link again and again would be seen here.
    let events = lab.try_run(&["timeout", "3", "ip", "monitor", "link"]).out;
    assert!(!events.contains("nae-"), "the agent goes on trying:\n{events}");
    lab.neighbour().hears("other", "tcp:10.99.0.1:8081");
    let mate = lab.attach("web", "mate", &["8082:80"]);
    let _mate = mate.place.tcp_listener("0.0.0.0:80", "mate");
    lab.neighbour().hears("mate", "tcp:10.99.0.1:8082");
    lab.kill_agent();
    lab.start_agent();
    lab.neighbour().hears("mate", "tcp:10.99.0.1:8082");
    assert!(status().out.contains("ledger"), "{:?}", status());

    lab.netagent(&["network", "disconnect", "web", "ledger"]);
    let cleared = status();
    assert!(cleared.ok, "{cleared:?}");
    let again = lab.attach("web", "lost", &["8080:80"]).place;
    let _again = again.tcp_listener("0.0.0.0:80", "again");
    lab.neighbour().hears("again", "tcp:10.99.0.1:8080");
}

/// What a reboot leaves: the state directory, and nothing in the kernel or below /run.
fn reboot(lab: &Lab) {
    lab.stop_agent();
    let script = "
        for name in $(ip netns list | cut -d' ' -f1 | grep -v neighbour); do ip netns del $name; done
        for link in $(ip -o link | grep -o 'na[bec]-[0-9a-f]*' | sort -u); do
            ip link del $link 2>/dev/null || true
        done
        nft flush ruleset
        iptables -F; ip6tables -F
        sysctl -qw net.ipv4.conf.uplink.forwarding=0
        test ! -e /proc/sys/net/ipv6/conf/uplink/force_forwarding ||
            sysctl -qw net.ipv6.conf.uplink.force_forwarding=0
        rm -rf /run/netagent /run/docker/plugins";
    lab.run(&["bash", "-euc", script]);
    assert_eq!((lab.links(), lab.nft_tables()), (vec![], vec![]), "the rig's reboot");
}

#[test]
fn networks_are_back_after_a_reboot_and_endpoints_are_not() {
    let Some(lab) = Lab::with_agent() else { return };
    lab.network("web", "172.30.1.0/24", &["--label", "tier=web"]);
    lab.network("vault", "172.30.2.0/24", &["--internal"]);
    let first = lab.attach("web", "first", &["8080:80"]);
    let links = lab.links();
    drop(first);
    reboot(&lab);
    lab.start_agent();

    let bridges: Vec<_> = links.into_iter().filter(|link| link.starts_with("nab-")).collect();
    assert_eq!(lab.links(), bridges);
    let status = lab.netagent(&["status"]);
    assert!(status.contains("2 networks, no endpoints"), "{status}");
    assert!(lab.ports().is_empty());
    let inspected = lab.netagent(&["network", "inspect", "web"]);
    assert!(inspected.contains("172.30.1.0/24") && inspected.contains("tier"), "{inspected}");
    let overlap = lab.try_netagent(&["network", "create", "--subnet", "172.30.1.0/25", "half"]);
    assert_eq!(overlap.code, 4, "its subnet is taken: {overlap:?}");

    let second = lab.sandbox("second");
    lab.netagent(&["network", "connect", "--name", "second", "-p", "8080:80", "web", "second"]);
    let _second = second.tcp_listener("0.0.0.0:80", "second");
    lab.neighbour().hears("second", "tcp:10.99.0.1:8080");
    assert!(second.pings("10.99.0.2"), "the way out");
    let addresses = second.run(&["ip", "-o", "-4", "addr", "show", "dev", "eth0"]);
    assert!(
        addresses.contains("172.30.1.2/24"),
        "the gateway's address is not given out: {addresses}"
    );
    lab.netagent(&["network", "disconnect", "web", "second"]);
    lab.netagent(&["network", "rm", "web", "vault"]);
    lab.nothing_left();
    assert_eq!(lab.nft_tables(), Vec::<String>::new());
}
