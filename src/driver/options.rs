//! Option tables: one row an option, read by Docker's `-o`, the CLI's `--opt`,
//! `netagent help driver` and the README's table.

use crate::model::{Error, Result, nearest};

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
}

/// The row of `key`.
pub fn find(table: &'static [OptionRow], key: &str) -> Option<&'static OptionRow> {
    table.iter().find(|row| row.key == key)
}

/// Refuses a key that the table lacks, with the nearest right one.
pub fn check_known(table: &'static [OptionRow], driver: &str, key: &str) -> Result<()> {
    if find(table, key).is_some() {
        return Ok(());
    }
    let advice = match nearest(key, table.iter().map(|row| row.key)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("`netagent help driver {driver}` lists the options"),
    };
    Err(Error::usage(
        format!("option \"{key}\""),
        format!("the {driver} driver has no option of this name"),
    )
    .advise(advice))
}
