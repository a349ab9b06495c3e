//! Faults, enumerated: every scenario × every step × errno × before or after the effect.

use std::fmt::Debug;

use nix::errno::Errno;

use crate::kit::Machine;
use crate::scenarios::{self, Kind, Scenario};
use netagent::engine::Engine;
use netagent::ipam::{AddressBook, Pool};
use netagent::kernel::faulty::{Fault, When};
use netagent::model::Result;
use netagent::store::Loaded;

const ERRNOS: [Errno; 4] = [Errno::EEXIST, Errno::ENODEV, Errno::EBUSY, Errno::ENOMEM];

/// The numbers of the kernel operations that the scenario's action performs.
fn steps(scenario: &Scenario) -> std::ops::Range<usize> {
    let machine = Machine::new();
    let mut engine = machine.engine();
    (scenario.ready)(&mut engine, &machine.host);
    let start = machine.log.len();
    (scenario.action)(&mut engine).unwrap();
    let steps = start..machine.log.len();
    assert!(!steps.is_empty(), "{} does nothing", scenario.name);
    steps
}

fn each_fault(of: fn(&Kind) -> bool, check: impl Fn(&Scenario, Fault)) {
    for scenario in scenarios::all().filter(|scenario| of(&scenario.kind)) {
        for at in steps(scenario) {
            for errno in ERRNOS {
                for when in [When::Before, When::After] {
                    check(scenario, Fault::Error { at, errno: errno as i32, when });
                }
            }
        }
    }
}

/// All that a failed action must leave as it was: the host, what the engine knows, what is stored.
fn everything(machine: &Machine, engine: &Engine) -> impl PartialEq + Debug + use<> {
    let known = (engine.intent().clone(), pools(engine.book()), engine.ports());
    let Loaded { intent, book, sysctls } = machine.stored();
    (machine.host.listing(), known, (intent, pools(&book), sysctls))
}

/// Pools without their cursors: which address comes next may change, which are taken may not.
fn pools(book: &AddressBook) -> (u64, Vec<Pool>) {
    let pools = book.pools().map(|pool| Pool { cursor: None, ..pool.clone() });
    (book.generation(), pools.collect())
}

#[test]
fn a_failed_making_leaves_the_host_and_the_records_as_they_were() {
    each_fault(
        |kind| matches!(kind, Kind::Making),
        |scenario, fault| {
            let machine = Machine::new();
            let mut engine = machine.start(fault).unwrap();
            (scenario.ready)(&mut engine, &machine.host);
            let before = everything(&machine, &engine);
            let error = (scenario.action)(&mut engine).expect_err(scenario.name);
            let after = everything(&machine, &engine);
            assert_eq!(before, after, "{} with {fault:?}: {error}", scenario.name);
            assert_eq!(engine.status().unwrap().drift, Vec::<String>::new(), "{}", scenario.name);
            (scenario.action)(&mut engine)
                .unwrap_or_else(|error| panic!("{} again after {fault:?}: {error}", scenario.name));
        },
    );
}

#[test]
fn a_failed_replacement_leaves_the_old_or_nothing_and_works_when_asked_again() {
    each_fault(
        |kind| matches!(kind, Kind::Replacing(_)),
        |scenario, fault| {
            let Kind::Replacing(half) = scenario.kind else { panic!() };
            let listing = |actions: &[fn(&mut Engine) -> Result<()>]| {
                let machine = Machine::new();
                let mut engine = machine.engine();
                (scenario.ready)(&mut engine, &machine.host);
                actions.iter().for_each(|action| action(&mut engine).unwrap());
                machine.host.listing()
            };
            let machine = Machine::new();
            let mut engine = machine.start(fault).unwrap();
            (scenario.ready)(&mut engine, &machine.host);
            let failed = (scenario.action)(&mut engine).is_err();
            engine.reconcile().unwrap();
            let left = machine.host.listing();
            if failed {
                let whole = [listing(&[]), listing(&[half])];
                assert!(whole.contains(&left), "{} with {fault:?}:\n{left}", scenario.name);
            }
            (scenario.action)(&mut engine)
                .unwrap_or_else(|error| panic!("{} again after {fault:?}: {error}", scenario.name));
            assert_eq!(machine.host.listing(), listing(&[scenario.action]), "{fault:?}");
            assert_eq!(engine.status().unwrap().drift, Vec::<String>::new(), "{}", scenario.name);
        },
    );
}

#[test]
fn a_failed_removal_is_finished_by_the_next_reconcile() {
    each_fault(
        |kind| matches!(kind, Kind::Removing),
        |scenario, fault| {
            let done = {
                let machine = Machine::new();
                let mut engine = machine.engine();
                (scenario.ready)(&mut engine, &machine.host);
                (scenario.action)(&mut engine).unwrap();
                machine.host.listing()
            };
            let machine = Machine::new();
            let mut engine = machine.start(fault).unwrap();
            (scenario.ready)(&mut engine, &machine.host);
            if let Err(error) = (scenario.action)(&mut engine) {
                assert!(!error.to_string().is_empty());
            }
            engine.reconcile().unwrap();
            assert_eq!(machine.host.listing(), done, "{} with {fault:?}", scenario.name);
            let status = engine.status().unwrap();
            assert_eq!(status.drift, Vec::<String>::new(), "{} with {fault:?}", scenario.name);
            assert_eq!(status.problems, vec![], "{} with {fault:?}", scenario.name);
        },
    );
}
