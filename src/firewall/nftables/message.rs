//! Messages that make and remove the table, and that ask for what is there.

use super::element::{concatenated, width};
use super::expr::{self, NF_ACCEPT};
use super::wire::{self, Kind, Writer};
use crate::firewall::model::{Base, BaseKind, Chain, FieldType, Hook, Rule, Ruleset, Set, SetName};

/// NFTA_TABLE_NAME; the table's name has number 1 in every message of a table's parts.
pub(super) const TABLE: u16 = 1;
/// NFTA_TABLE_FLAGS.
pub(super) const TABLE_FLAGS: u16 = 2;
/// NFTA_TABLE_USERDATA.
pub(super) const TABLE_USERDATA: u16 = 6;
/// NFTNL_UDATA_TABLE_COMMENT and NFTNL_UDATA_RULE_COMMENT (libnftnl udata.h).
const COMMENT: u8 = 0;
/// Longest comment with its terminating zero: NFTNL_UDATA_COMMENT_MAXLEN.
const COMMENT_BYTES: usize = 128;
/// What comes before the fingerprint in the table's comment.
pub(super) const FINGERPRINT_PREFIX: &str = "ruleset ";

/// NFT_SET_INTERVAL.
const SET_INTERVAL: u32 = 0x4;
/// NFT_SET_MAP.
const SET_MAP: u32 = 0x8;
/// NFT_SET_CONCAT.
const SET_CONCAT: u32 = 0x80;

/// A CRC-32 of the messages that make the ruleset: it changes with the policy and with the way
/// the policy is said to the kernel, so an upgraded agent sees that an old table is old.
pub fn fingerprint(ruleset: &Ruleset) -> u32 {
    let mut writer = Writer::default();
    parts(&mut writer, ruleset, &mut || 0, &mut |_, _| {});
    crc32fast::hash(&writer.into_bytes())
}

/// Makes the table, which must not exist, with all that is in it. `sent` is told each message's
/// start and sequence number.
pub(super) fn make_table(
    writer: &mut Writer,
    ruleset: &Ruleset,
    flags: u32,
    next: &mut dyn FnMut() -> u32,
    sent: &mut dyn FnMut(usize, u32),
) {
    let comment = format!("{FINGERPRINT_PREFIX}{:08x}", fingerprint(ruleset));
    let sequence = next();
    let start =
        writer.message(Kind::NewTable, wire::CREATE | wire::EXCLUSIVE, sequence, |writer| {
            writer.text(TABLE, ruleset.table);
            writer.number(TABLE_FLAGS, flags);
            writer.bytes(TABLE_USERDATA, &user_text(&comment));
        });
    sent(start, sequence);
    parts(writer, ruleset, next, sent);
}

fn parts(
    writer: &mut Writer,
    ruleset: &Ruleset,
    next: &mut dyn FnMut() -> u32,
    sent: &mut dyn FnMut(usize, u32),
) {
    for (id, set) in (1..).zip(&ruleset.sets) {
        let sequence = next();
        sent(new_set(writer, ruleset.table, set, id, sequence), sequence);
    }
    // All chains before all rules, so that a rule may go to any of them.
    for chain in &ruleset.chains {
        let sequence = next();
        sent(new_chain(writer, ruleset.table, chain, sequence), sequence);
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            let sequence = next();
            sent(new_rule(writer, ruleset.table, chain.name, rule, sequence), sequence);
        }
    }
}

fn new_set(writer: &mut Writer, table: &str, set: &Set, id: u32, sequence: u32) -> usize {
    let flag = |yes: bool, flag: u32| if yes { flag } else { 0 };
    let flags = flag(set.interval, SET_INTERVAL)
        | flag(!set.data.is_empty(), SET_MAP)
        | flag(concatenated(&set.key), SET_CONCAT);
    writer.message(Kind::NewSet, wire::CREATE | wire::EXCLUSIVE, sequence, |writer| {
        writer.text(TABLE, table);
        writer.text(2, set.name.as_str()); // NFTA_SET_NAME
        writer.number(3, flags); // NFTA_SET_FLAGS
        writer.number(4, type_number(&set.key)); // NFTA_SET_KEY_TYPE
        writer.number(5, width(&set.key) as u32); // NFTA_SET_KEY_LEN
        if !set.data.is_empty() {
            writer.number(6, type_number(&set.data)); // NFTA_SET_DATA_TYPE
            writer.number(7, width(&set.data) as u32); // NFTA_SET_DATA_LEN
        }
        if concatenated(&set.key) {
            // NFTA_SET_DESC, NFTA_SET_DESC_CONCAT, then a list of NFTA_SET_FIELD_LEN.
            writer.nested(9, |writer| {
                writer.nested(2, |writer| {
                    for field in &set.key {
                        writer.nested(1, |writer| writer.number(1, field.bytes() as u32));
                    }
                });
            });
        }
        writer.number(10, id); // NFTA_SET_ID, which the kernel insists on
        writer.bytes(13, &byte_orders(set)); // NFTA_SET_USERDATA
    })
}

/// Tells `nft list` how to print single keys and data (NFTNL_UDATA_SET_KEYBYTEORDER 0 and
/// NFTNL_UDATA_SET_DATABYTEORDER 1; enum byteorder of nftables' datatype.h: 1 host, 2 big).
fn byte_orders(set: &Set) -> Vec<u8> {
    let order = |types: &[FieldType]| -> u32 {
        match types {
            [FieldType::Link] => 1,
            [FieldType::Address(_) | FieldType::Protocol | FieldType::Port] => 2,
            _ => 0,
        }
    };
    let mut data = Vec::new();
    for (kind, types) in [(0, &set.key), (1, &set.data)] {
        if !types.is_empty() {
            data.extend_from_slice(&[kind, 4]);
            data.extend_from_slice(&order(types).to_ne_bytes());
        }
    }
    data
}

/// The type as `nft` numbers it; a concatenation has six bits a field.
fn type_number(types: &[FieldType]) -> u32 {
    types.iter().fold(0, |number, field| number << 6 | field.number())
}

fn new_chain(writer: &mut Writer, table: &str, chain: &Chain, sequence: u32) -> usize {
    writer.message(Kind::NewChain, wire::CREATE | wire::EXCLUSIVE, sequence, |writer| {
        writer.text(TABLE, table);
        writer.text(3, chain.name); // NFTA_CHAIN_NAME
        let Some(Base { kind, hook, priority }) = chain.base else { return };
        // NFTA_CHAIN_HOOK with NFTA_HOOK_HOOKNUM and NFTA_HOOK_PRIORITY.
        writer.nested(4, |writer| {
            writer.number(1, hook_number(hook));
            writer.bytes(2, &priority.to_be_bytes());
        });
        writer.bytes(5, &NF_ACCEPT.to_be_bytes()); // NFTA_CHAIN_POLICY
        let kind = match kind {
            BaseKind::Filter => "filter",
            BaseKind::Nat => "nat",
        };
        writer.text(7, kind); // NFTA_CHAIN_TYPE
    })
}

/// enum nf_inet_hooks (uapi linux/netfilter.h).
const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn new_rule(writer: &mut Writer, table: &str, chain: &str, rule: &Rule, sequence: u32) -> usize {
    writer.message(Kind::NewRule, wire::CREATE | wire::APPEND, sequence, |writer| {
        writer.text(TABLE, table);
        writer.text(2, chain); // NFTA_RULE_CHAIN
        writer.nested(4, |writer| expr::rule(writer, rule)); // NFTA_RULE_EXPRESSIONS
        writer.bytes(7, &user_text(rule.comment)); // NFTA_RULE_USERDATA
    })
}

/// Text as `nft` keeps a comment: type, length, text and a zero.
fn user_text(text: &str) -> Vec<u8> {
    let bytes: Vec<u8> = text.bytes().take(COMMENT_BYTES - 1).chain([0]).collect();
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    [COMMENT, length].into_iter().chain(bytes).collect()
}

/// The comment in user data, if there is one.
pub(super) fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(wire::text(value));
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

/// Removes the table with all that is in it.
pub(super) fn delete_table(writer: &mut Writer, table: &str, sequence: u32) -> usize {
    writer.message(Kind::DeleteTable, 0, sequence, |writer| writer.text(TABLE, table))
}

fn request(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    fill(&mut writer);
    writer.into_bytes()
}

/// Asks for one table; acknowledged behind the answer.
pub fn table_request(table: &str, sequence: u32) -> Vec<u8> {
    request(|writer| {
        writer.message(Kind::GetTable, wire::ACK, sequence, |writer| writer.text(TABLE, table));
    })
}

/// Asks for all rules of a table.
pub fn rules_request(table: &str, sequence: u32) -> Vec<u8> {
    request(|writer| {
        writer.message(Kind::GetRule, wire::DUMP, sequence, |writer| writer.text(TABLE, table));
    })
}

/// Asks for all elements of a set or map.
pub fn set_request(table: &str, set: SetName, sequence: u32) -> Vec<u8> {
    request(|writer| {
        writer.message(Kind::GetElement, wire::DUMP, sequence, |writer| {
            writer.text(TABLE, table); // NFTA_SET_ELEM_LIST_TABLE
            writer.text(2, set.as_str()); // NFTA_SET_ELEM_LIST_SET
        });
    })
}

/// Asks for the ruleset's generation; acknowledged behind the answer.
pub fn generation_request(sequence: u32) -> Vec<u8> {
    request(|writer| {
        writer.raw_message(
            Kind::GetGeneration.number(),
            wire::ACK,
            sequence,
            (wire::FAMILY_ANY, 0),
            |_| {},
        );
    })
}
