//! One NETLINK_ROUTE socket: typed requests out, links, addresses and routes in.
//!
//! What is sent is built with the message types of `netlink-packet-route`; what is read is taken
//! apart by [`super::seen`], which knows only the attributes we need, so that another program's
//! unusual link can never be a parse error.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, Parseable,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::seen::{self, SeenAddress, SeenLink, SeenRoute};
use super::socket::{Message, Socket, ack};
use crate::kernel::KernelError;

/// NETLINK_ROUTE (uapi linux/netlink.h).
pub const NETLINK_ROUTE: isize = 0;

/// What a request does where the thing is there already, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Makes it; there must be none.
    Create,
    /// Makes it beside others; only its equal must not be there.
    Append,
    /// Makes it or takes its place.
    Replace,
    /// Takes its place; it must be there.
    Overwrite,
    /// Changes or removes it; it must be there.
    Existing,
}

/// A message to be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    message: RouteNetlinkMessage,
    mode: Mode,
}

impl Request {
    /// `message`, sent as `mode` says.
    pub fn new(message: RouteNetlinkMessage, mode: Mode) -> Self {
        Self { message, mode }
    }
}

/// A NETLINK_ROUTE socket, bound to the namespace it was opened in.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
}

/// The kernel's word for a failed system call of ours.
pub fn refused(error: io::Error) -> KernelError {
    match error.raw_os_error() {
        Some(errno) => KernelError::new(errno, ""),
        None => KernelError::new(0, error.to_string()),
    }
}

impl Wire {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Self, KernelError> {
        let socket = Socket::open(NETLINK_ROUTE).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(0);
            KernelError::new(errno, format!("cannot open a netlink socket: {error}"))
        })?;
        Ok(Self { socket })
    }

    /// The netlink port, by which announcements name us.
    pub fn port(&mut self) -> Result<u32, KernelError> {
        self.socket.port().map_err(refused)
    }

    /// Sends the messages in one system call and gives the first refusal.
    ///
    /// The kernel goes on with the next message of a batch after it refused one: only messages
    /// that do no harm when an earlier one failed may share a call.
    pub fn send(&mut self, requests: Vec<Request>) -> Result<(), KernelError> {
        let mut bytes = Vec::new();
        let mut sequences = Vec::with_capacity(requests.len());
        for Request { message, mode } in requests {
            let more = match mode {
                Mode::Create => NLM_F_CREATE | NLM_F_EXCL,
                Mode::Append => NLM_F_CREATE | NLM_F_APPEND,
                Mode::Replace => NLM_F_CREATE | NLM_F_REPLACE,
                Mode::Overwrite => NLM_F_REPLACE,
                Mode::Existing => 0,
            };
            sequences.push(self.encode(&mut bytes, message, NLM_F_ACK | more));
        }
        let acks = self.socket.exchange(&bytes, &sequences).map_err(refused)?;
        acks.into_iter().find_map(|ack| ack.result.err()).map_or(Ok(()), Err)
    }

    /// The link of a name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<SeenLink>, KernelError> {
        self.get(LinkUnspec::new_with_name(name).append_extra_attribute(no_statistics()).build())
    }

    /// The link of an index, if there is one.
    pub fn link_at(&mut self, index: u32) -> Result<Option<SeenLink>, KernelError> {
        self.get(LinkUnspec::new_with_index(index).append_extra_attribute(no_statistics()).build())
    }

    /// The index of a link that must be there; its absence is ENODEV and names it.
    pub fn index(&mut self, name: &str) -> Result<u32, KernelError> {
        self.link(name)?.map(|link| link.index).ok_or_else(|| no_such_link(name))
    }

    /// Every link.
    pub fn links(&mut self) -> Result<Vec<SeenLink>, KernelError> {
        let message = LinkUnspec::new_with_index(0).append_extra_attribute(no_statistics());
        let found = self.dump(RouteNetlinkMessage::GetLink(message.build()))?;
        Ok(found.iter().filter_map(|message| SeenLink::parse(&message.payload)).collect())
    }

    /// Every address of both families.
    pub fn addresses(&mut self) -> Result<Vec<SeenAddress>, KernelError> {
        let found = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        Ok(found.iter().filter_map(|message| SeenAddress::parse(&message.payload)).collect())
    }

    /// Every address of IPv4 with all there is to know of it, to be made again; what we cannot
    /// take apart is passed over.
    pub fn address_messages(&mut self) -> Result<Vec<AddressMessage>, KernelError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let found = self.dump(RouteNetlinkMessage::GetAddress(message))?;
        Ok(found.iter().filter_map(|m| AddressMessage::parse(&m.payload).ok()).collect())
    }

    /// Every route of both families, of all tables.
    pub fn routes(&mut self) -> Result<Vec<SeenRoute>, KernelError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            match self.dump(RouteNetlinkMessage::GetRoute(message)) {
                Ok(messages) => {
                    found.extend(messages.iter().filter_map(|m| SeenRoute::parse(&m.payload)));
                }
                // A host without IPv6 has no such table.
                Err(error) if error.errno == Errno::EOPNOTSUPP as i32 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The number that this namespace has for another one, if it has any.
    pub fn number_of(&mut self, netns: &File) -> Result<Option<i32>, KernelError> {
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Fd(netns.as_raw_fd().cast_unsigned()));
        let answer = self.ask(RouteNetlinkMessage::GetNsId(message))?;
        Ok(answer.and_then(|answer| seen::namespace_number(&answer.payload)))
    }

    fn get(&mut self, message: LinkMessage) -> Result<Option<SeenLink>, KernelError> {
        match self.ask(RouteNetlinkMessage::GetLink(message)) {
            Ok(answer) => Ok(answer.and_then(|answer| SeenLink::parse(&answer.payload))),
            Err(error) if error.errno == Errno::ENODEV as i32 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The one message that answers a request.
    fn ask(&mut self, message: RouteNetlinkMessage) -> Result<Option<Message>, KernelError> {
        let mut bytes = Vec::new();
        let sequence = self.encode(&mut bytes, message, 0);
        self.socket.send(&bytes).map_err(refused)?;
        loop {
            for message in self.socket.receive().map_err(refused)? {
                if message.sequence != sequence {
                    continue;
                }
                return match ack(&message).map(|ack| ack.result) {
                    None => Ok(Some(message)),
                    Some(Err(error)) => Err(error),
                    Some(Ok(())) => Ok(None),
                };
            }
        }
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<Message>, KernelError> {
        let mut bytes = Vec::new();
        let sequence = self.encode(&mut bytes, message, NLM_F_DUMP);
        self.socket.dump(&bytes, sequence).map_err(refused)?
    }

    fn encode(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) -> u32 {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.socket.next_sequence();
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(room) = bytes.get_mut(start..start + message.buffer_len()) {
            message.serialize(room);
        }
        message.header.sequence_number
    }
}

/// ENODEV that says which link.
pub fn no_such_link(name: &str) -> KernelError {
    KernelError::new(Errno::ENODEV as i32, format!("there is no link \"{name}\""))
}

fn no_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}
