//! Our nf_tables table in the kernel: transactions out, contents and announcements in.
//!
//! What the messages look like is decided in `firewall::nftables`; here they are sent. Never runs
//! `nft`, and never reads or writes another owner's table.

mod monitor;

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::socket::{Message, Socket, ack};
use crate::firewall::model::{Ruleset, SetName};
use crate::firewall::nftables::decode::{self, Owner, SeenRule, SeenTable};
use crate::firewall::nftables::element::Listing;
use crate::firewall::nftables::wire::{self, FAMILY_HEADER};
use crate::firewall::nftables::{self, Batch, Ownership};
use crate::firewall::policy::TABLE;
use crate::kernel::KernelError;
use crate::object::{Element, Op};

pub use monitor::{Event, Monitor, Touched};

/// NLMSGERR_ATTR_OFFS: where in the request the kernel found fault.
const ATTR_OFFSET: u16 = 2;

/// The one netfilter socket of the agent, in the network namespace of the thread that opened it.
///
/// Meant to live as long as the agent: closing it after a delete waits 16 ms for the kernel, and
/// where the table is owned, the owner is this socket.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    port: u32,
    /// How tables are made; `Shared` once the kernel has refused to have them owned.
    ownership: Ownership,
    standing: Standing,
}

/// How our socket stands to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not looked at yet.
    Unknown,
    /// It is ours alone.
    Owned,
    /// It is absent, or anybody's.
    Open,
}

/// What is in our table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Which ruleset was installed; `None` if somebody else made the table.
    pub fingerprint: Option<u32>,
    /// Who may change it.
    pub owner: Owner,
    /// All rules, chain by chain.
    pub rules: Vec<SeenRule>,
    /// The elements of all sets and maps.
    pub elements: Vec<Element>,
    /// Elements that cannot be said in our words, so somebody else put them there.
    pub foreign_elements: usize,
}

impl Contents {
    /// Whether these are the rules of `ruleset`: it was installed by this build of the agent, and
    /// no rule was added, removed or moved since.
    pub fn is(&self, ruleset: &Ruleset) -> bool {
        let mut wanted: Vec<(&str, &str)> = ruleset
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().map(|rule| (chain.name, rule.comment)))
            .collect();
        let mut seen: Vec<(&str, &str)> =
            self.rules.iter().map(|rule| (rule.chain.as_str(), rule.comment.as_str())).collect();
        // Stable sorts: the order of chains says nothing, that of rules in a chain does.
        wanted.sort_by_key(|(chain, _)| *chain);
        seen.sort_by_key(|(chain, _)| *chain);
        self.fingerprint == Some(nftables::fingerprint(ruleset)) && wanted == seen
    }
}

/// A transaction that did not take place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The operation at fault, where it is known.
    pub op: Option<usize>,
    /// Why, in the kernel's words.
    pub error: KernelError,
}

impl Nft {
    /// Opens the socket in the calling thread's network namespace, for a table that only it can
    /// change where the kernel has that (Linux 6.9), else for one that any privileged process can.
    /// Nothing is changed yet: the table of a dead agent is taken over by [`adopt`](Self::adopt) or the
    /// first transaction.
    pub fn open() -> Result<Self, KernelError> {
        Self::open_as(Ownership::Owned)
    }

    /// As [`open`](Self::open), with the choice who may change the table.
    pub fn open_as(ownership: Ownership) -> Result<Self, KernelError> {
        let failed = |error| refusal("open a netfilter socket", &error);
        let mut socket = Socket::open(NETLINK_NETFILTER).map_err(failed)?;
        let port = socket.port().map_err(failed)?;
        Ok(Self { socket, port, ownership, standing: Standing::Unknown })
    }

    /// The netlink port of the socket, by which a [`Monitor`] tells our changes from others'.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Whether the table is there and only this socket can change it.
    pub fn owned(&self) -> bool {
        self.standing == Standing::Owned
    }

    /// Carries out operations on the table and its elements as one transaction: all or nothing.
    ///
    /// Creating what exists is EEXIST, deleting what does not is ENOENT. A changed table begins
    /// empty, so its elements are to be created after it. The error names the operation.
    pub fn transact(&mut self, ops: &[Op]) -> Result<(), KernelError> {
        self.try_transact(ops).map_err(|Refused { op, mut error }| {
            if let Some(op) = op.and_then(|op| ops.get(op)) {
                let why = match error.text.as_str() {
                    "" => Errno::from_raw(error.errno).desc(),
                    text => text,
                };
                error.text = format!("{} {}: {why}", op.verb(), op.key());
            }
            error
        })
    }

    /// As [`transact`](Self::transact), with the number of the operation at fault beside the error.
    pub fn try_transact(&mut self, ops: &[Op]) -> Result<(), Refused> {
        if ops.is_empty() {
            return Ok(());
        }
        self.settle()?;
        loop {
            let next = &mut || self.socket.next_sequence();
            let batch = Batch::render(ops, self.ownership, next).map_err(|unfit| Refused {
                op: Some(unfit.op),
                error: KernelError::new(Errno::EINVAL as i32, unfit.text),
            })?;
            match self.run(&batch) {
                Ok(()) => break,
                Err((sequence, refused)) if self.can_share(&batch, sequence, &refused) => {
                    self.ownership = Ownership::Shared;
                }
                Err((_, refused)) => return Err(self.explain(refused)),
            }
        }
        if let Some(standing) = standing_after(ops, self.ownership) {
            self.standing = standing;
        }
        Ok(())
    }

    /// Takes over the table of a dead agent, which anybody may delete until then. That of a living
    /// one stays his, as does one that never had an owner.
    pub fn adopt(&mut self) -> Result<(), KernelError> {
        if self.owned() || self.table()?.is_none_or(|table| table.owner != Owner::Gone) {
            return Ok(());
        }
        self.standing = Standing::Unknown;
        self.settle().map_err(|refused| refused.error)
    }

    /// Reads the whole table in one request for it, one for its rules and one a set; `None` if
    /// there is no table. The requests are of one moment only as long as nobody else writes.
    pub fn read(&mut self) -> Result<Option<Contents>, KernelError> {
        let Some(table) = self.table()? else { return Ok(None) };
        let sequence = self.socket.next_sequence();
        let rules = self.dump(&nftables::rules_request(TABLE, sequence), sequence)?;
        let mut contents = Contents {
            fingerprint: table.fingerprint,
            owner: table.owner,
            rules: rules.iter().filter_map(|message| decode::rule(attributes(message))).collect(),
            elements: Vec::new(),
            foreign_elements: 0,
        };
        for set in SetName::ALL {
            let sequence = self.socket.next_sequence();
            let request = nftables::set_request(TABLE, set, sequence);
            let mut listing = Listing::new(set);
            match self.dump(&request, sequence) {
                Ok(answers) => answers.iter().for_each(|answer| listing.take(attributes(answer))),
                // A table of an older build, without this set: the fingerprint tells.
                Err(error) if error.errno == Errno::ENOENT as i32 => {}
                Err(error) => return Err(error),
            }
            let (elements, foreign) = listing.finish();
            contents.elements.extend(elements);
            contents.foreign_elements += foreign;
        }
        Ok(Some(contents))
    }

    /// The ruleset's generation: every transaction of anybody in this namespace makes a new one.
    pub fn generation(&mut self) -> Result<u32, KernelError> {
        let sequence = self.socket.next_sequence();
        let answers = self.dump(&nftables::generation_request(sequence), sequence)?;
        let generation = answers.iter().find_map(|answer| decode::generation(attributes(answer)));
        generation
            .map(|generation| generation.id)
            .ok_or_else(|| KernelError::new(0, "the kernel did not tell the ruleset's generation"))
    }

    fn table(&mut self) -> Result<Option<SeenTable>, KernelError> {
        let sequence = self.socket.next_sequence();
        match self.dump(&nftables::table_request(TABLE, sequence), sequence) {
            Ok(answers) => Ok(answers.iter().find_map(|answer| decode::table(attributes(answer)))),
            Err(error) if error.errno == Errno::ENOENT as i32 => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn dump(&self, request: &[u8], sequence: u32) -> Result<Vec<Message>, KernelError> {
        self.socket.dump(request, sequence).map_err(|error| refusal("read nf_tables", &error))?
    }

    /// Before the first transaction: takes over the table of a dead agent, stops before that of a
    /// living one.
    fn settle(&mut self) -> Result<(), Refused> {
        if self.standing != Standing::Unknown {
            return Ok(());
        }
        let unnamed = |error| Refused { op: None, error };
        let owner = self.table().map_err(unnamed)?.map(|table| table.owner);
        self.standing = match owner {
            Some(Owner::Port(port)) if port == self.port => Standing::Owned,
            Some(Owner::Port(port)) => return Err(unnamed(owned_by(port))),
            Some(Owner::Gone) if self.ownership == Ownership::Owned => {
                let batch = nftables::adopt(TABLE, &mut || self.socket.next_sequence());
                match self.run(&batch) {
                    Ok(()) => Standing::Owned,
                    Err((_, Refused { error, .. })) => {
                        return Err(self.explain(Refused { op: None, error }));
                    }
                }
            }
            Some(Owner::Gone | Owner::Anybody) | None => Standing::Open,
        };
        Ok(())
    }

    /// Kernels before 6.9 do not know NFT_TABLE_F_PERSIST, those before 5.12 not NFT_TABLE_F_OWNER.
    fn can_share(&self, batch: &Batch, sequence: u32, refused: &Refused) -> bool {
        self.ownership == Ownership::Owned
            && batch.makes_table(sequence)
            && [Errno::EINVAL, Errno::EOPNOTSUPP].contains(&Errno::from_raw(refused.error.errno))
    }

    /// Says who the owner is where the kernel only says EPERM.
    fn explain(&mut self, mut refused: Refused) -> Refused {
        if refused.error.errno != Errno::EPERM as i32 {
            return refused;
        }
        match self.table() {
            Ok(Some(SeenTable { owner: Owner::Port(port), .. })) if port != self.port => {
                refused.error = owned_by(port);
            }
            Ok(_) | Err(_) if refused.error.text.is_empty() => {
                refused.error.text = "changing nf_tables needs CAP_NET_ADMIN".into();
            }
            Ok(_) | Err(_) => {}
        }
        refused
    }

    /// Sends a batch and waits for its end; the first error is the one that counts, and comes
    /// with the sequence number of its message.
    fn run(&mut self, batch: &Batch) -> Result<(), (u32, Refused)> {
        let failed = |error: io::Error| {
            (batch.begin(), Refused { op: None, error: refusal("change nf_tables", &error) })
        };
        self.socket.send(batch.bytes()).map_err(failed)?;
        let mut first = None;
        loop {
            for message in self.socket.receive().map_err(failed)? {
                let Some(answer) = ack(&message).filter(|answer| batch.has(answer.sequence)) else {
                    continue;
                };
                let sequence = answer.sequence;
                if let Err(error) = answer.result
                    && first.is_none()
                {
                    let op = batch.culprit(sequence, offset(&message));
                    first = Some((sequence, Refused { op, error }));
                }
                // An error of the batch itself comes instead of answers to its messages; where it
                // comes beside them, those are skipped later by their sequence numbers.
                if sequence == batch.begin() || Some(sequence) == batch.last() {
                    return first.map_or(Ok(()), Err);
                }
            }
        }
    }
}

fn standing_after(ops: &[Op], ownership: Ownership) -> Option<Standing> {
    use crate::object::Kind;
    let last = ops.iter().rev().find(|op| op.object().kind() == Kind::Table)?;
    Some(match (last, ownership) {
        (Op::Create(_) | Op::Change { .. }, Ownership::Owned) => Standing::Owned,
        (Op::Create(_) | Op::Change { .. }, Ownership::Shared) | (Op::Delete(_), _) => {
            Standing::Open
        }
    })
}

fn owned_by(port: u32) -> KernelError {
    KernelError::new(
        Errno::EPERM as i32,
        format!("table inet {TABLE} belongs to another running process (netlink port {port})"),
    )
}

fn refusal(what: &str, error: &io::Error) -> KernelError {
    KernelError::new(error.raw_os_error().unwrap_or(0), format!("cannot {what}: {error}"))
}

/// What follows the family header.
fn attributes(message: &Message) -> &[u8] {
    message.payload.get(FAMILY_HEADER..).unwrap_or_default()
}

/// Where in its request the kernel found fault; a number of the host's byte order.
fn offset(message: &Message) -> Option<u32> {
    let attributes = wire::ack_attributes(&message.payload, message.flags)?;
    let value = wire::find(attributes, ATTR_OFFSET)?;
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}
