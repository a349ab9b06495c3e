//! One reversible change to one kernel thing.

use std::collections::BTreeMap;
use std::fmt;

use super::{Element, Hop, Link, LinkKind, Netns, Object, ObjectKey, Peer, Revert};

/// A change; knows its undo and its one-line text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Make it; it must not exist.
    Create(Object),
    /// Turn what is there into what shall be.
    Change {
        /// What was seen.
        from: Object,
        /// What shall be.
        to: Object,
    },
    /// Remove it.
    Delete(Object),
}

impl Op {
    /// The object after a create or change, before a delete.
    pub fn object(&self) -> &Object {
        match self {
            Self::Create(object) | Self::Delete(object) | Self::Change { to: object, .. } => object,
        }
    }

    /// The key of the thing.
    pub fn key(&self) -> ObjectKey {
        self.object().key()
    }

    /// The change that takes this one back.
    pub fn undo(&self) -> Self {
        match self {
            Self::Create(object) => Self::Delete(object.clone()),
            Self::Delete(object) => Self::Create(object.clone()),
            Self::Change { from, to } => Self::Change { from: to.clone(), to: from.clone() },
        }
    }

    /// What the change is called in errors: "create", "change", "delete".
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Change { .. } => "change",
            Self::Delete(_) => "delete",
        }
    }
}

/// The plan line without its reason: `+ link    host nab-3f9c1b22a4c   bridge mtu 1500`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self {
            Self::Create(_) => '+',
            Self::Change { .. } => '~',
            Self::Delete(_) => '-',
        };
        let ObjectKey { kind, netns, name } = self.key();
        let subject = match self.object() {
            Object::Table(_) | Object::Element(_) | Object::Hold(_) | Object::Accept(_) => name,
            Object::Link(_) | Object::Sysctl(_) | Object::Address(_) | Object::Route(_) => {
                format!("{netns} {}", plain(self.object(), &name))
            }
        };
        write!(f, "{sign} {kind:<8} {subject}")?;
        let detail = match self {
            Self::Create(object) => detail(object),
            Self::Delete(object) => leaving(object),
            Self::Change { from, to } => format!("{} → {}", detail(from), detail(to)),
        };
        if detail.is_empty() { Ok(()) } else { write!(f, "  {detail}") }
    }
}

fn plain(object: &Object, name: &str) -> String {
    match object {
        Object::Sysctl(_) => name.replace('/', "."),
        Object::Table(_)
        | Object::Element(_)
        | Object::Link(_)
        | Object::Address(_)
        | Object::Route(_)
        | Object::Hold(_)
        | Object::Accept(_) => name.to_owned(),
    }
}

fn detail(object: &Object) -> String {
    match object {
        Object::Table(table) => format!(
            "{} chains, {} sets and maps",
            table.ruleset.chains.len(),
            table.ruleset.sets.len()
        ),
        Object::Element(element) => element.detail(),
        Object::Link(link) => link.detail(),
        Object::Sysctl(sysctl) => format!("= {}", sysctl.value),
        Object::Address(_) => String::new(),
        Object::Route(route) => match route.hop {
            Hop::Via(via) => format!("via {via}"),
            Hop::Local => "to this host".into(),
        },
        Object::Hold(_) => "bound so that nobody else takes it".into(),
        Object::Accept(accept) => format!("accepts mark {}", accept.mark),
    }
}

fn leaving(object: &Object) -> String {
    match object {
        Object::Sysctl(sysctl) => match &sysctl.revert {
            Revert::To(before) => format!("back to {before}"),
            Revert::WithLink => String::new(),
        },
        Object::Table(_)
        | Object::Element(_)
        | Object::Link(_)
        | Object::Address(_)
        | Object::Route(_)
        | Object::Hold(_)
        | Object::Accept(_) => String::new(),
    }
}

impl Element {
    fn detail(&self) -> String {
        match self.data.as_slice() {
            [] => String::new(),
            data => {
                let parts: Vec<String> = data.iter().map(ToString::to_string).collect();
                format!("to {}", parts.join(":"))
            }
        }
    }
}

impl Link {
    fn detail(&self) -> String {
        let mut text = match &self.kind {
            LinkKind::Bridge { filter_bridged } => {
                let filter = if *filter_bridged { " filtering neighbours" } else { "" };
                format!("bridge mtu {}{filter}", self.mtu)
            }
            LinkKind::Veth { peer, isolated } => {
                let isolated = if *isolated { " isolated" } else { "" };
                let peer = match peer {
                    Peer::At { netns: Netns::Host, name, mac, .. } => format!(" peer {name} {mac}"),
                    Peer::At { netns, name, mac, sysctls } => {
                        format!(" peer {netns} {name} {mac}{}", short(sysctls))
                    }
                    Peer::Elsewhere => String::new(),
                };
                format!("veth mtu {}{isolated}{peer}", self.mtu)
            }
        };
        if let Some(master) = &self.master {
            text.push_str(&format!(" on {master}"));
        }
        if !self.serving {
            text.push_str(" down");
        }
        text
    }
}

/// A link's own sysctls, without what all of them have: ` (ipv6.conf.disable_ipv6=1)`.
fn short(sysctls: &BTreeMap<String, String>) -> String {
    let short = sysctls.iter().map(|(key, value)| {
        let parts: Vec<&str> = key.split('/').collect();
        match parts.as_slice() {
            ["net", family, kind, _, name] => format!("{family}.{kind}.{name}={value}"),
            _ => format!("{key}={value}"),
        }
    });
    let short = short.collect::<Vec<_>>().join(" ");
    if short.is_empty() { short } else { format!(" ({short})") }
}
