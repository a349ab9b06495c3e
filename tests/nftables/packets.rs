//! Real packets through the installed rules.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use netagent::firewall::model::{SetName, Value};

use crate::harness::*;

/// Whether a connection to `to` ends at a listener on `at`.
fn reaches(to: &str, at: &str) -> bool {
    let listener = TcpListener::bind(at).unwrap();
    listener.set_nonblocking(true).unwrap();
    let connection = TcpStream::connect(to);
    connection.is_ok() && listener.accept().is_ok()
}

#[test]
fn packets_to_published_ports_go_where_the_four_maps_say() {
    isolated("packets_to_published_ports_go_where_the_four_maps_say", || {
        raise_loopback();
        let mut agent = installed();
        let port = Value::Port;
        let one = || ipv4("127.0.0.1");
        let map = |set, key, through, data| create(&element(set, key, through, data));
        agent
            .transact(&[
                map(
                    SetName::AnyPorts,
                    vec![tcp(), port(8000)],
                    None,
                    vec![ipv4("127.0.0.2"), port(9000)],
                ),
                map(
                    SetName::HostPorts,
                    vec![tcp(), one(), port(8000)],
                    None,
                    vec![ipv4("127.0.0.3"), port(9001)],
                ),
                map(
                    SetName::AnyRanges,
                    vec![port(8100), tcp()],
                    Some(vec![port(8199), tcp()]),
                    vec![ipv4("127.0.0.4")],
                ),
                map(
                    SetName::HostRanges,
                    vec![port(8150), tcp(), one()],
                    Some(vec![port(8150), tcp(), one()]),
                    vec![ipv4("127.0.0.5")],
                ),
            ])
            .unwrap();
        for (to, at) in [
            ("127.0.0.9:8000", "127.0.0.2:9000"),
            ("127.0.0.1:8000", "127.0.0.3:9001"),
            ("127.0.0.9:8100", "127.0.0.4:8100"),
            ("127.0.0.9:8150", "127.0.0.4:8150"),
            ("127.0.0.9:8199", "127.0.0.4:8199"),
            ("127.0.0.1:8149", "127.0.0.4:8149"),
            ("127.0.0.1:8150", "127.0.0.5:8150"),
            ("127.0.0.1:8151", "127.0.0.4:8151"),
            ("127.0.0.9:8099", "127.0.0.9:8099"),
            ("127.0.0.9:8200", "127.0.0.9:8200"),
            ("[::1]:8000", "[::1]:8000"),
            ("[::1]:8150", "[::1]:8150"),
        ] {
            assert!(reaches(to, at), "{to} at {at}");
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "the namespace is the test's own")]
fn raise_loopback() {
    let done = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(done.success());
}
