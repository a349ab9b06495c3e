//! What is seen of the host as a whole: everything of ours, facts, the firewall, changes.

use super::rig::*;

tests! {
    fn everything_of_ours_is_seen_and_nothing_else() {
        let mut kernel = linux();
        let [one, other] = two_sandboxes(&mut kernel);
        sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0");
        create(&mut kernel, &[hold(Protocol::Tcp, 8080, 8080)]);
        let asked = address(one.netns(), "eth0", "10.9.0.2/24").key();
        let foreign = Object::Link(Link { name: name("docker0"), ..bridge(false) }).key();
        let observed = match kernel.observe(&Scope::Everything(vec![asked, foreign])) {
            Ok(observed) => observed,
            Err(error) => panic!("{error}"),
        };
        let mut lines: Vec<String> =
            observed.iter().map(|(key, seen)| format!("{} {:?}", key.name, seen.owner)).collect();
        lines.sort();
        let expected = [
            "0.0.0.0:8080/tcp Netagent",
            "10.9.0.1/24 dev nab-1 Netagent",
            "10.9.0.2/24 dev eth0 Netagent",
            "docker0 Foreign",
            "nab-1 Netagent",
            "nae-2 Netagent",
            "nae-3 Netagent",
        ];
        assert_eq!(lines, expected);
        drop(other);
    }

    fn facts_tell_uplinks_taken_nets_and_foreign_links() {
        let mut kernel = linux();
        let none = kernel.facts().unwrap();
        assert_eq!(none.default_mtu, Mtu::ETHERNET);
        assert!(none.uplinks.is_empty(), "{:?}", none.uplinks);
        create(&mut kernel, &[
            link(&bridge(false)),
            address(Netns::Host, "nab-1", "10.9.0.1/24"),
            link(&veth("nae-1", handed_off())),
        ]);
        sh("ip link add up0 mtu 1450 type veth peer wire0");
        sh("ip link set up0 up; ip link set wire0 up");
        sh("ip addr add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1");
        sh("ip link add vpn0 type veth peer wire1; ip link set vpn0 up; ip link set wire1 up");
        sh("ip addr add 10.8.0.2/24 dev vpn0; ip route add 10.88.0.0/16 via 10.8.0.1");
        sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0");
        sh("ip link set docker0 up; ip route add blackhole 198.51.100.0/24");
        sh("echo 1 > /proc/sys/net/ipv4/conf/vpn0/forwarding");
        let facts = kernel.facts().unwrap();
        assert_eq!(facts.default_mtu.bytes(), 1450);
        let uplinks: Vec<(&str, bool, bool)> = facts
            .uplinks
            .iter()
            .map(|uplink| (uplink.name.as_str(), uplink.default_route, uplink.forwarding_v4))
            .collect();
        assert_eq!(uplinks, [("up0", true, false), ("vpn0", false, true)]);
        let taken: Vec<String> = facts.taken.iter().map(ToString::to_string).collect();
        for net in
            ["192.0.2.0/24", "10.8.0.0/24", "10.88.0.0/16", "172.17.0.0/16", "198.51.100.0/24"]
        {
            assert!(taken.iter().any(|found| found == net), "{net} of {taken:?}");
        }
        assert!(!taken.iter().any(|net| net.starts_with("10.9.") || net == "0.0.0.0/0"));
        let foreign: Vec<&str> = facts.foreign_links.keys().map(LinkName::as_str).collect();
        for ours in ["nab-1", "nae-1", "nac-1"] {
            assert!(!foreign.contains(&ours), "{foreign:?}");
        }
        assert!(foreign.contains(&"docker0") && foreign.contains(&"up0"), "{foreign:?}");
        assert!(!facts.router && facts.ipv6);
        assert_eq!(facts.ephemeral_ports, (32768, 60999));
    }

    fn the_firewall_is_installed_seen_repaired_and_removed() {
        let mut kernel = linux();
        let table = policy::table(Mark::DEFAULT);
        let bridges = |name: &str| {
            let key = vec![Value::Link(name.parse().unwrap())];
            let set = SetName::Bridges;
            Object::Element(Element { set, key, through: None, data: vec![] })
        };
        assert_eq!(seen(&mut kernel, &table), None);
        create(&mut kernel, &[table.clone(), bridges("nab-1"), link(&bridge(false))]);
        check_met(&mut kernel, &table);
        check_met(&mut kernel, &bridges("nab-1"));
        // All or nothing, and the culprit is named.
        let ops = [bridges("nab-2"), bridges("nab-1"), bridges("nab-3")].map(Op::Create);
        let outcomes = kernel.perform(&ops);
        assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::NotTried, &Outcome::NotTried));
        let Outcome::Failed(error) = &outcomes[1] else { panic!("{outcomes:?}") };
        assert_eq!(Errno::from_raw(error.errno), Errno::EEXIST);
        assert_eq!(seen(&mut kernel, &bridges("nab-2")), None);
        let observed = kernel.observe(&Scope::Everything(vec![])).unwrap();
        assert_eq!(observed.len(), 3, "{observed:?}");
        // Another mark is another table.
        let other = policy::table(Mark::new(2).unwrap());
        attempt(&mut kernel, Op::Change { from: table.clone(), to: other.clone() }).unwrap();
        let from = seen(&mut kernel, &table).unwrap().object;
        assert!(!table.is_met_by(&from));
        let ops =
            [Op::Change { from, to: table.clone() }, Op::Create(bridges("nab-1"))];
        assert_eq!(kernel.perform(&ops), [Outcome::Done, Outcome::Done]);
        check_met(&mut kernel, &table);
        let ops = [bridges("nab-1"), table.clone()].map(Op::Delete);
        assert_eq!(kernel.perform(&ops), [Outcome::Done, Outcome::Done]);
        assert_eq!(seen(&mut kernel, &table), None);
    }

    fn this_kernel_has_what_netagent_needs() {
        assert_eq!(netagent::kernel::linux::probe::probe(), Ok(()));
        assert!(!sh("ip link").contains("probe"), "tried elsewhere");
    }

    fn a_change_wakes_the_monitor() {
        let mut monitor = Monitor::open(0xffff_0000).unwrap();
        let short = Some(Duration::from_millis(20));
        let mut events = |command: &str| {
            sh(command);
            let mut events = Vec::new();
            while let Some(event) = monitor.next(short).unwrap() {
                if !events.contains(&event) {
                    events.push(event);
                }
            }
            events
        };
        assert_eq!(events("true"), []);
        events("ip link add br1 type bridge; ip link add port type veth peer wire");
        events("ip link set port master br1");
        let of_others = "ip link set port up; ip link set port down; ip link set port alias x";
        assert_eq!(events(of_others), [], "another owner's container");
        for (command, event) in [
            ("ip link set port nomaster", Event::Link),
            ("ip link set br1 up", Event::Link),
            ("ip addr add 10.1.0.1/24 dev br1", Event::Address),
            ("ip route add blackhole 10.2.0.0/16", Event::Route),
            ("echo 1 > /proc/sys/net/ipv4/conf/br1/forwarding", Event::Sysctl),
        ] {
            let events = events(command);
            assert!(events.contains(&event), "{command}: {events:?}");
        }
    }

    fn a_hundred_attaches_wake_nobody_and_their_loss_does() {
        let mut kernel = linux();
        let gateway = address(Netns::Host, "nab-1", "10.9.0.1/24");
        create(&mut kernel, &[link(&bridge(false)), gateway]);
        let sandbox = Sandbox::new();
        let mut monitor = Monitor::open(kernel.route_port().unwrap()).unwrap();
        let mut heard = |patience| monitor.next(Some(Duration::from_millis(patience))).unwrap();
        while heard(100).is_some() {}
        let veths: Vec<Link> = (0..100)
            .map(|at| {
                let peer = Peer::At { netns: sandbox.netns(), name: name(&format!("c{at}")), mac: mac(9), sysctls: Default::default() };
                veth(&format!("nae-{at}"), peer)
            })
            .collect();
        for veth in &veths {
            create(&mut kernel, &[link(veth)]);
        }
        create(&mut kernel, &[link(&veth("nae-handed", handed_off()))]);
        // As dockerd takes it.
        sh(&format!("ip link set nac-1 netns {}", sandbox.path.display()));
        assert_eq!(heard(500), None, "attaches");
        for veth in veths.iter().take(50) {
            attempt(&mut kernel, Op::Delete(link(veth))).unwrap();
        }
        wait_until("the links are gone", || kernel.garbage() == 0);
        assert_eq!(heard(500), None, "detaches");

        for harm in [
            "ip link set nae-60 down",
            "ip link set nae-61 nomaster",
            "ip link del nae-62",
            "ip addr del 10.9.0.1/24 dev nab-1",
            "ip link del nab-1",
        ] {
            while heard(50).is_some() {}
            sh(harm);
            assert!(heard(1000).is_some(), "{harm}");
        }
    }
}
