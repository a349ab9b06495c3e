//! Addresses and routes, and what happens in and to a container's namespace.

use super::rig::*;

tests! {
    fn sandboxes_of_one_bridge_reach_each_other_and_the_gateway() {
        let mut kernel = linux();
        let [one, other] = two_sandboxes(&mut kernel);
        talks(&one, &other, "10.9.0.3".parse().unwrap());
        talks(&other, &one, "fd00:9::2".parse().unwrap());
        assert!(one.run(|| sh("ping -c1 -W5 10.9.0.1")).contains(" 0% packet loss"));
        let links = one.run(|| sh("ip -o link"));
        assert!(links.contains("eth0") && links.contains("mtu 1400"), "{links}");
        assert!(links.contains("02:00:00:00:00:02"), "{links}");
        for sandbox in [&one, &other] {
            let last = if sandbox.path == one.path { 2 } else { 3 };
            for net in [format!("10.9.0.{last}/24"), format!("fd00:9::{last}/64")] {
                check_met(&mut kernel, &address(sandbox.netns(), "eth0", &net));
            }
            check_met(&mut kernel, &route(sandbox.netns(), "0.0.0.0/0", "10.9.0.1"));
        }
    }

    fn a_sandbox_that_has_the_name_already_is_told() {
        let mut kernel = linux();
        let sandbox = Sandbox::new();
        let first = veth("nae-1", into_sandbox(&sandbox, 2));
        create(&mut kernel, &[link(&bridge(false)), link(&first)]);
        let second = link(&veth("nae-2", into_sandbox(&sandbox, 3)));
        let (errno, text) = refusal(&mut kernel, Op::Create(second.clone()));
        assert_eq!(errno, Errno::EEXIST);
        assert!(text.ends_with("has a link \"eth0\""), "{text}");
        assert_eq!(seen(&mut kernel, &second), None, "no half of a pair is left");
    }

    fn sysctls_are_written_before_the_interface_is_up() {
        let mut kernel = linux();
        create(&mut kernel, &[link(&bridge(false))]);
        for (at, off) in [(1, "1"), (2, "0")] {
            let sandbox = Sandbox::new();
            // As dockerd 20.10 leaves a sandbox without IPv6: only a word of ours turns it on.
            sandbox.run(|| sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1"));
            let mut peer = into_sandbox(&sandbox, at);
            if let Peer::At { sysctls, .. } = &mut peer {
                sysctls.insert("net/ipv6/conf/eth0/disable_ipv6".into(), off.into());
                sysctls.insert("net/ipv4/conf/eth0/log_martians".into(), "1".into());
            }
            create(&mut kernel, &[link(&veth(&format!("nae-{at}"), peer))]);
            let value = sandbox.run(|| sh("sysctl -n net.ipv4.conf.eth0.log_martians"));
            assert_eq!(value.trim(), "1");
            let addresses = sandbox.run(|| sh("ip -6 addr show dev eth0"));
            assert_eq!(addresses.contains("inet6"), off == "0", "{addresses}");
        }
    }

    fn a_sysctl_that_is_not_there_or_takes_another_value_is_named() {
        let mut kernel = linux();
        let sandbox = Sandbox::new();
        create(&mut kernel, &[link(&bridge(false))]);
        for (at, key, value, errno, says) in [
            (1, "no_such_thing", "1", Errno::ENOENT, "there is no sysctl net.ipv4.conf.eth0.no_such_thing"),
            (2, "log_martians", "x", Errno::EINVAL, "net.ipv4.conf.eth0.log_martians does not take \"x\""),
        ] {
            let mut peer = into_sandbox(&sandbox, at);
            if let Peer::At { sysctls, .. } = &mut peer {
                sysctls.insert(format!("net/ipv4/conf/eth0/{key}"), value.into());
            }
            let pair = link(&veth(&format!("nae-{at}"), peer));
            let (found, text) = refusal(&mut kernel, Op::Create(pair.clone()));
            assert_eq!(found, errno);
            assert!(text.contains(says), "{text}");
            assert_eq!(seen(&mut kernel, &pair), None, "no half of a pair is left");
        }
    }

    fn addresses_and_routes_collide_change_and_go() {
        let mut kernel = linux();
        let [one, other] = two_sandboxes(&mut kernel);
        let at = one.netns();
        let v4 = address(at.clone(), "eth0", "10.9.0.2/24");
        assert_eq!(refusal(&mut kernel, Op::Create(v4.clone())).0, Errno::EEXIST);
        let default = route(at.clone(), "0.0.0.0/0", "10.9.0.1");
        let (errno, text) = refusal(&mut kernel, Op::Create(default.clone()));
        assert_eq!(errno, Errno::EEXIST);
        assert_eq!(text, "there is a route to 0.0.0.0/0 by link \"eth0\"");
        let moved = route(at.clone(), "0.0.0.0/0", "10.9.0.3");
        attempt(&mut kernel, Op::Change { from: default.clone(), to: moved.clone() }).unwrap();
        check_met(&mut kernel, &moved);
        attempt(&mut kernel, Op::Delete(moved.clone())).unwrap();
        assert_eq!(seen(&mut kernel, &moved), None);
        assert_eq!(refusal(&mut kernel, Op::Delete(moved)).0, Errno::ESRCH);
        // Another program's route on our link: replaced, put back, removed.
        one.run(|| sh("ip route add 10.50.0.0/16 dev eth0"));
        let wanted = route(at.clone(), "10.50.0.0/16", "10.9.0.1");
        let from = seen(&mut kernel, &wanted).unwrap().object;
        let change = Op::Change { from: from.clone(), to: wanted.clone() };
        attempt(&mut kernel, change.clone()).unwrap();
        check_met(&mut kernel, &wanted);
        attempt(&mut kernel, change.undo()).unwrap();
        assert_eq!(seen(&mut kernel, &wanted).unwrap().object, from);
        attempt(&mut kernel, Op::Delete(from)).unwrap();
        assert_eq!(seen(&mut kernel, &wanted), None);
        create(&mut kernel, &[route(at.clone(), "::/0", "fd00:9::3")]);
        check_met(&mut kernel, &route(at.clone(), "::/0", "fd00:9::3"));
        attempt(&mut kernel, Op::Delete(v4.clone())).unwrap();
        assert_eq!(seen(&mut kernel, &v4), None);
        assert_eq!(refusal(&mut kernel, Op::Delete(v4)).0, Errno::EADDRNOTAVAIL);
        drop(other);
    }

    fn a_sandbox_that_is_gone_is_named_and_nothing_is_seen_in_it() {
        let mut kernel = linux();
        let sandbox = Sandbox::new();
        let pair = veth("nae-1", into_sandbox(&sandbox, 2));
        create(&mut kernel, &[link(&bridge(false))]);
        let address = address(sandbox.netns(), "eth0", "10.9.0.2/24");
        let path = sandbox.path.display().to_string();
        drop(sandbox);
        for object in [link(&pair), address.clone()] {
            let (errno, text) = refusal(&mut kernel, Op::Create(object));
            assert_eq!(errno, Errno::ENOENT, "{text}");
            assert!(text.contains(&path), "{text}");
        }
        assert_eq!(seen(&mut kernel, &address), None);
        assert_eq!(seen(&mut kernel, &link(&pair)), None, "no half of a pair is left");
        let file = tempfile::NamedTempFile::new().unwrap();
        let no_namespace = Peer::At {
            netns: Netns::Path(file.path().to_owned()),
            name: name("eth0"),
            mac: mac(2),
            sysctls: Default::default(),
        };
        let pair = link(&veth("nae-1", no_namespace));
        assert_eq!(refusal(&mut kernel, Op::Create(pair)).0, Errno::ENOENT);
    }

    fn a_sandbox_ends_though_we_worked_in_it() {
        let mut kernel = linux();
        let sandbox = Sandbox::new();
        let pair = veth("nae-1", into_sandbox(&sandbox, 2));
        create(&mut kernel, &[
            link(&bridge(false)),
            link(&pair),
            address(sandbox.netns(), "eth0", "10.9.0.2/24"),
        ]);
        drop(sandbox);
        wait_until("the pair ends with its sandbox", || {
            seen(&mut kernel, &link(&pair)).is_none()
        });
    }
}
