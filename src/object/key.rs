//! The name of a kernel thing: what it is, where it is, what it is called.

use std::fmt;

use ipnet::IpNet;

use super::{Address, Netns, Object, Route};
use crate::model::{Family, LinkName};

/// What a thing is, in the order things are made; they are removed in reverse.
///
/// Policy is in place before a link comes up, and goes after it is down; a port is held before
/// packets are sent its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Our nf_tables table.
    Table,
    /// An element of a policy set.
    Policy,
    /// A link.
    Link,
    /// A sysctl.
    Sysctl,
    /// An address.
    Address,
    /// A route.
    Route,
    /// Held host ports.
    Hold,
    /// An element of a map of published ports.
    Port,
    /// The rule in DOCKER-USER.
    Accept,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Table => "table",
            Self::Policy => "policy",
            Self::Link => "link",
            Self::Sysctl => "sysctl",
            Self::Address => "address",
            Self::Route => "route",
            Self::Hold => "hold",
            Self::Port => "port",
            Self::Accept => "accept",
        })
    }
}

/// What identifies a kernel thing: two objects of one key cannot exist at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub netns: Netns,
    /// What it is called there.
    pub name: String,
}

impl ObjectKey {
    /// The key of a link.
    pub fn link(netns: Netns, name: &LinkName) -> Self {
        Self { kind: Kind::Link, netns, name: name.to_string() }
    }

    /// The key of an address on a link.
    pub fn address(netns: Netns, link: &LinkName, net: IpNet) -> Self {
        Self { kind: Kind::Address, netns, name: format!("{net} dev {link}") }
    }

    /// The key of a route that leaves by a link.
    pub fn route(netns: Netns, link: &LinkName, destination: IpNet) -> Self {
        Self { kind: Kind::Route, netns, name: format!("{destination} dev {link}") }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\" in netns {}", self.kind, self.name, self.netns)
    }
}

impl Object {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Table(_) => Kind::Table,
            Self::Element(element) if element.set.is_port_map() => Kind::Port,
            Self::Element(_) => Kind::Policy,
            Self::Link(_) => Kind::Link,
            Self::Sysctl(_) => Kind::Sysctl,
            Self::Address(_) => Kind::Address,
            Self::Route(_) => Kind::Route,
            Self::Hold(_) => Kind::Hold,
            Self::Accept(_) => Kind::Accept,
        }
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        let host = || Netns::Host;
        let (netns, name) = match self {
            Self::Link(link) => return ObjectKey::link(link.netns.clone(), &link.name),
            Self::Address(Address { netns, link, net }) => {
                return ObjectKey::address(netns.clone(), link, *net);
            }
            Self::Route(Route { netns, link, destination, .. }) => {
                return ObjectKey::route(netns.clone(), link, *destination);
            }
            Self::Table(table) => (host(), format!("inet {}", table.ruleset.table)),
            Self::Element(element) => (host(), element.name()),
            Self::Sysctl(sysctl) => (sysctl.netns.clone(), sysctl.key.clone()),
            Self::Hold(hold) => (host(), format!("{}:{}/{}", hold.host, hold.ports, hold.protocol)),
            Self::Accept(accept) => (
                host(),
                match accept.family {
                    Family::V4 => "iptables DOCKER-USER".into(),
                    Family::V6 => "ip6tables DOCKER-USER".into(),
                },
            ),
        };
        ObjectKey { kind: self.kind(), netns, name }
    }
}

impl super::Element {
    /// Set and key as nft prints them: `any_ports tcp . 8080`.
    fn name(&self) -> String {
        let mut name = self.set.to_string();
        let through = self.through.as_deref().unwrap_or(&self.key);
        for (at, (first, last)) in self.key.iter().zip(through).enumerate() {
            name.push_str(if at == 0 { " " } else { " . " });
            name.push_str(&first.to_string());
            if first != last {
                name.push('-');
                name.push_str(&last.to_string());
            }
        }
        name
    }
}
