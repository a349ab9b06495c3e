//! The rules and the oracle agree on every packet: two ways to say the policy, written apart.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code: a failed step should panic"
)]

mod admission;
mod rules;
mod worlds;

use std::collections::{BTreeMap, BTreeSet};

use netagent::firewall::oracle::{Fate, Source};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rules::Rules;
use worlds::{packet, world};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn rules_and_oracle_agree_on_every_packet(world in world(), packets in vec(packet(), 40)) {
        let rules = Rules::of(&world);
        for packet in packets {
            prop_assert_eq!(rules.fate(&packet), world.fate(&packet), "{:?}", packet);
        }
    }
}

/// Agreement is worth what the packets are worth: each fate is met often, in both families, and
/// each rule decides about some.
#[test]
fn random_packets_meet_every_fate_and_every_rule() {
    let mut runner = TestRunner::deterministic();
    let mut fates = BTreeMap::<String, usize>::new();
    let mut rules_met = BTreeSet::new();
    let mut all = BTreeSet::new();
    for _ in 0..2_000 {
        let (world, packets) =
            (world(), vec(packet(), 30)).new_tree(&mut runner).unwrap().current();
        let rules = Rules::of(&world);
        for packet in &packets {
            let family = if packet.source.is_ipv4() { "IPv4" } else { "IPv6" };
            let fate = match rules.fate(packet) {
                Fate::Dropped => "dropped".into(),
                Fate::Passes { marked, translated_to, source } => {
                    let source = match source {
                        Source::Kept => "kept",
                        Source::ThisHosts => "the link's",
                        Source::Address(_) => "chosen",
                    };
                    let translated = translated_to.is_some();
                    format!("marked {marked}, translated {translated}, source {source}")
                }
            };
            *fates.entry(format!("{family} {fate}")).or_default() += 1;
        }
        rules_met.extend(rules.met());
        all = rules.all();
    }
    // Dropped, and marked or not, translated or not, with each of three sources, a family.
    assert_eq!(fates.len(), 2 * (1 + 2 * 2 * 3), "{fates:#?}");
    assert!(fates.values().all(|count| *count >= 3), "{fates:#?}");
    let never: Vec<_> = all.difference(&rules_met).collect();
    assert!(never.is_empty(), "rules that no packet met: {never:#?}");
}
