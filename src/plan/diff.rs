//! The two comparisons, and the order of what comes out.

use std::collections::{BTreeMap, BTreeSet};

use super::{Observed, Owner, Plan, Seen, Step};
use crate::object::{Hold, Kind, LinkKind, Netns, Object, ObjectKey, Op, Peer, Wanted};

/// The steps from one set of wanted things to another, taking the host to be as intended.
///
/// Things of equal key and value in both are left alone; removals come first.
pub fn delta(before: &[Wanted], after: &[Wanted]) -> Plan {
    ordered(differences(before, after))
}

/// The same while traffic flows: what is new is there before what is old goes.
///
/// All elements change in one transaction, so no packet meets half a policy. New ports are held
/// before it and old ones let go after it; one that is in the way of a new one goes first.
pub fn live_delta(before: &[Wanted], after: &[Wanted]) -> Plan {
    let mut steps = differences(before, after);
    drop_carried(&mut steps);
    let new: Vec<Hold> = steps.iter().filter_map(|step| new_hold(&step.op)).cloned().collect();
    steps.sort_by_cached_key(|step| {
        let (op, key) = (&step.op, step.op.key());
        let kind = match op {
            Op::Delete(_) => u8::MAX - key.kind as u8,
            Op::Change { .. } | Op::Create(_) => key.kind as u8,
        };
        (turn(op, &new), kind, place(op), key.name)
    });
    Plan { steps, ..Plan::default() }
}

fn new_hold(op: &Op) -> Option<&Hold> {
    match op {
        Op::Create(Object::Hold(hold)) | Op::Change { to: Object::Hold(hold), .. } => Some(hold),
        Op::Create(_) | Op::Change { .. } | Op::Delete(_) => None,
    }
}

/// When an operation has its turn while traffic flows, where ports in `new` are to be held.
fn turn(op: &Op, new: &[Hold]) -> u8 {
    let in_the_way = |old: &Hold| {
        new.iter().any(|new| {
            new.protocol == old.protocol
                && new.host.meets(old.host)
                && new.ports.overlaps(old.ports)
        })
    };
    match (op, op.key().kind) {
        (Op::Delete(Object::Hold(old)), _) if !in_the_way(old) => 6,
        (Op::Delete(_), Kind::Accept | Kind::Route | Kind::Address | Kind::Sysctl) => 0,
        (Op::Delete(_), Kind::Hold) => 1,
        (Op::Create(_) | Op::Change { .. }, Kind::Hold) => 2,
        (Op::Delete(_), Kind::Table | Kind::Policy | Kind::Port) => 3,
        (_, Kind::Table | Kind::Policy | Kind::Port) => 4,
        (Op::Delete(_), Kind::Link) => 7,
        (_, Kind::Link | Kind::Sysctl | Kind::Address | Kind::Route | Kind::Accept) => 5,
    }
}

fn differences(before: &[Wanted], after: &[Wanted]) -> Vec<Step> {
    let old = keyed(before);
    let new = keyed(after);
    let mut steps = Vec::new();
    for (key, wanted) in &old {
        if !new.contains_key(key) {
            steps.push(Step { op: Op::Delete(wanted.object.clone()), why: wanted.why.clone() });
        }
    }
    for (key, wanted) in &new {
        match old.get(key) {
            None => steps.push(create(wanted)),
            Some(was) if wanted.object.is_met_by(&was.object) => {}
            Some(was) => steps.push(change(&was.object, wanted)),
        }
    }
    steps
}

/// The steps from what was seen to what is wanted. Things of ours that nobody wants are
/// removed; foreign things are never touched, and reported where they hold a key we want.
pub fn reconcile(seen: &Observed, wanted: &[Wanted]) -> Plan {
    let wanted = keyed(wanted);
    let recreated = recreated_table(seen, &wanted);
    let gone = |key: &ObjectKey| recreated && matches!(key.kind, Kind::Policy | Kind::Port);
    let mut plan = Plan::default();
    let mut steps = Vec::new();
    for (key, Seen { object, owner }) in seen {
        if *owner == Owner::Netagent && !wanted.contains_key(key) && !gone(key) {
            steps.push(Step {
                op: Op::Delete(object.clone()),
                why: "nothing asks for it any more".into(),
            });
        }
    }
    for (key, want) in &wanted {
        match seen.get(key).filter(|_| !gone(key)) {
            None if is_elsewhere(&want.object) => plan.missing.push(create(want)),
            None => steps.push(create(want)),
            Some(Seen { object, .. }) if want.object.is_met_by(object) => {}
            Some(Seen { object, owner: Owner::Netagent }) => steps.push(change(object, want)),
            Some(Seen { owner: Owner::Foreign, .. }) => plan.clashes.push(create(want)),
        }
    }
    plan.steps = ordered(steps).steps;
    plan
}

/// A changed table is replaced whole, and its elements with it.
fn recreated_table(seen: &Observed, wanted: &BTreeMap<ObjectKey, &Wanted>) -> bool {
    wanted.iter().any(|(key, want)| {
        key.kind == Kind::Table
            && seen.get(key).is_some_and(|seen| !want.object.is_met_by(&seen.object))
    })
}

fn keyed(wanted: &[Wanted]) -> BTreeMap<ObjectKey, &Wanted> {
    wanted.iter().map(|wanted| (wanted.object.key(), wanted)).collect()
}

fn create(wanted: &Wanted) -> Step {
    Step { op: Op::Create(wanted.object.clone()), why: wanted.why.clone() }
}

fn change(from: &Object, wanted: &Wanted) -> Step {
    let op = Op::Change { from: from.clone(), to: wanted.object.clone() };
    Step { op, why: wanted.why.clone() }
}

fn is_elsewhere(object: &Object) -> bool {
    match object {
        Object::Link(link) => {
            matches!(link.kind, LinkKind::Veth { peer: Peer::Elsewhere, .. })
        }
        Object::Table(_)
        | Object::Element(_)
        | Object::Sysctl(_)
        | Object::Address(_)
        | Object::Route(_)
        | Object::Hold(_)
        | Object::Accept(_) => false,
    }
}

/// Removals from the last kind to the first, then changes and creations from the first to the
/// last.
fn ordered(mut steps: Vec<Step>) -> Plan {
    drop_carried(&mut steps);
    steps.sort_by_cached_key(|step| {
        let (key, place) = (step.op.key(), place(&step.op));
        match step.op {
            Op::Delete(_) => (0, u8::MAX - key.kind as u8, u8::MAX - place, key.name),
            Op::Change { .. } | Op::Create(_) => (1, key.kind as u8, place, key.name),
        }
    });
    Plan { steps, ..Plan::default() }
}

/// What vanishes with a removed link is not removed by itself.
fn drop_carried(steps: &mut Vec<Step>) {
    let leaving: BTreeSet<(Netns, String)> = steps
        .iter()
        .filter_map(|step| match &step.op {
            Op::Delete(Object::Link(link)) => Some((link.netns.clone(), link.name.to_string())),
            Op::Delete(_) | Op::Create(_) | Op::Change { .. } => None,
        })
        .collect();
    steps.retain(|step| match (&step.op, step.op.object().carrier()) {
        (Op::Delete(_), Some((netns, link))) => {
            !leaving.contains(&(netns.clone(), link.to_string()))
        }
        (Op::Delete(Object::Sysctl(sysctl)), None) => {
            sysctl.revert != crate::object::Revert::WithLink
        }
        (Op::Delete(_) | Op::Create(_) | Op::Change { .. }, _) => true,
    });
}

/// Order within a kind: bridges before their ports, but for a bridge whose MTU shrinks: its ports
/// send less before it takes less.
fn place(op: &Op) -> u8 {
    match op {
        Op::Change { from: Object::Link(from), to: Object::Link(to) }
            if to.master.is_none() && to.mtu < from.mtu =>
        {
            2
        }
        Op::Create(object) | Op::Change { to: object, .. } | Op::Delete(object) => {
            u8::from(is_port(object) || is_global(object))
        }
    }
}

/// A switch of the whole host comes after those of single links, which it may depend on
/// (accept_ra before IPv6 forwarding), and goes before them.
fn is_global(object: &Object) -> bool {
    matches!(object, Object::Sysctl(sysctl) if sysctl.key.contains("/conf/all/"))
}

fn is_port(object: &Object) -> bool {
    matches!(object, Object::Link(link) if link.master.is_some())
}
