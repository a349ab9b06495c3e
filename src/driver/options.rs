//! Option tables: one row an option, read by Docker's `-o`, the CLI's `--opt`,
//! `netagent help driver` and the README's table.

use crate::model::{Error, Result, nearest};

/// Whether an option can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It works.
    Works,
    /// Docker has it, netagent does not yet: refused as such.
    NotYet,
}

/// One driver option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionRow {
    /// Docker's own key, or ours under `io.netagent.`.
    pub key: &'static str,
    /// Values it takes, as a user reads them.
    pub values: &'static str,
    /// What holds when it is not given.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Whether it can be used.
    pub availability: Availability,
}

/// The row of `key`.
pub fn find(table: &'static [OptionRow], key: &str) -> Option<&'static OptionRow> {
    table.iter().find(|row| row.key == key)
}

/// Refuses a key that the table lacks, with the nearest right one, and one that is not there yet.
pub fn check_known(table: &'static [OptionRow], driver: &str, key: &str) -> Result<()> {
    match find(table, key) {
        Some(OptionRow { availability: Availability::Works, .. }) => Ok(()),
        Some(OptionRow { availability: Availability::NotYet, .. }) => Err(Error::usage(
            format!("option \"{key}\""),
            format!(
                "Docker's bridge driver has it, netagent's {driver} driver does not have it yet"
            ),
        )
        .advise(format!("leave it out; `netagent help driver {driver}` lists what works"))),
        None => {
            let works = table.iter().filter(|row| row.availability == Availability::Works);
            let advice = match nearest(key, works.map(|row| row.key)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("`netagent help driver {driver}` lists the options"),
            };
            Err(Error::usage(
                format!("option \"{key}\""),
                format!("the {driver} driver has no option of this name"),
            )
            .advise(advice))
        }
    }
}
