//! One blocking netlink socket: batches out, acks with the kernel's own sentence in.
//!
//! Knows message headers and extended acks (uapi linux/netlink.h), nothing of families above. A
//! socket stays bound to the network namespace that its thread was in when it was opened.

use std::io;

use netlink_sys::{Socket as RawSocket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::kernel::KernelError;

/// NLMSG_ERROR: an ack where the error is 0.
const ERROR: u16 = 2;
/// NLMSG_DONE: the end of a dump.
const DONE: u16 = 3;
/// NLM_F_DUMP_INTR: the dump is not of one moment.
const DUMP_INTERRUPTED: u16 = 0x10;
/// NLM_F_CAPPED: the failed request is not in the ack.
const CAPPED: u16 = 0x100;
/// NLM_F_ACK_TLVS: attributes follow.
const ACK_TLVS: u16 = 0x200;
/// NLMSGERR_ATTR_MSG: the kernel's sentence.
const ATTR_MESSAGE: u16 = 1;
/// Bytes of a message header (struct nlmsghdr).
const HEADER_BYTES: usize = 16;
/// How often a dump is asked for until it is of one moment: a guess. Each try takes milliseconds,
/// and the engine's thread waits.
const TRIES: usize = 16;
/// Room for the largest set elements dump in one receive, and for a large transaction's acks.
const BUFFER_BYTES: usize = 8 << 20;

/// A message as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Type of the family.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number of the request it answers.
    pub sequence: u32,
    /// nlmsg_pid: in announcements the netlink port of whose request made the change, 0 where the
    /// kernel does not say.
    pub port: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

/// The answer to one message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Sequence number of the message.
    pub sequence: u32,
    /// The refusal, if it was one.
    pub result: Result<(), KernelError>,
}

/// A blocking netlink socket.
#[derive(Debug)]
pub struct Socket {
    raw: RawSocket,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of `protocol` (NETLINK_ROUTE 0, NETLINK_NETFILTER 12) in the namespace of
    /// the calling thread.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut raw = RawSocket::new(protocol)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        raw.set_ext_ack(true)?;
        raw.set_cap_ack(true)?;
        // Not every kernel lets the size be forced; a smaller buffer only makes batches smaller.
        let _ = setsockopt(&raw, sockopt::SndBufForce, &BUFFER_BYTES);
        let _ = setsockopt(&raw, sockopt::RcvBufForce, &BUFFER_BYTES);
        Ok(Self { raw, sequence: 0 })
    }

    /// The netlink port, by which announcements name us.
    pub fn port(&mut self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.raw.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// The underlying socket, for multicast groups and polling.
    pub fn raw(&mut self) -> &mut RawSocket {
        &mut self.raw
    }

    /// A sequence number not used before.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends bytes of one or more messages in one system call.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.raw.send(bytes, 0).map(drop)
    }

    /// Receives whatever one system call gives.
    pub fn receive(&self) -> io::Result<Vec<Message>> {
        let (bytes, _) = self.raw.recv_from_full()?;
        Ok(messages(&bytes))
    }

    /// Sends a batch whose messages all ask for an ack, and waits for the acks of `sequences`.
    pub fn exchange(&self, bytes: &[u8], sequences: &[u32]) -> io::Result<Vec<Ack>> {
        self.send(bytes)?;
        let mut acks: Vec<Ack> = Vec::with_capacity(sequences.len());
        while acks.len() < sequences.len() {
            acks.extend(
                self.receive()?
                    .iter()
                    .filter(|message| sequences.contains(&message.sequence))
                    .filter_map(ack),
            );
        }
        Ok(acks)
    }

    /// Sends a dump request (sequence number `sequence`) and collects its answers; asks again
    /// while the kernel says that the dump was interrupted by a change, but not for ever.
    pub fn dump(
        &self,
        request: &[u8],
        sequence: u32,
    ) -> io::Result<Result<Vec<Message>, KernelError>> {
        for _ in 0..TRIES {
            self.send(request)?;
            match self.collect(sequence)? {
                Ok((_, true)) => {}
                Ok((found, false)) => return Ok(Ok(found)),
                Err(error) => return Ok(Err(error)),
            }
        }
        let why = format!("something changed in each of {TRIES} attempts to read it as a whole");
        Ok(Err(KernelError::new(Errno::EINTR as i32, why)))
    }

    fn collect(&self, sequence: u32) -> io::Result<Result<(Vec<Message>, bool), KernelError>> {
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive()? {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                match message.kind {
                    DONE => return Ok(Ok((found, interrupted))),
                    ERROR => match ack(&message) {
                        Some(Ack { result: Err(error), .. }) => return Ok(Err(error)),
                        _ => return Ok(Ok((found, interrupted))),
                    },
                    _ => found.push(message),
                }
            }
        }
    }
}

/// Cuts a datagram into messages; what is malformed at the end is dropped.
pub fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some(header) = bytes.get(..HEADER_BYTES) {
        let length = u32_at(header, 0) as usize;
        let Some(payload) = bytes.get(HEADER_BYTES..length) else { break };
        found.push(Message {
            kind: u16_at(header, 4),
            flags: u16_at(header, 6),
            sequence: u32_at(header, 8),
            port: u32_at(header, 12),
            payload: payload.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The ack in a message, if it is one.
pub fn ack(message: &Message) -> Option<Ack> {
    if message.kind != ERROR || message.payload.len() < 4 {
        return None;
    }
    let errno = i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?).wrapping_neg();
    let result = if errno == 0 {
        Ok(())
    } else {
        Err(KernelError::new(errno, sentence(message).unwrap_or_default()))
    };
    Some(Ack { sequence: message.sequence, result })
}

/// The kernel's sentence behind an error: attributes after the echoed header, or after the whole
/// echoed request where it was not capped.
fn sentence(message: &Message) -> Option<String> {
    if message.flags & ACK_TLVS == 0 {
        return None;
    }
    let echoed = message.payload.get(4..)?;
    let length =
        if message.flags & CAPPED != 0 { HEADER_BYTES } else { u32_at(echoed, 0) as usize };
    let mut attributes = echoed.get(length.next_multiple_of(4)..)?;
    while let Some(header) = attributes.get(..4) {
        let length = usize::from(u16_at(header, 0));
        let value = attributes.get(4..length)?;
        if u16_at(header, 2) & 0x3fff == ATTR_MESSAGE {
            let text = value.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
