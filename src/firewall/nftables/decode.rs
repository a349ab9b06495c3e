//! What the kernel answers and announces, as values.

use super::message::{FINGERPRINT_PREFIX, TABLE, TABLE_FLAGS, TABLE_USERDATA, comment};
use super::wire;

/// NFT_TABLE_F_OWNER: only the socket that made it may change it.
const OWNER: u32 = 0x2;
/// NFT_TABLE_F_PERSIST: it stays when that socket is closed.
const PERSIST: u32 = 0x4;

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenTable {
    /// Its name.
    pub name: String,
    /// Who may change it.
    pub owner: Owner,
    /// Which ruleset was installed, see [`fingerprint`](super::fingerprint); `None` if the table
    /// was not made by us.
    pub fingerprint: Option<u32>,
}

/// Who may change a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Anybody.
    Anybody,
    /// Anybody; the owner is gone and the table waits for the next.
    Gone,
    /// The socket with this netlink port, often its process id.
    Port(u32),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRule {
    /// The chain it is in.
    pub chain: String,
    /// Its comment, empty if it has none.
    pub comment: String,
    /// What its counter counted, if it has one.
    pub counted: Option<Counted>,
}

/// What a counter counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP headers included.
    pub bytes: u64,
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The ruleset's generation after it.
    pub id: u32,
    /// Whose transaction it was: thread id in the initial pid namespace; 0 where not told.
    pub pid: u32,
    /// That thread's name, at most 15 bytes.
    pub process: String,
}

/// A table, from what follows the family header of an NFT_MSG_NEWTABLE.
pub fn table(attributes: &[u8]) -> Option<SeenTable> {
    let flags = wire::find(attributes, TABLE_FLAGS).and_then(wire::number).unwrap_or(0);
    // NFTA_TABLE_OWNER
    let port = wire::find(attributes, 7).and_then(wire::number);
    let owner = match port {
        Some(port) if flags & OWNER != 0 => Owner::Port(port),
        _ if flags & PERSIST != 0 => Owner::Gone,
        _ => Owner::Anybody,
    };
    let fingerprint = wire::find(attributes, TABLE_USERDATA)
        .and_then(comment)
        .and_then(|text| u32::from_str_radix(text.strip_prefix(FINGERPRINT_PREFIX)?, 16).ok());
    Some(SeenTable { name: wire::text(wire::find(attributes, TABLE)?), owner, fingerprint })
}

/// A rule, from what follows the family header of an NFT_MSG_NEWRULE.
pub fn rule(attributes: &[u8]) -> Option<SeenRule> {
    // NFTA_RULE_CHAIN, NFTA_RULE_USERDATA, NFTA_RULE_EXPRESSIONS
    let chain = wire::text(wire::find(attributes, 2)?);
    let comment = wire::find(attributes, 7).and_then(comment).unwrap_or_default();
    let expressions = wire::find(attributes, 4).unwrap_or_default();
    let counted = wire::attributes(expressions).find_map(|(_, expression)| counted(expression));
    Some(SeenRule { chain, comment, counted })
}

/// NFTA_EXPR_NAME `counter`, and in NFTA_EXPR_DATA NFTA_COUNTER_BYTES and NFTA_COUNTER_PACKETS.
fn counted(expression: &[u8]) -> Option<Counted> {
    if wire::text(wire::find(expression, 1)?) != "counter" {
        return None;
    }
    let data = wire::find(expression, 2)?;
    let number = |kind| -> Option<u64> {
        Some(u64::from_be_bytes(wire::find(data, kind)?.try_into().ok()?))
    };
    Some(Counted { bytes: number(1)?, packets: number(2)? })
}

/// A generation, from what follows the family header of an NFT_MSG_NEWGEN.
pub fn generation(attributes: &[u8]) -> Option<Generation> {
    // NFTA_GEN_ID, NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
    let number = |kind| wire::find(attributes, kind).and_then(wire::number);
    let process = wire::find(attributes, 3).map(wire::text).unwrap_or_default();
    Some(Generation { id: number(1)?, pid: number(2).unwrap_or(0), process })
}

/// Name of the table that an announcement of family inet is about: attribute 1 in all of them.
pub fn announced_table(payload: &[u8]) -> Option<String> {
    let (family, attributes) = payload.split_at_checked(wire::FAMILY_HEADER)?;
    (family.first() == Some(&wire::FAMILY_INET))
        .then(|| wire::find(attributes, TABLE).map(wire::text))
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::firewall::model::SetName;
    use crate::firewall::nftables::element::Listing;

    proptest! {
        #[test]
        fn no_answer_of_the_kernel_is_a_panic(
            bytes in proptest::collection::vec(0_u8..48, 0..256),
            set in proptest::sample::select(SetName::ALL.as_slice()),
        ) {
            let _ = (table(&bytes), rule(&bytes), generation(&bytes), announced_table(&bytes));
            let _ = (comment(&bytes), wire::ack_attributes(&bytes, 0));
            let mut listing = Listing::new(set);
            listing.take(&bytes);
            let _ = listing.finish();
        }
    }
}
