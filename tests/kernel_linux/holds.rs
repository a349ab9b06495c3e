//! Sockets held on published ports, beside those of other programs.

use socket2::{Domain, Socket, Type};
use std::net::{Ipv6Addr, SocketAddr};

use super::rig::*;

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn held(protocol: Protocol, host: &str, first: u16, last: u16) -> Object {
    let ports = PortRange::new(first, last).unwrap();
    Object::Hold(Hold { protocol, host: host.parse().unwrap(), ports, relay: None })
}

/// Another program's server: on `[::]` of both families, or with a `6` before it of IPv6 alone.
fn server(protocol: Protocol, address: &str, port: u16) -> std::io::Result<Socket> {
    let (only_v6, address) = match address.strip_prefix('6') {
        Some(address) => (true, address),
        None => (false, address),
    };
    let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
    let kind = if protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    if protocol == Protocol::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if protocol == Protocol::Tcp {
        socket.listen(1)?;
    }
    Ok(socket)
}

/// The servers of `what` that a hold of each address stands against.
const AGAINST: [(&str, &[&str]); 7] = [
    ("*", &["[::]", "6[::]", "0.0.0.0", "127.0.0.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.2]"]),
    ("0.0.0.0", &["[::]", "0.0.0.0", "127.0.0.1", "127.0.0.2", "[::ffff:127.0.0.2]"]),
    ("[::]", &["[::]", "6[::]", "[::1]"]),
    ("127.0.0.1", &["[::]", "0.0.0.0", "127.0.0.1"]),
    ("127.0.0.2", &["[::]", "0.0.0.0", "127.0.0.2", "[::ffff:127.0.0.2]"]),
    ("[::1]", &["[::]", "6[::]", "[::1]"]),
    ("[fd00:5::1]", &["[::]", "6[::]"]),
];

/// How many sockets this namespace has in a table.
fn sockets(table: &str) -> usize {
    let path = format!("/proc/thread-self/net/{table}");
    std::fs::read_to_string(path).unwrap().lines().count() - 1
}

tests! {
    fn held_ports_collide_with_every_other_server() {
        let mut kernel = linux();
        let (tcp, udp) = (hold(Protocol::Tcp, 8080, 8082), hold(Protocol::Udp, 53, 53));
        create(&mut kernel, &[tcp.clone(), udp.clone()]);
        check_met(&mut kernel, &tcp);
        check_met(&mut kernel, &udp);
        for taken in ["0.0.0.0:8081", "127.0.0.1:8082"] {
            assert!(TcpListener::bind(taken).is_err(), "{taken}");
        }
        assert!(UdpSocket::bind("127.0.0.1:53").is_err());
        let reached = TcpStream::connect_timeout(
            &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080).into(),
            Duration::from_millis(50),
        );
        assert!(reached.is_err(), "the filter drops what reaches a held port");
        assert_eq!(refusal(&mut kernel, Op::Create(tcp.clone())).0, Errno::EEXIST);
        attempt(&mut kernel, Op::Delete(tcp.clone())).unwrap();
        wait_until_free("0.0.0.0:8081");
        assert_eq!(seen(&mut kernel, &tcp), None);
        assert_eq!(refusal(&mut kernel, Op::Delete(tcp)).0, Errno::ENOENT);
    }

    fn a_taken_port_names_its_owner_and_frees_the_others() {
        let mut kernel = linux();
        let owner = format!("(pid {})", std::process::id());
        let tcp = TcpListener::bind("127.0.0.1:8081").unwrap();
        let udp = UdpSocket::bind("[::]:5353").unwrap();
        for (object, port) in [
            (hold(Protocol::Tcp, 8080, 8082), "port 8081/tcp is held by kernel_linux"),
            (hold(Protocol::Udp, 5352, 5354), "port 5353/udp is held by kernel_linux"),
        ] {
            let (errno, text) = refusal(&mut kernel, Op::Create(object.clone()));
            assert_eq!(errno, Errno::EADDRINUSE);
            assert!(text.starts_with(port) && text.ends_with(&owner), "{text}");
            assert_eq!(seen(&mut kernel, &object), None);
        }
        wait_until_free("0.0.0.0:8080");
        drop((tcp, udp));
        wait_until_free("0.0.0.0:8081");
        create(&mut kernel, &[hold(Protocol::Tcp, 8080, 8082)]);
        let elsewhere = Hold {
            protocol: Protocol::Tcp,
            host: HostAddress::At("192.0.2.1".parse().unwrap()),
            ports: PortRange::single(80).unwrap(),
            relay: None,
        };
        let (errno, text) = refusal(&mut kernel, Op::Create(Object::Hold(elsewhere)));
        assert_eq!(errno, Errno::EADDRNOTAVAIL);
        assert!(text.contains("192.0.2.1"), "{text}");
    }

    fn a_hold_stands_against_servers_of_its_addresses_in_both_families() {
        sh("ip -6 addr add fd00:5::1/128 dev lo nodad");
        let mut kernel = linux();
        for protocol in BOTH {
            for (host, against) in AGAINST {
                let object = held(protocol, host, 8080, 8080);
                create(&mut kernel, std::slice::from_ref(&object));
                for theirs in AGAINST[0].1 {
                    let refused = server(protocol, theirs, 8080).is_err();
                    let due = against.contains(theirs);
                    assert_eq!(refused, due, "{protocol} {theirs} beside our {host}");
                }
                attempt(&mut kernel, Op::Delete(object)).unwrap();
                wait_until("the port is free", || server(protocol, "[::]", 8080).is_ok());
            }
        }
    }

    fn servers_stand_against_a_hold_of_their_addresses_and_are_named() {
        sh("ip -6 addr add fd00:5::1/128 dev lo nodad");
        let mut kernel = linux();
        let owner = format!("(pid {})", std::process::id());
        for protocol in BOTH {
            for theirs in AGAINST[0].1 {
                let server = server(protocol, theirs, 8080).unwrap();
                for (host, against) in AGAINST {
                    let object = held(protocol, host, 8080, 8080);
                    let outcome = attempt(&mut kernel, Op::Create(object.clone()));
                    let what = format!("{protocol} our {host} beside {theirs}");
                    match outcome {
                        Ok(()) => {
                            assert!(!against.contains(theirs), "{what}");
                            attempt(&mut kernel, Op::Delete(object)).unwrap();
                        }
                        Err(error) => {
                            assert!(against.contains(theirs), "{what}: {error}");
                            assert_eq!(error.errno, Errno::EADDRINUSE as i32, "{what}: {error}");
                            let begin = format!("port 8080/{protocol} is held by kernel_linux");
                            let named = error.text.starts_with(&begin);
                            assert!(named && error.text.ends_with(&owner), "{what}: {error}");
                        }
                    }
                }
                drop(server);
                wait_until("the port is free", || self::server(protocol, "[::]", 8080).is_ok());
            }
        }
    }

    fn one_port_on_several_loopback_addresses_is_held_for_each() {
        let mut kernel = linux();
        for protocol in BOTH {
            let objects = ["127.0.0.1", "127.0.0.2", "127.0.1.1", "[::1]"]
                .map(|host| held(protocol, host, 80, 80));
            create(&mut kernel, &objects);
            objects.iter().for_each(|object| check_met(&mut kernel, object));
        }
    }

    fn a_port_on_every_address_is_one_socket() {
        let mut kernel = linux();
        for (protocol, table) in BOTH.into_iter().zip(["tcp", "udp"]) {
            create(&mut kernel, &[held(protocol, "*", 8000, 8099)]);
            assert_eq!((sockets(table), sockets(&format!("{table}6"))), (0, 100), "{table}");
        }
    }

    fn what_is_sent_to_a_held_port_is_dropped_in_both_families() {
        let mut kernel = linux();
        create(&mut kernel, &[held(Protocol::Tcp, "*", 80, 80)]);
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let patience = Duration::from_millis(50);
            let error = TcpStream::connect_timeout(&(address, 80).into(), patience).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{address}");
        }
    }

    fn sctp_ports_are_held_where_there_are_such_sockets() {
        let mut kernel = linux();
        let sctp = Some(socket2::Protocol::SCTP);
        let has_sctp = Socket::new(Domain::IPV4, Type::STREAM, sctp).is_ok();
        let object = held(Protocol::Sctp, "*", 2905, 2906);
        create(&mut kernel, std::slice::from_ref(&object));
        check_met(&mut kernel, &object);
        let bound = std::fs::read_to_string("/proc/thread-self/net/sctp/eps");
        let bound = bound.map_or(0, |text| text.lines().count() - 1);
        assert_eq!(bound, if has_sctp { 2 } else { 0 });
        assert_eq!(kernel.unreserved().is_empty(), has_sctp);
        attempt(&mut kernel, Op::Delete(object.clone())).unwrap();
        assert_eq!(seen(&mut kernel, &object), None);
        assert_eq!(kernel.unreserved(), []);
    }
}
