//! [::1] on held ports, carried to a container by the agent.

use netagent::object::Relay;
use std::io::ErrorKind;
use std::net::{Ipv6Addr, Shutdown};

use super::rig::*;

/// Plays the container: an address of the namespace's own.
const CONTAINER: Ipv6Addr = Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, 1);
const PATIENCE: Duration = Duration::from_secs(10);

fn relayed(protocol: Protocol, first: u16, last: u16, to: Option<u16>) -> Object {
    let ports = PortRange::new(first, last).unwrap();
    let relay = to.map(|first| Relay { to: CONTAINER, first });
    Object::Hold(Hold { protocol, host: HostAddress::Any, ports, relay })
}

fn with_container() -> Linux {
    sh(&format!("ip -6 addr add {CONTAINER}/128 dev lo nodad"));
    // The kernel adds its route a moment later.
    let way = UdpSocket::bind("[::]:0").unwrap();
    wait_until("the container can be reached", || way.connect((CONTAINER, 9)).is_ok());
    linux()
}

/// Says who it is, then repeats what it hears until that ends.
fn server(port: u16, who: &'static str) {
    let listener = TcpListener::bind((CONTAINER, port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(who.as_bytes());
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
            });
        }
    });
}

/// Repeats every datagram.
fn udp_server(port: u16) {
    let socket = UdpSocket::bind((CONTAINER, port)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 65_000];
        while let Ok((size, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(buffer.get(..size).unwrap(), from).unwrap();
        }
    });
}

/// A client of the relayed port 5353, calling from `address`.
fn udp_client(address: Ipv6Addr) -> UdpSocket {
    let client = UdpSocket::bind((address, 0)).unwrap();
    client.set_read_timeout(Some(PATIENCE / 10)).unwrap();
    client.connect((Ipv6Addr::LOCALHOST, 5353)).unwrap();
    client
}

/// What comes back for 20,000 bytes of `mark`; sent again where nothing does, as datagrams may get
/// lost.
fn echo(client: &UdpSocket, mark: u8) -> Vec<u8> {
    let mut buffer = vec![0; 65_000];
    for _ in 0..10 {
        client.send(&vec![mark; 20_000]).unwrap();
        if let Ok(size) = client.recv(&mut buffer) {
            buffer.truncate(size);
            return buffer;
        }
    }
    panic!("nothing came back");
}

fn call(port: u16) -> TcpStream {
    let stream = TcpStream::connect_timeout(&(Ipv6Addr::LOCALHOST, port).into(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn greeting(stream: &mut TcpStream) -> String {
    let mut who = [0; 3];
    stream.read_exact(&mut who).unwrap();
    String::from_utf8_lossy(&who).into_owned()
}

/// Nobody answers, and nobody refuses: the filter drops it.
fn is_dropped(to: IpAddr, port: u16) {
    let error = TcpStream::connect_timeout(&(to, port).into(), Duration::from_millis(50));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut, "{to}");
}

/// Refused, before or after the handshake, and not silence.
fn is_refused(port: u16) {
    let to = (Ipv6Addr::LOCALHOST, port).into();
    let refusal = TcpStream::connect_timeout(&to, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read(&mut [0])
    });
    let kind = refusal.map_err(|error| error.kind());
    let refused = [Err(ErrorKind::ConnectionReset), Err(ErrorKind::ConnectionRefused)];
    assert!(refused.contains(&kind), "{kind:?}");
}

/// The inodes of this namespace's listeners.
fn listeners() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp6").unwrap();
    let inode = |line: &str| {
        let row: Vec<&str> = line.split_whitespace().collect();
        (row.get(3) == Some(&"0A")).then(|| row.get(9).unwrap().to_string())
    };
    table.lines().filter_map(inode).collect()
}

fn turn(kernel: &mut Linux, from: &Object, to: &Object) {
    attempt(kernel, Op::Change { from: from.clone(), to: to.clone() }).unwrap();
    check_met(kernel, to);
}

tests! {
    fn only_what_is_sent_to_loopback_v6_is_relayed() {
        let mut kernel = with_container();
        for (port, who) in [(90, "one"), (91, "two")] {
            server(port, who);
        }
        create(&mut kernel, &[relayed(Protocol::Tcp, 8080, 8081, Some(90))]);
        assert_eq!(greeting(&mut call(8080)), "one");
        assert_eq!(greeting(&mut call(8081)), "two");
        is_dropped(CONTAINER.into(), 8080);
        is_dropped(Ipv4Addr::LOCALHOST.into(), 8080);
    }

    fn a_relayed_connection_carries_everything_and_ends_one_way_at_a_time() {
        let mut kernel = with_container();
        server(90, "one");
        create(&mut kernel, &[relayed(Protocol::Tcp, 8080, 8080, Some(90))]);
        let mut stream = call(8080);
        assert_eq!(greeting(&mut stream), "one");
        let sent: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        writing.join().unwrap();
        assert!(heard == sent, "{} of {} bytes came back whole", heard.len(), sent.len());
    }

    fn dead_ends_of_silent_connections_are_noticed() {
        let mut kernel = with_container();
        server(90, "one");
        create(&mut kernel, &[relayed(Protocol::Tcp, 8080, 8080, Some(90))]);
        let mut stream = call(8080);
        assert_eq!(greeting(&mut stream), "one");
        // The agent's ends: the one that was called, and the one that calls the container.
        wait_until("both sockets are kept alive", || {
            let table = std::fs::read_to_string("/proc/thread-self/net/tcp6").unwrap();
            let is_kept = |line: &&str| {
                let row: Vec<&str> = line.split_whitespace().collect();
                let agents = row[1].ends_with(":1F90") || row[2].ends_with(":005A");
                // A keepalive timer (net/ipv6/tcp_ipv6.c), on a connection.
                agents && row[3] == "01" && row[5].starts_with("02:")
            };
            table.lines().skip(1).filter(is_kept).count() == 2
        });
    }

    fn a_caller_is_refused_where_the_container_is_not_listening() {
        let mut kernel = with_container();
        create(&mut kernel, &[relayed(Protocol::Tcp, 8080, 8080, Some(90))]);
        is_refused(8080);
    }

    fn more_connections_than_the_relay_takes_are_refused() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let mut kernel = with_container();
        server(90, "one");
        create(&mut kernel, &[relayed(Protocol::Tcp, 8080, 8080, Some(90))]);
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..1024 {
            let mut stream = call(8080);
            assert_eq!(greeting(&mut stream), "one");
            streams.push(stream);
        }
        is_refused(8080);
        streams.clear();
        wait_until("there is room again", || {
            let mut who = [0; 3];
            call(8080).read_exact(&mut who).is_ok()
        });
    }

    fn datagrams_are_relayed_for_each_client_and_answered_from_loopback() {
        let mut kernel = with_container();
        udp_server(53);
        create(&mut kernel, &[relayed(Protocol::Udp, 5353, 5353, Some(53))]);
        // The third has another address of the host, and must hear from where it asked.
        let clients = [Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, CONTAINER].map(udp_client);
        for round in 0..2_u8 {
            for (client, mark) in clients.iter().zip(round * 3..) {
                assert_eq!(echo(client, mark), vec![mark; 20_000]);
            }
        }
    }

    fn datagrams_of_many_clients_do_not_meet() {
        let mut kernel = with_container();
        udp_server(53);
        create(&mut kernel, &[relayed(Protocol::Udp, 5353, 5353, Some(53))]);
        thread::scope(|scope| {
            for mark in 0..8_u8 {
                scope.spawn(move || {
                    let client = udp_client(Ipv6Addr::LOCALHOST);
                    for _ in 0..8 {
                        assert_eq!(echo(&client, mark), vec![mark; 20_000]);
                    }
                });
            }
        });
    }

    fn the_socket_stays_bound_while_its_relay_comes_goes_and_changes() {
        let mut kernel = with_container();
        server(90, "one");
        server(91, "two");
        let [none, one, two] =
            [None, Some(90), Some(91)].map(|to| relayed(Protocol::Tcp, 8080, 8080, to));
        create(&mut kernel, std::slice::from_ref(&none));
        let before = listeners();
        is_dropped(Ipv6Addr::LOCALHOST.into(), 8080);
        turn(&mut kernel, &none, &one);
        let mut stream = call(8080);
        assert_eq!(greeting(&mut stream), "one");
        turn(&mut kernel, &one, &two);
        let ended = stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset), "its container has gone");
        let mut stream = call(8080);
        assert_eq!(greeting(&mut stream), "two");
        turn(&mut kernel, &two, &none);
        is_dropped(Ipv6Addr::LOCALHOST.into(), 8080);
        // The kernel leads new ones now; this one goes on.
        stream.write_all(b"on ").unwrap();
        assert_eq!(greeting(&mut stream), "on ");
        turn(&mut kernel, &none, &one);
        assert_eq!(greeting(&mut call(8080)), "one");
        assert_eq!(listeners(), before);
    }

    fn a_relayed_port_is_free_when_its_hold_has_gone() {
        let mut kernel = with_container();
        server(90, "one");
        let tcp = relayed(Protocol::Tcp, 8080, 8080, Some(90));
        let udp = relayed(Protocol::Udp, 8080, 8080, Some(90));
        create(&mut kernel, &[tcp.clone(), udp.clone()]);
        let mut stream = call(8080);
        assert_eq!(greeting(&mut stream), "one");
        attempt(&mut kernel, Op::Delete(tcp)).unwrap();
        attempt(&mut kernel, Op::Delete(udp)).unwrap();
        let ended = stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        wait_until_free("[::]:8080");
        wait_until("udp", || UdpSocket::bind("[::]:8080").is_ok());
    }
}
