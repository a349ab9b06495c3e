//! Bridges and veth pairs: made, changed, taken out of service; foreign ones left alone.

use super::rig::*;

tests! {
    fn a_bridge_is_made_seen_changed_and_removed() {
        let mut kernel = linux();
        let wanted = bridge(true);
        create(&mut kernel, &[link(&wanted)]);
        check_met(&mut kernel, &link(&wanted));
        assert!(sh("ip -d link show nab-1").contains("group 28257"), "our group");
        let (errno, _) = refusal(&mut kernel, Op::Create(link(&wanted)));
        assert_eq!(errno, Errno::EEXIST);
        let changed = Link {
            mtu: mtu(9000),
            mac: Some(mac(9)),
            alias: "netagent:other".into(),
            kind: LinkKind::Bridge { filter_bridged: false },
            ..wanted.clone()
        };
        sh("ip link set nab-1 down");
        attempt(&mut kernel, Op::Change { from: link(&wanted), to: link(&changed) }).unwrap();
        let Object::Link(now) = seen(&mut kernel, &link(&changed)).unwrap().object else {
            panic!("not a link")
        };
        assert_eq!(now, changed);
        assert!(sh("ip link show nab-1").contains(",UP"), "up again");
        attempt(&mut kernel, Op::Delete(link(&changed))).unwrap();
        assert_eq!(seen(&mut kernel, &link(&changed)), None);
        assert_eq!(refusal(&mut kernel, Op::Delete(link(&changed))).0, Errno::ENODEV);
    }

    fn a_bridge_keeps_its_mtu_and_mac_when_ports_come_and_go() {
        let mut kernel = linux();
        create(&mut kernel, &[link(&bridge(false))]);
        sh("ip link add port type veth peer other; ip link set port address 00:00:00:00:00:02");
        sh("ip link set port mtu 1280 master nab-1 up; ip link set other up");
        check_met(&mut kernel, &link(&bridge(false)));
        sh("ip link del port");
        check_met(&mut kernel, &link(&bridge(false)));
    }

    fn a_port_is_quiet_in_hairpin_mode_and_isolated_when_asked() {
        let mut kernel = linux();
        let sandbox = Sandbox::new();
        let plain = veth("nae-2", into_sandbox(&sandbox, 2));
        create(&mut kernel, &[link(&bridge(false)), link(&plain)]);
        check_met(&mut kernel, &link(&plain));
        let shown = sh("ip -d link show nae-2");
        assert!(shown.contains("hairpin on") && shown.contains("isolated off"), "{shown}");
        assert!(shown.contains("addrgenmode none"), "{shown}");
        assert!(!sh("ip -6 addr show dev nae-2").contains("inet6"), "no link-local address");
        let kind = LinkKind::Veth { peer: Peer::Elsewhere, isolated: true };
        let isolated = Link { kind, ..plain.clone() };
        attempt(&mut kernel, Op::Change { from: link(&plain), to: link(&isolated) }).unwrap();
        check_met(&mut kernel, &link(&isolated));
        sh("ip link set nae-2 nomaster down");
        let Object::Link(strayed) = seen(&mut kernel, &link(&plain)).unwrap().object else {
            panic!("not a link")
        };
        assert_eq!(strayed.master, None);
        attempt(&mut kernel, Op::Change { from: Object::Link(strayed), to: link(&plain) }).unwrap();
        check_met(&mut kernel, &link(&plain));
        assert!(sh("ip -d link show nae-2").contains("hairpin on"), "hairpin again");
    }

    fn a_deleted_pairs_names_are_free_at_once_and_the_garbage_is_collected() {
        let mut kernel = linux();
        let sandbox = Sandbox::new();
        create(&mut kernel, &[link(&bridge(false)), address(Netns::Host, "nab-1", "10.9.0.1/24")]);
        for _ in 0..3 {
            for peer in [handed_off(), into_sandbox(&sandbox, 2)] {
                let pair = veth("nae-1", peer);
                create(&mut kernel, &[link(&pair)]);
                attempt(&mut kernel, Op::Delete(link(&pair))).unwrap();
                assert_eq!(seen(&mut kernel, &link(&pair)), None);
            }
        }
        attempt(&mut kernel, Op::Delete(link(&bridge(false)))).unwrap();
        assert!(!sh("ip addr").contains("10.9.0.1"), "the address is free");
        create(&mut kernel, &[link(&bridge(false)), address(Netns::Host, "nab-1", "10.9.0.1/24")]);
        wait_until("garbage is collected", || kernel.garbage() == 0);
        assert!(!sh("ip link").contains("nag-"), "nothing is left");
        check_met(&mut kernel, &link(&bridge(false)));
    }

    fn deleting_answers_before_the_kernel_is_done() {
        let mut kernel = linux();
        create(&mut kernel, &[link(&bridge(false))]);
        let pairs: Vec<Object> = (0..20)
            .map(|at| {
                let (netns, name) = (Netns::Host, name(&format!("nac-{at}")));
                link(&veth(&format!("nae-{at}"), Peer::At { netns, name, mac: mac(at), sysctls: Default::default() }))
            })
            .collect();
        create(&mut kernel, &pairs);
        let ops: Vec<Op> = pairs.into_iter().map(Op::Delete).collect();
        assert_eq!(kernel.perform(&ops), vec![Outcome::Done; 20]);
        assert!(kernel.garbage() > 0, "twenty pairs take longer than telling to delete them");
        wait_until("garbage is collected", || kernel.garbage() == 0);
    }

    fn what_an_earlier_process_left_in_the_garbage_is_collected() {
        sh("ip link add nag-1 group 28263 type bridge; ip link add keep type bridge");
        let mut kernel = linux();
        wait_until("garbage is collected", || kernel.garbage() == 0);
        let links = sh("ip link");
        assert!(!links.contains("nag-1") && links.contains("keep"), "{links}");
    }

    fn a_foreign_link_of_our_name_is_left_alone() {
        let mut kernel = linux();
        sh("ip link add nae-1 type veth peer strange; ip addr add 10.1.0.1/24 dev nae-1");
        let before = sh("ip -d link show nae-1");
        let ours = Link { master: None, ..veth("nae-1", handed_off()) };
        assert_eq!(refusal(&mut kernel, Op::Create(link(&ours))).0, Errno::EEXIST);
        let (errno, text) = refusal(&mut kernel, Op::Delete(link(&ours)));
        assert_eq!(errno, Errno::EPERM);
        assert!(text.contains("\"nae-1\" is foreign"), "{text}");
        let change = Op::Change { from: link(&ours), to: link(&ours) };
        assert_eq!(refusal(&mut kernel, change).0, Errno::EPERM);
        assert_eq!(seen(&mut kernel, &link(&ours)).unwrap().owner, Owner::Foreign);
        let theirs = address(Netns::Host, "nae-1", "10.1.0.1/24");
        assert_eq!(seen(&mut kernel, &theirs).unwrap().owner, Owner::Foreign);
        assert_eq!(sh("ip -d link show nae-1"), before);
        sh("ip link add nab-1 type vxlan id 5 dstport 4789");
        assert_eq!(seen(&mut kernel, &link(&bridge(false))).unwrap().owner, Owner::Foreign);
    }

    fn a_pair_whose_other_end_is_elsewhere_is_not_made() {
        let mut kernel = linux();
        let pair = Link { master: None, ..veth("nae-1", Peer::Elsewhere) };
        assert_eq!(refusal(&mut kernel, Op::Create(link(&pair))).0, Errno::EOPNOTSUPP);
    }

    fn a_link_of_an_mtu_that_ipv6_cannot_have_is_made() {
        let mut kernel = linux();
        let small = Link { mtu: mtu(1000), ..veth("nae-1", handed_off()) };
        let bridge = Link { mtu: mtu(1000), ..bridge(false) };
        create(&mut kernel, &[link(&bridge), link(&small)]);
        check_met(&mut kernel, &link(&small));
    }

    fn a_bridge_goes_with_addresses_that_depend_on_each_other() {
        let mut kernel = linux();
        create(&mut kernel, &[link(&bridge(false))]);
        sh("for i in 1 2 3; do ip addr add 10.9.0.$i/24 dev nab-1; done");
        attempt(&mut kernel, Op::Delete(link(&bridge(false)))).unwrap();
        wait_until("garbage is collected", || kernel.garbage() == 0);
        assert!(!sh("ip link").contains("nag-"), "nothing is left");
    }

    fn an_address_leaves_a_foreign_bridge_and_what_depends_on_it_stays() {
        let mut kernel = linux();
        sh("ip link add br0 type bridge; ip link set br0 up
            echo 0 > /proc/sys/net/ipv4/conf/all/promote_secondaries
            echo 0 > /proc/sys/net/ipv4/conf/br0/promote_secondaries");
        let ours = address(Netns::Host, "br0", "10.9.0.1/24");
        create(&mut kernel, std::slice::from_ref(&ours));
        sh("ip addr add 10.9.0.7/24 brd + label br0:seven metric 5 dev br0
            ip addr add 10.9.0.8/24 scope global noprefixroute dev br0
            ip addr add 10.9.0.9/24 dev br0; ip addr add 10.9.0.9/32 dev br0
            ip addr add 10.9.0.10/25 dev br0
            ip route add 192.0.2.0/24 via 10.9.0.200 src 10.9.0.7
            ip route add 198.51.100.0/24 dev br0 src 10.9.0.8");
        let addresses = || {
            let shown = sh("ip -4 -o addr show dev br0 | sed 's/^[0-9]*: *br0 *//' | sort");
            shown.replace(" secondary", "")
        };
        let routes = || sh("ip -4 route show dev br0 | grep -v '^10.9.0.0/24' | sort");
        let without_ours =
            |shown: String| shown.lines().filter(|line| !line.contains(" 10.9.0.1/24")).fold(
                String::new(), |all, line| all + line + "\n");
        let before = (without_ours(addresses()), routes());
        assert_eq!(before.0.lines().count(), 5, "{}", before.0);
        attempt(&mut kernel, Op::Delete(ours.clone())).unwrap();
        assert_eq!((addresses(), routes()), before);
        assert!(sh("ip -4 route show dev br0").contains("10.9.0.0/24 proto kernel"));
    }

    fn operations_after_a_failure_are_not_tried() {
        let mut kernel = linux();
        let missing = address(Netns::Host, "nowhere", "10.9.0.1/24");
        let ops = [link(&bridge(false)), missing.clone(), hold(Protocol::Tcp, 8080, 8080)]
            .map(Op::Create);
        let outcomes = kernel.perform(&ops);
        assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Done, &Outcome::NotTried));
        let Outcome::Failed(error) = &outcomes[1] else { panic!("{outcomes:?}") };
        assert_eq!(Errno::from_raw(error.errno), Errno::ENODEV);
        assert!(error.text.contains("\"nowhere\""), "{error}");
        assert!(TcpListener::bind("0.0.0.0:8080").is_ok(), "nothing is held");
    }
}
