//! The in-memory host against the real one: the same operations, the same results and errnos, and
//! the same things there in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use netagent::firewall::model::{SetName, Value};
use netagent::firewall::policy;
use netagent::kernel::fake::Fake;
use netagent::kernel::linux::{Iptables, Linux, Options};
use netagent::kernel::{Kernel, Outcome, Scope};
use netagent::model::{Family, HostAddress, LinkName, MacAddr, Mark, Mtu, PortRange, Protocol};
use netagent::object::{
    Address, Element, Hold, Hop, Kind, Link, LinkKind, Netns, Object, Op, Peer, Revert, Route,
    Sysctl,
};
use nix::sched::CloneFlags;

type Script = fn(&Path) -> Vec<Op>;
type Path = PathBuf;

#[expect(clippy::disallowed_methods, reason = "on threads that end with the test")]
fn own_namespace() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

/// A namespace, kept by a thread that waits to be told to end.
fn sandbox<T>(work: impl FnOnce(Path) -> T) -> T {
    let (ready, at) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let keeper = std::thread::spawn(move || {
        own_namespace();
        let thread = nix::unistd::gettid();
        ready.send(format!("/proc/{}/task/{thread}/ns/net", std::process::id())).unwrap();
        let _ = ended.recv();
    });
    let result = work(at.recv().unwrap().into());
    drop(end);
    keeper.join().unwrap();
    result
}

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}

fn bridge(text: &str) -> Object {
    Object::Link(Link {
        netns: Netns::Host,
        name: name(text),
        kind: LinkKind::Bridge { filter_bridged: false },
        mtu: Mtu::new(1400).unwrap(),
        mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
        master: None,
        alias: "netagent:conformance".into(),
        serving: true,
    })
}

/// A bridge that is not the only one.
fn other_bridge(text: &str) -> Object {
    let Object::Link(mut other) = bridge(text) else { unreachable!() };
    other.mac = MacAddr::new([2, 0, 0, 0, 0, 3]);
    Object::Link(other)
}

fn veth(text: &str, master: Option<&str>, peer: Peer) -> Object {
    Object::Link(Link {
        netns: Netns::Host,
        name: name(text),
        kind: LinkKind::Veth { peer, isolated: false },
        mtu: Mtu::new(1400).unwrap(),
        mac: None,
        master: master.map(name),
        alias: "netagent:conformance/end".into(),
        serving: true,
    })
}

fn peer(netns: Netns, text: &str) -> Peer {
    Peer::At {
        netns,
        name: name(text),
        mac: MacAddr::new([2, 0, 0, 0, 0, 2]).unwrap(),
        sysctls: Default::default(),
    }
}

fn address(netns: Netns, net: &str, link: &str) -> Object {
    Object::Address(Address { netns, link: name(link), net: net.parse().unwrap() })
}

fn route(netns: Netns, via: &str, link: &str) -> Object {
    let destination = "0.0.0.0/0".parse().unwrap();
    let hop = Hop::Via(via.parse().unwrap());
    Object::Route(Route { netns, destination, hop, link: name(link) })
}

/// [::1] is this host also for packets that come in by the link.
fn loopback_by(link: &str) -> Object {
    let destination = "::1/128".parse().unwrap();
    Object::Route(Route { netns: Netns::Host, destination, hop: Hop::Local, link: name(link) })
}

fn sysctl(key: &str, value: &str, revert: Revert) -> Object {
    Object::Sysctl(Sysctl { netns: Netns::Host, key: key.into(), value: value.into(), revert })
}

/// A container's address in each family.
fn container(family: Family) -> Value {
    Value::Address(match family {
        V4 => "10.1.0.2".parse().unwrap(),
        V6 => "fd00:1::2".parse().unwrap(),
    })
}

fn single(family: Family, port: u16) -> Object {
    Object::Element(Element {
        set: SetName::AnyPorts(family),
        key: vec![Value::Protocol(Protocol::Tcp), Value::Port(port)],
        through: None,
        data: vec![container(family), Value::Port(80)],
    })
}

/// Packets of a subnet leave with the address.
fn source(first: &str, last: &str, address: &str) -> Object {
    let value = |text: &str| Value::Address(text.parse().unwrap());
    Object::Element(Element {
        set: SetName::Sources(V6),
        key: vec![value(first)],
        through: Some(vec![value(last)]),
        data: vec![value(address)],
    })
}

fn range(family: Family, first: u16, last: u16) -> Object {
    let at = |port| vec![Value::Port(port), Value::Protocol(Protocol::Tcp)];
    Object::Element(Element {
        set: SetName::AnyRanges(family),
        key: at(first),
        through: Some(at(last)),
        data: vec![container(family)],
    })
}

fn hold(host: [u8; 4], first: u16, last: u16) -> Object {
    hold_at(HostAddress::At(host.into()), first, last)
}

fn hold_at(host: HostAddress, first: u16, last: u16) -> Object {
    let ports = PortRange::new(first, last).unwrap();
    Object::Hold(Hold { protocol: Protocol::Tcp, host, ports, relay: None })
}

use Family::{V4, V6};
use Op::{Create, Delete};

const SCRIPTS: &[(&str, Script)] = &[
    ("a bridge, twice", |_| vec![Create(bridge("b0")), Create(bridge("b0"))]),
    ("delete what is not there", |_| {
        vec![
            Delete(bridge("b0")),
            Delete(address(Netns::Host, "10.1.0.1/24", "b0")),
            Delete(hold([127, 0, 0, 1], 8080, 8080)),
            Delete(sysctl("net/ipv4/conf/b0/forwarding", "1", Revert::WithLink)),
        ]
    }),
    ("a port without its bridge", |_| {
        vec![Create(veth("v0", Some("b0"), peer(Netns::Host, "v1")))]
    }),
    ("a pair on a bridge, then again", |_| {
        let pair = || veth("v0", Some("b0"), peer(Netns::Host, "v1"));
        vec![Create(bridge("b0")), Create(pair()), Create(pair()), Delete(pair()), Create(pair())]
    }),
    ("the other end's name is taken", |_| {
        vec![
            Create(bridge("v1")),
            Create(veth("v0", None, peer(Netns::Host, "v1"))),
            Create(veth("v2", None, peer(Netns::Host, "v3"))),
            Create(bridge("v3")),
        ]
    }),
    ("a pair into a sandbox, with addresses and a route", |sandbox| {
        let inside = || Netns::Path(sandbox.clone());
        vec![
            Create(bridge("b0")),
            Create(address(Netns::Host, "10.1.0.1/24", "b0")),
            Create(veth("v0", Some("b0"), peer(inside(), "eth0"))),
            Create(address(inside(), "10.1.0.2/24", "eth0")),
            Create(address(inside(), "10.1.0.2/24", "eth0")),
            Create(route(inside(), "10.9.0.1", "eth0")),
            Create(route(inside(), "10.1.0.1", "eth0")),
            Create(route(inside(), "10.1.0.1", "eth0")),
            Delete(veth("v0", Some("b0"), peer(inside(), "eth0"))),
            Create(address(inside(), "10.1.0.2/24", "eth0")),
        ]
    }),
    ("a sandbox that is gone", |_| {
        vec![Create(veth("v0", None, peer(Netns::Path("/run/netns/no-such-box".into()), "eth0")))]
    }),
    ("an end in a container cannot be made", |_| vec![Create(veth("v0", None, Peer::Elsewhere))]),
    ("an address on no link, and with its link gone", |_| {
        vec![
            Create(address(Netns::Host, "10.1.0.1/24", "b0")),
            Create(bridge("b0")),
            Create(address(Netns::Host, "10.1.0.1/24", "b0")),
            Delete(bridge("b0")),
            Create(bridge("b0")),
            Create(address(Netns::Host, "10.1.0.1/24", "b0")),
        ]
    }),
    ("sysctls go with their link", |_| {
        let forwarding = |value| sysctl("net/ipv4/conf/b0/forwarding", value, Revert::WithLink);
        vec![
            Create(forwarding("1")),
            Create(bridge("b0")),
            Create(forwarding("1")),
            Op::Change { from: forwarding("1"), to: forwarding("0") },
            Delete(forwarding("0")),
        ]
    }),
    ("elements need their table, and are unique", |_| {
        let table = || policy::table(Mark::DEFAULT);
        vec![
            Create(single(V4, 8080)),
            Create(table()),
            Create(table()),
            Create(single(V4, 8080)),
            Create(single(V4, 8080)),
            Delete(single(V4, 8080)),
            Delete(single(V4, 8080)),
            Create(range(V4, 9000, 9010)),
            Create(range(V4, 9005, 9020)),
            Create(range(V4, 9011, 9020)),
            Delete(table()),
            Delete(table()),
        ]
    }),
    ("elements of one family are nothing to those of the other", |_| {
        vec![
            Create(policy::table(Mark::DEFAULT)),
            Create(single(V4, 8080)),
            Create(single(V6, 8080)),
            Create(single(V6, 8080)),
            Delete(single(V4, 8080)),
            Delete(single(V6, 8080)),
            Delete(single(V6, 8080)),
            Create(range(V4, 9000, 9010)),
            Create(range(V6, 9005, 9020)),
            Create(range(V6, 9020, 9030)),
        ]
    }),
    ("subnets that touch, overlap, and end where addresses do", |_| {
        let highest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        vec![
            Create(policy::table(Mark::DEFAULT)),
            Create(source("fd00::", "fd00::ffff:ffff:ffff:ffff", "fd00:9::1")),
            Create(source("fd00:0:0:1::", "fd00::1:ffff:ffff:ffff:ffff", "fd00:9::2")),
            Create(source("fd00::ff00:0:0:0", "fd00::ff00:0:0:ff", "fd00:9::3")),
            Create(source("ffff:ffff:ffff:ffff::", highest, "fd00:9::4")),
            Delete(source("fd00::", "fd00::ffff:ffff:ffff:ffff", "fd00:9::1")),
            Create(source("fd00::ff00:0:0:0", "fd00::ff00:0:0:ff", "fd00:9::3")),
        ]
    }),
    ("[::1] is local to two bridges at once", |_| {
        vec![
            Create(loopback_by("b0")),
            Create(bridge("b0")),
            Create(other_bridge("b1")),
            Delete(loopback_by("b0")),
            Create(loopback_by("b0")),
            Create(loopback_by("b0")),
            Create(loopback_by("b1")),
            Delete(loopback_by("b0")),
            Delete(loopback_by("b0")),
            Create(loopback_by("b0")),
            Delete(other_bridge("b1")),
        ]
    }),
    ("held ports clash as addresses meet", |_| {
        vec![
            Create(hold([127, 0, 0, 1], 18080, 18082)),
            Create(hold([0, 0, 0, 0], 18082, 18083)),
            Create(hold([127, 0, 0, 2], 18080, 18082)),
            Delete(hold([127, 0, 0, 1], 18080, 18082)),
            Create(hold([127, 0, 0, 1], 18080, 18080)),
        ]
    }),
    ("held ports of both families", |_| {
        vec![
            Create(hold_at(HostAddress::ANY_V4, 18080, 18081)),
            Create(hold_at(HostAddress::ANY_V6, 18080, 18081)),
            Create(hold_at(HostAddress::Any, 18081, 18082)),
            Delete(hold_at(HostAddress::ANY_V4, 18080, 18081)),
            Create(hold_at(HostAddress::Any, 18081, 18082)),
            Delete(hold_at(HostAddress::ANY_V6, 18080, 18081)),
            Create(hold_at(HostAddress::Any, 18081, 18082)),
            Create(hold([127, 0, 0, 1], 18082, 18082)),
            Create(hold_at(HostAddress::ANY_V6, 18082, 18082)),
        ]
    }),
    ("a changed bridge", |_| {
        let Object::Link(mut wider) = bridge("b0") else { unreachable!() };
        wider.mtu = Mtu::new(1450).unwrap();
        let change = Op::Change { from: bridge("b0"), to: Object::Link(wider) };
        vec![change.clone(), Create(bridge("b0")), change]
    }),
];

/// How an operation ended, as both hosts must agree on it.
fn ending(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".into(),
        Outcome::Failed(error) => format!("{:?}", nix::errno::Errno::from_raw(error.errno)),
        Outcome::NotTried => "not tried".into(),
    }
}

fn play(kernel: &mut dyn Kernel, ops: &[Op]) -> (Vec<String>, Vec<String>) {
    let endings = ops
        .iter()
        .map(|op| {
            let outcome = kernel.perform(std::slice::from_ref(op));
            format!("{op}: {}", ending(&outcome[0]))
        })
        .collect();
    let seen = kernel.observe(&Scope::Everything(ops.iter().map(Op::key).collect())).unwrap();
    let there = seen
        .iter()
        // What of IPv6 and of other sysctls a kernel has is its own affair.
        .filter(|(key, _)| key.kind != Kind::Sysctl)
        .map(|(key, seen)| format!("{key} {:?}", seen.owner))
        .collect();
    (endings, there)
}

#[test]
fn the_fake_does_what_the_kernel_does() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("NETAGENT_REQUIRE_ROOT").is_none(), "needs root");
        println!("SKIP the_fake_does_what_the_kernel_does: needs root");
        return;
    }
    let mut wrong = Vec::new();
    for (title, script) in SCRIPTS {
        let (real, imagined) = sandbox(|path| {
            let ops = script(&path);
            let real = std::thread::scope(|scope| {
                let host = scope.spawn(|| {
                    own_namespace();
                    let options = Options { mark: Mark::DEFAULT, iptables: Iptables::Unused };
                    play(&mut Linux::open(options).unwrap(), &ops)
                });
                host.join().unwrap()
            });
            let mut fake = Fake::new(Fake::ordinary());
            fake.add_namespace(&path);
            (real, play(&mut fake, &ops))
        });
        if imagined != real {
            wrong.push(format!("{title}: the fake {imagined:#?}, the kernel {real:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
