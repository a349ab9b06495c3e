//! A kernel that fails where it is told to: at operation *n*, before or after the effect, or by
//! ending the agent there and then.
//!
//! Faults are enumerated by tests, never random.

use std::path::Path;

use super::fake::runs;
use super::{Announcement, Kernel, KernelError, Outcome, Scope};
use crate::firewall::admission::Admission;
use crate::model::{Facts, LinkName, SandboxId};
use crate::object::{Hold, Op};
use crate::plan::Observed;

/// Whether the operation takes effect although it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The error comes first: nothing was done.
    Before,
    /// The effect comes first: it was done, and reported as failed.
    After,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This operation, counted from 0 over the kernel's life, fails with this errno.
    Error {
        /// Which operation.
        at: usize,
        /// With what.
        errno: i32,
        /// Before or after its effect.
        when: When,
    },
    /// The agent ends at this operation, by unwinding with [`Crashed`].
    Crash {
        /// Which operation.
        at: usize,
        /// Before or after its effect.
        when: When,
    },
    /// Nothing does.
    Never,
}

/// What a crash unwinds with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashed;

/// A kernel with one fault.
#[derive(Debug)]
pub struct Faulty<K> {
    inner: K,
    fault: Fault,
    performed: usize,
}

impl<K: Kernel> Faulty<K> {
    /// `inner`, with a fault.
    pub fn new(inner: K, fault: Fault) -> Self {
        Self { inner, fault, performed: 0 }
    }

    fn fault_in(&self, run: &[Op]) -> Option<(usize, When)> {
        let (at, when) = match self.fault {
            Fault::Error { at, when, .. } | Fault::Crash { at, when } => (at, when),
            Fault::Never => return None,
        };
        let index = at.checked_sub(self.performed)?;
        (index < run.len()).then_some((index, when))
    }

    fn perform_run(&mut self, run: &[Op]) -> Vec<Outcome> {
        let fault = self.fault_in(run);
        self.performed += run.len();
        let Some((index, when)) = fault else { return self.inner.perform(run) };
        if when == When::After {
            let outcomes = self.inner.perform(run);
            if outcomes.iter().any(|outcome| *outcome != Outcome::Done) {
                return outcomes;
            }
        }
        match self.fault {
            Fault::Error { errno, .. } => {
                let failed = Outcome::Failed(KernelError::new(errno, ""));
                let outcome = |at| if at == index { failed.clone() } else { Outcome::NotTried };
                (0..run.len()).map(outcome).collect()
            }
            Fault::Crash { .. } => std::panic::resume_unwind(Box::new(Crashed)),
            Fault::Never => self.inner.perform(run),
        }
    }
}

impl<K: Kernel> Kernel for Faulty<K> {
    fn facts(&mut self) -> Result<Facts, KernelError> {
        self.inner.facts()
    }

    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        self.inner.observe(scope)
    }

    fn sandbox(&mut self, path: &Path) -> Result<SandboxId, KernelError> {
        self.inner.sandbox(path)
    }

    fn perform(&mut self, ops: &[Op]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(ops.len());
        for run in runs(ops) {
            outcomes.extend(self.perform_run(run));
            if outcomes.iter().any(|outcome| *outcome != Outcome::Done) {
                break;
            }
        }
        outcomes.resize(ops.len(), Outcome::NotTried);
        outcomes
    }

    fn announce(&mut self, announcement: &Announcement) {
        self.inner.announce(announcement);
    }

    fn judge_flows(&mut self, admissions: &[Admission]) {
        self.inner.judge_flows(admissions);
    }

    fn out_of_reach(&mut self, links: &[LinkName]) -> Vec<LinkName> {
        self.inner.out_of_reach(links)
    }

    fn unreserved(&self) -> Vec<Hold> {
        self.inner.unreserved()
    }

    fn garbage(&mut self) -> usize {
        self.inner.garbage()
    }
}
