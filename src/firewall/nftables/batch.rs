//! Operations as one transaction: all messages between a batch's begin and end take effect at
//! once, or none does.

use super::Unfit;
use super::element::{Purpose, put};
use super::message::{self, TABLE, TABLE_FLAGS};
use super::wire::{self, Kind, Writer};
use crate::firewall::policy;
use crate::object::{Element, Object, Op, Table};

/// NFTA_SET_ELEM_LIST_SET.
const LIST_SET: u16 = 2;
/// NFTA_SET_ELEM_LIST_ELEMENTS.
const LIST_ELEMENTS: u16 = 3;
/// Elements in a message. The list is one attribute of at most 65,535 bytes, and an element takes
/// at most 108: two keys of 32 bytes, data of 8, flags, and their headers.
const ELEMENTS_PER_MESSAGE: usize = 500;

/// Who may change the table that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Only the socket that makes it, and it stays when that socket closes, for the next agent to
    /// take over (NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST; Linux 6.9).
    Owned,
    /// Any privileged process.
    Shared,
}

impl Ownership {
    const fn flags(self) -> u32 {
        match self {
            Self::Owned => 0x2 | 0x4,
            Self::Shared => 0,
        }
    }
}

/// A transaction ready to be sent in one piece, and which of its messages is for which operation.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    begin: u32,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    sequence: u32,
    op: usize,
    makes_table: bool,
    /// Where in the message each element begins, and the operation it is for.
    elements: Vec<(usize, usize)>,
}

/// One step of a transaction; a change is two.
#[derive(Debug, Clone, Copy)]
enum Act<'a> {
    Make(&'a Table),
    Remove(&'a Table),
    Element(Purpose, &'a Element),
}

impl Batch {
    /// The transaction that carries out `ops`, with sequence numbers from `next`.
    ///
    /// A table or element that is created must not exist (EEXIST), one that is deleted or changed
    /// must (ENOENT). A changed table begins empty: its elements are to be created after it.
    pub fn render(
        ops: &[Op],
        ownership: Ownership,
        next: &mut dyn FnMut() -> u32,
    ) -> Result<Self, Unfit> {
        let acts = acts(ops)?;
        let mut writer = Writer::default();
        let mut parts = Vec::new();
        let mut last = 0;
        let begin = next();
        bracket(&mut writer, wire::BATCH_BEGIN, begin);
        let mut rest = acts.as_slice();
        while let Some(((op, act), others)) = rest.split_first() {
            let part = |sequence, makes_table| Part {
                sequence,
                op: *op,
                makes_table,
                elements: Vec::new(),
            };
            match act {
                Act::Make(table) => {
                    let mut first = true;
                    let mut sent = |start, sequence| {
                        parts.push(part(sequence, std::mem::take(&mut first)));
                        last = start;
                    };
                    let flags = ownership.flags();
                    message::make_table(&mut writer, &table.ruleset, flags, next, &mut sent);
                    rest = others;
                }
                Act::Remove(table) => {
                    let sequence = next();
                    last = message::delete_table(&mut writer, table.ruleset.table, sequence);
                    parts.push(part(sequence, false));
                    rest = others;
                }
                Act::Element(purpose, element) => {
                    let same = rest.iter().take_while(|(_, act)| {
                        matches!(act, Act::Element(p, e) if (p, e.set) == (purpose, element.set))
                    });
                    let count = same.count().clamp(1, ELEMENTS_PER_MESSAGE);
                    let (run, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                    let mut part = part(next(), false);
                    last = list(&mut writer, *purpose, element, run, &mut part)?;
                    parts.push(part);
                    rest = others;
                }
            }
        }
        writer.ask_for_ack(last);
        bracket(&mut writer, wire::BATCH_END, next());
        Ok(Self { bytes: writer.into_bytes(), begin, parts })
    }

    /// The bytes, for one send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sequence number of the batch itself: an error that carries it ends the batch.
    pub fn begin(&self) -> u32 {
        self.begin
    }

    /// Sequence number of the one message that is acknowledged in any case.
    pub fn last(&self) -> Option<u32> {
        self.parts.last().map(|part| part.sequence)
    }

    /// Whether an answer belongs to this batch.
    pub fn has(&self, sequence: u32) -> bool {
        sequence == self.begin || self.part(sequence).is_some()
    }

    /// The operation that a message was for; `offset` is where in the message the kernel found
    /// fault (NLMSGERR_ATTR_OFFS).
    pub fn culprit(&self, sequence: u32, offset: Option<u32>) -> Option<usize> {
        let part = self.part(sequence)?;
        let offset = offset.unwrap_or(0) as usize;
        let element = part.elements.iter().rev().find(|(start, _)| *start <= offset);
        // Among several elements the kernel's offset decides; without it the operation is unknown.
        match (element, part.elements.as_slice()) {
            (Some((_, op)), _) | (None, [(_, op)]) => Some(*op),
            (None, []) => Some(part.op),
            (None, _) => None,
        }
    }

    /// Whether the message is the one that gives the table its flags.
    pub fn makes_table(&self, sequence: u32) -> bool {
        self.part(sequence).is_some_and(|part| part.makes_table)
    }

    fn part(&self, sequence: u32) -> Option<&Part> {
        self.parts.iter().find(|part| part.sequence == sequence)
    }
}

/// The transaction by which a socket takes over a persistent table whose owner is gone.
pub fn adopt(table: &str, next: &mut dyn FnMut() -> u32) -> Batch {
    let mut writer = Writer::default();
    let (begin, sequence) = (next(), next());
    bracket(&mut writer, wire::BATCH_BEGIN, begin);
    writer.message(Kind::NewTable, wire::ACK, sequence, |writer| {
        writer.text(TABLE, table);
        writer.number(TABLE_FLAGS, Ownership::Owned.flags());
    });
    bracket(&mut writer, wire::BATCH_END, next());
    let part = Part { sequence, op: 0, makes_table: true, elements: Vec::new() };
    Batch { bytes: writer.into_bytes(), begin, parts: vec![part] }
}

fn acts(ops: &[Op]) -> Result<Vec<(usize, Act<'_>)>, Unfit> {
    let mut acts = Vec::with_capacity(ops.len());
    for (at, op) in ops.iter().enumerate() {
        let (gone, made) = match op {
            Op::Create(made) => (None, Some(made)),
            Op::Delete(gone) => (Some(gone), None),
            Op::Change { from, to } => (Some(from), Some(to)),
        };
        for (purpose, object) in [(Purpose::Remove, gone), (Purpose::Add, made)] {
            let Some(object) = object else { continue };
            acts.push((at, act(purpose, object).ok_or_else(|| unfit(at, NOT_OURS))?));
        }
    }
    Ok(acts)
}

const NOT_OURS: &str = "not a table or an element of one";

fn act(purpose: Purpose, object: &Object) -> Option<Act<'_>> {
    match object {
        Object::Table(table) => Some(match purpose {
            Purpose::Add => Act::Make(table),
            Purpose::Remove => Act::Remove(table),
        }),
        Object::Element(element) => Some(Act::Element(purpose, element)),
        Object::Link(_)
        | Object::Sysctl(_)
        | Object::Address(_)
        | Object::Route(_)
        | Object::Hold(_)
        | Object::Accept(_) => None,
    }
}

fn unfit(op: usize, text: &'static str) -> Unfit {
    Unfit { op, text }
}

/// One message with a run of elements of the same set; answers where it begins.
fn list(
    writer: &mut Writer,
    purpose: Purpose,
    first: &Element,
    run: &[(usize, Act<'_>)],
    part: &mut Part,
) -> Result<usize, Unfit> {
    let (kind, flags) = match purpose {
        Purpose::Add => (Kind::NewElement, wire::CREATE | wire::EXCLUSIVE),
        Purpose::Remove => (Kind::DeleteElement, 0),
    };
    let begin = writer.len();
    let mut refused = None;
    writer.message(kind, flags, part.sequence, |writer| {
        writer.text(TABLE, policy::TABLE); // NFTA_SET_ELEM_LIST_TABLE
        writer.text(LIST_SET, first.set.as_str());
        writer.nested(LIST_ELEMENTS, |writer| {
            for (op, act) in run {
                let Act::Element(_, element) = act else { continue };
                part.elements.push((writer.len() - begin, *op));
                if put(writer, element, purpose).is_none() {
                    refused = Some(*op);
                    return;
                }
            }
        });
    });
    match refused {
        Some(op) => Err(unfit(op, "the element's values are not of its set's types")),
        None => Ok(begin),
    }
}

fn bracket(writer: &mut Writer, kind: u16, sequence: u32) {
    writer.raw_message(kind, 0, sequence, (wire::FAMILY_ANY, wire::SUBSYSTEM), |_| {});
}

#[cfg(test)]
mod tests;
