//! Turns a difference between wanted and seen objects into ordered, reversible steps.
//!
//! Never talks to the kernel and never reads the clock: same inputs, same plan. Two ways in:
//! [`delta`] compares intent before and after (an attach, flat in the number of endpoints), as
//! [`live_delta`] does where traffic flows meanwhile,
//! [`reconcile`] compares intent with what the kernel shows.

mod diff;

use std::collections::BTreeMap;
use std::fmt;

use crate::object::{Object, ObjectKey, Op};

pub use diff::{delta, live_delta, reconcile};

/// What the kernel shows, by key.
pub type Observed = BTreeMap<ObjectKey, Seen>;

/// A thing that was seen, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The thing.
    pub object: Object,
    /// Whether it carries our mark, or has none to carry and is part of a thing that does.
    pub owner: Owner,
}

/// Whose a kernel thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Ours, by its mark.
    Netagent,
    /// Anybody else's: never changed, never deleted.
    Foreign,
}

/// One change and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The change.
    pub op: Op,
    /// Which spec asked for it.
    pub why: String,
}

/// Ordered changes, and what stands in their way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the order they are performed.
    pub steps: Vec<Step>,
    /// Things that should be there, are not, and cannot be made again from here: the host end of
    /// a container's link.
    pub missing: Vec<Step>,
    /// Foreign things that hold a key we want.
    pub clashes: Vec<Step>,
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The changes alone.
    pub fn ops(&self) -> Vec<Op> {
        self.steps.iter().map(|step| step.op.clone()).collect()
    }
}

/// One line a step, its reason in a column of its own: an interface, the same in CLI, log and
/// golden files.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<(String, &str)> = self
            .steps
            .iter()
            .map(|step| (step.op.to_string(), step.why.as_str()))
            .chain(self.missing.iter().map(|step| (marked(step, '?'), step.why.as_str())))
            .chain(self.clashes.iter().map(|step| (marked(step, '!'), step.why.as_str())))
            .collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(88);
        for (line, why) in lines {
            writeln!(f, "{line:<width$}  {why}")?;
        }
        Ok(())
    }
}

fn marked(step: &Step, sign: char) -> String {
    step.op.to_string().chars().skip(1).fold(sign.to_string(), |mut line, character| {
        line.push(character);
        line
    })
}
