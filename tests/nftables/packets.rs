//! Real packets through the installed port maps, on the loopback link.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use netagent::firewall::model::{SetName, Value};
use netagent::model::Family;

use crate::harness::*;

/// Whether a connection to `to` ends at a listener on `at`.
fn reaches(to: &str, at: &str) -> bool {
    let listener = TcpListener::bind(at).unwrap();
    listener.set_nonblocking(true).unwrap();
    let connection = TcpStream::connect(to);
    connection.is_ok() && listener.accept().is_ok()
}

/// This host as `at(1)`, containers as `at(2)` to `at(5)`.
fn at(family: Family, place: u16) -> String {
    match family {
        Family::V4 => format!("127.0.0.{place}"),
        Family::V6 => format!("fd00::{place}"),
    }
}

/// One element in each of the four maps of a family; they overlap.
fn maps(family: Family) -> Vec<netagent::object::Op> {
    let port = Value::Port;
    let at = |place| ip(&at(family, place));
    let map = |set, key, through, data| create(&element(set, key, through, data));
    vec![
        map(SetName::AnyPorts(family), vec![tcp(), port(8000)], None, vec![at(2), port(9000)]),
        map(
            SetName::HostPorts(family),
            vec![tcp(), at(1), port(8000)],
            None,
            vec![at(3), port(9001)],
        ),
        map(
            SetName::AnyRanges(family),
            vec![port(8100), tcp()],
            Some(vec![port(8199), tcp()]),
            vec![at(4)],
        ),
        map(
            SetName::HostRanges(family),
            vec![port(8150), tcp(), at(1)],
            Some(vec![port(8150), tcp(), at(1)]),
            vec![at(5)],
        ),
    ]
}

/// A place and a port there.
type End = (u16, u16);

/// Where a connection to the one ends.
const WAYS: [(End, End); 10] = [
    ((9, 8000), (2, 9000)),
    ((1, 8000), (3, 9001)),
    ((9, 8100), (4, 8100)),
    ((9, 8150), (4, 8150)),
    ((9, 8199), (4, 8199)),
    ((1, 8149), (4, 8149)),
    ((1, 8150), (5, 8150)),
    ((1, 8151), (4, 8151)),
    ((9, 8099), (9, 8099)),
    ((9, 8200), (9, 8200)),
];

#[test]
fn packets_to_published_ports_go_where_the_four_maps_say() {
    isolated("packets_to_published_ports_go_where_the_four_maps_say", || {
        raise_loopback();
        let mut agent = installed();
        let socket = |family, (place, port): End| match family {
            Family::V4 => format!("{}:{port}", at(family, place)),
            Family::V6 => format!("[{}]:{port}", at(family, place)),
        };
        let check = |family, ways: &[(End, End)]| {
            for (to, end) in ways {
                let (to, end) = (socket(family, *to), socket(family, *end));
                assert!(reaches(&to, &end), "{to} at {end}");
            }
        };
        let untouched = WAYS.map(|(to, _)| (to, to));
        agent.transact(&maps(Family::V4)).unwrap();
        check(Family::V4, &WAYS);
        check(Family::V6, &untouched);
        agent.transact(&maps(Family::V6)).unwrap();
        check(Family::V6, &WAYS);
        check(Family::V4, &WAYS);
        assert!(reaches("[::1]:8000", "[fd00::2]:9000"), "[::1] is an address of this host");
    });
}

fn raise_loopback() {
    let places = [1, 2, 3, 4, 5, 9].map(|place| at(Family::V6, place));
    for address in &places {
        ip_does(&["address", "add", address, "dev", "lo", "nodad"]);
    }
    ip_does(&["link", "set", "lo", "up"]);
    // An address is there before its route is.
    let routed = |address: &String| routes().contains(&format!("local {address} "));
    let end = Instant::now() + Duration::from_secs(10);
    while !places.iter().all(routed) {
        assert!(Instant::now() < end, "{}", routes());
    }
}

#[expect(clippy::disallowed_methods, reason = "the namespace is the test's own")]
fn routes() -> String {
    let shown = Command::new("ip").args(["-6", "route", "show", "table", "local"]).output();
    String::from_utf8(shown.unwrap().stdout).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the namespace is the test's own")]
fn ip_does(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).status().unwrap();
    assert!(done.success(), "{arguments:?}");
}
