//! The firewall over netlink, against the kernel and against what `nft` makes of it.
//!
//! Each test has a network namespace of its own, which dies with the thread that made it.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod crossing;
mod harness;
mod ownership;
mod packets;
#[allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "test code: each test binary uses a part of it, and a failed step should panic"
)]
#[path = "../support/place.rs"]
mod place;
mod rig;

use std::sync::Arc;

use netagent::firewall::model::{Field, Match, Rule, Ruleset, SetName, Statement, Value};
use netagent::firewall::policy::{self, TABLE};
use netagent::kernel::linux::nft::Nft;
use netagent::model::{Family, Mark};
use netagent::object::{Element, Object, Op, Table};
use nix::errno::Errno;

use harness::*;

/// A ruleset's text as sorted facts: one line a set, chain head and rule, each with the chain it
/// is in and its place there, in the spelling of `nft list`.
fn facts(text: &str) -> Vec<String> {
    let mut facts = Vec::new();
    let mut within = String::new();
    let mut place = 0;
    for line in text.lines().map(str::trim) {
        let opens = line.strip_suffix('{');
        match (line, opens) {
            ("", _) | ("}", _) => {}
            // nft names the owner behind the bracket.
            _ if line.starts_with("table ") => {}
            (_, Some(head)) => {
                within = head.trim().to_owned();
                place = 0;
            }
            _ if line.starts_with("flags owner") || line.starts_with("comment \"ruleset") => {}
            _ if line.starts_with("set ") || line.starts_with("map ") => {
                // The model has a set on one line.
                let (head, body) = line.split_once(" {").unwrap();
                for (place, part) in body.trim_end_matches('}').split("; ").enumerate() {
                    facts.push(format!("{head} {place}: {}", part.trim()));
                }
            }
            _ => {
                facts.push(format!("{within} {place}: {}", spelling(line)));
                place += 1;
            }
        }
    }
    facts.sort();
    facts
}

/// What `nft` leaves out or spells otherwise than the model.
fn spelling(line: &str) -> String {
    let mut line = line.replace("counter packets 0 bytes 0", "counter");
    line = line.replace("ct status != dnat", "ct status ! dnat");
    if !line.contains("meta oifkind") {
        line = line.replace("oifkind", "meta oifkind");
    }
    // nft does not print the family where it follows from something else, an address or ICMP;
    // that of a translation it may.
    for (family, others) in [
        ("ipv4", ["ip saddr", "ip daddr", "l4proto icmp ", "nat ip to"]),
        ("ipv6", ["ip6 saddr", "ip6 daddr", "l4proto ipv6-icmp ", "nat ip6 to"]),
    ] {
        if others.iter().any(|other| line.contains(other)) {
            line = line.replace(&format!("meta nfproto {family} "), "");
        }
    }
    line
}

#[test]
fn nft_lists_the_policy_as_it_was_meant() {
    isolated("nft_lists_the_policy_as_it_was_meant", || {
        let _nft = installed();
        let listed = nft(&["-y", "list", "table", "inet", TABLE]).unwrap();
        let policy = ruleset(&table());
        let rules: usize = policy.chains.iter().map(|chain| chain.rules.len()).sum();
        let (listed, wanted) = (facts(&listed), facts(&policy.to_string()));
        assert!(wanted.len() > rules + policy.sets.len(), "{wanted:#?}");
        for (listed, wanted) in listed.iter().zip(&wanted) {
            assert_eq!(listed, wanted);
        }
        assert_eq!(listed.len(), wanted.len());
    });
}

#[test]
fn no_rule_reads_an_address_before_it_knows_the_family() {
    isolated("no_rule_reads_an_address_before_it_knows_the_family", || {
        let _nft = installed();
        let listed = nft(&["--debug=netlink", "list", "table", "inet", TABLE]).unwrap();
        let rules: Vec<&str> = listed.split("\ninet ").collect();
        let mut reading = [0; 2];
        for rule in rules {
            let Some(read) = rule.find("network header") else { continue };
            // An address of 4 bytes takes NFPROTO_IPV4, one of 16 bytes NFPROTO_IPV6.
            let (place, number) = match rule.contains(" 16b @ network header") {
                false => (0, "0x00000002"),
                true => (1, "0x0000000a"),
            };
            assert!(!(rule.contains(" 16b @ net") && rule.contains(" 4b @ net")), "both: {rule}");
            let asks = format!("[ meta load nfproto => reg 1 ]\n  [ cmp eq reg 1 {number} ]");
            assert!(rule.find(&asks).is_some_and(|asked| asked < read), "{rule}");
            reading[place] += 1;
        }
        assert!(reading.iter().all(|rules| *rules >= 8), "{reading:?} in {listed}");
    });
}

#[test]
fn other_matches_of_the_model_are_listed_as_meant() {
    isolated("other_matches_of_the_model_are_listed_as_meant", || {
        let mut changed = Ruleset::clone(&ruleset(&table()));
        let guard = changed.chains.first_mut().unwrap();
        let rule = guard.rules.first_mut().unwrap();
        rule.matches = vec![
            Match::SourceIn("192.0.2.1/32".parse().unwrap()),
            Match::DestinationIn("10.96.0.0/11".parse().unwrap()),
            Match::New,
        ];
        let other = Rule {
            matches: vec![
                Match::SourceIn("2001:db8::1/128".parse().unwrap()),
                Match::DestinationIn("2001:db8::/33".parse().unwrap()),
                Match::NotIn(vec![Field::OutLink], SetName::Routed(Family::V6)),
            ],
            ..rule.clone()
        };
        guard.rules.push(other);
        let text = changed.to_string();
        let table = Object::Table(Table { ruleset: Arc::new(changed) });
        let mut agent = Nft::open().unwrap();
        agent.transact(&[Op::Create(table)]).unwrap();
        let listed = nft(&["-y", "list", "table", "inet", TABLE]).unwrap();
        assert_eq!(facts(&listed), facts(&text));
    });
}

#[test]
fn elements_of_every_set_are_listed_read_back_and_deleted() {
    isolated("elements_of_every_set_are_listed_read_back_and_deleted", || {
        let mut agent = installed();
        let samples = samples();
        let all: Vec<Element> = samples.iter().map(|(element, _)| element.clone()).collect();
        assert!(SetName::ALL.iter().all(|set| all.iter().any(|element| element.set == *set)));
        agent.transact(&all.iter().map(create).collect::<Vec<_>>()).unwrap();

        // The whole table, since `nft list set` does not take a name that is a keyword of its.
        let listed = nft(&["list", "table", "inet", TABLE]).unwrap();
        for (element, text) in &samples {
            let kind = if element.data.is_empty() { "set" } else { "map" };
            let (_, rest) = listed.split_once(&format!("\t{kind} {} {{", element.set)).unwrap();
            let (_, rest) = rest.split_once("elements = {").unwrap();
            let (entries, _) = rest.split_once(" }\n").unwrap();
            let mut entries = entries.split(',').map(str::trim);
            assert!(entries.any(|entry| entry == *text), "{text} in {listed}");
        }

        let by_text = |elements: &[Element]| {
            let mut texts: Vec<String> =
                elements.iter().map(|element| format!("{element:?}")).collect();
            texts.sort();
            texts
        };
        assert_eq!(by_text(&elements(&mut agent)), by_text(&all));
        agent.transact(&all.iter().map(delete).collect::<Vec<_>>()).unwrap();
        assert_eq!(elements(&mut agent), vec![]);
    });
}

#[test]
fn what_exists_is_not_created_and_what_is_missing_not_deleted() {
    isolated("what_exists_is_not_created_and_what_is_missing_not_deleted", || {
        let mut agent = Nft::open().unwrap();
        assert_eq!(agent.read().unwrap(), None);
        let missing = agent.transact(&[Op::Delete(table())]).unwrap_err();
        assert_eq!(missing.errno, Errno::ENOENT as i32);
        agent.transact(&[Op::Create(table())]).unwrap();
        let exists = agent.transact(&[Op::Create(table())]).unwrap_err();
        assert_eq!(exists.errno, Errno::EEXIST as i32, "{exists}");

        for (element, text) in samples() {
            let missing = agent.transact(&[delete(&element)]).unwrap_err();
            assert_eq!(missing.errno, Errno::ENOENT as i32, "{text}: {missing}");
            agent.transact(&[create(&element)]).unwrap();
            let exists = agent.transact(&[create(&element)]).unwrap_err();
            assert_eq!(exists.errno, Errno::EEXIST as i32, "{text}: {exists}");
            assert!(exists.text.contains(element.set.as_str()), "{exists}");
        }
        let other = Element { data: vec![ip("10.0.0.9"), Value::Port(1)], ..any_port(80) };
        let taken = agent.transact(&[create(&other)]).unwrap_err();
        assert_eq!(taken.errno, Errno::EEXIST as i32, "{taken}");
    });
}

#[test]
fn a_failing_transaction_leaves_nothing_and_names_the_operation() {
    isolated("a_failing_transaction_leaves_nothing_and_names_the_operation", || {
        let mut agent = installed();
        agent.transact(&[create(&any_port(700))]).unwrap();
        let before = agent.generation().unwrap();
        let mut ops: Vec<Op> = (1..=1200).map(|port| create(&any_port(port))).collect();
        ops.insert(3, create(&samples().first().unwrap().0));
        let refused = agent.try_transact(&ops).unwrap_err();
        assert_eq!(refused.op, Some(700));
        let error = agent.transact(&ops).unwrap_err();
        assert_eq!(error.errno, Errno::EEXIST as i32);
        assert!(error.text.contains("any_ports tcp . 700"), "{error}");
        assert_eq!(elements(&mut agent), vec![any_port(700)]);
        assert_eq!(agent.generation().unwrap(), before);

        let refused =
            agent.try_transact(&[create(&any_port(1)), Op::Create(table()), create(&any_port(2))]);
        assert_eq!(refused.unwrap_err().op, Some(1));
        let deletes = [delete(&any_port(700)), delete(&any_port(701))];
        assert_eq!(agent.try_transact(&deletes).unwrap_err().op, Some(1));
        assert_eq!(elements(&mut agent), vec![any_port(700)]);
        agent.transact(&[create(&any_port(1))]).unwrap();
    });
}

#[test]
fn an_element_changes_in_one_transaction() {
    isolated("an_element_changes_in_one_transaction", || {
        let mut agent = installed();
        for (from, text) in samples() {
            let change = |from: &Element, to: &Element| Op::Change {
                from: Object::Element(from.clone()),
                to: Object::Element(to.clone()),
            };
            let mut to = from.clone();
            if let Some(address) = to.data.first_mut() {
                *address = match from.set.family() {
                    Some(Family::V6) => ip("fd99::9"),
                    Some(Family::V4) | None => ip("10.9.9.9"),
                };
            }
            let missing = agent.transact(&[change(&from, &to)]).unwrap_err();
            assert_eq!(missing.errno, Errno::ENOENT as i32, "{text}");
            agent.transact(&[create(&from)]).unwrap();
            agent.transact(&[change(&from, &to)]).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(elements(&mut agent), vec![to.clone()]);
            agent.transact(&[delete(&to)]).unwrap();
        }
    });
}

#[test]
fn a_table_changes_in_one_transaction_with_its_elements() {
    isolated("a_table_changes_in_one_transaction_with_its_elements", || {
        let mut agent = installed();
        let (old, new) = (table(), policy::table(Mark::new(1 << 5).unwrap()));
        agent.transact(&[create(&any_port(1))]).unwrap();
        assert!(agent.read().unwrap().unwrap().is(&ruleset(&old)));
        let change = Op::Change { from: old.clone(), to: new.clone() };
        agent.transact(&[change, create(&any_port(2))]).unwrap();
        let contents = agent.read().unwrap().unwrap();
        assert!(contents.is(&ruleset(&new)) && !contents.is(&ruleset(&old)));
        assert_eq!(contents.elements, vec![any_port(2)]);
        let rules = ruleset(&new);
        let counting = rules.chains.iter().flat_map(|chain| &chain.rules);
        let counting =
            counting.filter(|rule| rule.statements.contains(&Statement::Counter)).count();
        assert!(counting > 0);
        let counted = contents.rules.iter().filter(|rule| rule.counted.is_some()).count();
        assert_eq!(counted, counting);
        agent.transact(&[Op::Delete(new)]).unwrap();
        assert_eq!(agent.read().unwrap(), None);
    });
}

#[test]
fn a_range_of_16000_ports_is_one_element_and_5000_ports_one_transaction() {
    isolated("a_range_of_16000_ports_is_one_element_and_5000_ports_one_transaction", || {
        let mut agent = installed();
        let ports: Vec<Element> = (1..=5000).map(any_port).collect();
        agent.transact(&ports.iter().map(create).collect::<Vec<_>>()).unwrap();
        assert_eq!(elements(&mut agent).len(), 5000);
        let range = element(
            SetName::AnyRanges(Family::V4),
            vec![Value::Port(30_000), tcp()],
            Some(vec![Value::Port(45_999), tcp()]),
            vec![ip("10.0.0.2")],
        );
        agent.transact(&[create(&range)]).unwrap();
        assert!(elements(&mut agent).contains(&range));

        agent.transact(&ports.iter().map(delete).collect::<Vec<_>>()).unwrap();
        assert_eq!(elements(&mut agent), vec![range]);
    });
}

#[test]
fn reading_and_generations_need_no_table() {
    isolated("reading_and_generations_need_no_table", || {
        let mut agent = Nft::open().unwrap();
        let before = agent.generation().unwrap();
        assert_eq!(agent.read().unwrap(), None);
        agent.transact(&[]).unwrap();
        assert_eq!(agent.generation().unwrap(), before);
        let unfit = Element { data: vec![], ..any_port(1) };
        let error = agent.transact(&[create(&unfit)]).unwrap_err();
        assert_eq!(error.errno, Errno::EINVAL as i32);
    });
}
