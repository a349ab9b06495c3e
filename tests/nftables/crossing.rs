//! Real packets through the installed policy, from place to place, over both families.

use netagent::firewall::nftables::Ownership;
use netagent::firewall::policy::TABLE;
use netagent::kernel::linux::nft::Nft;
use netagent::model::{BridgeSpec, Family, GatewayMode, HostAddress, Icc, Masquerade};

use crate::harness::{isolated, nft};
use crate::rig::{
    CHOSEN, CLIENTS, CONTAINER, HOST, HOST_PORT, NEIGHBOUR, Rig, bridge, install, of, seen, tcp_at,
};

fn in_mode(mode: GatewayMode) -> BridgeSpec {
    BridgeSpec { mode_v4: mode, mode_v6: mode, ..bridge() }
}

/// What answers at the container's own address.
#[derive(Clone, Copy)]
enum Answers {
    Nothing,
    /// The port that was asked for.
    Asked,
    /// That and ICMP.
    AskedAndIcmp,
    Everything,
}

/// Checks what a caller gets at the container's own address in each family; the container listens
/// on port 80, which was asked for, and on port 81, which was not.
fn check_direct(rig: &Rig, caller: &crate::place::Place, expected: Answers) {
    for family in Family::ALL {
        let address = CONTAINER[of(family)];
        let (asked, other) = (tcp_at(address, 80), tcp_at(address, 81));
        let (first, second, icmp) = match expected {
            Answers::Nothing => (false, false, false),
            Answers::Asked => (true, false, false),
            Answers::AskedAndIcmp => (true, false, true),
            Answers::Everything => (true, true, true),
        };
        for (to, who, reached) in [(&asked, "asked", first), (&other, "other", second)] {
            match reached {
                true => drop(caller.hears(who, to)),
                false => caller.hears_nothing(to),
            }
        }
        assert_eq!(caller.pings(address), icmp, "{} pings {address}", caller.name);
        // There is somebody to answer: the host reaches its containers whatever the mode.
        rig.host.hears("asked", &asked);
        rig.host.hears("other", &other);
        assert!(rig.host.pings(address));
    }
}

#[test]
fn only_what_a_mode_opens_answers_at_a_containers_own_address() {
    isolated("only_what_a_mode_opens_answers_at_a_containers_own_address", || {
        let rig = Rig::new();
        let _listeners = [
            rig.container.tcp_listener("[::]:80", "asked"),
            rig.container.tcp_listener("[::]:81", "other"),
        ];
        let mut agent = Nft::open().unwrap();
        let trusting = BridgeSpec { trusted: ["near".parse().unwrap()].into(), ..bridge() };
        install(&mut agent, trusting, HostAddress::Any);
        check_direct(&rig, &rig.near, Answers::Asked);
        check_direct(&rig, &rig.far, Answers::Nothing);
        install(&mut agent, in_mode(GatewayMode::Routed), HostAddress::Any);
        check_direct(&rig, &rig.far, Answers::AskedAndIcmp);
        install(&mut agent, in_mode(GatewayMode::NatUnprotected), HostAddress::Any);
        check_direct(&rig, &rig.far, Answers::Everything);
    });
}

#[test]
fn the_modes_of_the_two_families_are_independent() {
    isolated("the_modes_of_the_two_families_are_independent", || {
        let rig = Rig::new();
        let _listener = rig.container.tcp_listener("[::]:80", "asked");
        let mut agent = Nft::open().unwrap();
        for (open, shut) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
            let mut settings = bridge();
            match open {
                Family::V4 => settings.mode_v4 = GatewayMode::NatUnprotected,
                Family::V6 => settings.mode_v6 = GatewayMode::NatUnprotected,
            }
            install(&mut agent, settings, HostAddress::Any);
            rig.far.hears("asked", &tcp_at(CONTAINER[of(open)], 80));
            rig.far.hears_nothing(&tcp_at(CONTAINER[of(shut)], 80));
        }
    });
}

#[test]
fn host_ports_lead_to_the_container_in_both_families() {
    isolated("host_ports_lead_to_the_container_in_both_families", || {
        let rig = Rig::new();
        let _listener = rig.container.tcp_listener("[::]:80", "web");
        let mut agent = Nft::open().unwrap();
        install(&mut agent, BridgeSpec { icc: Icc::Deny, ..bridge() }, HostAddress::Any);
        for family in Family::ALL {
            let [near, far] = HOST[of(family)];
            let saw = rig.far.hears("web", &tcp_at(far, HOST_PORT));
            assert_eq!(saw, mapped(CLIENTS[of(family)][1]));
            rig.near.hears("web", &tcp_at(far, HOST_PORT));
            rig.host.hears("web", &tcp_at(near, HOST_PORT));
            // Neighbours may not talk, but a published port is one; its answers must come back by
            // the host, so it is the host that is seen.
            let own = ["10.0.0.1", "fd00::1"][of(family)];
            assert_eq!(rig.neighbour.hears("web", &tcp_at(near, HOST_PORT)), mapped(own));
            assert_eq!(rig.container.hears("web", &tcp_at(near, HOST_PORT)), mapped(own));
        }
        let certain = HostAddress::At(HOST[of(Family::V6)][1].parse().unwrap());
        install(&mut agent, bridge(), certain);
        rig.far.hears("web", &tcp_at(HOST[of(Family::V6)][1], HOST_PORT));
        rig.far.hears_nothing(&tcp_at(HOST[of(Family::V6)][0], HOST_PORT));
        rig.far.hears_nothing(&tcp_at(HOST[of(Family::V4)][1], HOST_PORT));
    });
}

/// As a socket of both families sees an address.
fn mapped(address: &str) -> Option<std::net::IpAddr> {
    match seen(address)? {
        std::net::IpAddr::V4(address) => Some(address.to_ipv6_mapped().into()),
        address => Some(address),
    }
}

#[test]
fn packets_leave_with_the_address_that_the_network_says() {
    isolated("packets_leave_with_the_address_that_the_network_says", || {
        let rig = Rig::new();
        let _listener = rig.far.tcp_listener("[::]:80", "far");
        let mut agent = Nft::open().unwrap();
        let chosen = BridgeSpec {
            source_v4: Some(CHOSEN[0].parse().unwrap()),
            source_v6: Some(CHOSEN[1].parse().unwrap()),
            ..bridge()
        };
        let own = BridgeSpec { masquerade: Masquerade::Off, ..bridge() };
        let hosts = Family::ALL.map(|family| HOST[of(family)][1]);
        for (settings, expected) in [
            (bridge(), hosts),
            (in_mode(GatewayMode::NatUnprotected), hosts),
            (chosen, CHOSEN),
            (own, CONTAINER),
            (in_mode(GatewayMode::Routed), CONTAINER),
        ] {
            let settings_text = format!("{settings:?}");
            install(&mut agent, settings, HostAddress::Any);
            for family in Family::ALL {
                let to = tcp_at(CLIENTS[of(family)][1], 80);
                let saw = rig.container.hears("far", &to);
                assert_eq!(saw, mapped(expected[of(family)]), "{settings_text}");
            }
        }
    });
}

#[test]
fn neighbours_and_the_host_see_a_containers_own_address() {
    isolated("neighbours_and_the_host_see_a_containers_own_address", || {
        let rig = Rig::new();
        let _listeners = [
            rig.neighbour.tcp_listener("[::]:80", "neighbour"),
            rig.host.tcp_listener("[::]:80", "host"),
        ];
        let mut agent = Nft::open().unwrap();
        let settings = BridgeSpec {
            source_v4: Some(CHOSEN[0].parse().unwrap()),
            source_v6: Some(CHOSEN[1].parse().unwrap()),
            ..bridge()
        };
        install(&mut agent, settings, HostAddress::Any);
        // Bridged packets pass our chains.
        for family in ["iptables", "ip6tables"] {
            rig.host.run(&["sysctl", "-qw", &format!("net.bridge.bridge-nf-call-{family}=1")]);
        }
        for family in Family::ALL {
            let own = mapped(CONTAINER[of(family)]);
            let neighbour = tcp_at(NEIGHBOUR[of(family)], 80);
            assert_eq!(rig.container.hears("neighbour", &neighbour), own);
            let host = tcp_at(["10.0.0.1", "fd00::1"][of(family)], 80);
            assert_eq!(rig.container.hears("host", &host), own);
        }
    });
}

#[test]
fn link_local_clients_get_the_hosts_own_port() {
    isolated("link_local_clients_get_the_hosts_own_port", || {
        let rig = Rig::new();
        let _listeners = [
            rig.container.tcp_listener("[::]:80", "web"),
            rig.host.tcp_listener(&format!("[::]:{HOST_PORT}"), "host"),
        ];
        let mut agent = Nft::open().unwrap();
        install(&mut agent, bridge(), HostAddress::Any);
        rig.far.hears("web", &tcp_at(HOST[of(Family::V6)][1], HOST_PORT));
        rig.far.hears("host", &format!("tcp:[fe80::1%{}]:{HOST_PORT}", rig.far_link()));
    });
}

/// A container sends to [::1] by its default gateway. Where bridged packets pass netfilter, ports
/// are translated before the kernel refuses such packets.
#[test]
fn the_wire_does_not_reach_ports_published_on_the_hosts_loopback() {
    isolated("the_wire_does_not_reach_ports_published_on_the_hosts_loopback", || {
        let rig = Rig::new();
        rig.host.run(&["sysctl", "-qw", "net.bridge.bridge-nf-call-ip6tables=1"]);
        let route = "route add ::1/128 via fd00::1 dev eth0 src fd00::3";
        rig.neighbour.run(&[&["ip"], &*route.split(' ').collect::<Vec<_>>()].concat());
        let secret = rig.container.udp_listener("[::]:53", "secret");
        let mut agent = Nft::open_as(Ownership::Shared).unwrap();
        let loopback = HostAddress::At(std::net::Ipv6Addr::LOCALHOST.into());
        install(&mut agent, bridge(), loopback);
        let to = format!("udp:[::1]:{HOST_PORT}");
        rig.neighbour.hears_nothing(&to);
        assert_eq!(secret.heard(), 0);
        nft(&["flush", "chain", "inet", TABLE, "guard"]).unwrap();
        rig.neighbour.hears_nothing(&to);
        assert!(secret.heard() > 0, "the attack does not even reach an unguarded host");
    });
}
