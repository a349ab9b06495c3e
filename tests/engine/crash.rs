//! The agent dies at every step, is restarted, and dies again at every step of that: it converges.

use crate::kit::Machine;
use crate::scenarios::{self, Kind, Scenario};
use netagent::kernel::faulty::{Fault, When};

/// The states of the host that a scenario may end in, and its kernel operations.
fn ends(scenario: &Scenario) -> (Vec<String>, std::ops::Range<usize>) {
    let machine = Machine::new();
    let mut engine = machine.engine();
    (scenario.ready)(&mut engine, &machine.host);
    let mut ends = vec![machine.host.listing()];
    let start = machine.log.len();
    (scenario.action)(&mut engine).unwrap();
    ends.push(machine.host.listing());
    let steps = start..machine.log.len();
    if let Kind::Replacing(half) = scenario.kind {
        let machine = Machine::new();
        let mut engine = machine.engine();
        (scenario.ready)(&mut engine, &machine.host);
        half(&mut engine).unwrap();
        ends.push(machine.host.listing());
    }
    (ends, steps)
}

/// A machine whose agent died at step `at` of the scenario.
fn crashed(scenario: &Scenario, at: usize, when: When) -> Machine {
    let machine = Machine::new();
    let survived = machine.survives(|| {
        let mut engine = machine.start(Fault::Crash { at, when }).unwrap();
        (scenario.ready)(&mut engine, &machine.host);
        (scenario.action)(&mut engine)
    });
    assert!(survived.is_none(), "{} did not reach step {at}", scenario.name);
    machine
}

fn check_converged(machine: &Machine, ends: &[String], what: &str) {
    let mut engine = machine.engine();
    let listing = machine.host.listing();
    assert!(
        ends.contains(&listing),
        "{what} ended between:\n{listing}\nand is none of\n{}",
        ends.join("\n-\n")
    );
    let status = engine.status().unwrap();
    assert_eq!(status.drift, Vec::<String>::new(), "{what}");
    assert_eq!(status.problems, vec![], "{what}");
}

#[test]
fn a_crash_at_every_step_is_made_good_by_a_restart() {
    for scenario in scenarios::all() {
        let (ends, steps) = ends(scenario);
        for at in steps {
            for when in [When::Before, When::After] {
                let machine = crashed(scenario, at, when);
                let what = format!("{} crashed at {at} {when:?}", scenario.name);
                check_converged(&machine, &ends, &what);
            }
        }
    }
}

#[test]
fn a_crash_at_every_step_of_the_restart_is_made_good_too() {
    for scenario in scenarios::all() {
        let (ends, steps) = ends(scenario);
        for at in steps {
            for again in 0.. {
                let machine = crashed(scenario, at, When::After);
                let fault = Fault::Crash { at: again, when: When::After };
                let restarted = machine.survives(|| machine.start(fault).unwrap());
                let finished = restarted.is_some();
                drop(restarted);
                machine.host.process_ended();
                let what = format!("{} crashed at {at}, then at {again}", scenario.name);
                check_converged(&machine, &ends, &what);
                if finished {
                    break;
                }
            }
        }
    }
}
