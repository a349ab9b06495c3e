//! Carries what is sent to [::1] to a container, where the kernel cannot translate it.
//!
//! One thread for all ports, from the first relay to the last; it takes connections from the held
//! sockets themselves, so there is no further one to be bound. Nothing waits without an end: where
//! the container refuses, or there are too many at once, the caller is refused too.

mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddrV6;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::model::Protocol;
use crate::object::ObjectKey;

/// Connections and UDP clients at once, of all ports together: two descriptors each. A guess, as
/// [::1] is for the host's own programs; a host that refuses callers with the agent far below its
/// RLIMIT_NOFILE would settle it.
const AT_ONCE: usize = 1024;
/// How long a container may take to accept. A guess: two repeated SYNs, after 1 s and 3 s; how long
/// containers take whose backlog is full would settle it.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long nothing is accepted after it failed, for want of descriptors. A guess between a caller
/// who waits and a thread that spins; how long descriptors are wanting in practice would settle it.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection may be silent before its ends are asked whether they live, then how often
/// and how many times. A guess, as an end that vanishes without a word is a container's whose
/// namespace was taken down; how many places such connections hold would settle it.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// What becomes of connections when a relay ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// They are reset.
    Now,
    /// They go on until both sides have closed them; of UDP there are none.
    Finish,
}

/// Held sockets, and where each leads.
type Ports = Vec<(Arc<Socket>, SocketAddrV6)>;

/// All relays.
#[derive(Debug, Default)]
pub struct Relays {
    /// How many there are; the thread ends with the last.
    count: usize,
    orders: Option<UnboundedSender<Order>>,
}

enum Order {
    Serve(ObjectKey, Protocol, Ports, mpsc::Sender<io::Result<()>>),
    End(ObjectKey, Ending, mpsc::Sender<io::Result<()>>),
}

impl Relays {
    /// Relays what arrives at `ports`, sockets that do not block, until `key` is ended.
    pub fn serve(&mut self, key: &ObjectKey, protocol: Protocol, ports: Ports) -> io::Result<()> {
        if self.orders.is_none() {
            self.orders = Some(start()?);
        }
        let served = self.order(|done| Order::Serve(key.clone(), protocol, ports, done));
        match &served {
            Ok(()) => self.count += 1,
            Err(_) => self.end_thread_if_idle(),
        }
        served
    }

    /// Takes nothing more from the sockets of `key`, and has let go of them on return.
    pub fn end(&mut self, key: &ObjectKey, ending: Ending) {
        if let Err(error) = self.order(|done| Order::End(key.clone(), ending, done)) {
            tracing::warn!(%key, %error, "the relay had ended before");
        }
        self.count = self.count.saturating_sub(1);
        self.end_thread_if_idle();
    }

    fn end_thread_if_idle(&mut self) {
        if self.count == 0 {
            self.orders = None;
        }
    }

    fn order(&self, order: impl FnOnce(mpsc::Sender<io::Result<()>>) -> Order) -> io::Result<()> {
        let (done, answer) = mpsc::channel();
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order(done)).is_ok());
        match answer.recv() {
            Ok(answer) if sent => answer,
            Ok(_) | Err(_) => Err(io::Error::other("the relay's thread has ended")),
        }
    }
}

fn start() -> io::Result<UnboundedSender<Order>> {
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (orders, told) = unbounded_channel();
    let run = move || runtime.block_on(run(told));
    // Not joined: it ends when the last connection that may finish has.
    thread::Builder::new().name("relay".into()).spawn(run)?;
    Ok(orders)
}

/// A hold that is relayed.
struct Served {
    /// What takes connections and datagrams.
    ports: JoinSet<()>,
    /// Connections end when this is dropped.
    connections: watch::Sender<()>,
}

async fn run(mut orders: UnboundedReceiver<Order>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut served: BTreeMap<ObjectKey, Served> = BTreeMap::new();
    let mut finishing = JoinSet::new();
    while let Some(order) = orders.recv().await {
        while finishing.try_join_next().is_some() {}
        // Nobody waits for the answer where the agent ends.
        let _ = match order {
            Order::Serve(key, protocol, ports, done) => {
                let result = serve(protocol, ports, &room).map(|new| served.insert(key, new));
                done.send(result.map(drop))
            }
            Order::End(key, ending, done) => {
                if let Some(Served { mut ports, connections }) = served.remove(&key) {
                    ports.shutdown().await;
                    if ending == Ending::Finish {
                        finishing.spawn(async move { connections.closed().await });
                    }
                }
                done.send(Ok(()))
            }
        };
    }
    drop(served);
    finishing.join_all().await;
}

fn serve(protocol: Protocol, sockets: Ports, room: &Arc<Semaphore>) -> io::Result<Served> {
    let mut ports = JoinSet::new();
    let (connections, ended) = watch::channel(());
    for (socket, to) in sockets {
        let (socket, room, ended) = (watched(socket)?, room.clone(), ended.clone());
        match protocol {
            Protocol::Tcp => drop(ports.spawn(take_connections(socket, to, room, ended))),
            Protocol::Udp => drop(ports.spawn(udp::take_datagrams(socket, to, room))),
            // It is never asked for: there is no way to copy what SCTP keeps apart.
            Protocol::Sctp => {}
        }
    }
    Ok(Served { ports, connections })
}

#[expect(unsafe_code, reason = "a watched descriptor must not be closed, and this one is shared")]
fn watched(socket: Arc<Socket>) -> io::Result<AsyncFd<Arc<Socket>>> {
    // SAFETY: the socket is open as long as anybody has a share of it, and no share is ever taken
    // apart to close or replace its descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? })
}

async fn take_connections(
    socket: AsyncFd<Arc<Socket>>,
    to: SocketAddrV6,
    room: Arc<Semaphore>,
    ended: watch::Receiver<()>,
) {
    let mut failures = Failures::default();
    loop {
        let client = match accept(&socket).await {
            Ok(client) => client,
            Err(error) => {
                failures.pause(to, &error).await;
                continue;
            }
        };
        // Without room the caller is refused: it is dropped here.
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let mut ended = ended.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                // What went wrong the callers are told by a reset.
                _ = carry(client, to) => {}
                _ = ended.changed() => {}
            }
        });
    }
}

/// What went wrong with one port, of which the first is told: it is tried again for ever.
#[derive(Debug, Default)]
struct Failures {
    told: bool,
}

impl Failures {
    async fn pause(&mut self, to: SocketAddrV6, error: &io::Error) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(%to, %error, "cannot take what is sent to [::1], trying again");
        }
        sleep(PAUSE).await;
    }
}

async fn accept(socket: &AsyncFd<Arc<Socket>>) -> io::Result<TcpStream> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(accepted) = ready.try_io(|socket| socket.get_ref().accept()) {
            let (client, _) = accepted?;
            reset_when_dropped(&client)?;
            client.set_tcp_keepalive(&KEEPALIVE)?;
            client.set_nonblocking(true)?;
            return TcpStream::from_std(client.into());
        }
    }
}

/// Copies both ways until both sides have said their last; anything else resets both.
async fn carry(mut client: TcpStream, to: SocketAddrV6) -> io::Result<()> {
    let mut container = timeout(PATIENCE, TcpStream::connect(to)).await??;
    reset_when_dropped(&SockRef::from(&container))?;
    SockRef::from(&container).set_tcp_keepalive(&KEEPALIVE)?;
    client.set_nodelay(true)?;
    container.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut container).await?;
    SockRef::from(&client).set_linger(None)?;
    SockRef::from(&container).set_linger(None)
}

/// Its other side is refused, not bidden farewell, when it is closed.
pub fn reset_when_dropped(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}
