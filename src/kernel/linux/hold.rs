//! Real sockets on published ports, so that who wants one too is told so.
//!
//! They carry nothing: a filter drops what reaches them ([`filter`]), but for what is sent to
//! [::1] where the kernel cannot translate it ([`relay`]). A TCP or SCTP socket listens with
//! SO_REUSEADDR, which collides with every other server and not with connections that linger; a
//! UDP socket is bound without it (measured).

mod filter;
mod owner;
mod relay;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::wire::refused;
use crate::kernel::KernelError;
use crate::model::{HostAddress, Protocol};
use crate::object::{Hold, Object, ObjectKey};
use filter::DropAll;
use owner::Search;
use relay::{Ending, Relays};

/// Connections that wait to be accepted by the relay; what nobody accepts needs no room.
const BACKLOG: i32 = 128;
/// IPPROTO_SCTP (uapi linux/in.h).
const SCTP: socket2::Protocol = socket2::Protocol::SCTP;

/// The sockets that are held.
#[derive(Debug, Default)]
pub struct Holds {
    held: BTreeMap<ObjectKey, Held>,
    drop_all: DropAll,
    relays: Relays,
    search: Search,
    /// Whether it has been said that there are no SCTP sockets.
    without_sctp: bool,
}

/// One socket a port; none where there are no such sockets.
#[derive(Debug)]
struct Held {
    hold: Hold,
    sockets: Vec<(u16, Arc<Socket>)>,
}

impl Holds {
    /// Binds every port of `hold`, or none.
    pub fn create(&mut self, hold: &Hold) -> Result<(), KernelError> {
        let key = Object::Hold(hold.clone()).key();
        if self.held.contains_key(&key) {
            return Err(KernelError::new(Errno::EEXIST as i32, "netagent holds these ports"));
        }
        let mut sockets = Vec::new();
        for port in hold.ports.iter() {
            match bind(hold, port, &mut self.drop_all) {
                Ok(socket) => sockets.push((port, Arc::new(socket))),
                Err(error) if hold.protocol == Protocol::Sctp && is_unknown(&error) => {
                    self.warn_of_sctp(hold);
                    break;
                }
                Err(error) => return Err(owner::explain(&error, hold, port, &mut self.search)),
            }
        }
        let held = Held { hold: hold.clone(), sockets };
        self.serve(&key, &held)?;
        self.held.insert(key, held);
        Ok(())
    }

    /// Turns the relay on or off, or elsewhere; the sockets stay bound. What is being relayed
    /// ends with the way it takes, but may come to its end where the kernel takes over.
    pub fn change(&mut self, to: &Hold) -> Result<(), KernelError> {
        let key = Object::Hold(to.clone()).key();
        let Some(mut held) = self.held.remove(&key) else { return Err(unknown()) };
        let changed = match held.hold.relay == to.relay {
            true => Ok(()),
            false => self.lead(&key, &mut held, to),
        };
        self.held.insert(key, held);
        changed
    }

    fn lead(&mut self, key: &ObjectKey, held: &mut Held, to: &Hold) -> Result<(), KernelError> {
        if held.hold.relay.take().is_some() {
            let ending = if to.relay.is_none() { Ending::Finish } else { Ending::Now };
            self.relays.end(key, ending);
        }
        let next = Held { hold: to.clone(), sockets: held.sockets.clone() };
        match to.relay {
            None => self.close_all(&next).map_err(refused)?,
            Some(_) => self.serve(key, &next)?,
        }
        *held = next;
        Ok(())
    }

    /// Closes them.
    pub fn delete(&mut self, hold: &Hold) -> Result<(), KernelError> {
        let key = Object::Hold(hold.clone()).key();
        let held = self.held.remove(&key).ok_or_else(unknown)?;
        if held.hold.relay.is_some() {
            self.relays.end(&key, Ending::Now);
        }
        Ok(())
    }

    /// What is held.
    pub fn all(&self) -> impl Iterator<Item = &Hold> {
        self.held.values().map(|held| &held.hold)
    }

    /// What is held in name only, because there are no such sockets.
    pub fn without_socket(&self) -> impl Iterator<Item = &Hold> {
        self.held.values().filter(|held| held.sockets.is_empty()).map(|held| &held.hold)
    }

    /// Lets in what is to be relayed, and relays it, or lets in nothing: whom nobody takes would
    /// wait for ever.
    fn serve(&mut self, key: &ObjectKey, held: &Held) -> Result<(), KernelError> {
        self.try_serve(key, held).inspect_err(|_| {
            if let Err(error) = self.close_all(held) {
                tracing::warn!(%key, %error, "who connects to [::1] may wait in vain");
            }
        })
    }

    fn try_serve(&mut self, key: &ObjectKey, held: &Held) -> Result<(), KernelError> {
        let Some(relay) = held.hold.relay else { return Ok(()) };
        let first = held.hold.ports.first();
        let mut ports = Vec::new();
        for (port, socket) in &held.sockets {
            open(socket, held.hold.protocol).map_err(refused)?;
            let to = relay.first.saturating_add(port.saturating_sub(first));
            ports.push((socket.clone(), SocketAddrV6::new(relay.to, to, 0, 0)));
        }
        self.relays.serve(key, held.hold.protocol, ports).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(0);
            KernelError::new(errno, format!("cannot relay [::1] to {}: {error}", relay.to))
        })
    }

    /// Lets nothing in any more; goes on after an error, and gives the first.
    fn close_all(&mut self, held: &Held) -> io::Result<()> {
        let mut closed = Ok(());
        for (_, socket) in &held.sockets {
            closed = closed.and(self.close(socket, held.hold.protocol));
        }
        closed
    }

    /// Lets nothing in any more; who waits to be relayed is refused.
    fn close(&mut self, socket: &Socket, protocol: Protocol) -> io::Result<()> {
        self.drop_all.attach(socket)?;
        match protocol {
            Protocol::Udp => Ok(()),
            Protocol::Tcp | Protocol::Sctp => {
                // Before that `accept` would wait.
                socket.set_nonblocking(true)?;
                while let Ok((waiting, _)) = socket.accept() {
                    relay::reset_when_dropped(&waiting)?;
                }
                socket.listen(1)
            }
        }
    }

    fn warn_of_sctp(&mut self, hold: &Hold) {
        if !std::mem::replace(&mut self.without_sctp, true) {
            let port = Object::Hold(hold.clone()).key().name;
            tracing::warn!(
                port,
                "this kernel has no SCTP sockets: published SCTP ports are translated, but \
                 not reserved"
            );
        }
    }
}

fn unknown() -> KernelError {
    KernelError::new(Errno::ENOENT as i32, "netagent does not hold these ports")
}

/// Whether the kernel has no such sockets at all.
fn is_unknown(error: &io::Error) -> bool {
    let unknown = [Errno::EPROTONOSUPPORT, Errno::ESOCKTNOSUPPORT, Errno::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|errno| unknown.contains(&Errno::from_raw(errno)))
}

/// A socket on one port: on every address one of both families, or of IPv4 where the kernel was
/// started without IPv6.
fn bind(hold: &Hold, port: u16, drop_all: &mut DropAll) -> io::Result<Socket> {
    let protocol = hold.protocol;
    let HostAddress::At(address) = hold.host else {
        let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        return match bind_at(protocol, (v6, port).into(), Families::Both, drop_all) {
            Err(error) if is_unknown(&error) => {
                let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                bind_at(protocol, (v4, port).into(), Families::One, drop_all)
            }
            bound => bound,
        };
    };
    bind_at(protocol, (address, port).into(), Families::One, drop_all)
}

/// Whether a socket of IPv6 is one of IPv4 too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    One,
    Both,
}

fn bind_at(
    protocol: Protocol,
    address: SocketAddr,
    families: Families,
    drop_all: &mut DropAll,
) -> io::Result<Socket> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, None),
        Protocol::Udp => (Type::DGRAM, None),
        Protocol::Sctp => (Type::STREAM, Some(SCTP)),
    };
    let socket = Socket::new(Domain::for_address(address), kind, number)?;
    if address.is_ipv6() {
        socket.set_only_v6(families == Families::One)?;
    }
    drop_all.attach(&socket)?;
    match protocol {
        Protocol::Tcp | Protocol::Sctp => {
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(1)?;
        }
        Protocol::Udp => socket.bind(&address.into())?,
    }
    Ok(socket)
}

/// Lets in what is sent to [::1].
fn open(socket: &Socket, protocol: Protocol) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match protocol {
        Protocol::Udp => {}
        Protocol::Tcp | Protocol::Sctp => socket.listen(BACKLOG)?,
    }
    filter::only_to_loopback_v6(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortRange;
    use crate::object::Relay;
    use std::fs::File;
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    #[test]
    fn a_relay_that_cannot_begin_leaves_no_port_open() {
        let hold = |relay| Hold {
            protocol: Protocol::Tcp,
            host: HostAddress::At(Ipv6Addr::LOCALHOST.into()),
            ports: PortRange::new(1, 2).unwrap(),
            relay,
        };
        let mut holds = Holds::default();
        let first = Arc::new(bind(&hold(None), 0, &mut holds.drop_all).unwrap());
        let port = first.local_addr().unwrap().as_socket().unwrap();
        let no_socket = Socket::from(OwnedFd::from(File::open("/dev/null").unwrap()));
        let sockets = vec![(1, first), (2, Arc::new(no_socket))];
        let key = Object::Hold(hold(None)).key();
        holds.held.insert(key, Held { hold: hold(None), sockets });
        let relay = Relay { to: Ipv6Addr::LOCALHOST, first: 9 };
        let error = holds.change(&hold(Some(relay))).unwrap_err();
        assert_eq!(error.errno, Errno::ENOTSOCK as i32);
        assert_eq!(holds.all().next().unwrap().relay, None);
        let called = TcpStream::connect_timeout(&port, Duration::from_millis(50));
        assert_eq!(called.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
