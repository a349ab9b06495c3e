//! Datagrams to [::1] and back: a socket towards the container for each client.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::libc::{in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, recvfrom, sendmsg};
use socket2::{SockRef, Socket};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Failures;

/// How long a client may be silent before it is forgotten, at least; at most twice as long. As
/// connection tracking has it for a flow with answers (nf_conntrack_udp_timeout_stream).
const IDLE: Duration = Duration::from_secs(120);
/// The largest datagram (RFC 768).
const LARGEST: usize = 65_535;

/// A client's socket towards the container.
struct Session {
    socket: UdpSocket,
    /// Whether the client has sent something lately.
    spoke: AtomicBool,
    _place: OwnedSemaphorePermit,
}

/// Hands datagrams on until it is dropped, and answers with it.
pub async fn take_datagrams(socket: AsyncFd<Arc<Socket>>, to: SocketAddrV6, room: Arc<Semaphore>) {
    let mut answering = JoinSet::new();
    let mut sessions: HashMap<SocketAddrV6, Weak<Session>> = HashMap::new();
    let mut failures = Failures::default();
    loop {
        let (data, client) = match receive(&socket).await {
            Ok(received) => received,
            Err(error) => {
                failures.pause(to, &error).await;
                continue;
            }
        };
        let session = match sessions.get(&client).and_then(Weak::upgrade) {
            Some(session) => session,
            None => {
                sessions.retain(|_, session| session.strong_count() > 0);
                while answering.try_join_next().is_some() {}
                // Without room the datagram is lost, as datagrams may be.
                let Ok(place) = room.clone().try_acquire_owned() else { continue };
                let Ok(session) = open(to, place).map(Arc::new) else { continue };
                sessions.insert(client, Arc::downgrade(&session));
                answering.spawn(answer(session.clone(), socket.get_ref().clone(), client));
                session
            }
        };
        session.spoke.store(true, Ordering::Relaxed);
        let towards = SockRef::from(&session.socket);
        // The first error may be an earlier datagram's, which the container refused.
        let _ = towards.send(&data).or_else(|_| towards.send(&data));
    }
}

fn open(to: SocketAddrV6, place: OwnedSemaphorePermit) -> io::Result<Session> {
    let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    Ok(Session { socket, spoke: AtomicBool::new(true), _place: place })
}

/// Brings the container's answers to `client` until neither has said anything for a while.
async fn answer(session: Arc<Session>, held: Arc<Socket>, client: SocketAddrV6) {
    loop {
        match timeout(IDLE, session.socket.readable()).await {
            // A refusal, or a datagram that does not get through, is lost as datagrams may be: only
            // with a raw socket could the client be told.
            Ok(Ok(())) => drop(pass_back(&session.socket, &held, client)),
            Ok(Err(_)) => return,
            Err(_) if session.spoke.swap(false, Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}

async fn receive(socket: &AsyncFd<Arc<Socket>>) -> io::Result<(Vec<u8>, SocketAddrV6)> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(received) = ready.try_io(|socket| take(socket.get_ref())) {
            return received;
        }
    }
}

fn take(socket: &Socket) -> io::Result<(Vec<u8>, SocketAddrV6)> {
    let mut buffer = [0; LARGEST];
    let (size, client) = recvfrom::<SockaddrIn6>(socket.as_raw_fd(), &mut buffer)?;
    let client = client.ok_or(ErrorKind::InvalidData)?;
    Ok((buffer.get(..size).unwrap_or_default().to_vec(), client.into()))
}

/// From ::1, which the client sent to: a socket on every address would choose another where the
/// client's own is another.
fn pass_back(from: &UdpSocket, held: &Socket, client: SocketAddrV6) -> io::Result<()> {
    let mut buffer = [0; LARGEST];
    let size = from.try_recv(&mut buffer)?;
    let data = [IoSlice::new(buffer.get(..size).unwrap_or_default())];
    let source = in6_pktinfo {
        ipi6_addr: in6_addr { s6_addr: Ipv6Addr::LOCALHOST.octets() },
        ipi6_ifindex: 0,
    };
    let source = [ControlMessage::Ipv6PacketInfo(&source)];
    let client = SockaddrIn6::from(client);
    sendmsg(held.as_raw_fd(), &data, &source, MsgFlags::empty(), Some(&client))?;
    Ok(())
}
