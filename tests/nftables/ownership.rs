//! Who may change the table, and how others' changes are noticed.

use netagent::firewall::nftables::Ownership;
use netagent::firewall::nftables::decode::Owner;
use netagent::firewall::policy::TABLE;
use netagent::kernel::linux::firewall::Firewall;
use netagent::kernel::linux::nft::{Monitor, Nft, Touched};
use netagent::model::Mark;
use netagent::object::Op;
use nix::errno::Errno;

use crate::harness::*;

#[test]
fn only_the_owner_changes_the_table_and_the_next_agent_takes_it_over() {
    isolated("only_the_owner_changes_the_table_and_the_next_agent_takes_it_over", || {
        let mut agent = installed();
        if !agent.owned() {
            println!("SKIP owner: this kernel has no persistent owned tables (Linux 6.9)");
            return;
        }
        agent.transact(&[create(&any_port(1))]).unwrap();
        let listed = nft(&["list", "table", "inet", TABLE]).unwrap();
        assert!(listed.contains("flags owner"), "{listed}");
        assert!(nft(&["delete", "table", "inet", TABLE]).is_err());
        nft(&["flush", "ruleset"]).unwrap();

        let mut second = Nft::open().unwrap();
        for op in [create(&any_port(2)), Op::Delete(table()), Op::Create(table())] {
            let refused = second.transact(&[op]).unwrap_err();
            assert_eq!(refused.errno, Errno::EPERM as i32);
            assert!(refused.text.contains("another running process"), "{refused}");
        }
        let seen = second.read().unwrap().unwrap();
        assert_eq!((seen.owner, seen.elements), (Owner::Port(agent.port()), vec![any_port(1)]));

        drop(agent);
        let orphan = second.read().unwrap().unwrap();
        assert!(orphan.is(&ruleset(&table())));
        assert_eq!((orphan.owner, orphan.elements), (Owner::Gone, vec![any_port(1)]));
        second.transact(&[create(&any_port(2))]).unwrap();
        assert!(second.owned());
        assert!(nft(&["delete", "table", "inet", TABLE]).is_err());
        assert_eq!(elements(&mut second).len(), 2);
        second.transact(&[Op::Delete(table())]).unwrap();
        assert!(!second.owned());
    });
}

#[test]
fn looking_at_the_table_of_a_dead_agent_takes_it_over_and_that_of_a_living_one_not() {
    isolated("looking_at_the_table_of_a_dead_agent_takes_it_over", || {
        let mut agent = installed();
        if !agent.owned() {
            println!("SKIP owner: this kernel has no persistent owned tables (Linux 6.9)");
            return;
        }
        agent.transact(&[create(&any_port(1))]).unwrap();
        let mut next = Firewall::new(Mark::DEFAULT);
        assert_eq!(next.observe().unwrap().len(), 2);
        assert_eq!(agent.read().unwrap().unwrap().owner, Owner::Port(agent.port()));

        drop(agent);
        assert_eq!(next.observe().unwrap().len(), 2);
        nft(&["flush", "ruleset"]).unwrap();
        assert!(nft(&["delete", "table", "inet", TABLE]).is_err());
        assert_eq!(next.observe().unwrap().len(), 2, "a foreign flush");
        next.transact(&[create(&any_port(2))]).unwrap();
    });
}

#[test]
fn a_foreign_change_shows_in_what_is_read() {
    isolated("a_foreign_change_shows_in_what_is_read", || {
        nft(&["add", "table", "inet", TABLE]).unwrap();
        let mut agent = Nft::open().unwrap();
        let foreign = agent.read().unwrap().unwrap();
        assert_eq!((foreign.fingerprint, foreign.owner), (None, Owner::Anybody));
        let exists = agent.transact(&[Op::Create(table())]).unwrap_err();
        assert_eq!(exists.errno, Errno::EEXIST as i32);
        agent.transact(&[Op::Change { from: table(), to: table() }]).unwrap();
        assert!(agent.read().unwrap().unwrap().is(&ruleset(&table())));
    });
}

#[test]
fn a_shared_table_is_open_to_others_and_the_damage_is_seen() {
    isolated("a_shared_table_is_open_to_others_and_the_damage_is_seen", || {
        let mut agent = Nft::open_as(Ownership::Shared).unwrap();
        let mut monitor = Monitor::open(agent.port()).unwrap();
        agent.transact(&[Op::Create(table()), create(&any_port(1))]).unwrap();
        assert!(!agent.owned());
        let whole = agent.read().unwrap().unwrap();
        assert!(whole.is(&ruleset(&table())) && whole.owner == Owner::Anybody);

        nft(&["add", "element", "inet", TABLE, "any_ports", "{ dccp . 5 : 10.0.0.2 . 5 }"])
            .unwrap();
        assert_eq!(monitor.next().unwrap().touched, Touched::OurTable);
        let contents = agent.read().unwrap().unwrap();
        assert_eq!((contents.elements.len(), contents.foreign_elements), (1, 1));
        nft(&["flush", "chain", "inet", TABLE, "guard"]).unwrap();
        assert!(!agent.read().unwrap().unwrap().is(&ruleset(&table())));
        nft(&["flush", "ruleset"]).unwrap();
        assert_eq!(agent.read().unwrap(), None);
        agent.transact(&[Op::Create(table())]).unwrap();
    });
}

#[test]
fn the_monitor_tells_of_others_and_whether_our_table_is_touched() {
    isolated("the_monitor_tells_of_others_and_whether_our_table_is_touched", || {
        let mut agent = Nft::open().unwrap();
        let mut monitor = Monitor::open(agent.port()).unwrap();
        agent.transact(&[Op::Create(table())]).unwrap();
        agent.transact(&[create(&any_port(1))]).unwrap();
        nft(&["add", "table", "ip", "other"]).unwrap();
        let event = monitor.next().unwrap();
        assert_eq!((event.process.as_str(), event.touched), ("nft", Touched::Elsewhere));
        assert_eq!(event.generation, agent.generation().unwrap());
        assert_ne!(event.pid, 0);

        drop(agent);
        nft(&["delete", "table", "inet", TABLE]).unwrap();
        let event = monitor.next().unwrap();
        assert_eq!((event.process.as_str(), event.touched), ("nft", Touched::OurTable));
    });
}
