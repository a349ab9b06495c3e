//! An in-memory host that knows the kernel's rules: what exists cannot be made again, a port needs
//! its bridge, a deleted link takes its addresses and its other end along, a firewall batch is all
//! or nothing.
//!
//! `tests/kernel_conformance.rs` runs the same operations here and in a real namespace and compares
//! results: what this host does is not a wish.

mod bridges;
mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Announcement, Kernel, KernelError, Outcome, Scope};
use crate::firewall::admission::Admission;
use crate::model::{
    Facts, HostAddress, LinkName, Mark, Mtu, PortRange, Protocol, SandboxId, Uplink,
};
use crate::object::{
    Element, Hold, Hop, Kind, Link, LinkKind, Netns, Object, ObjectKey, Op, Peer, Revert, Sysctl,
};
use crate::plan::{Observed, Owner, Seen};

use nix::errno::Errno;
use std::net::IpAddr;

/// A handle on an in-memory host; clones share it, as a restarted agent finds the same kernel.
#[derive(Debug, Clone)]
pub struct Fake {
    host: Arc<Mutex<Host>>,
}

/// What the host consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    facts: Facts,
    things: BTreeMap<ObjectKey, Object>,
    /// The other ends of veth pairs: where they are, and whose end they are.
    peers: BTreeMap<(Netns, LinkName), LinkName>,
    sysctls: BTreeMap<(Netns, String), String>,
    namespaces: BTreeMap<PathBuf, SandboxId>,
    next_sandbox: u64,
    busy: BTreeSet<(Protocol, IpAddr, u16)>,
    /// What others made that cannot carry our mark: addresses.
    foreign: BTreeSet<ObjectKey>,
    announced: Vec<Announcement>,
    admissions: Vec<Vec<Admission>>,
    hidden: BTreeSet<LinkName>,
    sctp: bool,
}

fn refuse(errno: Errno, text: impl Into<String>) -> KernelError {
    KernelError::new(errno as i32, text)
}

impl Fake {
    /// A host with these facts and nothing of ours.
    pub fn new(facts: Facts) -> Self {
        let host = Host {
            facts,
            things: BTreeMap::new(),
            peers: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            next_sandbox: 1,
            busy: BTreeSet::new(),
            foreign: BTreeSet::new(),
            announced: Vec::new(),
            admissions: Vec::new(),
            hidden: BTreeSet::new(),
            sctp: true,
        };
        Self { host: Arc::new(Mutex::new(host)) }
    }

    /// An ordinary host: one uplink of MTU 1450 with a default route, no router, a recent kernel.
    pub fn ordinary() -> Facts {
        let uplink = "uplink0".parse().map(|name| Uplink {
            name,
            default_route: true,
            forwarding_v4: false,
            forwarding_v6: Some(false),
            learned_v6: None,
        });
        Facts {
            default_mtu: Mtu::new(1450).unwrap_or(Mtu::ETHERNET),
            uplinks: uplink.into_iter().collect(),
            router: false,
            router_v6: false,
            bridge_netfilter: true,
            force_forwarding: true,
            ipv6: true,
            bridged_v6_filtered: false,
            iptables: true,
            ip6tables: true,
            mark: Mark::DEFAULT,
            taken: "198.51.100.0/24".parse().into_iter().collect(),
            foreign_links: BTreeMap::new(),
            ephemeral_ports: (32768, 60999),
        }
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a sandbox.
    pub fn add_namespace(&self, path: impl Into<PathBuf>) {
        self.host().add_namespace(path.into());
    }

    /// Ends a sandbox: links inside go, and so do their other ends.
    pub fn end_namespace(&self, path: impl Into<PathBuf>) {
        let mut host = self.host();
        let path = path.into();
        host.namespaces.remove(&path);
        let gone: Vec<LinkName> = host
            .peers
            .iter()
            .filter(|((netns, _), _)| *netns == Netns::Path(path.clone()))
            .map(|(_, name)| name.clone())
            .collect();
        for name in gone {
            host.remove_link(&Netns::Host, &name);
        }
    }

    /// Moves the other end of a veth pair from the host into a sandbox, as dockerd does.
    pub fn hand_over(&self, peer: &LinkName, sandbox: impl Into<PathBuf>) -> bool {
        self.hand_over_as(peer, sandbox, peer)
    }

    /// The same under a new name.
    pub fn hand_over_as(
        &self,
        peer: &LinkName,
        sandbox: impl Into<PathBuf>,
        name: &LinkName,
    ) -> bool {
        let mut host = self.host();
        let sandbox = sandbox.into();
        host.add_namespace(sandbox.clone());
        match host.peers.remove(&(Netns::Host, peer.clone())) {
            Some(end) => {
                host.peers.insert((Netns::Path(sandbox), name.clone()), end);
                true
            }
            None => false,
        }
    }

    /// Everything on the host as text, one thing a line: two hosts are alike when it is equal.
    pub fn listing(&self) -> String {
        let host = self.host();
        let mut lines: Vec<String> =
            host.things.values().map(|thing| Op::Create(thing.clone()).to_string()).collect();
        lines.extend(host.peers.keys().map(|(netns, name)| format!("peer {netns} {name}")));
        let raised = host.sysctls.iter().filter(|(_, value)| *value != "0");
        lines.extend(raised.map(|((netns, key), value)| format!("sysctl {netns} {key} = {value}")));
        lines.sort();
        lines.join("\n")
    }

    /// The agent's process ends: sockets are closed, the rest stays.
    pub fn process_ended(&self) {
        self.host().things.retain(|key, _| key.kind != Kind::Hold);
    }
}

impl Host {
    fn add_namespace(&mut self, path: PathBuf) {
        if !self.namespaces.contains_key(&path) {
            self.namespaces.insert(path, SandboxId(self.next_sandbox));
            self.next_sandbox += 1;
        }
    }

    fn link(&self, netns: &Netns, name: &LinkName) -> Option<&Link> {
        let key = ObjectKey { kind: Kind::Link, netns: netns.clone(), name: name.to_string() };
        match self.things.get(&key) {
            Some(Object::Link(link)) => Some(link),
            _ => None,
        }
    }

    fn has_link(&self, netns: &Netns, name: &LinkName) -> bool {
        self.link(netns, name).is_some() || self.peers.contains_key(&(netns.clone(), name.clone()))
    }

    /// The other end of a pair as a thing of its own: ours by its group, without an alias.
    fn peer(&self, netns: &Netns, name: LinkName) -> Object {
        Object::Link(Link {
            netns: netns.clone(),
            name,
            kind: LinkKind::Veth { peer: Peer::Elsewhere, isolated: false },
            mtu: self.facts.default_mtu,
            mac: None,
            master: None,
            alias: String::new(),
            serving: true,
        })
    }

    fn need_namespace(&self, netns: &Netns) -> Result<(), KernelError> {
        match netns {
            Netns::Path(path) if !self.namespaces.contains_key(path) => {
                Err(refuse(Errno::ENOENT, format!("network namespace {} is gone", path.display())))
            }
            Netns::Host | Netns::Path(_) => Ok(()),
        }
    }

    fn need_link(&self, netns: &Netns, name: &LinkName) -> Result<(), KernelError> {
        self.need_namespace(netns)?;
        match self.has_link(netns, name) {
            true => Ok(()),
            false => Err(refuse(Errno::ENODEV, "")),
        }
    }

    fn perform(&mut self, op: &Op) -> Result<(), KernelError> {
        match op {
            Op::Create(object) => self.create(object),
            Op::Change { from, to } => self.change(from, to),
            Op::Delete(object) => self.delete(object),
        }
    }

    fn create(&mut self, object: &Object) -> Result<(), KernelError> {
        if let Object::Sysctl(sysctl) = object {
            return self.write(sysctl, &sysctl.value);
        }
        if self.things.contains_key(&object.key()) {
            return Err(refuse(Errno::EEXIST, ""));
        }
        match object {
            Object::Link(link) => self.create_link(link)?,
            Object::Address(address) => self.need_link(&address.netns, &address.link)?,
            Object::Route(route) => {
                self.need_link(&route.netns, &route.link)?;
                let reaches = |via: IpAddr, object: &Object| {
                    matches!(object, Object::Address(address) if address.netns == route.netns
                        && address.link == route.link && address.net.contains(&via))
                };
                if let Hop::Via(via) = route.hop
                    && !self.things.values().any(|object| reaches(via, object))
                {
                    return Err(refuse(Errno::ENETUNREACH, "Nexthop has invalid gateway"));
                }
            }
            Object::Element(element) => self.check_element(element)?,
            Object::Hold(hold) => self.check_hold(hold)?,
            Object::Table(_) | Object::Accept(_) | Object::Sysctl(_) => {}
        }
        self.things.insert(object.key(), object.clone());
        Ok(())
    }

    fn create_link(&mut self, link: &Link) -> Result<(), KernelError> {
        self.need_namespace(&link.netns)?;
        if self.has_link(&link.netns, &link.name) {
            return Err(refuse(Errno::EEXIST, ""));
        }
        if let Some(master) = &link.master {
            self.need_link(&link.netns, master)?;
        }
        let LinkKind::Veth { peer, .. } = &link.kind else { return Ok(()) };
        match peer {
            Peer::Elsewhere => Err(refuse(Errno::EOPNOTSUPP, "its other end is in a container")),
            Peer::At { netns, name, sysctls, .. } => {
                self.need_namespace(netns)?;
                if self.has_link(netns, name) {
                    return Err(refuse(Errno::EEXIST, ""));
                }
                self.peers.insert((netns.clone(), name.clone()), link.name.clone());
                let own = sysctls.iter().map(|(key, value)| ((netns.clone(), key.clone()), value));
                self.sysctls.extend(own.map(|(key, value)| (key, value.clone())));
                Ok(())
            }
        }
    }

    fn check_element(&self, element: &Element) -> Result<(), KernelError> {
        if !self.things.keys().any(|key| key.kind == Kind::Table) {
            return Err(refuse(Errno::ENOENT, ""));
        }
        let clash = |object: &Object| {
            matches!(object, Object::Element(other) if other.set == element.set
                && element.set.declaration().interval && overlap(element, other))
        };
        match self.things.values().any(clash) {
            true => Err(refuse(Errno::EEXIST, "")),
            false => Ok(()),
        }
    }

    fn check_hold(&self, hold: &Hold) -> Result<(), KernelError> {
        let protocol = hold.protocol;
        let taken = |port: u16| {
            refuse(Errno::EADDRINUSE, format!("port {port}/{protocol}")).with_port(protocol, port)
        };
        let meets = |other: HostAddress| hold.host.meets(other);
        for object in self.things.values() {
            if let Object::Hold(other) = object
                && other.protocol == hold.protocol
                && meets(other.host)
                && other.ports.overlaps(hold.ports)
            {
                return Err(taken(other.ports.first().max(hold.ports.first())));
            }
        }
        let mut busy = self.busy.iter().filter(|(protocol, address, port)| {
            *protocol == hold.protocol
                && meets(HostAddress::At(*address))
                && PortRange::single(*port).is_some_and(|port| port.overlaps(hold.ports))
        });
        busy.next().map_or(Ok(()), |(_, _, port)| Err(taken(*port)))
    }

    fn write(&mut self, sysctl: &Sysctl, value: &str) -> Result<(), KernelError> {
        self.need_namespace(&sysctl.netns)?;
        if let Some(name) = sysctl.link()
            && !self.has_link(&sysctl.netns, &name)
            && !self.facts.uplinks.iter().any(|uplink| uplink.name == name)
        {
            return Err(refuse(Errno::ENOENT, ""));
        }
        self.sysctls.insert((sysctl.netns.clone(), sysctl.key.clone()), value.to_owned());
        Ok(())
    }

    fn change(&mut self, from: &Object, to: &Object) -> Result<(), KernelError> {
        if let Object::Sysctl(sysctl) = to {
            return self.write(sysctl, &sysctl.value);
        }
        let errno = if from.kind() == Kind::Link { Errno::ENODEV } else { Errno::ENOENT };
        let Some(seen) = self.things.get(&from.key()).cloned() else {
            return Err(refuse(errno, ""));
        };
        if self.owner(&seen) == Owner::Foreign {
            return Err(refuse(Errno::EPERM, "it is not netagent's"));
        }
        if from.kind() == Kind::Table {
            self.things.retain(|key, _| !matches!(key.kind, Kind::Policy | Kind::Port));
        }
        let mut to = to.clone();
        if let (
            Object::Link(Link { kind: LinkKind::Veth { peer, .. }, .. }),
            Object::Link(Link { kind: LinkKind::Veth { peer: there, .. }, .. }),
        ) = (&mut to, seen)
        {
            *peer = there;
        }
        self.things.insert(to.key(), to);
        Ok(())
    }

    fn delete(&mut self, object: &Object) -> Result<(), KernelError> {
        if let Object::Sysctl(sysctl) = object {
            return match &sysctl.revert {
                Revert::WithLink => Ok(()),
                Revert::To(before) => self.revert(sysctl, before),
            };
        }
        if let Some((netns, link)) = object.carrier() {
            self.need_link(netns, link)?;
        }
        let key = object.key();
        let errno = match object {
            Object::Link(_) => Errno::ENODEV,
            Object::Address(_) => Errno::EADDRNOTAVAIL,
            Object::Route(_) => Errno::ESRCH,
            Object::Table(_)
            | Object::Element(_)
            | Object::Hold(_)
            | Object::Accept(_)
            | Object::Sysctl(_) => Errno::ENOENT,
        };
        let Some(seen) = self.things.get(&key) else { return Err(refuse(errno, "")) };
        if self.owner(seen) == Owner::Foreign {
            return Err(refuse(Errno::EPERM, "it is not netagent's"));
        }
        match object {
            Object::Link(link) => self.remove_link(&link.netns, &link.name),
            Object::Table(_) => {
                self.things.retain(|key, _| !matches!(key.kind, Kind::Policy | Kind::Port));
            }
            Object::Element(_)
            | Object::Address(_)
            | Object::Route(_)
            | Object::Hold(_)
            | Object::Accept(_)
            | Object::Sysctl(_) => {}
        }
        self.things.remove(&key);
        Ok(())
    }

    fn revert(&mut self, sysctl: &Sysctl, before: &str) -> Result<(), KernelError> {
        let now = self.sysctls.get(&(sysctl.netns.clone(), sysctl.key.clone()));
        match now.is_some_and(|now| *now == sysctl.value) {
            true => self.write(sysctl, before),
            false => Ok(()),
        }
    }

    fn remove_link(&mut self, netns: &Netns, name: &LinkName) {
        let mut gone = vec![(netns.clone(), name.clone())];
        gone.extend(
            self.peers.iter().filter(|(_, end)| *end == name).map(|(peer, _)| peer.clone()),
        );
        self.peers.retain(|_, end| end != name);
        let at = |netns: &Netns, name: &LinkName| gone.contains(&(netns.clone(), name.clone()));
        self.things.retain(|_, object| {
            let link = match object {
                Object::Link(link) => Some((&link.netns, &link.name)),
                Object::Table(_)
                | Object::Element(_)
                | Object::Sysctl(_)
                | Object::Address(_)
                | Object::Route(_)
                | Object::Hold(_)
                | Object::Accept(_) => object.carrier(),
            };
            !link.is_some_and(|(netns, link)| at(netns, link))
        });
        self.sysctls.retain(|(netns, key), _| !link_of(key).is_some_and(|link| at(netns, &link)));
        for object in self.things.values_mut() {
            if let Object::Link(port) = object
                && port.master.as_ref() == Some(name)
            {
                port.master = None;
            }
        }
    }
}

impl Sysctl {
    /// The link whose sysctl it is.
    fn link(&self) -> Option<LinkName> {
        link_of(&self.key)
    }
}

fn link_of(key: &str) -> Option<LinkName> {
    let mut parts = key.split('/');
    parts.find(|part| *part == "conf")?;
    parts.next().filter(|link| *link != "all")?.parse().ok()
}

fn overlap(one: &Element, other: &Element) -> bool {
    let last = |element: &Element| element.through.clone().unwrap_or_else(|| element.key.clone());
    let (one_last, other_last) = (last(one), last(other));
    one.key.iter().zip(&one_last).zip(other.key.iter().zip(&other_last)).all(
        |((first, last), (other_first, other_last))| first <= other_last && other_first <= last,
    )
}

fn is_firewall(op: &Op) -> bool {
    matches!(op.object(), Object::Table(_) | Object::Element(_))
}

/// Cuts operations into runs that the kernel takes as one: consecutive firewall operations are one
/// transaction, everything else is on its own.
pub fn runs(ops: &[Op]) -> impl Iterator<Item = &[Op]> {
    ops.chunk_by(|one, next| is_firewall(one) && is_firewall(next))
}

impl Kernel for Fake {
    fn facts(&mut self) -> Result<Facts, KernelError> {
        let host = self.host();
        let mut facts = host.facts.clone();
        for uplink in &mut facts.uplinks {
            let raised = |key: String| {
                host.sysctls.get(&(Netns::Host, key)).is_some_and(|value| value == "1")
            };
            uplink.forwarding_v4 = raised(format!("net/ipv4/conf/{}/forwarding", uplink.name));
            uplink.forwarding_v6 = uplink
                .forwarding_v6
                .map(|_| raised(format!("net/ipv6/conf/{}/force_forwarding", uplink.name)));
        }
        for object in host.things.values() {
            if let Object::Link(link) = object
                && host.owner(object) == Owner::Foreign
            {
                facts.foreign_links.insert(link.name.clone(), host.foreign_bridge(link));
            }
        }
        let bridges = facts.foreign_links.values().flatten();
        facts.taken.extend(bridges.flat_map(|bridge| bridge.nets.iter().copied()));
        Ok(facts)
    }

    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        let host = self.host();
        let (keys, all) = match scope {
            Scope::Everything(keys) => (keys, true),
            Scope::Keys(keys) => (keys, false),
        };
        let mut seen = Observed::new();
        for (key, object) in &host.things {
            let owner = host.owner(object);
            if (all && owner == Owner::Netagent) || keys.contains(key) {
                let mut object = object.clone();
                if let Object::Link(Link { kind: LinkKind::Veth { peer, .. }, .. }) = &mut object {
                    *peer = Peer::Elsewhere;
                }
                seen.insert(key.clone(), Seen { object, owner });
            }
        }
        for key in keys.iter().filter(|key| key.kind == Kind::Sysctl) {
            let exists = link_of(&key.name).is_none_or(|link| {
                host.has_link(&key.netns, &link)
                    || host.facts.uplinks.iter().any(|uplink| uplink.name == link)
            });
            if exists {
                let value = host.sysctls.get(&(key.netns.clone(), key.name.clone()));
                let sysctl = Sysctl {
                    netns: key.netns.clone(),
                    key: key.name.clone(),
                    value: value.cloned().unwrap_or_else(|| "0".into()),
                    revert: Revert::WithLink,
                };
                let object = Object::Sysctl(sysctl);
                seen.insert(key.clone(), Seen { object, owner: Owner::Netagent });
            }
        }
        // A name that the other end of a pair holds is as taken as any.
        for key in keys.iter().filter(|key| key.kind == Kind::Link) {
            if let Ok(name) = key.name.parse::<LinkName>()
                && host.peers.contains_key(&(key.netns.clone(), name.clone()))
            {
                let object = host.peer(&key.netns, name);
                seen.entry(key.clone()).or_insert(Seen { object, owner: Owner::Netagent });
            }
        }
        Ok(seen)
    }

    fn sandbox(&mut self, path: &Path) -> Result<SandboxId, KernelError> {
        let gone =
            || refuse(Errno::ENOENT, format!("network namespace {} is gone", path.display()));
        self.host().namespaces.get(path).copied().ok_or_else(gone)
    }

    fn perform(&mut self, ops: &[Op]) -> Vec<Outcome> {
        let mut host = self.host();
        let mut outcomes = Vec::with_capacity(ops.len());
        for run in runs(ops) {
            let before = host.clone();
            let failure = run
                .iter()
                .enumerate()
                .find_map(|(at, op)| host.perform(op).err().map(|error| (at, error)));
            let Some((at, error)) = failure else {
                outcomes.extend(run.iter().map(|_| Outcome::Done));
                continue;
            };
            *host = before;
            outcomes.extend((0..run.len()).map(|index| match index == at {
                true => Outcome::Failed(error.clone()),
                false => Outcome::NotTried,
            }));
            break;
        }
        outcomes.resize(ops.len(), Outcome::NotTried);
        outcomes
    }

    fn announce(&mut self, announcement: &Announcement) {
        self.host().announced.push(announcement.clone());
    }

    fn judge_flows(&mut self, admissions: &[Admission]) {
        self.host().admissions.push(admissions.to_vec());
    }

    fn out_of_reach(&mut self, links: &[LinkName]) -> Vec<LinkName> {
        let host = self.host();
        links.iter().filter(|link| host.hidden.contains(*link)).cloned().collect()
    }

    fn unreserved(&self) -> Vec<Hold> {
        self.host().without_socket()
    }

    fn garbage(&mut self) -> usize {
        0
    }
}
