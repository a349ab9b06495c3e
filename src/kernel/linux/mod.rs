//! The host, over netlink and /proc/sys.
//!
//! [`Linux`] is synchronous and is called from one thread. It keeps one NETLINK_ROUTE socket of
//! the namespace it was opened in; a sandbox is entered by a thread of its own that brings back a
//! socket ([`netns`]). Deleted links end behind the caller's back ([`garbage`]).

pub mod accept;
pub mod addr_route;
mod announce;
pub mod events;
mod facts;
pub mod firewall;
pub mod flows;
pub mod garbage;
pub mod hold;
pub mod link;
mod narrow;
pub mod netns;
pub mod nft;
mod observe;
pub mod probe;
pub mod seen;
pub mod socket;
pub mod sysctl;
pub mod wire;

use std::path::Path;

use crate::firewall::admission::Admission;
use crate::kernel::{Announcement, Kernel, KernelError, Outcome, Scope};
use crate::model::{Facts, LinkName, Mark, SandboxId};
use crate::object::{Hold, Link, LinkKind, Netns, Object, Op};
use crate::plan::Observed;

use accept::{Accepts, Available};
use announce::Announcer;
use firewall::Firewall;
use flows::Flows;
use garbage::Garbage;
use hold::Holds;
use netns::Wires;
use wire::Wire;

/// What a host is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The bit that marks packets our policy allows.
    pub mark: Mark,
    /// Whether other owners' chains are to accept that mark.
    pub iptables: Iptables,
}

/// Whether iptables is used for the accept in DOCKER-USER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iptables {
    /// Where it is there.
    Used,
    /// Never; facts say that it is missing.
    Unused,
}

/// The host that the calling thread is in.
#[derive(Debug)]
pub struct Linux {
    options: Options,
    wire: Wire,
    firewall: Firewall,
    flows: Flows,
    accepts: Accepts,
    holds: Holds,
    garbage: Garbage,
    announcer: Announcer,
}

impl Linux {
    /// Opens the calling thread's network namespace as the host, and goes on deleting what an
    /// earlier process had taken out of service.
    pub fn open(options: Options) -> Result<Self, KernelError> {
        let mut wire = Wire::open()?;
        let garbage = Garbage::start(&mut wire)?;
        Ok(Self {
            options,
            wire,
            firewall: Firewall::new(options.mark),
            flows: Flows::default(),
            accepts: Accepts::new(options.mark),
            holds: Holds::default(),
            garbage,
            announcer: Announcer::new(),
        })
    }

    /// The netlink port that changes our table: by it a [`nft::Monitor`] tells our doing from
    /// others'. The socket stays open, so the port stays ours.
    pub fn firewall_port(&mut self) -> Result<u32, KernelError> {
        self.firewall.port()
    }

    /// The netlink port that changes links, addresses and routes of the host, for an
    /// [`events::Monitor`].
    pub fn route_port(&mut self) -> Result<u32, KernelError> {
        self.wire.port()
    }
}

impl Kernel for Linux {
    fn facts(&mut self) -> Result<Facts, KernelError> {
        let iptables = match self.options.iptables {
            Iptables::Used => self.accepts.available(),
            Iptables::Unused => Available::default(),
        };
        facts::read(&mut self.wire, self.options.mark, iptables)
    }

    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError> {
        observe::observe(self, scope)
    }

    fn sandbox(&mut self, path: &Path) -> Result<SandboxId, KernelError> {
        netns::identity(path)
    }

    fn perform(&mut self, ops: &[Op]) -> Vec<Outcome> {
        let Self { wire, firewall, flows, accepts, holds, garbage, announcer, .. } = self;
        let mut host = Host { wires: Wires::new(wire), accepts, holds, garbage };
        let mut outcomes = Vec::with_capacity(ops.len());
        while let Some(rest) = ops.get(outcomes.len()..).filter(|rest| !rest.is_empty()) {
            let together = rest.iter().take_while(|op| is_firewall(op)).count();
            let (tried, result) = match rest.get(..together) {
                Some(group) if !group.is_empty() => {
                    let forget = |()| match host.wires.of(&Netns::Host) {
                        Ok(wire) => flows.forget(wire, group),
                        Err(error) => tracing::warn!(%error, "old UDP flows are kept"),
                    };
                    (together, firewall.transact(group).map(forget))
                }
                Some(_) | None => {
                    let result = rest.first().map_or(Ok(()), |op| host.perform(op));
                    (1, result.map_err(|error| (0, error)))
                }
            };
            match result {
                Ok(()) => outcomes.extend(vec![Outcome::Done; tried]),
                Err((at, error)) => {
                    // Of a transaction nothing took effect, what came before the culprit neither.
                    outcomes.extend(vec![Outcome::NotTried; at]);
                    outcomes.push(Outcome::Failed(error));
                    break;
                }
            }
        }
        outcomes.resize(ops.len(), Outcome::NotTried);
        if ops.iter().any(makes_bridge) {
            announcer.learn();
        }
        outcomes
    }

    fn announce(&mut self, announcement: &Announcement) {
        self.announcer.announce(&mut self.wire, announcement);
    }

    fn judge_flows(&mut self, admissions: &[Admission]) {
        let Self { options, wire, flows, .. } = self;
        if let Err(error) = flows.judge(wire, options.mark, admissions) {
            tracing::warn!(%error, "flows that are not allowed any more were not ended");
        }
    }

    fn out_of_reach(&mut self, links: &[LinkName]) -> Vec<LinkName> {
        let mut wires = Wires::new(&mut self.wire);
        let lost = |name: &&LinkName| !link::reaches_other_end(&mut wires, name);
        links.iter().filter(lost).cloned().collect()
    }

    fn unreserved(&self) -> Vec<Hold> {
        self.holds.without_socket().cloned().collect()
    }

    fn garbage(&mut self) -> usize {
        self.garbage.waiting()
    }
}

fn makes_bridge(op: &Op) -> bool {
    matches!(op, Op::Create(Object::Link(Link { kind: LinkKind::Bridge { .. }, .. })))
}

fn is_firewall(op: &Op) -> bool {
    match op.object() {
        Object::Table(_) | Object::Element(_) => true,
        Object::Link(_)
        | Object::Sysctl(_)
        | Object::Address(_)
        | Object::Route(_)
        | Object::Hold(_)
        | Object::Accept(_) => false,
    }
}

/// Everything but the firewall, for one batch of operations.
struct Host<'a> {
    wires: Wires<'a>,
    accepts: &'a mut Accepts,
    holds: &'a mut Holds,
    garbage: &'a mut Garbage,
}

impl Host<'_> {
    fn perform(&mut self, op: &Op) -> Result<(), KernelError> {
        match op {
            Op::Create(object) => self.create(object),
            Op::Change { from, to } => self.change(from, to),
            Op::Delete(object) => self.delete(object),
        }
    }

    fn create(&mut self, object: &Object) -> Result<(), KernelError> {
        match object {
            Object::Link(link) => link::create(&mut self.wires, link),
            Object::Sysctl(sysctl) => sysctl::write(sysctl),
            Object::Address(address) => {
                addr_route::create_address(self.wires.of(&address.netns)?, address)
            }
            Object::Route(route) => addr_route::create_route(self.wires.of(&route.netns)?, route),
            Object::Hold(hold) => self.holds.create(hold),
            Object::Accept(accept) => self.accepts.create(accept),
            Object::Table(_) | Object::Element(_) => Err(elsewhere()),
        }
    }

    fn change(&mut self, from: &Object, to: &Object) -> Result<(), KernelError> {
        match to {
            Object::Link(link) => link::change(&mut self.wires, self.garbage, link),
            Object::Sysctl(sysctl) => sysctl::write(sysctl),
            Object::Route(route) => addr_route::change_route(self.wires.of(&route.netns)?, route),
            Object::Accept(accept) => self.accepts.change(accept),
            Object::Hold(hold) => self.holds.change(hold),
            // Nothing of it can differ under one key.
            Object::Address(_) => {
                self.delete(from)?;
                self.create(to)
            }
            Object::Table(_) | Object::Element(_) => Err(elsewhere()),
        }
    }

    fn delete(&mut self, object: &Object) -> Result<(), KernelError> {
        match object {
            Object::Link(link) => link::delete(&mut self.wires, self.garbage, link),
            Object::Sysctl(sysctl) => sysctl::revert(sysctl),
            Object::Address(address) => {
                addr_route::delete_address(self.wires.of(&address.netns)?, address)
            }
            Object::Route(route) => addr_route::delete_route(self.wires.of(&route.netns)?, route),
            Object::Hold(hold) => self.holds.delete(hold),
            Object::Accept(accept) => self.accepts.delete(accept),
            Object::Table(_) | Object::Element(_) => Err(elsewhere()),
        }
    }
}

fn elsewhere() -> KernelError {
    KernelError::new(0, "firewall operations are performed as transactions")
}
