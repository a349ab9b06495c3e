//! Elements of sets and maps, to bytes and back.
//!
//! A concatenation's fields are padded to 4 bytes each. An interval of several fields is one
//! element with two keys; an interval of a single field is two elements, the second beyond its
//! end (NFT_SET_ELEM_INTERVAL_END), or one where it reaches the highest address.

use std::net::IpAddr;

use super::expr::{LINK_NAME_BYTES, link_name};
use super::wire::{self, Writer};
use crate::firewall::model::{FieldType, Set, SetName, Value};
use crate::model::{Family, Protocol};
use crate::object::Element;

/// NFTA_LIST_ELEM.
const LIST_ELEMENT: u16 = 1;
/// NFTA_DATA_VALUE.
const DATA_VALUE: u16 = 1;
/// NFTA_SET_ELEM_KEY.
const KEY: u16 = 1;
/// NFTA_SET_ELEM_DATA.
const DATA: u16 = 2;
/// NFTA_SET_ELEM_FLAGS.
const FLAGS: u16 = 3;
/// NFTA_SET_ELEM_KEY_END.
const KEY_END: u16 = 10;
/// NFTA_SET_ELEM_LIST_ELEMENTS.
const ELEMENTS: u16 = 3;
/// NFT_SET_ELEM_INTERVAL_END.
const INTERVAL_END: u32 = 1;

/// What a message does with its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Add them.
    Add,
    /// Remove them: data is not said.
    Remove,
}

impl FieldType {
    /// Its size.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Link => LINK_NAME_BYTES,
            Self::Address(Family::V4) => 4,
            Self::Address(Family::V6) => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// enum datatypes of nftables' datatype.h; only `nft list` minds it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Link => 41,
            Self::Address(Family::V4) => 7,
            Self::Address(Family::V6) => 8,
            Self::Protocol => 12,
            Self::Port => 13,
        }
    }
}

/// Whether there are several fields.
pub(super) const fn concatenated(types: &[FieldType]) -> bool {
    types.len() > 1
}

/// Bytes of a key or of data.
pub(super) fn width(types: &[FieldType]) -> usize {
    match types {
        [single] => single.bytes(),
        several => several.iter().map(|field| field.bytes().next_multiple_of(4)).sum(),
    }
}

/// Values as a key or as data; `None` if they are of other types.
fn encode(values: &[Value], types: &[FieldType]) -> Option<Vec<u8>> {
    if values.len() != types.len() {
        return None;
    }
    let mut bytes = Vec::with_capacity(width(types));
    for (value, field) in values.iter().zip(types) {
        match (value, field) {
            (Value::Link(name), FieldType::Link) => bytes.extend(link_name(name.as_str())),
            (Value::Address(IpAddr::V4(address)), FieldType::Address(Family::V4)) => {
                bytes.extend(address.octets());
            }
            (Value::Address(IpAddr::V6(address)), FieldType::Address(Family::V6)) => {
                bytes.extend(address.octets());
            }
            (Value::Protocol(protocol), FieldType::Protocol) => bytes.push(protocol.number()),
            (Value::Port(port), FieldType::Port) => bytes.extend(port.to_be_bytes()),
            (Value::Link(_) | Value::Address(_) | Value::Protocol(_) | Value::Port(_), _) => {
                return None;
            }
        }
        if concatenated(types) {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    Some(bytes)
}

/// The reverse of [`encode`]; `None` for what is not ours: another protocol, a name no link has.
fn decode(mut bytes: &[u8], types: &[FieldType]) -> Option<Vec<Value>> {
    let mut values = Vec::with_capacity(types.len());
    for field in types {
        let raw = bytes.get(..field.bytes())?;
        values.push(match field {
            FieldType::Link => Value::Link(wire::text(raw).parse().ok()?),
            FieldType::Address(family) => Value::Address(address(raw, *family)?),
            FieldType::Protocol => Value::Protocol(protocol(raw)?),
            FieldType::Port => Value::Port(u16::from_be_bytes(raw.try_into().ok()?)),
        });
        bytes = bytes.get(field.bytes().next_multiple_of(4)..).unwrap_or_default();
    }
    Some(values)
}

fn address(raw: &[u8], family: Family) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => <[u8; 4]>::try_from(raw).ok()?.into(),
        Family::V6 => <[u8; 16]>::try_from(raw).ok()?.into(),
    })
}

fn protocol(raw: &[u8]) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|known| raw == [known.number()])
}

/// Writes an element into a list; `None` if its values do not fit its set.
pub fn put(writer: &mut Writer, element: &Element, purpose: Purpose) -> Option<()> {
    let set = element.set.declaration();
    let key = encode(&element.key, &set.key)?;
    let data = encode(&element.data, &set.data)?;
    let end = match (&element.through, set.interval) {
        (Some(through), true) => Some(encode(through, &set.key)?),
        (None, true) => Some(key.clone()),
        (None, false) => None,
        (Some(_), false) => return None,
    };
    let data = (purpose == Purpose::Add && !data.is_empty()).then_some(data);
    match end {
        Some(end) if !concatenated(&set.key) => {
            entry(writer, &key, None, data.as_deref(), 0);
            if let Some(beyond) = beyond(&end) {
                entry(writer, &beyond, None, None, INTERVAL_END);
            }
        }
        end => entry(writer, &key, end.as_deref(), data.as_deref(), 0),
    }
    Some(())
}

fn entry(writer: &mut Writer, key: &[u8], end: Option<&[u8]>, data: Option<&[u8]>, flags: u32) {
    let value = |writer: &mut Writer, kind, bytes: &[u8]| {
        writer.nested(kind, |writer| writer.bytes(DATA_VALUE, bytes));
    };
    writer.nested(LIST_ELEMENT, |writer| {
        if flags != 0 {
            writer.number(FLAGS, flags);
        }
        value(writer, KEY, key);
        if let Some(end) = end {
            value(writer, KEY_END, end);
        }
        if let Some(data) = data {
            value(writer, DATA, data);
        }
    });
}

/// The key after this one, as a big-endian number; `None` after the highest.
fn beyond(key: &[u8]) -> Option<Vec<u8>> {
    neighbour(key, u8::MAX, |byte| byte.wrapping_add(1))
}

/// The key before this one; `None` before the lowest.
fn before(key: &[u8]) -> Option<Vec<u8>> {
    neighbour(key, 0, |byte| byte.wrapping_sub(1))
}

/// The next number in one direction: from the last byte on, those at the limit carry over.
fn neighbour(key: &[u8], limit: u8, step: impl Fn(u8) -> u8) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let carries = *byte == limit;
        *byte = step(*byte);
        if !carries {
            return Some(next);
        }
    }
    None
}

/// The elements of a set as the kernel lists them, possibly over several messages.
#[derive(Debug)]
pub struct Listing {
    set: Set,
    elements: Vec<Element>,
    /// Bounds of single-field intervals.
    bounds: Vec<Bound>,
    foreign: usize,
}

/// One bound of a single-field interval.
#[derive(Debug)]
struct Bound {
    key: Vec<u8>,
    /// Whether the interval ends before it, rather than begins with it.
    ends: bool,
    data: Vec<Value>,
}

impl Listing {
    /// Nothing yet.
    pub fn new(set: SetName) -> Self {
        let set = set.declaration();
        Self { set, elements: Vec::new(), bounds: Vec::new(), foreign: 0 }
    }

    /// Takes an answer to a request for elements: what follows the family header.
    pub fn take(&mut self, attributes: &[u8]) {
        let Some(list) = wire::find(attributes, ELEMENTS) else { return };
        for (_, raw) in wire::attributes(list) {
            if self.set.interval && !concatenated(&self.set.key) {
                self.take_bound(raw);
            } else if let Some(element) = self.element(raw) {
                self.elements.push(element);
            } else {
                self.foreign += 1;
            }
        }
    }

    fn take_bound(&mut self, raw: &[u8]) {
        match self.bound(raw) {
            Some(bound) => self.bounds.push(bound),
            None => self.foreign += 1,
        }
    }

    fn bound(&self, raw: &[u8]) -> Option<Bound> {
        let flags = wire::find(raw, FLAGS).and_then(wire::number).unwrap_or(0);
        let ends = flags & INTERVAL_END != 0;
        let key = value(raw, KEY).filter(|key| key.len() == width(&self.set.key))?.to_vec();
        let data = match ends {
            true => Vec::new(),
            false => self.data(raw)?,
        };
        Some(Bound { key, ends, data })
    }

    fn data(&self, raw: &[u8]) -> Option<Vec<Value>> {
        match self.set.data.as_slice() {
            [] => Some(Vec::new()),
            types => decode(value(raw, DATA)?, types),
        }
    }

    fn element(&self, raw: &[u8]) -> Option<Element> {
        let key = decode(value(raw, KEY)?, &self.set.key)?;
        let through = match (self.set.interval, value(raw, KEY_END)) {
            (false, _) => None,
            (true, Some(end)) => Some(decode(end, &self.set.key)?),
            (true, None) => Some(key.clone()),
        };
        Some(Element { set: self.set.name, key, through, data: self.data(raw)? })
    }

    /// All elements, and how many there are that are none of ours.
    pub fn finish(mut self) -> (Vec<Element>, usize) {
        // The end of an interval has the key of the next one's beginning where they touch.
        self.bounds.sort_unstable_by(|one, two| (&one.key, !one.ends).cmp(&(&two.key, !two.ends)));
        let mut bounds = self.bounds.into_iter().peekable();
        while let Some(first) = bounds.next() {
            if first.ends {
                // nft puts an end at the lowest key, before any interval.
                continue;
            }
            let last = match bounds.next_if(|bound| bound.ends) {
                Some(end) => before(&end.key),
                None => bounds
                    .peek()
                    .map_or_else(|| Some(vec![u8::MAX; first.key.len()]), |next| before(&next.key)),
            };
            let types = &self.set.key;
            let keys = decode(&first.key, types).zip(last.and_then(|last| decode(&last, types)));
            match keys {
                Some((key, last)) => self.elements.push(Element {
                    set: self.set.name,
                    key,
                    through: Some(last),
                    data: first.data,
                }),
                None => self.foreign += 1,
            }
        }
        (self.elements, self.foreign)
    }
}

fn value(raw: &[u8], kind: u16) -> Option<&[u8]> {
    wire::find(wire::find(raw, kind)?, DATA_VALUE)
}

#[cfg(test)]
mod tests;
