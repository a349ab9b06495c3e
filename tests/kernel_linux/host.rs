//! Sysctls, old flows and the accept in DOCKER-USER.

use super::rig::*;

tests! {
    fn a_sysctl_is_written_seen_and_taken_back_only_while_it_is_ours() {
        let mut kernel = linux();
        let sandbox = Sandbox::new();
        for netns in [Netns::Host, sandbox.netns()] {
            let sysctl = |value: &str, revert| {
                let (key, value) = ("net/ipv4/conf/lo/forwarding".into(), value.into());
                Object::Sysctl(Sysctl { netns: netns.clone(), key, value, revert })
            };
            let raised = sysctl("1", Revert::To("0".into()));
            let lowered = sysctl("0", Revert::WithLink);
            create(&mut kernel, std::slice::from_ref(&lowered));
            create(&mut kernel, std::slice::from_ref(&raised));
            check_met(&mut kernel, &raised);
            attempt(&mut kernel, Op::Delete(raised.clone())).unwrap();
            check_met(&mut kernel, &lowered);
            create(&mut kernel, &[sysctl("1", Revert::WithLink)]);
            attempt(&mut kernel, Op::Delete(sysctl("1", Revert::WithLink))).unwrap();
            check_met(&mut kernel, &raised);
            attempt(&mut kernel, Op::Delete(sysctl("2", Revert::To("0".into())))).unwrap();
            check_met(&mut kernel, &raised);
        }
        let missing = Object::Sysctl(Sysctl {
            netns: Netns::Host,
            key: "net/ipv4/conf/nowhere/forwarding".into(),
            value: "1".into(),
            revert: Revert::WithLink,
        });
        assert_eq!(seen(&mut kernel, &missing), None);
        assert_eq!(refusal(&mut kernel, Op::Create(missing)).0, Errno::ENOENT);
        let outside = Object::Sysctl(Sysctl {
            netns: Netns::Host,
            key: "../self/comm".into(),
            value: "x".into(),
            revert: Revert::WithLink,
        });
        assert_eq!(refusal(&mut kernel, Op::Create(outside)).0, Errno::EINVAL);
    }

    fn of_old_udp_flows_only_those_to_the_published_port_of_this_host_are_forgotten() {
        let mut kernel = linux();
        create(&mut kernel, &[policy::table(Mark::DEFAULT)]);
        let [near, _far] = two_sandboxes(&mut kernel);
        let send = |from: UdpSocket, to: &str| from.send_to(b"x", to).unwrap();
        let to_host = || near.run(move || send(UdpSocket::bind("10.9.0.2:4000").unwrap(), "10.9.0.1:5353"));
        let own = || send(UdpSocket::bind("10.9.0.1:4001").unwrap(), "10.9.0.2:5353");
        let flows = || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack");
        if flows().is_err() {
            println!("SKIP of_old_udp_flows: no /proc/net/nf_conntrack");
            return;
        }
        for host in [Ipv4Addr::UNSPECIFIED, "10.9.0.1".parse().unwrap()] {
            to_host();
            own();
            let known = |words: &str| flows().unwrap().contains(words);
            wait_until("the host hears of the flow", || known("sport=4000 dport=5353"));
            assert!(known("sport=4001 dport=5353"));
            let published = Published {
                protocol: Protocol::Udp,
                host: HostAddress::At(host.into()),
                host_ports: PortRange::single(5353).unwrap(),
                container_first: 53,
            };
            let elements = policy::port_elements(&published, &["10.9.0.3".parse().unwrap()]);
            create(&mut kernel, &elements);
            assert!(!known("sport=4000 dport=5353"), "{host}: {}", flows().unwrap());
            assert!(known("sport=4001 dport=5353"), "{host}: {}", flows().unwrap());
            for element in elements {
                attempt(&mut kernel, Op::Delete(element)).unwrap();
            }
        }
    }

    fn our_accept_stands_last_but_before_return_and_is_put_back_there() {
        let mut kernel = with_iptables();
        assert!(kernel.facts().unwrap().iptables, "needs iptables: scripts/test installs it");
        let accept = Object::Accept(Accept { family: Family::V4, mark: Mark::DEFAULT });
        let rules = || sh("iptables -S DOCKER-USER");
        let places = |listing: &str| -> Vec<bool> {
            listing
                .lines()
                .filter(|line| line.starts_with("-A"))
                .map(|line| line.contains("netagent"))
                .collect()
        };
        assert_eq!(seen(&mut kernel, &accept), None);
        // As dockerd 20.10 leaves it, with a rule of the operator's.
        sh("iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; iptables -N DOCKER");
        sh("iptables -A DOCKER-USER -s 10.0.0.9 -j DROP; iptables -A DOCKER-USER -j RETURN");
        create(&mut kernel, std::slice::from_ref(&accept));
        check_met(&mut kernel, &accept);
        assert_eq!(places(&rules()), [false, true, false]);
        assert_eq!(refusal(&mut kernel, Op::Create(accept.clone())).0, Errno::EEXIST);
        // The operator appends, and flushes FORWARD.
        for disorder in [
            "iptables -I DOCKER-USER 3 -s 10.0.0.8 -j DROP",
            "iptables -D FORWARD -j DOCKER-USER",
            "iptables -D DOCKER-USER -j RETURN; iptables -I DOCKER-USER 1 -j RETURN; \
             iptables -A DOCKER-USER -j RETURN",
        ] {
            sh(disorder);
            let from = seen(&mut kernel, &accept).unwrap().object;
            let met = accept.is_met_by(&from);
            assert_eq!(met, disorder.contains("-I DOCKER-USER 1"), "{disorder}: {}", rules());
            if !met {
                let change = Op::Change { from, to: accept.clone() };
                attempt(&mut kernel, change.clone()).unwrap();
                attempt(&mut kernel, change.undo()).unwrap();
            }
            check_met(&mut kernel, &accept);
        }
        assert!(sh("iptables -S FORWARD").contains("-j DOCKER-USER"));
        attempt(&mut kernel, Op::Delete(accept.clone())).unwrap();
        assert!(!rules().contains("netagent") && rules().contains("10.0.0.9"), "{}", rules());
        assert_eq!(refusal(&mut kernel, Op::Delete(accept)).0, Errno::ENOENT);
    }

    fn the_chain_we_made_goes_with_our_rule_and_dockerds_stays() {
        let mut kernel = with_iptables();
        assert!(kernel.facts().unwrap().iptables, "needs iptables: scripts/test installs it");
        for family in [Family::V4, Family::V6] {
            let tool = if family == Family::V4 { "iptables" } else { "ip6tables" };
            let accept = Object::Accept(Accept { family, mark: Mark::DEFAULT });
            let before = sh(&format!("{tool} -S"));
            create(&mut kernel, std::slice::from_ref(&accept));
            check_met(&mut kernel, &accept);
            attempt(&mut kernel, Op::Delete(accept.clone())).unwrap();
            assert_eq!(sh(&format!("{tool} -S")), before);
            // An operator's, with nothing in it yet.
            for by_operator in [
                format!("{tool} -N DOCKER-USER"),
                format!("{tool} -I FORWARD -j DOCKER-USER"),
            ] {
                sh(&by_operator);
                let before = sh(&format!("{tool} -S"));
                // The second agent knows what the first one made.
                create(&mut with_iptables(), std::slice::from_ref(&accept));
                attempt(&mut with_iptables(), Op::Delete(accept.clone())).unwrap();
                assert_eq!(sh(&format!("{tool} -S")), before, "{by_operator}");
            }
            sh(&format!("{tool} -D FORWARD -j DOCKER-USER; {tool} -X DOCKER-USER"));
            // dockerd comes when the chain is there, and makes a jump of its own.
            create(&mut kernel, std::slice::from_ref(&accept));
            sh(&format!("{tool} -N DOCKER-FORWARD; {tool} -I FORWARD -j DOCKER-USER"));
            check_met(&mut kernel, &accept);
            attempt(&mut kernel, Op::Delete(accept.clone())).unwrap();
            let after = sh(&format!("{tool} -S"));
            assert!(after.contains("-N DOCKER-USER"), "dockerd keeps it: {after}");
            assert!(!after.contains("netagent"), "{after}");
            assert!(after.contains("-A FORWARD -j DOCKER-USER"), "{after}");
            // Rules that somebody has put into the chain we made are still jumped to.
            sh(&format!("{tool} -F; {tool} -X"));
            create(&mut kernel, std::slice::from_ref(&accept));
            sh(&format!("{tool} -I DOCKER-USER -i eth9 -j DROP"));
            attempt(&mut kernel, Op::Delete(accept)).unwrap();
            let after = sh(&format!("{tool} -S"));
            assert!(after.contains("-i eth9") && after.contains("-j DOCKER-USER"), "{after}");
        }
    }
}
