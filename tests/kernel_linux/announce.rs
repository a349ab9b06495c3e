//! Neighbours and the host when an address moves to another MAC address.

use super::rig::*;

const V4: &str = "10.9.0.2";
const V6: &str = "fd00:9::2";

fn ping(address: &str) -> String {
    sh(&format!("ping -n -c1 -W5 {address}"))
}

/// What the calling thread's namespace remembers of both addresses.
fn remembered() -> String {
    sh(&format!("ip neigh show {V4}; ip neigh show {V6}"))
}

fn remembers(mac: MacAddr) -> bool {
    let entries = remembered();
    let told = format!("lladdr {mac}");
    entries.lines().count() == 2 && entries.lines().all(|entry| entry.contains(&told))
}

/// The port by which the bridge knows a MAC address; empty where it knows none.
fn port_of(mac: MacAddr) -> String {
    let entries = sh("bridge fdb show br nab-1");
    let learned = entries.lines().filter(|entry| entry.starts_with(&mac.to_string()));
    let mut ports: Vec<&str> = learned.filter_map(|entry| entry.split(' ').nth(2)).collect();
    ports.dedup();
    ports.join(" ")
}

fn moved_to(mac: MacAddr) -> Announcement {
    let addresses = [V4, V6].map(|address| address.parse().unwrap()).into();
    Announcement { bridge: name("nab-1"), mac, addresses }
}

tests! {
    fn an_address_that_moves_is_found_at_once_by_neighbours_and_the_host() {
        let mut kernel = linux();
        let [old, mate] = two_sandboxes(&mut kernel);
        create(&mut kernel, &[address(Netns::Host, "nab-1", "fd00:9::1/64")]);
        for address in [V4, V6] {
            ping(address);
            mate.run(move || ping(address));
        }
        // Sure of the old place, and not so sure of it.
        let freshness = |state: &str| {
            let mac = mac(2);
            let link = sh("ip -o -4 route get 10.9.0.2 | grep -o 'dev [^ ]*'").trim().to_owned();
            for address in [V4, V6] {
                sh(&format!("ip neigh replace {address} lladdr {mac} {link} nud {state}"));
            }
        };
        mate.run(move || freshness("reachable"));
        freshness("stale");
        attempt(&mut kernel, Op::Delete(link(&veth("nae-2", into_sandbox(&old, 2))))).unwrap();
        assert!(remembers(mac(2)) && mate.run(|| remembers(mac(2))), "{}", remembered());

        // As the engine does it: before the new place is there.
        kernel.announce(&moved_to(mac(4)));
        assert!(remembers(mac(4)), "{}", remembered());
        wait_until("the neighbour heard it", || mate.run(|| remembers(mac(4))));
        assert_eq!(port_of(mac(4)), "", "the bridge learned a port from what it sent itself");

        let new = Sandbox::new();
        create(
            &mut kernel,
            &[
                link(&veth("nae-4", into_sandbox(&new, 4))),
                address(new.netns(), "eth0", "10.9.0.2/24"),
                address(new.netns(), "eth0", "fd00:9::2/64"),
            ],
        );
        for address in [V4, V6] {
            ping(address);
            mate.run(move || ping(address));
            talks(&mate, &new, address.parse().unwrap());
        }
        assert_eq!(port_of(mac(4)), "nae-4");
        kernel.announce(&moved_to(mac(4)));
        assert_eq!(port_of(mac(4)), "nae-4");
        assert!(remembers(mac(4)) && mate.run(|| remembers(mac(4))));
    }

    fn an_announcement_makes_no_entries_and_needs_no_bridge() {
        let mut kernel = linux();
        let [_one, mate] = two_sandboxes(&mut kernel);
        kernel.announce(&moved_to(mac(4)));
        assert_eq!(remembered(), "");
        mate.run(|| assert_eq!(remembered(), ""));
        let nowhere = Announcement { bridge: name("nab-9"), ..moved_to(mac(4)) };
        kernel.announce(&nowhere);
        // A bridge that came after the kernel was opened, by another hand.
        sh("ip link add nab-9 type bridge; ip link set nab-9 up; ip addr add 10.9.9.1/24 dev nab-9");
        sh("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev nab-9 nud stale");
        kernel.announce(&nowhere);
        assert!(remembered().contains(&mac(4).to_string()), "{}", remembered());
    }
}
