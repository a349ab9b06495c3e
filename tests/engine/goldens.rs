//! Every scenario's steps, as text that is read in the diff.
//!
//! `UPDATE_GOLDEN=1` writes them anew.

use std::path::Path;

use crate::kit::Machine;
use crate::scenarios;
use netagent::firewall::policy;
use netagent::model::Mark;
use netagent::object::Object;

pub fn check_golden(name: &str, text: &str) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "{name} differs from {}", path.display());
}

#[test]
fn every_scenario_takes_the_steps_of_its_golden() {
    for scenario in scenarios::all() {
        let machine = Machine::new();
        let mut engine = machine.engine();
        (scenario.ready)(&mut engine, &machine.host);
        let start = machine.log.len();
        (scenario.action)(&mut engine).unwrap();
        let steps: Vec<String> =
            machine.log.since(start).iter().map(|op| format!("{op}\n")).collect();
        check_golden(scenario.name, &steps.concat());
    }
}

#[test]
fn the_ruleset_is_the_one_that_was_read() {
    let Object::Table(table) = policy::table(Mark::DEFAULT) else { panic!("not a table") };
    check_golden("firewall/ruleset", &table.ruleset.to_string());
}
