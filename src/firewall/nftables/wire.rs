//! Netlink messages and attributes as bytes (uapi linux/netlink.h, linux/netfilter/nfnetlink.h).
//!
//! Numbers in nf_tables attributes are big endian, message headers and lengths are the host's.

use crate::model::Family;

/// NFPROTO_UNSPEC (uapi linux/netfilter.h).
pub const FAMILY_ANY: u8 = 0;
/// NFPROTO_INET: IPv4 and IPv6.
pub const FAMILY_INET: u8 = 1;
/// NFPROTO_IPV4.
const FAMILY_IPV4: u8 = 2;
/// NFPROTO_IPV6.
const FAMILY_IPV6: u8 = 10;

/// The number of a family (uapi linux/netfilter.h).
pub const fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => FAMILY_IPV4,
        Family::V6 => FAMILY_IPV6,
    }
}

/// NFNL_SUBSYS_NFTABLES.
pub const SUBSYSTEM: u16 = 10;
/// NFNL_MSG_BATCH_BEGIN.
pub const BATCH_BEGIN: u16 = 0x10;
/// NFNL_MSG_BATCH_END.
pub const BATCH_END: u16 = 0x11;

/// NLM_F_REQUEST.
pub const REQUEST: u16 = 0x1;
/// NLM_F_ACK.
pub const ACK: u16 = 0x4;
/// NLM_F_DUMP: NLM_F_ROOT and NLM_F_MATCH.
pub const DUMP: u16 = 0x300;
/// NLM_F_EXCL: refuse what is there already.
pub const EXCLUSIVE: u16 = 0x200;
/// NLM_F_CREATE.
pub const CREATE: u16 = 0x400;
/// NLM_F_APPEND.
pub const APPEND: u16 = 0x800;

/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;
/// NLA_TYPE_MASK: a type without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const TYPE_MASK: u16 = 0x3fff;
/// Bytes of struct nlattr.
const ATTRIBUTE_HEADER: usize = 4;
/// NLM_F_CAPPED: the failed request is not in the ack, only its header.
const CAPPED: u16 = 0x100;
/// Bytes of struct nlmsghdr.
const MESSAGE_HEADER: usize = 16;
/// Bytes of struct nfgenmsg.
pub const FAMILY_HEADER: usize = 4;

/// enum nf_tables_msg_types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// NFT_MSG_NEWTABLE.
    NewTable = 0,
    /// NFT_MSG_GETTABLE.
    GetTable = 1,
    /// NFT_MSG_DELTABLE.
    DeleteTable = 2,
    /// NFT_MSG_NEWCHAIN.
    NewChain = 3,
    /// NFT_MSG_NEWRULE.
    NewRule = 6,
    /// NFT_MSG_GETRULE.
    GetRule = 7,
    /// NFT_MSG_NEWSET.
    NewSet = 9,
    /// NFT_MSG_NEWSETELEM.
    NewElement = 12,
    /// NFT_MSG_GETSETELEM.
    GetElement = 13,
    /// NFT_MSG_DELSETELEM.
    DeleteElement = 14,
    /// NFT_MSG_NEWGEN.
    NewGeneration = 15,
    /// NFT_MSG_GETGEN.
    GetGeneration = 16,
}

impl Kind {
    /// The message type: subsystem and kind.
    pub const fn number(self) -> u16 {
        SUBSYSTEM << 8 | self as u16
    }
}

/// Bytes of messages being written.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A message of family inet; answers where it begins.
    pub fn message(
        &mut self,
        kind: Kind,
        flags: u16,
        sequence: u32,
        fill: impl FnOnce(&mut Self),
    ) -> usize {
        self.raw_message(kind.number(), flags, sequence, (FAMILY_INET, 0), fill)
    }

    /// A message of any type; `resource` is nfgen_family and res_id.
    pub fn raw_message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        (family, resource): (u8, u16),
        fill: impl FnOnce(&mut Self),
    ) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        fill(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.patch(start, &length.to_ne_bytes());
        start
    }

    /// Asks for an ack of the message that begins at `start`.
    pub fn ask_for_ack(&mut self, start: usize) {
        let at = start + 6;
        let flags = self.bytes.get(at..at + 2).and_then(|flags| flags.try_into().ok());
        let flags = flags.map_or(0, u16::from_ne_bytes) | ACK;
        self.patch(at, &flags.to_ne_bytes());
    }

    /// An attribute of plain bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |writer| writer.bytes.extend_from_slice(value));
    }

    /// A big-endian number.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Text with its terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |writer| {
            writer.bytes.extend_from_slice(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// Attributes within an attribute.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.attribute(kind | NESTED, fill);
    }

    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        // Callers keep attributes below 64 KiB; a longer one would be refused by the kernel.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.patch(start, &length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn patch(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }
}

/// The attributes in `bytes`, by type; what is malformed at the end is dropped.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A big-endian number.
pub fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// Text up to its terminating zero.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// The attributes of an extended ack, in the payload of an NLMSG_ERROR message with these `flags`:
/// behind errno and the echoed request.
pub fn ack_attributes(payload: &[u8], flags: u16) -> Option<&[u8]> {
    let echoed = payload.get(4..)?;
    let length = if flags & CAPPED != 0 {
        MESSAGE_HEADER
    } else {
        u32::from_ne_bytes(echoed.get(..4)?.try_into().ok()?) as usize
    };
    echoed.get(length.next_multiple_of(4)..)
}
