//! A network namespace for each test, short ways to say things, and elements of every set.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;

use netagent::firewall::model::{Ruleset, SetName, Value};
use netagent::firewall::policy;
use netagent::kernel::linux::nft::Nft;
use netagent::model::{Mark, Protocol};
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

pub fn ipv4(address: &str) -> Value {
    Value::Ipv4(address.parse::<Ipv4Addr>().unwrap())
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
    let data = vec![ipv4("10.0.0.2"), Value::Port(8080)];
    element(SetName::AnyPorts, vec![tcp(), Value::Port(port)], None, data)
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

/// Two elements of every set, and how `nft` prints them.
pub fn samples() -> Vec<(Element, &'static str)> {
    let of_link = |set, name| element(set, vec![link(name)], None, vec![]);
    let pair = |set, name| element(set, vec![link(name), link(name)], None, vec![]);
    let local = |name, first, last| {
        let through = Some(vec![link(name), ipv4(last)]);
        element(SetName::Local, vec![link(name), ipv4(first)], through, vec![])
    };
    let net = |first, last| {
        element(SetName::Masquerade, vec![ipv4(first)], Some(vec![ipv4(last)]), vec![])
    };
    let udp = || Value::Protocol(Protocol::Udp);
    let port = Value::Port;
    vec![
        (of_link(SetName::Bridges, "br0"), "\"br0\""),
        (of_link(SetName::Bridges, "abcdefghijklmno"), "\"abcdefghijklmno\""),
        (pair(SetName::Same, "br0"), "\"br0\" . \"br0\""),
        (pair(SetName::Same, "br1"), "\"br1\" . \"br1\""),
        (of_link(SetName::IccDenied, "br0"), "\"br0\""),
        (of_link(SetName::Internal, "br0"), "\"br0\""),
        (of_link(SetName::Uplinks, "eth0"), "\"eth0\""),
        (of_link(SetName::Raised, "eth0"), "\"eth0\""),
        (of_link(SetName::RaisedV6, "eth0"), "\"eth0\""),
        (pair(SetName::Bridged, "eth0"), "\"eth0\" . \"eth0\""),
        (local("br0", "10.0.0.0", "10.0.0.255"), "\"br0\" . 10.0.0.0/24"),
        (local("br1", "10.0.1.7", "10.0.1.7"), "\"br1\" . 10.0.1.7"),
        (net("10.0.0.0", "10.0.0.255"), "10.0.0.0/24"),
        (net("10.0.2.0", "10.0.3.255"), "10.0.2.0/23"),
        (net("255.255.255.0", "255.255.255.255"), "255.255.255.0/24"),
        (
            element(
                SetName::HostPorts,
                vec![tcp(), ipv4("192.0.2.1"), port(80)],
                None,
                vec![ipv4("10.0.0.2"), port(8080)],
            ),
            "tcp . 192.0.2.1 . 80 : 10.0.0.2 . 8080",
        ),
        (
            element(
                SetName::HostRanges,
                vec![port(20_000), tcp(), ipv4("192.0.2.1")],
                Some(vec![port(20_099), tcp(), ipv4("192.0.2.1")]),
                vec![ipv4("10.0.0.2")],
            ),
            "20000-20099 . tcp . 192.0.2.1 : 10.0.0.2",
        ),
        (any_port(80), "tcp . 80 : 10.0.0.2 . 8080"),
        (
            element(
                SetName::AnyPorts,
                vec![udp(), port(53)],
                None,
                vec![ipv4("10.0.0.3"), port(5353)],
            ),
            "udp . 53 : 10.0.0.3 . 5353",
        ),
        (
            element(
                SetName::AnyRanges,
                vec![port(30_000), udp()],
                Some(vec![port(45_999), udp()]),
                vec![ipv4("10.0.0.2")],
            ),
            "30000-45999 . udp : 10.0.0.2",
        ),
    ]
}
