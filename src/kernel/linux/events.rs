//! Tells when something of interest changed, so that the daemon looks again.
//!
//! Says only what kind of thing it was: what it is now is read by an observation. Subscribe
//! first, then observe, or a change between the two is lost.
//!
//! Looking costs a dump of the whole host, so what we do ourselves must not be told. Few notices
//! say whose request made them; so for links of ours only what is wrong with them counts, and
//! what the kernel tells of any link's birth and death is left to the notice of the link itself.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::seen::{SeenAddress, SeenLink, SeenRoute, attributes};
use super::socket::{Message, Socket};
use super::sysctl;
use super::wire::{NETLINK_ROUTE, refused};
use crate::kernel::KernelError;

/// RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV4_NETCONF,
/// _IPV6_NETCONF (uapi linux/rtnetlink.h).
const GROUPS: [u32; 7] = [1, 5, 7, 9, 11, 24, 25];
/// AF_BRIDGE: the bridge's own notices of port states.
const BRIDGE: u8 = 7;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A link came, went or changed.
    Link,
    /// An address came or went.
    Address,
    /// A route came or went.
    Route,
    /// A sysctl of a link changed: forwarding, rp_filter and the like.
    Sysctl,
    /// There was more than the socket could hold: anything may have changed.
    Overrun,
}

/// A subscription to the changes of the namespace it was opened in.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    /// The netlink port whose changes are not told.
    ours: u32,
}

impl Monitor {
    /// Subscribes in the calling thread's namespace to what others than the netlink port `ours`
    /// do, as far as the kernel says who it was.
    pub fn open(ours: u32) -> Result<Self, KernelError> {
        let mut socket = Socket::open(NETLINK_ROUTE).map_err(refused)?;
        for group in GROUPS {
            match socket.raw().add_membership(group) {
                // A host without IPv6 lacks its groups.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                result => result.map_err(refused)?,
            }
        }
        Ok(Self { socket, ours })
    }

    /// Waits for the next change; `None` when there was none for as long as `patience`.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Event>, KernelError> {
        // Zero means for ever (`man 7 socket`, SO_RCVTIMEO).
        let limit = patience.map_or(0, |patience| patience.as_micros().max(1));
        let limit = TimeVal::microseconds(i64::try_from(limit).unwrap_or(i64::MAX));
        setsockopt(self.socket.raw(), sockopt::ReceiveTimeout, &limit)
            .map_err(|errno| KernelError::new(errno as i32, ""))?;
        loop {
            match self.socket.receive() {
                Ok(messages) => {
                    let mut others = messages.iter().filter(|message| message.port != self.ours);
                    if let Some(event) = others.find_map(event) {
                        return Ok(Some(event));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    return Ok(Some(Event::Overrun));
                }
                Err(error) => return Err(refused(error)),
            }
        }
    }
}

/// Settings that planning reads and whose change the kernel does not announce.
const UNANNOUNCED: [&str; 3] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/ipv4/ip_local_port_range",
];

/// Looks at those settings for changes.
#[derive(Debug)]
pub struct Settings {
    /// How often: reading them takes microseconds.
    every: Duration,
    seen: [Option<String>; 3],
}

impl Settings {
    /// As they are now in the calling thread's namespace, to be looked at once in a while.
    pub fn open(every: Duration) -> Self {
        Self { every, seen: read_settings() }
    }

    /// Waits until one of them has another value.
    pub fn changed(&mut self) -> Event {
        loop {
            std::thread::sleep(self.every);
            let now = read_settings();
            if now != self.seen {
                self.seen = now;
                return Event::Sysctl;
            }
        }
    }
}

fn read_settings() -> [Option<String>; 3] {
    UNANNOUNCED.map(sysctl::host)
}

/// What a notice is about (RTM_* of uapi linux/rtnetlink.h), if it is of interest: other owners'
/// containers, our garbage, link-local addresses and the local table's routes are not.
fn event(message: &Message) -> Option<Event> {
    let payload = &message.payload;
    match message.kind {
        16 if payload.first() != Some(&BRIDGE) => {
            let link = SeenLink::parse(payload)?;
            (!is_anothers(&link) && (!link.is_ours() || is_wrong(&link))).then_some(Event::Link)
        }
        17 if payload.first() != Some(&BRIDGE) => {
            let link = SeenLink::parse(payload)?;
            // The other end of a pair of ours has no alias: a container takes it.
            (!is_anothers(&link) && (!link.is_ours() || link.is_marked())).then_some(Event::Link)
        }
        20 | 21 => (!SeenAddress::parse(payload)?.is_link_local()).then_some(Event::Address),
        24 | 25 => SeenRoute::parse(payload).map(|_| Event::Route),
        80 => is_change_of_one(payload).then_some(Event::Sysctl),
        _ => None,
    }
}

/// A port of another owner's bridge.
fn is_anothers(link: &SeenLink) -> bool {
    link.kind == "veth" && link.master.is_some() && !link.is_ours()
}

/// Whether a finished link of ours does not do its work. One without the alias is being made, one
/// in the garbage is being removed.
fn is_wrong(link: &SeenLink) -> bool {
    link.is_marked() && (!link.up || (link.kind == "veth" && link.master.is_none()))
}

/// Whether RTM_NEWNETCONF tells that one setting was changed: a new link's come all at once.
fn is_change_of_one(payload: &[u8]) -> bool {
    /// NETCONFA_IFINDEX (uapi linux/netconf.h).
    const INDEX: u16 = 1;
    // struct netconfmsg is one byte, padded.
    let settings = attributes(payload.get(4..).unwrap_or_default());
    settings.filter(|(kind, _)| *kind != INDEX).count() <= 1
}
