//! A rule's matches and statements as nf_tables expressions.
//!
//! Each expression works on registers. A match loads its fields from the first register on, so
//! nothing is kept in registers from one match to the next.

use ipnet::Ipv4Net;

use super::wire::{FAMILY_IPV4, Writer};
use crate::firewall::model::{Field, FieldType, Match, Rule, SetName, Statement};

/// NFTA_LIST_ELEM.
const LIST_ELEMENT: u16 = 1;
/// NFTA_EXPR_NAME.
const EXPRESSION_NAME: u16 = 1;
/// NFTA_EXPR_DATA.
const EXPRESSION_DATA: u16 = 2;
/// NFTA_DATA_VALUE.
const DATA_VALUE: u16 = 1;
/// NFTA_DATA_VERDICT.
const DATA_VERDICT: u16 = 2;

/// NFT_REG_VERDICT.
const VERDICT_REGISTER: u32 = 0;
/// NFT_REG32_00, the first of 16 registers of 4 bytes.
const FIRST_REGISTER: u32 = 8;

/// NFT_META_MARK.
const META_MARK: u32 = 3;
/// NFT_META_IIFNAME.
const META_IN_NAME: u32 = 6;
/// NFT_META_OIFNAME.
const META_OUT_NAME: u32 = 7;
/// NFT_META_NFPROTO.
const META_FAMILY: u32 = 15;
/// NFT_META_L4PROTO.
const META_PROTOCOL: u32 = 16;
/// NFT_META_OIFKIND, Linux 5.6 and later.
const META_OUT_KIND: u32 = 27;

/// NFT_CT_STATE.
const CT_STATE: u32 = 0;
/// NFT_CT_STATUS.
const CT_STATUS: u32 = 2;
/// NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED (uapi linux/netfilter/nf_conntrack_common.h).
const STATE_ESTABLISHED_RELATED: u32 = 1 << 1 | 1 << 2;
/// NF_CT_STATE_BIT of IP_CT_NEW.
const STATE_NEW: u32 = 1 << 3;
/// IPS_DST_NAT.
const STATUS_DNAT: u32 = 1 << 5;

/// NFT_PAYLOAD_NETWORK_HEADER.
const NETWORK_HEADER: u32 = 1;
/// NFT_PAYLOAD_TRANSPORT_HEADER.
const TRANSPORT_HEADER: u32 = 2;
/// Offset of saddr in struct iphdr.
const IPV4_SOURCE: u32 = 12;
/// Offset of daddr in struct iphdr.
const IPV4_DESTINATION: u32 = 16;
/// Offset of the destination port in TCP, UDP, SCTP and DCCP.
const DESTINATION_PORT: u32 = 2;

/// NFT_FIB_RESULT_ADDRTYPE.
const FIB_ADDRESS_TYPE: u32 = 3;
/// NFTA_FIB_F_DADDR.
const FIB_DESTINATION: u32 = 2;
/// RTN_LOCAL (uapi linux/rtnetlink.h).
const ADDRESS_LOCAL: u32 = 2;

/// NF_DROP (uapi linux/netfilter.h).
const NF_DROP: i32 = 0;
/// NF_ACCEPT.
pub(super) const NF_ACCEPT: i32 = 1;
/// NFT_JUMP.
const NFT_JUMP: i32 = -3;
/// NFT_GOTO.
const NFT_GOTO: i32 = -4;
/// NFT_RETURN.
const NFT_RETURN: i32 = -5;

/// NFT_LOOKUP_F_INV.
const LOOKUP_INVERTED: u32 = 1;
/// NFT_NAT_DNAT.
const NAT_DNAT: u32 = 1;
/// IFNAMSIZ (uapi linux/if.h).
pub(super) const LINK_NAME_BYTES: usize = 16;

/// enum nft_cmp_ops.
#[derive(Clone, Copy)]
enum Compare {
    /// NFT_CMP_EQ.
    Equal = 0,
    /// NFT_CMP_NEQ.
    Unequal = 1,
}

/// Writes a rule's expressions as list elements.
pub fn rule(writer: &mut Writer, rule: &Rule) {
    let mut expressions = Expressions { writer, ipv4: false };
    for condition in &rule.matches {
        expressions.condition(condition);
    }
    for statement in &rule.statements {
        expressions.statement(statement);
    }
}

/// A name in a link-name register.
pub(super) fn link_name(name: &str) -> [u8; LINK_NAME_BYTES] {
    let mut padded = [0; LINK_NAME_BYTES];
    padded.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    padded
}

struct Expressions<'a> {
    writer: &'a mut Writer,
    /// Whether the rule has left only IPv4 packets.
    ipv4: bool,
}

impl Expressions<'_> {
    fn put(&mut self, name: &str, fill: impl FnOnce(&mut Writer)) {
        self.writer.nested(LIST_ELEMENT, |writer| {
            writer.text(EXPRESSION_NAME, name);
            writer.nested(EXPRESSION_DATA, fill);
        });
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::In(fields, set) => self.lookup(fields, *set, 0),
            Match::NotIn(fields, set) => self.lookup(fields, *set, LOOKUP_INVERTED),
            Match::IsIpv4 => self.only_ipv4(),
            Match::NotIpv4 => {
                self.meta(META_FAMILY, FIRST_REGISTER);
                self.compare(Compare::Unequal, &[FAMILY_IPV4]);
            }
            Match::NotFromLoopback => {
                self.meta(META_IN_NAME, FIRST_REGISTER);
                self.compare(Compare::Unequal, &link_name("lo"));
            }
            Match::SourceIn(net) => self.address_in(Field::Source, *net),
            Match::DestinationIn(net) => self.address_in(Field::Destination, *net),
            Match::ToThisHost => {
                self.put("fib", |writer| {
                    writer.number(1, FIRST_REGISTER); // NFTA_FIB_DREG
                    writer.number(2, FIB_ADDRESS_TYPE); // NFTA_FIB_RESULT
                    writer.number(3, FIB_DESTINATION); // NFTA_FIB_FLAGS
                });
                self.compare(Compare::Equal, &ADDRESS_LOCAL.to_ne_bytes());
            }
            Match::LeavesByBridge => {
                self.meta(META_OUT_KIND, FIRST_REGISTER);
                self.compare(Compare::Equal, &link_name("bridge"));
            }
            Match::Established => {
                self.conntrack(CT_STATE, STATE_ESTABLISHED_RELATED, Compare::Unequal);
            }
            Match::New => self.conntrack(CT_STATE, STATE_NEW, Compare::Unequal),
            Match::Dnat => self.conntrack(CT_STATUS, STATUS_DNAT, Compare::Unequal),
            // `ct status != dnat` as nft reads it would compare the whole status with the bit;
            // this is `ct status ! dnat`, the bit alone.
            Match::NotDnat => self.conntrack(CT_STATUS, STATUS_DNAT, Compare::Equal),
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Counter => self.put("counter", |_| {}),
            Statement::SetMark(mark) => {
                let bit = mark.bits();
                self.meta(META_MARK, FIRST_REGISTER);
                self.bitwise(&(!bit).to_ne_bytes(), &bit.to_ne_bytes());
                self.put("meta", |writer| {
                    writer.number(2, META_MARK); // NFTA_META_KEY
                    writer.number(3, FIRST_REGISTER); // NFTA_META_SREG
                });
            }
            Statement::Accept => self.verdict(NF_ACCEPT, None),
            Statement::Drop => self.verdict(NF_DROP, None),
            Statement::Return => self.verdict(NFT_RETURN, None),
            Statement::Jump(chain) => self.verdict(NFT_JUMP, Some(chain)),
            Statement::Goto(chain) => self.verdict(NFT_GOTO, Some(chain)),
            Statement::Dnat(fields, map) => self.dnat(fields, *map),
            Statement::Masquerade => self.put("masq", |_| {}),
        }
    }

    /// An IPv6 packet has other things where IPv4 has its addresses, so a rule that reads them
    /// asks for the family first, once.
    fn only_ipv4(&mut self) {
        if !self.ipv4 {
            self.meta(META_FAMILY, FIRST_REGISTER);
            self.compare(Compare::Equal, &[FAMILY_IPV4]);
            self.ipv4 = true;
        }
    }

    /// Loads fields side by side, each padded to whole registers.
    fn load(&mut self, fields: &[Field]) {
        if fields.iter().any(|field| matches!(field, Field::Source | Field::Destination)) {
            self.only_ipv4();
        }
        let mut register = FIRST_REGISTER;
        for field in fields {
            match field {
                Field::InLink => self.meta(META_IN_NAME, register),
                Field::OutLink => self.meta(META_OUT_NAME, register),
                Field::Source => self.payload(NETWORK_HEADER, IPV4_SOURCE, 4, register),
                Field::Destination => self.payload(NETWORK_HEADER, IPV4_DESTINATION, 4, register),
                Field::Protocol => self.meta(META_PROTOCOL, register),
                Field::Port => self.payload(TRANSPORT_HEADER, DESTINATION_PORT, 2, register),
            }
            register += match field {
                Field::InLink | Field::OutLink => LINK_NAME_BYTES as u32 / 4,
                Field::Source | Field::Destination | Field::Protocol | Field::Port => 1,
            };
        }
    }

    fn lookup(&mut self, fields: &[Field], set: SetName, flags: u32) {
        self.load(fields);
        self.put("lookup", |writer| {
            writer.text(1, set.as_str()); // NFTA_LOOKUP_SET
            writer.number(2, FIRST_REGISTER); // NFTA_LOOKUP_SREG
            if flags != 0 {
                writer.number(5, flags); // NFTA_LOOKUP_FLAGS
            }
        });
    }

    fn dnat(&mut self, fields: &[Field], map: SetName) {
        self.load(fields);
        self.put("lookup", |writer| {
            writer.text(1, map.as_str()); // NFTA_LOOKUP_SET
            writer.number(2, FIRST_REGISTER); // NFTA_LOOKUP_SREG
            writer.number(3, FIRST_REGISTER); // NFTA_LOOKUP_DREG
        });
        let data = map.declaration().data;
        self.put("nat", |writer| {
            writer.number(1, NAT_DNAT); // NFTA_NAT_TYPE
            writer.number(2, u32::from(FAMILY_IPV4)); // NFTA_NAT_FAMILY
            writer.number(3, FIRST_REGISTER); // NFTA_NAT_REG_ADDR_MIN
            // Without a port in the map the packet keeps its own.
            if data.contains(&FieldType::Port) {
                writer.number(5, FIRST_REGISTER + 1); // NFTA_NAT_REG_PROTO_MIN
            }
        });
    }

    fn address_in(&mut self, field: Field, net: Ipv4Net) {
        self.load(&[field]);
        if net.prefix_len() < 32 {
            self.bitwise(&net.netmask().octets(), &[0; 4]);
        }
        self.compare(Compare::Equal, &net.network().octets());
    }

    fn conntrack(&mut self, key: u32, bits: u32, with_zero: Compare) {
        self.put("ct", |writer| {
            writer.number(1, FIRST_REGISTER); // NFTA_CT_DREG
            writer.number(2, key); // NFTA_CT_KEY
        });
        self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
        self.compare(with_zero, &[0; 4]);
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.put("meta", |writer| {
            writer.number(2, key); // NFTA_META_KEY
            writer.number(1, register); // NFTA_META_DREG
        });
    }

    fn payload(&mut self, base: u32, offset: u32, bytes: u32, register: u32) {
        self.put("payload", |writer| {
            writer.number(1, register); // NFTA_PAYLOAD_DREG
            writer.number(2, base); // NFTA_PAYLOAD_BASE
            writer.number(3, offset); // NFTA_PAYLOAD_OFFSET
            writer.number(4, bytes); // NFTA_PAYLOAD_LEN
        });
    }

    /// The first register becomes itself & mask ^ xor.
    fn bitwise(&mut self, mask: &[u8; 4], xor: &[u8; 4]) {
        self.put("bitwise", |writer| {
            writer.number(1, FIRST_REGISTER); // NFTA_BITWISE_SREG
            writer.number(2, FIRST_REGISTER); // NFTA_BITWISE_DREG
            writer.number(3, 4); // NFTA_BITWISE_LEN
            writer.nested(4, |writer| writer.bytes(DATA_VALUE, mask)); // NFTA_BITWISE_MASK
            writer.nested(5, |writer| writer.bytes(DATA_VALUE, xor)); // NFTA_BITWISE_XOR
        });
    }

    fn compare(&mut self, how: Compare, value: &[u8]) {
        self.put("cmp", |writer| {
            writer.number(1, FIRST_REGISTER); // NFTA_CMP_SREG
            writer.number(2, how as u32); // NFTA_CMP_OP
            writer.nested(3, |writer| writer.bytes(DATA_VALUE, value)); // NFTA_CMP_DATA
        });
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.put("immediate", |writer| {
            writer.number(1, VERDICT_REGISTER); // NFTA_IMMEDIATE_DREG
            writer.nested(2, |writer| {
                // NFTA_IMMEDIATE_DATA
                writer.nested(DATA_VERDICT, |writer| {
                    writer.bytes(1, &code.to_be_bytes()); // NFTA_VERDICT_CODE
                    if let Some(chain) = chain {
                        writer.text(2, chain); // NFTA_VERDICT_CHAIN
                    }
                });
            });
        });
    }
}
