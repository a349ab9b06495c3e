//! Real sockets on published ports, so that who wants one too is told so.
//!
//! They carry nothing: a filter drops what reaches them. A TCP socket listens with SO_REUSEADDR,
//! which collides with every other server and not with connections that linger; a UDP socket is
//! bound without it (measured: reference recipe 5).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, SockFilter, Socket, Type};

use super::wire::refused;
use crate::kernel::KernelError;
use crate::model::Protocol;
use crate::object::{Hold, Object, ObjectKey};

/// BPF_RET | BPF_K (uapi linux/filter.h): with 0 the packet is dropped.
const RETURN_CONSTANT: u16 = 0x06;
/// How long the owner of a taken port is searched for, while attaches wait. A guess: reading the
/// descriptors of a few thousand processes.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long nobody is searched for after a search that took too long: a publish tries up to ten
/// ports.
const RECOVERY: Duration = Duration::from_secs(5);

/// The sockets that are held.
#[derive(Debug, Default)]
pub struct Holds {
    held: BTreeMap<ObjectKey, (Hold, Vec<Socket>)>,
    /// When a search for an owner was given up.
    gave_up: Option<Instant>,
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
            let address = SocketAddrV4::new(hold.host, port);
            match bind(hold.protocol, address) {
                Ok(socket) => sockets.push(socket),
                Err(error) => return Err(self.explain(&error, hold.protocol, address)),
            }
        }
        self.held.insert(key, (hold.clone(), sockets));
        Ok(())
    }

    /// Closes them.
    pub fn delete(&mut self, hold: &Hold) -> Result<(), KernelError> {
        match self.held.remove(&Object::Hold(hold.clone()).key()) {
            Some(_) => Ok(()),
            None => {
                Err(KernelError::new(Errno::ENOENT as i32, "netagent does not hold these ports"))
            }
        }
    }

    fn explain(
        &mut self,
        error: &io::Error,
        protocol: Protocol,
        address: SocketAddrV4,
    ) -> KernelError {
        let mut search = || {
            if self.gave_up.is_some_and(|when| when.elapsed() < RECOVERY) {
                return None;
            }
            let until = Instant::now() + PATIENCE;
            let found = holder(protocol, address, until);
            self.gave_up = (Instant::now() > until).then(Instant::now);
            found
        };
        explain(error, protocol, address, &mut search)
    }

    /// What is held.
    pub fn all(&self) -> impl Iterator<Item = &Hold> {
        self.held.values().map(|(hold, _)| hold)
    }
}

fn bind(protocol: Protocol, address: SocketAddrV4) -> io::Result<Socket> {
    let drop_all = [SockFilter::new(RETURN_CONSTANT, 0, 0, 0)];
    match protocol {
        Protocol::Tcp => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.attach_filter(&drop_all)?;
            socket.bind(&address.into())?;
            socket.listen(1)?;
            Ok(socket)
        }
        Protocol::Udp => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.attach_filter(&drop_all)?;
            socket.set_recv_buffer_size(0)?;
            socket.bind(&address.into())?;
            Ok(socket)
        }
    }
}

/// Says what is in the way; `owner` is asked only where a socket is.
fn explain(
    error: &io::Error,
    protocol: Protocol,
    address: SocketAddrV4,
    owner: &mut dyn FnMut() -> Option<String>,
) -> KernelError {
    let errno = match error.raw_os_error() {
        Some(errno) => errno,
        None => return refused(io::Error::new(error.kind(), error.to_string())),
    };
    let port = address.port();
    #[expect(clippy::wildcard_enum_match_arm, reason = "of all errnos these need words")]
    let text = match Errno::from_raw(errno) {
        Errno::EADDRINUSE => match owner() {
            Some(holder) => format!("port {port}/{protocol} is held by {holder}"),
            None => format!("port {port}/{protocol} is held by another program"),
        },
        Errno::EADDRNOTAVAIL => format!("{} is no address of this host", address.ip()),
        Errno::EMFILE => "out of file descriptors: each held port is one; raise RLIMIT_NOFILE \
                          (LimitNOFILE= of the service)"
            .to_owned(),
        Errno::ENFILE => "the host is out of file descriptors (fs.file-max)".to_owned(),
        _ => format!("port {port}/{protocol}"),
    };
    KernelError::new(errno, text)
}

/// The process that has the port, as `nginx (pid 812)`: found by the socket's inode. `None` when
/// the time is over.
fn holder(protocol: Protocol, address: SocketAddrV4, until: Instant) -> Option<String> {
    let in_time = || Instant::now() < until;
    let inode = ["", "6"].iter().find_map(|family| {
        // Of this thread's namespace, which the process's need not be.
        let table = File::open(format!("/proc/thread-self/net/{protocol}{family}")).ok()?;
        let lines = BufReader::new(table).lines().map_while(|line| line.ok());
        inode(lines.take_while(|_| in_time()), protocol, address)
    })?;
    let socket = format!("socket:[{inode}]");
    let owns = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut targets = files.flatten().map_while(|file| in_time().then(|| file.path()));
        targets.any(|file| {
            fs::read_link(file).is_ok_and(|target| target.as_os_str() == socket.as_str())
        })
    };
    let mut pids = fs::read_dir("/proc")
        .ok()?
        .map_while(|entry| entry.ok().filter(|_| in_time()))
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(owns)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim_end()))
}

/// The inode of the first socket in a table of /proc/net that keeps `address` from being bound.
fn inode(
    table: impl Iterator<Item = String>,
    protocol: Protocol,
    address: SocketAddrV4,
) -> Option<String> {
    /// TCP_LISTEN (linux/net/tcp_states.h), as the table prints it.
    const LISTENING: &str = "0A";
    for line in table.skip(1) {
        let mut fields = line.split_ascii_whitespace();
        let Some((ip, port)) = fields.nth(1).and_then(|local| local.split_once(':')) else {
            continue;
        };
        let state = fields.nth(1)?;
        // Listeners come first (net/ipv4/tcp_ipv4.c); connections can be a million lines.
        if protocol == Protocol::Tcp && state != LISTENING {
            return None;
        }
        let same_port = u16::from_str_radix(port, 16).is_ok_and(|port| port == address.port());
        if same_port && overlaps(ip, address) {
            return fields.nth(5).map(str::to_owned);
        }
    }
    None
}

/// Whether a socket on `ip`, as a table prints it, and one on `address` cannot both be.
fn overlaps(ip: &str, address: SocketAddrV4) -> bool {
    let own = u32::from_ne_bytes(address.ip().octets());
    let wildcard = ip.bytes().all(|digit| digit == b'0');
    // Of IPv6 only the wildcard and mapped addresses (::ffff:a.b.c.d) take IPv4's ports.
    let v4 = ip.len() == 8 || ip.get(16..24).is_some_and(|word| word.contains("FFFF"));
    wildcard || v4 && (address.ip().is_unspecified() || ip.ends_with(&format!("{own:08X}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_names_the_limit() {
        let error = io::Error::from_raw_os_error(Errno::EMFILE as i32);
        let text = explain(&error, Protocol::Tcp, "0.0.0.0:80".parse().unwrap(), &mut || {
            panic!("there is no owner to search for")
        })
        .to_string();
        assert!(text.starts_with("EMFILE: ") && text.contains("RLIMIT_NOFILE"), "{text}");
    }

    #[test]
    fn of_ipv6_only_wildcard_and_mapped_addresses_stand_in_the_way() {
        let line = |ip: &str| format!("head\n 0: {ip}:0050 0:0 0A 0:0 00:0 0 0 0 444 1");
        let found = |ip: &str| {
            let line = line(ip);
            let lines = line.lines().map(str::to_owned);
            inode(lines, Protocol::Tcp, "0.0.0.0:80".parse().unwrap()).is_some()
        };
        assert!(found("00000000000000000000000000000000"));
        assert!(found("0000000000000000FFFF00000100007F"));
        assert!(!found("00000000000000000000000001000000"));
    }

    #[test]
    fn only_a_listener_on_the_same_port_stands_in_the_way() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n\
            \x20  1: 00000000:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n\
            \x20  2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n";
        let on = |text: &str| {
            inode(table.lines().map(str::to_owned), Protocol::Tcp, text.parse().unwrap())
        };
        assert_eq!(on("0.0.0.0:8080").as_deref(), Some("111"));
        assert_eq!(on("127.0.0.1:8080").as_deref(), Some("111"));
        assert_eq!(on("10.0.0.1:8080"), None);
        assert_eq!(on("0.0.0.0:8081"), None, "behind the listeners nothing is read");
    }

    #[test]
    fn a_search_without_an_end_is_given_up_and_not_begun_again_at_once() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let address = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
        assert_eq!(holder(Protocol::Tcp, address, Instant::now()), None);
        let mut holds = Holds { gave_up: Some(Instant::now()), ..Holds::default() };
        let error = io::Error::from_raw_os_error(Errno::EADDRINUSE as i32);
        let text = holds.explain(&error, Protocol::Tcp, address).to_string();
        assert!(text.ends_with("is held by another program"), "{text}");
        holds.gave_up = Instant::now().checked_sub(RECOVERY);
        let text = holds.explain(&error, Protocol::Tcp, address).to_string();
        assert!(text.contains("(pid ") || holds.gave_up.is_some(), "{text}");
    }
}
