//! Typed tables, chains, rules, sets and maps.
//!
//! Only what our policy says can be said. `Display` gives the text that `nft list` would print,
//! close enough to read beside it; it is what golden tests compare.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, LinkName, Mark, Protocol};

/// A whole table of family inet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name.
    pub table: &'static str,
    /// Set and map declarations.
    pub sets: Vec<Set>,
    /// Chains in the order they are made: a chain that is jumped to comes first.
    pub chains: Vec<Chain>,
}

/// Every set and map of the table; a closed list, so that an element can only be for one of them.
/// What has to do with addresses is there once a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Our bridges.
    Bridges,
    /// Each of our bridges twice: a packet that stays on its bridge.
    Same,
    /// Each adopted bridge twice: a packet that stays on a bridge of the operator's.
    Shared,
    /// Bridges whose neighbours may not talk.
    IccDenied,
    /// Containers on adopted bridges that may not talk to each other.
    Quiet(Family),
    /// Bridges of internal networks.
    Internal,
    /// Bridge and address of containers of internal networks on adopted bridges.
    Secluded(Family),
    /// Links that default routes go by: allowed packets are marked there even if it is a bridge.
    Uplinks,
    /// Links whose forwarding was raised for us alone, while the host is no router.
    Raised(Family),
    /// Each raised link twice: a packet that a bridge uplink merely bridges.
    Bridged,
    /// A link and a bridge: from the one, published ports of the other may be reached at the
    /// containers' own addresses.
    Trusted,
    /// Bridges into which published ports and ICMP are routed.
    Routed(Family),
    /// Bridges into which everything is routed.
    Unprotected(Family),
    /// Container ports that may be reached at the container's own address: port, protocol, address.
    Opened(Family),
    /// Bridge and subnet: addresses that are local to a bridge. On adopted bridges only those of
    /// containers: others there are none of ours.
    Local(Family),
    /// Adopted bridge and nets that are reached there without a gateway.
    OnLink(Family),
    /// Subnets whose packets leave with the host's address.
    Masquerade(Family),
    /// Subnets whose packets leave with one certain address.
    Sources(Family),
    /// Published on one host address: protocol, address, port to address and port.
    HostPorts(Family),
    /// Published on one host address, as a range of the same numbers: port, protocol, address.
    HostRanges(Family),
    /// Published on every host address: protocol, port to address and port.
    AnyPorts(Family),
    /// Published on every host address, as a range of the same numbers: port, protocol.
    AnyRanges(Family),
}

impl SetName {
    /// Every set, in the order they are declared.
    pub const ALL: [Self; 36] = {
        use Family::{V4, V6};
        [
            Self::Bridges,
            Self::Same,
            Self::Shared,
            Self::IccDenied,
            Self::Quiet(V4),
            Self::Quiet(V6),
            Self::Internal,
            Self::Secluded(V4),
            Self::Secluded(V6),
            Self::Uplinks,
            Self::Raised(V4),
            Self::Raised(V6),
            Self::Bridged,
            Self::Trusted,
            Self::Routed(V4),
            Self::Routed(V6),
            Self::Unprotected(V4),
            Self::Unprotected(V6),
            Self::Opened(V4),
            Self::Opened(V6),
            Self::Local(V4),
            Self::Local(V6),
            Self::OnLink(V4),
            Self::OnLink(V6),
            Self::Masquerade(V4),
            Self::Masquerade(V6),
            Self::Sources(V4),
            Self::Sources(V6),
            Self::HostPorts(V4),
            Self::HostPorts(V6),
            Self::HostRanges(V4),
            Self::HostRanges(V6),
            Self::AnyPorts(V4),
            Self::AnyPorts(V6),
            Self::AnyRanges(V4),
            Self::AnyRanges(V6),
        ]
    };

    /// The name in the kernel.
    pub const fn as_str(self) -> &'static str {
        use Family::{V4, V6};
        match self {
            Self::Bridges => "bridges",
            Self::Same => "same",
            Self::Shared => "shared",
            Self::IccDenied => "icc_denied",
            Self::Quiet(V4) => "quiet",
            Self::Quiet(V6) => "quiet_v6",
            Self::Internal => "internal",
            Self::Secluded(V4) => "secluded",
            Self::Secluded(V6) => "secluded_v6",
            Self::Uplinks => "uplinks",
            Self::Raised(V4) => "raised",
            Self::Raised(V6) => "raised_v6",
            Self::Bridged => "bridged",
            Self::Trusted => "trusted",
            Self::Routed(V4) => "routed",
            Self::Routed(V6) => "routed_v6",
            Self::Unprotected(V4) => "unprotected",
            Self::Unprotected(V6) => "unprotected_v6",
            Self::Opened(V4) => "opened",
            Self::Opened(V6) => "opened_v6",
            Self::Local(V4) => "local",
            Self::Local(V6) => "local_v6",
            Self::OnLink(V4) => "on_link",
            Self::OnLink(V6) => "on_link_v6",
            Self::Masquerade(V4) => "masqueraded",
            Self::Masquerade(V6) => "masqueraded_v6",
            Self::Sources(V4) => "sources",
            Self::Sources(V6) => "sources_v6",
            Self::HostPorts(V4) => "host_ports",
            Self::HostPorts(V6) => "host_ports_v6",
            Self::HostRanges(V4) => "host_ranges",
            Self::HostRanges(V6) => "host_ranges_v6",
            Self::AnyPorts(V4) => "any_ports",
            Self::AnyPorts(V6) => "any_ports_v6",
            Self::AnyRanges(V4) => "any_ranges",
            Self::AnyRanges(V6) => "any_ranges_v6",
        }
    }

    /// The family of the addresses in it.
    pub const fn family(self) -> Option<Family> {
        match self {
            Self::Bridges
            | Self::Same
            | Self::Shared
            | Self::IccDenied
            | Self::Internal
            | Self::Uplinks
            | Self::Bridged
            | Self::Trusted => None,
            Self::Raised(family)
            | Self::Quiet(family)
            | Self::Secluded(family)
            | Self::Routed(family)
            | Self::Unprotected(family)
            | Self::Opened(family)
            | Self::Local(family)
            | Self::OnLink(family)
            | Self::Masquerade(family)
            | Self::Sources(family)
            | Self::HostPorts(family)
            | Self::HostRanges(family)
            | Self::AnyPorts(family)
            | Self::AnyRanges(family) => Some(family),
        }
    }

    /// Whether it maps host ports to containers; all others are policy.
    pub const fn is_port_map(self) -> bool {
        matches!(
            self,
            Self::HostPorts(_) | Self::HostRanges(_) | Self::AnyPorts(_) | Self::AnyRanges(_)
        )
    }

    /// Whether its elements say what the host's links are, whatever networks there are.
    pub const fn is_host_wide(self) -> bool {
        matches!(self, Self::Uplinks | Self::Raised(_) | Self::Bridged)
    }

    /// Its declaration.
    pub fn declaration(self) -> Set {
        use FieldType::{Address, Link, Port, Protocol};
        let (key, data, interval) = match self {
            Self::Bridges
            | Self::IccDenied
            | Self::Internal
            | Self::Uplinks
            | Self::Raised(_)
            | Self::Routed(_)
            | Self::Unprotected(_) => (vec![Link], vec![], false),
            Self::Same | Self::Shared | Self::Bridged | Self::Trusted => {
                (vec![Link, Link], vec![], false)
            }
            Self::Quiet(family) => (vec![Address(family)], vec![], false),
            Self::Opened(family) => (vec![Port, Protocol, Address(family)], vec![], true),
            Self::Local(family) | Self::OnLink(family) | Self::Secluded(family) => {
                (vec![Link, Address(family)], vec![], true)
            }
            Self::Masquerade(family) => (vec![Address(family)], vec![], true),
            Self::Sources(family) => (vec![Address(family)], vec![Address(family)], true),
            Self::HostPorts(family) => {
                (vec![Protocol, Address(family), Port], vec![Address(family), Port], false)
            }
            Self::HostRanges(family) => {
                (vec![Port, Protocol, Address(family)], vec![Address(family)], true)
            }
            Self::AnyPorts(family) => (vec![Protocol, Port], vec![Address(family), Port], false),
            Self::AnyRanges(family) => (vec![Port, Protocol], vec![Address(family)], true),
        };
        Set { name: self, key, data, interval }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set, or a map where it has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Which one.
    pub name: SetName,
    /// Types of the key's fields; several are concatenated.
    pub key: Vec<FieldType>,
    /// Types of what it maps to; empty for a set.
    pub data: Vec<FieldType>,
    /// Whether keys are intervals.
    pub interval: bool,
}

/// Type of a field of a key or of data (nft's data types, `man 8 nft`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldType {
    /// `ifname`, 16 bytes padded with zeroes.
    Link,
    /// `ipv4_addr`, 4 bytes, or `ipv6_addr`, 16 bytes.
    Address(Family),
    /// `inet_proto`, 1 byte.
    Protocol,
    /// `inet_service`, 2 bytes, big endian.
    Port,
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A link's name.
    Link(LinkName),
    /// An address.
    Address(IpAddr),
    /// A protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Protocol(protocol) => protocol.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where packets enter it; `None` for a chain that is jumped to.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// Where packets enter a base chain; its policy is always accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Filter or NAT.
    pub kind: BaseKind,
    /// The hook.
    pub hook: Hook,
    /// Order among chains of a hook; lower comes first (uapi linux/netfilter_ipv4.h).
    pub priority: i32,
}

/// Type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseKind {
    /// Every packet.
    Filter,
    /// The first packet of a connection.
    Nat,
}

/// A netfilter hook of family inet (uapi linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// NF_INET_PRE_ROUTING.
    Prerouting,
    /// NF_INET_FORWARD.
    Forward,
    /// NF_INET_LOCAL_OUT.
    Output,
    /// NF_INET_POST_ROUTING.
    Postrouting,
}

/// A rule: when all matches hold, the statements are carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must hold.
    pub matches: Vec<Match>,
    /// What is done.
    pub statements: Vec<Statement>,
    /// Why, as an operator reads it in `nft list`.
    pub comment: &'static str,
}

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The fields, concatenated, are a key of the set.
    In(Vec<Field>, SetName),
    /// They are not.
    NotIn(Vec<Field>, SetName),
    /// The packet is of this family (`meta nfproto`).
    Is(Family),
    /// It is ICMP, or ICMPv6.
    Icmp(Family),
    /// It did not come in by the loopback link (`iifname != "lo"`).
    NotFromLoopback,
    /// Its source is in this net.
    SourceIn(IpNet),
    /// Its destination is in this net.
    DestinationIn(IpNet),
    /// Its destination is an address of this host (`fib daddr type local`).
    ToThisHost,
    /// It leaves by a bridge (`oifkind "bridge"`).
    LeavesByBridge,
    /// Its connection is known or related to a known one.
    Established,
    /// It opens a connection.
    New,
    /// The destination of its connection was translated (`ct status dnat`).
    Dnat,
    /// It was not.
    NotDnat,
    /// Its connection was ended by a change of its network (`ct mark`).
    Ended(Mark),
}

/// A packet's field, as a part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Name of the link it came in by.
    InLink,
    /// Name of the link it leaves by.
    OutLink,
    /// Source of a packet of this family.
    Source(Family),
    /// Destination of a packet of this family.
    Destination(Family),
    /// Transport protocol.
    Protocol,
    /// Transport destination port.
    Port,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Counts packets and bytes.
    Counter,
    /// Sets our bit in the packet's mark.
    SetMark(Mark),
    /// Done with this table.
    Accept,
    /// Gone.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Through another chain, and back.
    Jump(&'static str),
    /// Through another chain, and not back.
    Goto(&'static str),
    /// New destination from a map (`dnat ip to … map @…`); a miss goes on to the next rule.
    Dnat(Vec<Field>, SetName),
    /// New source from a map; a miss goes on to the next rule.
    Snat(Vec<Field>, SetName),
    /// The address of the link it leaves by becomes the source.
    Masquerade,
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        for set in &self.sets {
            writeln!(f, "\t{set}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |types: &[FieldType]| {
            types.iter().map(|field| field.as_str()).collect::<Vec<_>>().join(" . ")
        };
        let kind = if self.data.is_empty() { "set" } else { "map" };
        write!(f, "{kind} {} {{ type {}", self.name, join(&self.key))?;
        if !self.data.is_empty() {
            write!(f, " : {}", join(&self.data))?;
        }
        if self.interval {
            write!(f, "; flags interval")?;
        }
        write!(f, " }}")
    }
}

impl FieldType {
    /// nft's name for the type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "ifname",
            Self::Address(Family::V4) => "ipv4_addr",
            Self::Address(Family::V6) => "ipv6_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(Base { kind, hook, priority }) = self.base {
            let kind = match kind {
                BaseKind::Filter => "filter",
                BaseKind::Nat => "nat",
            };
            let hook = match hook {
                Hook::Prerouting => "prerouting",
                Hook::Forward => "forward",
                Hook::Output => "output",
                Hook::Postrouting => "postrouting",
            };
            writeln!(f, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;")?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        for statement in &self.statements {
            write!(f, "{statement} ")?;
        }
        write!(f, "comment \"{}\"", self.comment)
    }
}

fn concat(fields: &[Field]) -> String {
    fields.iter().map(|field| field.as_str()).collect::<Vec<_>>().join(" . ")
}

const fn nat_family(map: SetName) -> &'static str {
    match map.family() {
        Some(Family::V6) => "ip6",
        Some(Family::V4) | None => "ip",
    }
}

/// As nft has it: the net of one address is the address.
fn net_text(net: IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

impl Field {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InLink => "iifname",
            Self::OutLink => "oifname",
            Self::Source(Family::V4) => "ip saddr",
            Self::Source(Family::V6) => "ip6 saddr",
            Self::Destination(Family::V4) => "ip daddr",
            Self::Destination(Family::V6) => "ip6 daddr",
            Self::Protocol => "meta l4proto",
            Self::Port => "th dport",
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(fields, set) => write!(f, "{} @{set}", concat(fields)),
            Self::NotIn(fields, set) => write!(f, "{} != @{set}", concat(fields)),
            Self::Is(Family::V4) => f.write_str("meta nfproto ipv4"),
            Self::Is(Family::V6) => f.write_str("meta nfproto ipv6"),
            Self::Icmp(Family::V4) => f.write_str("meta l4proto icmp"),
            Self::Icmp(Family::V6) => f.write_str("meta l4proto ipv6-icmp"),
            Self::NotFromLoopback => f.write_str("iifname != \"lo\""),
            Self::SourceIn(net) => {
                let field = Field::Source(Family::of(net.addr()));
                write!(f, "{} {}", field.as_str(), net_text(*net))
            }
            Self::DestinationIn(net) => {
                let field = Field::Destination(Family::of(net.addr()));
                write!(f, "{} {}", field.as_str(), net_text(*net))
            }
            Self::ToThisHost => f.write_str("fib daddr type local"),
            Self::LeavesByBridge => f.write_str("meta oifkind \"bridge\""),
            Self::Established => f.write_str("ct state established,related"),
            Self::New => f.write_str("ct state new"),
            Self::Dnat => f.write_str("ct status dnat"),
            Self::NotDnat => f.write_str("ct status ! dnat"),
            Self::Ended(mark) => write!(f, "ct mark {:#x}", mark.ended()),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counter => f.write_str("counter"),
            Self::SetMark(mark) => write!(f, "meta mark set meta mark | {mark}"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Dnat(fields, map) => {
                write!(f, "dnat {} to {} map @{map}", nat_family(*map), concat(fields))
            }
            Self::Snat(fields, map) => {
                write!(f, "snat {} to {} map @{map}", nat_family(*map), concat(fields))
            }
            Self::Masquerade => f.write_str("masquerade"),
        }
    }
}
