//! Performs a plan: creation is taken back when a step fails, removal goes on.
//!
//! After a failed step its key is read again, because the error may have come after the effect.

use std::time::Instant;

use nix::errno::Errno;

use crate::kernel::{Kernel, KernelError, Outcome, Scope};
use crate::model::{Error, ErrorClass, Result};
use crate::object::{Kind, LinkKind, Netns, Object, ObjectKey, Op, Peer};
use crate::plan::{Observed, Owner, Plan, Step};

/// Performs the plan; on failure everything done so far is undone, and what cannot be is named
/// in an error of class [`ErrorClass::Stuck`].
pub fn execute(kernel: &mut dyn Kernel, plan: &Plan) -> Result<()> {
    let ops = plan.ops();
    let began = Instant::now();
    let outcomes = kernel.perform(&ops);
    log(plan, began);
    let Some((op, cause)) = first_failure(&ops, &outcomes) else { return Ok(()) };
    let failure = describe(op, &cause);
    let stuck = undo(kernel, &ops, &outcomes);
    if stuck.is_empty() {
        return Err(failure);
    }
    Err(Error::new(
        ErrorClass::Stuck,
        failure.doing,
        format!(
            "{}; and what had been done could not be undone: {}",
            failure.why,
            stuck.join("; ")
        ),
    )
    .advise("`netagent gc` removes what is left once the cause is gone"))
}

/// One line for what was asked of the kernel, and at debug level one a step.
fn log(plan: &Plan, began: Instant) {
    let Some(first) = plan.steps.first() else { return };
    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    for Step { op, why } in &plan.steps {
        let key = op.key();
        tracing::debug!(op = op.verb(), netns = %key.netns, kind = %key.kind, object = key.name, why);
    }
    tracing::info!(steps = plan.steps.len(), took_us, why = first.why, "changed the host");
}

/// A step that could not be performed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What it is about.
    pub key: ObjectKey,
    /// Why.
    pub error: Error,
}

/// Performs the plan as far as it goes: a failed step is left behind and named in the answer, the
/// others are still performed. A step whose effect is there in spite of the error has not failed.
pub fn roll_forward(kernel: &mut dyn Kernel, plan: &Plan) -> Vec<Left> {
    let began = Instant::now();
    let left = roll(kernel, plan);
    log(plan, began);
    left
}

fn roll(kernel: &mut dyn Kernel, plan: &Plan) -> Vec<Left> {
    let ops = plan.ops();
    let mut errors = Vec::new();
    let mut rest = ops.as_slice();
    while !rest.is_empty() {
        let outcomes = kernel.perform(rest);
        let Some((op, cause)) = first_failure(rest, &outcomes) else { break };
        let failed = outcomes.iter().position(|outcome| matches!(outcome, Outcome::Failed(_)));
        if !has_effect(kernel, op) {
            errors.push(Left { key: op.key(), error: describe(op, &cause) });
        }
        rest = retry_from(kernel, rest, &outcomes, failed.unwrap_or(0), &mut errors);
    }
    errors
}

/// The error of a request that was given up, and what could not be taken back: then it is stuck.
pub fn with_leftovers(error: Error, left: Vec<Left>) -> Error {
    if left.is_empty() {
        return error;
    }
    let left: Vec<String> = left.iter().map(|left| left.error.to_string()).collect();
    let why =
        format!("{}; and what had been done could not be undone: {}", error.why, left.join("; "));
    Error { class: ErrorClass::Stuck, why, ..error }
}

/// A firewall transaction fails as a whole: its other operations are tried one by one, so that one
/// bad element does not keep the others. Answers what comes after.
fn retry_from<'a>(
    kernel: &mut dyn Kernel,
    ops: &'a [Op],
    outcomes: &[Outcome],
    failed: usize,
    errors: &mut Vec<Left>,
) -> &'a [Op] {
    let done = outcomes.iter().take_while(|outcome| **outcome == Outcome::Done).count();
    for op in ops.get(done..failed).unwrap_or_default() {
        if let [Outcome::Failed(cause)] = kernel.perform(std::slice::from_ref(op)).as_slice()
            && !has_effect(kernel, op)
        {
            errors.push(Left { key: op.key(), error: describe(op, cause) });
        }
    }
    ops.get(failed + 1..).unwrap_or_default()
}

fn first_failure<'a>(ops: &'a [Op], outcomes: &[Outcome]) -> Option<(&'a Op, KernelError)> {
    ops.iter().zip(outcomes).find_map(|(op, outcome)| match outcome {
        Outcome::Failed(error) => Some((op, error.clone())),
        Outcome::Done | Outcome::NotTried => None,
    })
}

/// Takes back what took effect, last first; answers what could not be.
fn undo(kernel: &mut dyn Kernel, ops: &[Op], outcomes: &[Outcome]) -> Vec<String> {
    let mut stuck = Vec::new();
    let failed = outcomes.iter().position(|outcome| matches!(outcome, Outcome::Failed(_)));
    // What shares a transaction with the failed step is as doubtful as the step itself.
    let doubtful = failed.map_or(0..0, |failed| {
        let same = |op: &&Op| is_firewall(op);
        let before = ops.iter().take(failed).rev().take_while(same).count();
        let after = ops.iter().skip(failed + 1).take_while(same).count();
        match ops.get(failed).is_some_and(is_firewall) {
            true => failed - before..failed + 1 + after,
            false => failed..failed + 1,
        }
    });
    for (at, (op, outcome)) in ops.iter().zip(outcomes).enumerate().rev() {
        let took_effect = match outcome {
            Outcome::Done => true,
            Outcome::Failed(_) | Outcome::NotTried => {
                doubtful.contains(&at) && has_effect(kernel, op)
            }
        };
        if !took_effect {
            continue;
        }
        let back = op.undo();
        if let [Outcome::Failed(cause)] = kernel.perform(std::slice::from_ref(&back)).as_slice()
            && !has_effect(kernel, &back)
        {
            stuck.push(describe(&back, cause).to_string());
        }
    }
    stuck
}

fn is_firewall(op: &Op) -> bool {
    matches!(op.key().kind, Kind::Table | Kind::Policy | Kind::Port)
}

/// Whether the host is as the operation would have it. A thing that is not ours does not count
/// as made by us.
fn has_effect(kernel: &mut dyn Kernel, op: &Op) -> bool {
    let key = op.key();
    let Ok(seen) = kernel.observe(&Scope::Keys(vec![key.clone()])) else { return false };
    match op {
        Op::Create(object) | Op::Change { to: object, .. } => is_there(&seen, &key, object),
        Op::Delete(Object::Sysctl(sysctl)) => {
            !is_there(&seen, &key, &Object::Sysctl(sysctl.clone()))
        }
        Op::Delete(_) => !seen.contains_key(&key),
    }
}

fn is_there(seen: &Observed, key: &ObjectKey, object: &Object) -> bool {
    seen.get(key).is_some_and(|seen| match (object, &seen.object) {
        // A link may be half made, when a later attribute was refused: our mark is enough.
        (Object::Link(want), Object::Link(link)) => {
            seen.owner == Owner::Netagent && (link.alias == want.alias || link.alias.is_empty())
        }
        (want, seen) => want.is_met_by(seen),
    })
}

/// The failed step in words, with what usually helps.
fn describe(op: &Op, cause: &KernelError) -> Error {
    let is = |errnos: &[Errno]| errnos.iter().any(|errno| *errno as i32 == cause.errno);
    let class = if is(&[Errno::EEXIST, Errno::EADDRINUSE, Errno::EBUSY]) {
        ErrorClass::Conflict
    } else if is(&[Errno::EPERM, Errno::EACCES]) {
        ErrorClass::Permission
    } else {
        ErrorClass::Unavailable
    };
    Error::new(class, format!("{} {}", op.verb(), op.key()), cause.to_string())
        .with_errno(cause.errno)
        .with_port(cause.port)
        .advise(advice(op.object(), class))
}

/// What usually helps.
fn advice(object: &Object, class: ErrorClass) -> String {
    match (object, class) {
        (Object::Link(link), ErrorClass::Conflict) => {
            let inside = match &link.kind {
                LinkKind::Veth {
                    peer: Peer::At { netns: netns @ Netns::Path(_), name, .. },
                    ..
                } => {
                    format!("\"{name}\" in netns {netns}, or ")
                }
                LinkKind::Veth { .. } | LinkKind::Bridge { .. } => String::new(),
            };
            format!(
                "{inside}\"{}\" on the host exists and is not netagent's: remove or rename it, \
                 or choose another name",
                link.name
            )
        }
        (Object::Hold(_), ErrorClass::Conflict) => {
            "publish another host port, or stop what holds this one".into()
        }
        (Object::Address(_) | Object::Route(_), ErrorClass::Unavailable) => {
            "look at the link with `ip addr` and `ip route`".into()
        }
        (Object::Link(_) | Object::Hold(_), _)
        | (Object::Address(_) | Object::Route(_), _)
        | (Object::Table(_) | Object::Element(_) | Object::Sysctl(_) | Object::Accept(_), _) => {
            String::new()
        }
    }
}
