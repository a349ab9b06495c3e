//! Why a port cannot be held, and who has it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use crate::kernel::KernelError;
use crate::kernel::linux::wire::refused;
use crate::model::{HostAddress, Protocol};
use crate::object::Hold;

/// How long the owner of a taken port is searched for, while attaches wait. A guess: reading the
/// descriptors of a few thousand processes; the time of a search on a host with many would settle
/// it.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long nobody is searched for after a search that took too long: a publish tries up to ten
/// ports. A guess; how soon after a refusal an operator asks again would settle it.
const RECOVERY: Duration = Duration::from_secs(5);

/// The search for owners, which is given up for a while where it takes too long.
#[derive(Debug, Default)]
pub struct Search {
    gave_up: Option<Instant>,
}

impl Search {
    fn owner(&mut self, hold: &Hold, port: u16) -> Option<String> {
        if self.gave_up.is_some_and(|when| when.elapsed() < RECOVERY) {
            return None;
        }
        let until = Instant::now() + PATIENCE;
        let found = owner(hold.protocol, hold.host, port, until);
        self.gave_up = (Instant::now() > until).then(Instant::now);
        found
    }
}

/// Says what is in the way of `port`; an owner is searched for only where a socket is.
pub fn explain(error: &io::Error, hold: &Hold, port: u16, search: &mut Search) -> KernelError {
    let errno = match error.raw_os_error() {
        Some(errno) => errno,
        None => return refused(io::Error::new(error.kind(), error.to_string())),
    };
    let protocol = hold.protocol;
    #[expect(clippy::wildcard_enum_match_arm, reason = "of all errnos these need words")]
    let text = match Errno::from_raw(errno) {
        Errno::EADDRINUSE => match search.owner(hold, port) {
            Some(owner) => format!("port {port}/{protocol} is held by {owner}"),
            None => format!("port {port}/{protocol} is held by another program"),
        },
        Errno::EADDRNOTAVAIL => format!("{} is no address of this host", hold.host),
        Errno::EAFNOSUPPORT => format!("this host has no IPv6, and so no {}", hold.host),
        Errno::EMFILE => format!(
            "out of file descriptors: each held port is one, {} were to be held, and the agent \
             may have {} in all; raise RLIMIT_NOFILE (LimitNOFILE= of the service)",
            hold.ports.count(),
            getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
        ),
        Errno::ENFILE => format!(
            "the host is out of file descriptors: each held port is one, {} were to be held, and \
             all programs together may have {}; raise the sysctl fs.file-max",
            hold.ports.count(),
            fs::read_to_string("/proc/sys/fs/file-max").unwrap_or_default().trim_end(),
        ),
        _ => format!("port {port}/{protocol}"),
    };
    let explained = KernelError::new(errno, text);
    match errno == Errno::EADDRINUSE as i32 {
        true => explained.with_port(protocol, port),
        false => explained,
    }
}

/// The process that has the port, as `nginx (pid 812)`: found by the socket's inode. `None` when
/// the time is over.
fn owner(protocol: Protocol, host: HostAddress, port: u16, until: Instant) -> Option<String> {
    let in_time = || Instant::now() < until;
    let tables: &[&str] = match protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => &["sctp/eps"],
    };
    let inode = tables.iter().find_map(|table| {
        // Of this thread's namespace, which the process's need not be.
        let table = File::open(format!("/proc/thread-self/net/{table}")).ok()?;
        let lines = BufReader::new(table).lines().map_while(|line| line.ok());
        inode(lines.take_while(|_| in_time()), protocol, host, port)
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

/// A socket as a table of /proc/net shows it.
struct Row {
    addresses: Vec<IpAddr>,
    port: u16,
    listens: bool,
    inode: String,
}

/// The inode of the first socket in a table that keeps a port of `host` from being bound.
fn inode(
    table: impl Iterator<Item = String>,
    protocol: Protocol,
    host: HostAddress,
    port: u16,
) -> Option<String> {
    for line in table.skip(1) {
        let row = match protocol {
            Protocol::Tcp | Protocol::Udp => row(&line),
            Protocol::Sctp => endpoint(&line),
        };
        let Some(row) = row else { continue };
        // Listeners come first (net/ipv4/tcp_ipv4.c); connections can be a million lines.
        if protocol == Protocol::Tcp && !row.listens {
            return None;
        }
        if row.port == port && row.addresses.iter().any(|address| overlaps(*address, host)) {
            return Some(row.inode);
        }
    }
    None
}

/// A line of `tcp`, `tcp6`, `udp` or `udp6`:
/// `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 INODE …`.
fn row(line: &str) -> Option<Row> {
    /// TCP_LISTEN (linux/net/tcp_states.h), as the table prints it.
    const LISTENING: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let listens = fields.nth(1)? == LISTENING;
    Some(Row {
        addresses: vec![address_of(address)?],
        port: u16::from_str_radix(port, 16).ok()?,
        listens,
        inode: fields.nth(5)?.to_owned(),
    })
}

/// A line of `sctp/eps`: `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS…`
/// (net/sctp/proc.c).
fn endpoint(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace();
    let port = fields.nth(5)?.parse().ok()?;
    let inode = fields.nth(1)?.to_owned();
    let addresses = fields.filter_map(|address| address.parse().ok()).collect();
    Some(Row { addresses, port, listens: true, inode })
}

/// An address as a table prints it: words of four bytes in the machine's own order.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = text.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    };
    if text.len() == 8 {
        return word(0).map(|bytes| Ipv4Addr::from(bytes).into());
    }
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let bytes: [u8; 16] = words.concat().try_into().ok()?;
    Some(Ipv6Addr::from(bytes).to_canonical())
}

/// Whether a socket on `other` and one for `host` cannot both be.
fn overlaps(other: IpAddr, host: HostAddress) -> bool {
    match (other, host) {
        (_, HostAddress::Any) => true,
        // It may take IPv4's ports too: the table does not tell.
        (IpAddr::V6(other), HostAddress::At(IpAddr::V4(_))) => other.is_unspecified(),
        (IpAddr::V4(_), HostAddress::At(IpAddr::V6(_))) => false,
        (other, HostAddress::At(host)) => {
            other == host || other.is_unspecified() || host.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortRange;

    fn hold(host: &str, first: u16, last: u16) -> Hold {
        let ports = PortRange::new(first, last).unwrap();
        Hold { protocol: Protocol::Tcp, host: host.parse().unwrap(), ports, relay: None }
    }

    #[test]
    fn running_out_of_descriptors_tells_the_numbers() {
        let error = |errno| io::Error::from_raw_os_error(errno as i32);
        let mut search = Search::default();
        let hold = hold("*", 8000, 8099);
        let text = explain(&error(Errno::EMFILE), &hold, 8003, &mut search).to_string();
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(text.starts_with("EMFILE: ") && text.contains("RLIMIT_NOFILE"), "{text}");
        assert!(text.contains("100 were to be held"), "{text}");
        assert!(text.contains(&format!("may have {soft} in all")), "{text}");
        let text = explain(&error(Errno::ENFILE), &hold, 8003, &mut search).to_string();
        let all = fs::read_to_string("/proc/sys/fs/file-max").unwrap();
        assert!(text.contains("fs.file-max") && text.contains(all.trim_end()), "{text}");
    }

    #[test]
    fn what_stands_in_the_way_is_what_the_kernel_collides_with() {
        const WILDCARD: &str = "00000000000000000000000000000000";
        const MAPPED_LOOPBACK: &str = "0000000000000000FFFF00000100007F";
        const LOOPBACK_V6: &str = "00000000000000000000000001000000";
        let found = |address: &str, host: &str| {
            let table = format!("head\n 0: {address}:0050 0:0 0A 0:0 00:0 0 0 0 444 1");
            let lines = table.lines().map(str::to_owned);
            inode(lines, Protocol::Tcp, host.parse().unwrap(), 80).is_some()
        };
        for (address, hosts) in [
            (WILDCARD, &["*", "0.0.0.0", "127.0.0.1", "[::]", "[::1]"][..]),
            (MAPPED_LOOPBACK, &["*", "0.0.0.0", "127.0.0.1"]),
            (LOOPBACK_V6, &["*", "[::]", "[::1]"]),
            ("00000000", &["*", "0.0.0.0", "127.0.0.1"]),
            ("0200007F", &["*", "0.0.0.0"]),
        ] {
            for host in ["*", "0.0.0.0", "127.0.0.1", "[::]", "[::1]", "[fd00::1]"] {
                let wildcard = address == WILDCARD;
                let collides = hosts.contains(&host) || wildcard;
                assert_eq!(found(address, host), collides, "{address} and {host}");
            }
        }
    }

    #[test]
    fn only_a_listener_on_the_same_port_stands_in_the_way() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n\
            \x20  1: 00000000:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n\
            \x20  2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n";
        let on = |host: &str, port| {
            inode(table.lines().map(str::to_owned), Protocol::Tcp, host.parse().unwrap(), port)
        };
        assert_eq!(on("0.0.0.0", 8080).as_deref(), Some("111"));
        assert_eq!(on("127.0.0.1", 8080).as_deref(), Some("111"));
        assert_eq!(on("10.0.0.1", 8080), None);
        assert_eq!(on("0.0.0.0", 8081), None, "behind the listeners nothing is read");
    }

    #[test]
    fn an_sctp_endpoint_stands_in_the_way_on_each_of_its_addresses() {
        let table = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
            ffff8c1 ffff8c2 2   10  23   2905      0 777 10.0.0.1 fd00::1 \n";
        let on = |host: &str, port| {
            inode(table.lines().map(str::to_owned), Protocol::Sctp, host.parse().unwrap(), port)
        };
        assert_eq!(on("10.0.0.1", 2905).as_deref(), Some("777"));
        assert_eq!(on("[fd00::1]", 2905).as_deref(), Some("777"));
        assert_eq!(on("*", 2905).as_deref(), Some("777"));
        assert_eq!(on("10.0.0.2", 2905), None);
        assert_eq!(on("10.0.0.1", 2906), None);
    }

    #[test]
    fn a_search_without_an_end_is_given_up_and_not_begun_again_at_once() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let hold = hold("127.0.0.1", port, port);
        assert_eq!(owner(hold.protocol, hold.host, port, Instant::now()), None);
        let mut search = Search { gave_up: Some(Instant::now()) };
        let error = io::Error::from_raw_os_error(Errno::EADDRINUSE as i32);
        let text = explain(&error, &hold, port, &mut search).to_string();
        assert!(text.ends_with("is held by another program"), "{text}");
        search.gave_up = Instant::now().checked_sub(RECOVERY);
        let text = explain(&error, &hold, port, &mut search).to_string();
        assert!(text.contains("(pid ") || search.gave_up.is_some(), "{text}");
    }
}
