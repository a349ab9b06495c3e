//! Typed tables, chains, rules, sets and maps.
//!
//! Only what our policy says can be said. `Display` gives the text that `nft list` would print,
//! close enough to read beside it; it is what golden tests compare.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::model::{LinkName, Mark, Protocol};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName {
    /// Our bridges.
    Bridges,
    /// Each of our bridges twice: a packet that stays on its bridge.
    Same,
    /// Bridges whose neighbours may not talk.
    IccDenied,
    /// Bridges of internal networks.
    Internal,
    /// Links that default routes go by: allowed packets are marked there even if it is a bridge.
    Uplinks,
    /// Links whose forwarding was raised for us alone, while the host is no router.
    Raised,
    /// Links whose IPv6 forwarding was raised for us alone.
    RaisedV6,
    /// Each raised link twice: a packet that a bridge uplink merely bridges.
    Bridged,
    /// Bridge and subnet: addresses that are local to a bridge.
    Local,
    /// Subnets whose packets leave with the host's address.
    Masquerade,
    /// Published on one host address: protocol, address, port to address and port.
    HostPorts,
    /// Published on one host address, as a range of the same numbers: port, protocol, address.
    HostRanges,
    /// Published on every host address: protocol, port to address and port.
    AnyPorts,
    /// Published on every host address, as a range of the same numbers: port, protocol.
    AnyRanges,
}

impl SetName {
    /// Every set, in the order they are declared.
    pub const ALL: [Self; 14] = [
        Self::Bridges,
        Self::Same,
        Self::IccDenied,
        Self::Internal,
        Self::Uplinks,
        Self::Raised,
        Self::RaisedV6,
        Self::Bridged,
        Self::Local,
        Self::Masquerade,
        Self::HostPorts,
        Self::HostRanges,
        Self::AnyPorts,
        Self::AnyRanges,
    ];

    /// The name in the kernel.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bridges => "bridges",
            Self::Same => "same",
            Self::IccDenied => "icc_denied",
            Self::Internal => "internal",
            Self::Uplinks => "uplinks",
            Self::Raised => "raised",
            Self::RaisedV6 => "raised_v6",
            Self::Bridged => "bridged",
            Self::Local => "local",
            Self::Masquerade => "masqueraded",
            Self::HostPorts => "host_ports",
            Self::HostRanges => "host_ranges",
            Self::AnyPorts => "any_ports",
            Self::AnyRanges => "any_ranges",
        }
    }

    /// Whether it maps published ports; all others are policy.
    pub const fn is_port_map(self) -> bool {
        matches!(self, Self::HostPorts | Self::HostRanges | Self::AnyPorts | Self::AnyRanges)
    }

    /// Whether its elements say what the host's links are, whatever networks there are.
    pub const fn is_host_wide(self) -> bool {
        matches!(self, Self::Uplinks | Self::Raised | Self::RaisedV6 | Self::Bridged)
    }

    /// Its declaration.
    pub fn declaration(self) -> Set {
        use FieldType::{Ipv4, Link, Port, Protocol};
        let (key, data, interval): (&[FieldType], &[FieldType], bool) = match self {
            Self::Bridges
            | Self::IccDenied
            | Self::Internal
            | Self::Uplinks
            | Self::Raised
            | Self::RaisedV6 => (&[Link], &[], false),
            Self::Same | Self::Bridged => (&[Link, Link], &[], false),
            Self::Local => (&[Link, Ipv4], &[], true),
            Self::Masquerade => (&[Ipv4], &[], true),
            Self::HostPorts => (&[Protocol, Ipv4, Port], &[Ipv4, Port], false),
            Self::HostRanges => (&[Port, Protocol, Ipv4], &[Ipv4], true),
            Self::AnyPorts => (&[Protocol, Port], &[Ipv4, Port], false),
            Self::AnyRanges => (&[Port, Protocol], &[Ipv4], true),
        };
        Set { name: self, key: key.to_vec(), data: data.to_vec(), interval }
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
    /// `ipv4_addr`, 4 bytes.
    Ipv4,
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
    Ipv4(Ipv4Addr),
    /// A protocol.
    Protocol(Protocol),
    /// A port.
    Port(u16),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => name.fmt(f),
            Self::Ipv4(address) => address.fmt(f),
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
    /// The packet is IPv4 (`meta nfproto ipv4`).
    IsIpv4,
    /// The packet is not IPv4.
    NotIpv4,
    /// It did not come in by the loopback link (`iifname != "lo"`).
    NotFromLoopback,
    /// Its source is in this net.
    SourceIn(Ipv4Net),
    /// Its destination is in this net.
    DestinationIn(Ipv4Net),
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
}

/// A packet's field, as a part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Name of the link it came in by.
    InLink,
    /// Name of the link it leaves by.
    OutLink,
    /// IPv4 source.
    Source,
    /// IPv4 destination.
    Destination,
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
            Self::Ipv4 => "ipv4_addr",
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

impl Field {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InLink => "iifname",
            Self::OutLink => "oifname",
            Self::Source => "ip saddr",
            Self::Destination => "ip daddr",
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
            Self::IsIpv4 => f.write_str("meta nfproto ipv4"),
            Self::NotIpv4 => f.write_str("meta nfproto != ipv4"),
            Self::NotFromLoopback => f.write_str("iifname != \"lo\""),
            Self::SourceIn(net) => write!(f, "ip saddr {net}"),
            Self::DestinationIn(net) => write!(f, "ip daddr {net}"),
            Self::ToThisHost => f.write_str("fib daddr type local"),
            Self::LeavesByBridge => f.write_str("meta oifkind \"bridge\""),
            Self::Established => f.write_str("ct state established,related"),
            Self::New => f.write_str("ct state new"),
            Self::Dnat => f.write_str("ct status dnat"),
            Self::NotDnat => f.write_str("ct status ! dnat"),
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
            Self::Dnat(fields, map) => write!(f, "dnat ip to {} map @{map}", concat(fields)),
            Self::Masquerade => f.write_str("masquerade"),
        }
    }
}
