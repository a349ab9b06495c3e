use std::net::Ipv4Addr;

use super::super::element::Listing;
use super::*;
use crate::firewall::model::{SetName, Value};
use crate::model::{Family, Mark, Protocol};

/// Type, flags, sequence number and attributes of each message.
fn messages(batch: &Batch) -> Vec<(u16, u16, u32, Vec<u8>)> {
    let mut rest = batch.bytes();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let number = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap());
        let (kind, flags) = (number(4) as u16, (number(4) >> 16) as u16);
        let length = number(0) as usize;
        found.push((kind, flags, number(8), rest[20..length].to_vec()));
        rest = &rest[length.next_multiple_of(4)..];
    }
    found
}

fn range(set: SetName, port: u16) -> Element {
    let host = Value::Address(Ipv4Addr::new(192, 0, 2, 1).into());
    let key = |port| vec![Value::Port(port), Value::Protocol(Protocol::Tcp), host.clone()];
    let data = vec![Value::Address(Ipv4Addr::new(10, 0, 0, 2).into())];
    Element { set, key: key(port), through: Some(key(port + 1)), data }
}

fn create(element: Element) -> Op {
    Op::Create(Object::Element(element))
}

fn render(ops: &[Op]) -> Result<Batch, Unfit> {
    let mut sequence = 0;
    Batch::render(ops, Ownership::Owned, &mut || {
        sequence += 1;
        sequence
    })
}

#[test]
fn many_elements_are_split_and_none_is_lost() {
    let all: Vec<Element> =
        (0..1201).map(|at| range(SetName::HostRanges(Family::V4), at * 2)).collect();
    let ops: Vec<Op> = all.iter().cloned().map(create).collect();
    let batch = render(&ops).unwrap();
    let mut listing = Listing::new(SetName::HostRanges(Family::V4));
    let lists: Vec<_> = messages(&batch)
        .into_iter()
        .filter(|(kind, ..)| *kind == Kind::NewElement.number())
        .collect();
    lists.iter().for_each(|(.., attributes)| listing.take(attributes));
    assert_eq!(lists.len(), 3);
    assert_eq!(listing.finish(), (all, 0));
}

#[test]
fn only_the_last_message_asks_for_an_ack() {
    let table = policy::table(Mark::DEFAULT);
    let batch =
        render(&[Op::Create(table), create(range(SetName::HostRanges(Family::V4), 1))]).unwrap();
    let asking: Vec<u32> = messages(&batch)
        .into_iter()
        .filter(|(_, flags, ..)| flags & wire::ACK != 0)
        .map(|(.., sequence, _)| sequence)
        .collect();
    assert_eq!(asking, Vec::from_iter(batch.last()));
}

#[test]
fn an_offset_finds_the_element_at_fault_and_its_absence_only_a_lone_one() {
    let ops: Vec<Op> =
        (0..3).map(|at| create(range(SetName::HostRanges(Family::V4), at * 2))).collect();
    let batch = render(&ops).unwrap();
    let sequence = batch.last().unwrap();
    let starts: Vec<u32> = batch.parts[0].elements.iter().map(|(start, _)| *start as u32).collect();
    for (op, start) in starts.iter().enumerate() {
        assert_eq!(batch.culprit(sequence, Some(*start)), Some(op));
    }
    assert_eq!(batch.culprit(sequence, None), None);
    assert_eq!(batch.culprit(batch.begin(), None), None);
    let alone = render(&ops[..1]).unwrap();
    assert_eq!(alone.culprit(alone.last().unwrap(), None), Some(0));
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_sent() {
    let bad = Element { data: vec![], ..range(SetName::HostRanges(Family::V4), 1) };
    let ops = [create(range(SetName::HostRanges(Family::V4), 5)), create(bad)];
    assert_eq!(render(&ops).unwrap_err().op, 1);
}
