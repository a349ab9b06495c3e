//! The kernel as one trait: values in, values out.
//!
//! [`linux`] is the host, [`fake`] an in-memory host that knows the kernel's rules, [`faulty`] wraps
//! either and fails where it is told to. Only the engine calls it.

pub mod fake;
pub mod faulty;
pub mod linux;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use crate::firewall::admission::Admission;
use crate::model::{Facts, LinkName, MacAddr, Protocol, SandboxId};
use crate::object::{Hold, ObjectKey, Op};
use crate::plan::Observed;

/// What an observation covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything of ours, and whatever holds these keys.
    Everything(Vec<ObjectKey>),
    /// Whatever holds these keys, nothing else.
    Keys(Vec<ObjectKey>),
}

/// Where addresses are from now on, for those on a bridge who remember another place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The bridge that the endpoint is or will be a port of.
    pub bridge: LinkName,
    /// The endpoint's MAC address.
    pub mac: MacAddr,
    /// Its addresses, of both families.
    pub addresses: Vec<IpAddr>,
}

/// How one operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// It was tried and failed. Whether it took effect is for an observation of its key to say.
    Failed(KernelError),
    /// An operation before it failed, so it was not tried.
    NotTried,
}

/// The kernel's refusal, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelError {
    /// errno, positive; 0 where no system call failed.
    pub errno: i32,
    /// What the kernel or we add: the extended ack, the colliding owner.
    pub text: String,
    /// The port that another program has, where that is why.
    pub port: Option<(Protocol, u16)>,
}

impl KernelError {
    /// An errno with what is known besides.
    pub fn new(errno: i32, text: impl Into<String>) -> Self {
        Self { errno, text: text.into(), port: None }
    }

    /// Adds the port that another program has.
    #[must_use]
    pub fn with_port(mut self, protocol: Protocol, port: u16) -> Self {
        self.port = Some((protocol, port));
        self
    }
}

/// `EBUSY: device is enslaved`, or the errno's own sentence where there is no text.
impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.errno);
        match (self.errno, self.text.as_str()) {
            (0, text) => f.write_str(text),
            (_, "") => write!(f, "{errno:?}: {}", errno.desc()),
            (_, text) => write!(f, "{errno:?}: {text}"),
        }
    }
}

impl std::error::Error for KernelError {}

/// Everything netagent reads from and does to a host.
pub trait Kernel: Send {
    /// Reads what planning must know.
    fn facts(&mut self) -> Result<Facts, KernelError>;

    /// Reads what is there.
    fn observe(&mut self, scope: &Scope) -> Result<Observed, KernelError>;

    /// Which namespace is at this path; an error where there is none, or it is the host's own.
    fn sandbox(&mut self, path: &Path) -> Result<SandboxId, KernelError>;

    /// Performs the operations in order and stops at the first failure; the answer has one outcome
    /// an operation. Consecutive firewall operations are one transaction: all or none of them.
    fn perform(&mut self, ops: &[Op]) -> Vec<Outcome>;

    /// Makes neighbours on the bridge, and the host itself, replace what they remember of these
    /// addresses. Best effort: who does not hear it finds out when the old place stays silent.
    fn announce(&mut self, announcement: &Announcement);

    /// Ends established flows into networks that would not be let in any more, and lets those
    /// that were ended go on where they would. Best effort: a flow that is missed ends when
    /// its connection does.
    fn judge_flows(&mut self, admissions: &[Admission]);

    /// Those of these veths of the host whose other end cannot be found, so that it would not be
    /// changed along.
    fn out_of_reach(&mut self, links: &[LinkName]) -> Vec<LinkName>;

    /// What is held without a socket, because this kernel has none of the protocol: SCTP. It is
    /// learned where such a port is to be held, as asking for a socket may load a module.
    fn unreserved(&self) -> Vec<Hold>;

    /// How many links that were taken out of service still wait to be deleted.
    fn garbage(&mut self) -> usize;
}
