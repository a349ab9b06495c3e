//! Our nf_tables table, as operations and observations see it.
//!
//! [`super::nft`] talks to the kernel; here is what it is asked for, and what its answers mean.

use std::sync::Arc;

use super::nft::{Nft, Refused};
use crate::firewall::model::Ruleset;
use crate::firewall::policy;
use crate::kernel::KernelError;
use crate::model::Mark;
use crate::object::{Object, Op, Table};
use crate::plan::{Observed, Owner, Seen};

/// Our table.
#[derive(Debug)]
pub struct Firewall {
    nft: Option<Nft>,
    table: Table,
}

impl Firewall {
    /// The table whose rules set `mark`; the socket is opened when it is first needed, and then
    /// kept: with it the kernel knows the owner of the table.
    pub fn new(mark: Mark) -> Self {
        let ruleset = match policy::table(mark) {
            Object::Table(Table { ruleset }) => ruleset,
            Object::Element(_)
            | Object::Link(_)
            | Object::Sysctl(_)
            | Object::Address(_)
            | Object::Route(_)
            | Object::Hold(_)
            | Object::Accept(_) => other_table().ruleset,
        };
        Self { nft: None, table: Table { ruleset } }
    }

    /// The netlink port of the socket that changes the table.
    pub fn port(&mut self) -> Result<u32, KernelError> {
        Ok(self.nft()?.port())
    }

    /// Performs consecutive operations on table and elements: all or none. A failure comes with
    /// the number of the operation at fault; the first where that is not known.
    pub fn transact(&mut self, ops: &[Op]) -> Result<(), (usize, KernelError)> {
        let nft = self.nft().map_err(|error| (0, error))?;
        nft.try_transact(ops).map_err(|Refused { op, error }| (op.unwrap_or(0), error))
    }

    /// The table and the elements that are there. A table that is not exactly what this build
    /// installs is shown empty, so that it is replaced. The table of a dead agent becomes ours: a
    /// restart that finds all in order writes nothing, and until the first attach a foreign
    /// `nft flush ruleset` would take it away.
    pub fn observe(&mut self) -> Result<Observed, KernelError> {
        // What is there can be told all the same.
        if let Err(error) = self.nft()?.adopt() {
            tracing::warn!(%error, "the table of the last agent could not be taken over");
        }
        let Some(contents) = self.nft()?.read()? else { return Ok(Observed::new()) };
        let same = contents.is(&self.table.ruleset) && contents.foreign_elements == 0;
        let table = Object::Table(if same { self.table.clone() } else { other_table() });
        let objects = contents.elements.into_iter().map(Object::Element).chain([table]);
        let seen = |object: Object| (object.key(), Seen { object, owner: Owner::Netagent });
        Ok(objects.map(seen).collect())
    }

    fn nft(&mut self) -> Result<&mut Nft, KernelError> {
        if self.nft.is_none() {
            self.nft = Some(Nft::open()?);
        }
        self.nft.as_mut().ok_or_else(|| KernelError::new(0, "no netfilter socket"))
    }
}

/// A table of our name with other contents: differs from every table that is asked for.
fn other_table() -> Table {
    let ruleset = Ruleset { table: policy::TABLE, sets: vec![], chains: vec![] };
    Table { ruleset: Arc::new(ruleset) }
}
