//! A network namespace for each test, short ways to say things, and elements of every set.

use std::process::Command;
use std::sync::Arc;

use netagent::firewall::model::{Ruleset, SetName, Value};
use netagent::firewall::policy;
use netagent::kernel::linux::nft::Nft;
use netagent::model::{Family, Mark, Protocol};
use netagent::object::{Element, Object, Op};
use nix::sched::CloneFlags;

/// Runs `test` in a fresh network namespace, or says why not.
pub fn isolated(name: &str, test: fn()) {
    if !nix::unistd::geteuid().is_root() {
        let required = std::env::var_os("NETAGENT_REQUIRE_ROOT").is_some_and(|value| value == "1");
        assert!(!required, "{name}: root is required, and this is not root");
        println!("SKIP {name}: needs root to make a network namespace");
        return;
    }
    let thread = std::thread::spawn(move || {
        enter_fresh_namespace();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread ends with the test")]
fn enter_fresh_namespace() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

/// What `nft` says to `arguments` in the namespace of this thread.
#[expect(clippy::disallowed_methods, reason = "nft is the second opinion here")]
pub fn nft(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("nft").args(arguments).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

pub fn ruleset(object: &Object) -> Arc<Ruleset> {
    let Object::Table(table) = object else { panic!("{object:?}") };
    table.ruleset.clone()
}

pub fn table() -> Object {
    policy::table(Mark::DEFAULT)
}

pub fn installed() -> Nft {
    let mut nft = Nft::open().unwrap();
    nft.transact(&[Op::Create(table())]).unwrap();
    nft
}

pub fn link(name: &str) -> Value {
    Value::Link(name.parse().unwrap())
}

pub fn ip(address: &str) -> Value {
    Value::Address(address.parse().unwrap())
}

pub fn tcp() -> Value {
    Value::Protocol(Protocol::Tcp)
}

pub fn element(
    set: SetName,
    key: Vec<Value>,
    through: Option<Vec<Value>>,
    data: Vec<Value>,
) -> Element {
    Element { set, key, through, data }
}

pub fn any_port(port: u16) -> Element {
    let data = vec![ip("10.0.0.2"), Value::Port(8080)];
    element(SetName::AnyPorts(Family::V4), vec![tcp(), Value::Port(port)], None, data)
}

pub fn create(element: &Element) -> Op {
    Op::Create(Object::Element(element.clone()))
}

pub fn delete(element: &Element) -> Op {
    Op::Delete(Object::Element(element.clone()))
}

pub fn elements(nft: &mut Nft) -> Vec<Element> {
    let contents = nft.read().unwrap().unwrap();
    assert_eq!(contents.foreign_elements, 0);
    contents.elements
}

/// An element of every set, of some several, and how `nft` prints them.
pub fn samples() -> Vec<(Element, &'static str)> {
    let of_link = |set, name| (element(set, vec![link(name)], None, vec![]), "\"br0\"");
    let pair = |set, one, other| element(set, vec![link(one), link(other)], None, vec![]);
    let long = "abcdefghijklmno";
    let long_named = element(SetName::Bridges, vec![link(long)], None, vec![]);
    let mut samples = vec![
        of_link(SetName::Bridges, "br0"),
        (long_named, "\"abcdefghijklmno\""),
        (pair(SetName::Same, "br0", "br0"), "\"br0\" . \"br0\""),
        (pair(SetName::Same, "br1", "br1"), "\"br1\" . \"br1\""),
        (pair(SetName::Shared, "br0", "br0"), "\"br0\" . \"br0\""),
        of_link(SetName::IccDenied, "br0"),
        of_link(SetName::Internal, "br0"),
        of_link(SetName::Uplinks, "br0"),
        (pair(SetName::Bridged, "eth0", "eth0"), "\"eth0\" . \"eth0\""),
        (pair(SetName::Trusted, "eth0", "br0"), "\"eth0\" . \"br0\""),
        (pair(SetName::Trusted, long, "br0"), "\"abcdefghijklmno\" . \"br0\""),
    ];
    for family in Family::ALL {
        samples.extend([
            of_link(SetName::Raised(family), "br0"),
            of_link(SetName::Routed(family), "br0"),
            of_link(SetName::Unprotected(family), "br0"),
        ]);
    }
    samples.extend(samples_of_nets());
    samples.extend(samples_of_adopted_bridges());
    samples.extend(samples_of_ports(Family::V4, "192.0.2.1", "10.0.0.2", TEXTS_V4));
    samples.extend(samples_of_ports(Family::V6, "2001:db8::1", "fd00::2", TEXTS_V6));
    samples
}

/// Subnets that touch, single addresses, and where addresses end.
fn samples_of_nets() -> Vec<(Element, &'static str)> {
    use Family::{V4, V6};
    let local = |family, name, first, last| {
        let through = Some(vec![link(name), ip(last)]);
        element(SetName::Local(family), vec![link(name), ip(first)], through, vec![])
    };
    let net = |family, first, last| {
        element(SetName::Masquerade(family), vec![ip(first)], Some(vec![ip(last)]), vec![])
    };
    let source = |family, first, last, address| {
        let data = vec![ip(address)];
        element(SetName::Sources(family), vec![ip(first)], Some(vec![ip(last)]), data)
    };
    let (last_v4, last_v6) = ("255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    let (first_64, second_64) = ("fd00::ffff:ffff:ffff:ffff", "fd00::1:ffff:ffff:ffff:ffff");
    let highest_64 = "ffff:ffff:ffff:ffff::";
    vec![
        (local(V4, "br0", "10.0.0.0", "10.0.0.255"), "\"br0\" . 10.0.0.0/24"),
        (local(V4, "br1", "10.0.1.7", "10.0.1.7"), "\"br1\" . 10.0.1.7"),
        (local(V6, "br0", "fd00::", first_64), "\"br0\" . fd00::/64"),
        (local(V6, "br1", "fd00:0:0:1::", second_64), "\"br1\" . fd00:0:0:1::/64"),
        (net(V4, "10.0.0.0", "10.0.0.255"), "10.0.0.0/24"),
        (net(V4, "10.0.1.0", "10.0.1.255"), "10.0.1.0/24"),
        (net(V4, "10.0.2.0", "10.0.3.255"), "10.0.2.0/23"),
        (net(V4, "255.255.255.0", last_v4), "255.255.255.0/24"),
        (net(V6, "fd00::", first_64), "fd00::/64"),
        (net(V6, "fd00:0:0:1::", second_64), "fd00:0:0:1::/64"),
        (net(V6, "fd00:0:0:9::7", "fd00:0:0:9::7"), "fd00:0:0:9::7"),
        (net(V6, highest_64, last_v6), "ffff:ffff:ffff:ffff::/64"),
        (source(V4, "10.0.0.0", "10.0.0.255", "192.0.2.7"), "10.0.0.0/24 : 192.0.2.7"),
        (source(V4, "10.0.1.0", "10.0.1.255", "192.0.2.8"), "10.0.1.0/24 : 192.0.2.8"),
        (source(V4, "255.255.255.0", last_v4, "192.0.2.9"), "255.255.255.0/24 : 192.0.2.9"),
        (source(V6, "fd00::", first_64, "2001:db8::7"), "fd00::/64 : 2001:db8::7"),
        (source(V6, "fd00:0:0:1::", second_64, "2001:db8::8"), "fd00:0:0:1::/64 : 2001:db8::8"),
        (source(V6, highest_64, last_v6, "2001:db8::9"), "ffff:ffff:ffff:ffff::/64 : 2001:db8::9"),
    ]
}

/// Containers and nets on a bridge of the operator's.
fn samples_of_adopted_bridges() -> Vec<(Element, &'static str)> {
    let one = |set, address| element(set, vec![ip(address)], None, vec![]);
    let net = |set, first, last| {
        element(set, vec![link("br0"), ip(first)], Some(vec![link("br0"), ip(last)]), vec![])
    };
    let last_v6 = "fd00::ffff:ffff:ffff:ffff";
    vec![
        (one(SetName::Quiet(Family::V4), "10.0.0.2"), "10.0.0.2"),
        (one(SetName::Quiet(Family::V6), "fd00::2"), "fd00::2"),
        (net(SetName::Secluded(Family::V4), "10.0.0.2", "10.0.0.2"), "\"br0\" . 10.0.0.2"),
        (net(SetName::Secluded(Family::V6), "fd00::2", "fd00::2"), "\"br0\" . fd00::2"),
        (net(SetName::OnLink(Family::V4), "10.0.0.0", "10.0.0.255"), "\"br0\" . 10.0.0.0/24"),
        (net(SetName::OnLink(Family::V6), "fd00::", last_v6), "\"br0\" . fd00::/64"),
    ]
}

const TEXTS_V4: [&str; 7] = [
    "tcp . 192.0.2.1 . 80 : 10.0.0.2 . 8080",
    "20000-20099 . tcp . 192.0.2.1 : 10.0.0.2",
    "tcp . 80 : 10.0.0.2 . 8080",
    "udp . 53 : 10.0.0.2 . 8080",
    "30000-45999 . udp : 10.0.0.2",
    "80 . tcp . 10.0.0.2",
    "8000-8010 . sctp . 10.0.0.2",
];
const TEXTS_V6: [&str; 7] = [
    "tcp . 2001:db8::1 . 80 : fd00::2 . 8080",
    "20000-20099 . tcp . 2001:db8::1 : fd00::2",
    "tcp . 80 : fd00::2 . 8080",
    "udp . 53 : fd00::2 . 8080",
    "30000-45999 . udp : fd00::2",
    "80 . tcp . fd00::2",
    "8000-8010 . sctp . fd00::2",
];

/// Elements of the port maps and of what answers at a container's own address.
fn samples_of_ports(
    family: Family,
    host: &str,
    container: &str,
    texts: [&'static str; 7],
) -> Vec<(Element, &'static str)> {
    let protocol = Value::Protocol;
    let port = Value::Port;
    let (udp, sctp) = (|| protocol(Protocol::Udp), || protocol(Protocol::Sctp));
    let to_port = || vec![ip(container), port(8080)];
    let to_container = || vec![ip(container)];
    let host_range = |at| vec![port(at), tcp(), ip(host)];
    let elements = [
        element(SetName::HostPorts(family), vec![tcp(), ip(host), port(80)], None, to_port()),
        element(
            SetName::HostRanges(family),
            host_range(20_000),
            Some(host_range(20_099)),
            to_container(),
        ),
        element(SetName::AnyPorts(family), vec![tcp(), port(80)], None, to_port()),
        element(SetName::AnyPorts(family), vec![udp(), port(53)], None, to_port()),
        element(
            SetName::AnyRanges(family),
            vec![port(30_000), udp()],
            Some(vec![port(45_999), udp()]),
            to_container(),
        ),
        element(
            SetName::Opened(family),
            vec![port(80), tcp(), ip(container)],
            Some(vec![port(80), tcp(), ip(container)]),
            vec![],
        ),
        element(
            SetName::Opened(family),
            vec![port(8000), sctp(), ip(container)],
            Some(vec![port(8010), sctp(), ip(container)]),
            vec![],
        ),
    ];
    elements.into_iter().zip(texts).collect()
}
