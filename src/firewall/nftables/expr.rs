//! A rule's matches and statements as nf_tables expressions.
//!
//! Each expression works on registers. A match loads its fields from the first register on, so
//! nothing is kept in registers from one match to the next.

use std::net::IpAddr;

use ipnet::IpNet;

use super::wire::{Writer, family_number};
use crate::firewall::model::{Field, FieldType, Match, Rule, SetName, Statement};
use crate::model::Family;

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
/// NFT_CT_MARK.
const CT_MARK: u32 = 3;
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
/// Offset of saddr in struct ipv6hdr.
const IPV6_SOURCE: u32 = 8;
/// Offset of daddr in struct ipv6hdr.
const IPV6_DESTINATION: u32 = 24;
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
/// NFT_NAT_SNAT.
const NAT_SNAT: u32 = 0;
/// NFT_NAT_DNAT.
const NAT_DNAT: u32 = 1;
/// IPPROTO_ICMP (uapi linux/in.h).
const ICMP: u8 = 1;
/// IPPROTO_ICMPV6 (uapi linux/in6.h).
const ICMPV6: u8 = 58;
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
    let mut expressions = Expressions { writer, family: None };
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
    /// The family of the only packets that the rule has left.
    family: Option<Family>,
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
            Match::Is(family) => self.only(*family),
            Match::Icmp(family) => {
                self.meta(META_PROTOCOL, FIRST_REGISTER);
                let protocol = match family {
                    Family::V4 => ICMP,
                    Family::V6 => ICMPV6,
                };
                self.compare(Compare::Equal, &[protocol]);
            }
            Match::NotFromLoopback => {
                self.meta(META_IN_NAME, FIRST_REGISTER);
                self.compare(Compare::Unequal, &link_name("lo"));
            }
            Match::SourceIn(net) => self.address_in(Field::Source(Family::of(net.addr())), *net),
            Match::DestinationIn(net) => {
                self.address_in(Field::Destination(Family::of(net.addr())), *net);
            }
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
            Match::Ended(mark) => {
                self.load_conntrack(CT_MARK);
                self.compare(Compare::Equal, &mark.ended().to_ne_bytes());
            }
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
            Statement::Dnat(fields, map) => self.translate(NAT_DNAT, fields, *map),
            Statement::Snat(fields, map) => self.translate(NAT_SNAT, fields, *map),
            Statement::Masquerade => self.put("masq", |_| {}),
        }
    }

    /// A packet of the other family has other things where this one has its addresses, so a rule
    /// that reads them asks for the family first, once.
    fn only(&mut self, family: Family) {
        if self.family != Some(family) {
            self.meta(META_FAMILY, FIRST_REGISTER);
            self.compare(Compare::Equal, &[family_number(family)]);
            self.family = Some(family);
        }
    }

    /// Loads fields side by side, each padded to whole registers.
    fn load(&mut self, fields: &[Field]) {
        for field in fields {
            if let Field::Source(family) | Field::Destination(family) = field {
                self.only(*family);
            }
        }
        let mut register = FIRST_REGISTER;
        for field in fields {
            let network = |offset, bytes| (NETWORK_HEADER, offset, bytes);
            let (base, offset, bytes) = match field {
                Field::InLink => {
                    self.meta(META_IN_NAME, register);
                    register += LINK_NAME_BYTES as u32 / 4;
                    continue;
                }
                Field::OutLink => {
                    self.meta(META_OUT_NAME, register);
                    register += LINK_NAME_BYTES as u32 / 4;
                    continue;
                }
                Field::Protocol => {
                    self.meta(META_PROTOCOL, register);
                    register += 1;
                    continue;
                }
                Field::Source(Family::V4) => network(IPV4_SOURCE, 4),
                Field::Destination(Family::V4) => network(IPV4_DESTINATION, 4),
                Field::Source(Family::V6) => network(IPV6_SOURCE, 16),
                Field::Destination(Family::V6) => network(IPV6_DESTINATION, 16),
                Field::Port => (TRANSPORT_HEADER, DESTINATION_PORT, 2),
            };
            self.payload(base, offset, bytes, register);
            register += bytes.div_ceil(4);
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

    fn translate(&mut self, kind: u32, fields: &[Field], map: SetName) {
        let family = map.family().unwrap_or(Family::V4);
        self.only(family);
        self.load(fields);
        self.put("lookup", |writer| {
            writer.text(1, map.as_str()); // NFTA_LOOKUP_SET
            writer.number(2, FIRST_REGISTER); // NFTA_LOOKUP_SREG
            writer.number(3, FIRST_REGISTER); // NFTA_LOOKUP_DREG
        });
        let data = map.declaration().data;
        self.put("nat", |writer| {
            writer.number(1, kind); // NFTA_NAT_TYPE
            writer.number(2, u32::from(family_number(family))); // NFTA_NAT_FAMILY
            writer.number(3, FIRST_REGISTER); // NFTA_NAT_REG_ADDR_MIN
            // Without a port in the map the packet keeps its own.
            if data.contains(&FieldType::Port) {
                let address = FieldType::Address(family).bytes() as u32 / 4;
                writer.number(5, FIRST_REGISTER + address); // NFTA_NAT_REG_PROTO_MIN
            }
        });
    }

    fn address_in(&mut self, field: Field, net: IpNet) {
        self.load(&[field]);
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        if net.prefix_len() < net.max_prefix_len() {
            let mask = octets(net.netmask());
            self.bitwise(&mask, &vec![0; mask.len()]);
        }
        self.compare(Compare::Equal, &octets(net.network()));
    }

    fn load_conntrack(&mut self, key: u32) {
        self.put("ct", |writer| {
            writer.number(1, FIRST_REGISTER); // NFTA_CT_DREG
            writer.number(2, key); // NFTA_CT_KEY
        });
    }

    fn conntrack(&mut self, key: u32, bits: u32, with_zero: Compare) {
        self.load_conntrack(key);
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
    fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        self.put("bitwise", |writer| {
            writer.number(1, FIRST_REGISTER); // NFTA_BITWISE_SREG
            writer.number(2, FIRST_REGISTER); // NFTA_BITWISE_DREG
            writer.number(3, mask.len() as u32); // NFTA_BITWISE_LEN
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
