//! Hears of other processes' changes to nf_tables.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::firewall::nftables::decode::{self, Generation};
use crate::firewall::nftables::wire::{FAMILY_HEADER, Kind, SUBSYSTEM};
use crate::firewall::policy::TABLE;
use crate::kernel::linux::socket::messages;

/// NFNLGRP_NFTABLES (uapi linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// Room for announcements while nobody listens; a foreign ruleset of 10,000 rules is some MB. A
/// guess: what does not fit is told as [`Touched::Unknown`].
const BUFFER_BYTES: usize = 4 << 20;

/// Announcements of transactions, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    /// Netlink port whose transactions are not told: our own.
    ours: u32,
    /// Whether the transaction being announced has to do with our table.
    touched: Touched,
    /// Transactions that were received and not yet told, the next one last.
    ready: Vec<Event>,
}

/// A transaction of another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The ruleset's generation after it; 0 where it is not known.
    pub generation: u32,
    /// The thread that did it, as numbered in the initial pid namespace; 0 where it is not known.
    pub pid: u32,
    /// Its name, at most 15 bytes; empty where it is not known.
    pub process: String,
    /// Whether it changed our table.
    pub touched: Touched,
}

/// What a transaction changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// Our table or something in it.
    OurTable,
    /// Only what is not ours.
    Elsewhere,
    /// Announcements were lost: anything may have changed.
    Unknown,
}

impl Monitor {
    /// Listens to all transactions but those of the netlink port `ours` ([`Nft::port`]).
    ///
    /// [`Nft::port`]: super::Nft::port
    pub fn open(ours: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        // A smaller buffer only loses announcements earlier, and the loss is told.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
        socket.add_membership(GROUP)?;
        Ok(Self { socket, ours, touched: Touched::Elsewhere, ready: Vec::new() })
    }

    /// Waits for the next transaction of another process.
    ///
    /// A caller that waits with poll(2) on the socket calls this as long as
    /// [`is_ready`](Self::is_ready), since one read may bring several.
    #[expect(clippy::should_implement_trait, reason = "an iterator would hide that it may fail")]
    pub fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Ok(event);
            }
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => self.take(&bytes),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.touched = Touched::Elsewhere;
                    return Ok(Event {
                        generation: 0,
                        pid: 0,
                        process: String::new(),
                        touched: Touched::Unknown,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether [`next`](Self::next) has an answer without asking the socket.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn take(&mut self, bytes: &[u8]) {
        for message in messages(bytes) {
            if message.kind == Kind::NewGeneration.number() {
                let touched = std::mem::replace(&mut self.touched, Touched::Elsewhere);
                let attributes = message.payload.get(FAMILY_HEADER..).unwrap_or_default();
                let Some(Generation { id, pid, process }) = decode::generation(attributes) else {
                    continue;
                };
                if message.port != self.ours {
                    self.ready.insert(0, Event { generation: id, pid, process, touched });
                }
            } else if message.kind >> 8 == SUBSYSTEM
                && decode::announced_table(&message.payload).is_some_and(|name| name == TABLE)
            {
                self.touched = Touched::OurTable;
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
