//! A host with a bridge, two containers on it, and two clients outside, each in a namespace.
//!
//! The host is the namespace of the calling thread. All are gone with the last that holds one.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

use netagent::driver;
use netagent::kernel::fake::Fake;
use netagent::kernel::linux::nft::Nft;
use netagent::model::{
    Attach, BridgeSpec, DriverSpec, EndpointId, EndpointPhase, EndpointSpec, Family, HostAddress,
    Ipam, MacAddr, Mtu, NetworkId, NetworkSpec, Origin, PortRange, PortRequest, Protocol,
    Published, Reach, Subnet,
};
use netagent::object::{Object, Op};
use nix::sched::CloneFlags;

use crate::place::Place;

/// The host's address on the link to the trusted client, and on that to the other.
pub const HOST: [[&str; 2]; 2] = [["192.0.2.1", "192.0.3.1"], ["2001:db8:2::1", "2001:db8:3::1"]];
/// Another address of the host.
pub const CHOSEN: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
/// The container's address.
pub const CONTAINER: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// The other container's.
pub const NEIGHBOUR: [&str; 2] = ["10.0.0.3", "fd00::3"];
/// The clients' addresses: the trusted one's, the other's.
pub const CLIENTS: [[&str; 2]; 2] =
    [["192.0.2.2", "192.0.3.2"], ["2001:db8:2::2", "2001:db8:3::2"]];

/// The host port that leads to the container's port 80, and to UDP port 53.
pub const HOST_PORT: u16 = 8080;

/// Index of a family in the addresses above.
pub fn of(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// `ADDRESS:PORT`, as it is called.
pub fn tcp_at(address: &str, port: u16) -> String {
    match address.contains(':') {
        true => format!("tcp:[{address}]:{port}"),
        false => format!("tcp:{address}:{port}"),
    }
}

pub struct Rig {
    pub host: Place,
    /// Behind the link `near`, which networks may trust.
    pub near: Place,
    /// Behind the link `far`.
    pub far: Place,
    pub container: Place,
    pub neighbour: Place,
}

/// A namespace and what `ip` calls it, as long as the file is open.
fn namespace(name: &str) -> (Place, File) {
    let made = std::thread::spawn({
        let name = name.to_owned();
        move || {
            enter_fresh();
            let here = Path::new("/proc/thread-self/ns/net");
            (Place::open(&name, here), File::open(here).unwrap())
        }
    });
    made.join().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the thread ends at once")]
fn enter_fresh() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

const QUIET: [&str; 6] = [
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv6.icmp.ratelimit=0",
];

impl Rig {
    pub fn new() -> Self {
        let host = Place::open("host", Path::new("/proc/thread-self/ns/net"));
        let set = |key: &str| host.run(&["sysctl", "-qw", key]);
        QUIET.iter().for_each(|key| drop(set(key)));
        for key in [
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.bridge.bridge-nf-call-iptables=0",
            "net.bridge.bridge-nf-call-ip6tables=0",
        ] {
            set(key);
        }
        host.run(&["ip", "link", "add", "nab-0", "type", "bridge"]);
        add(&host, "nab-0", &["10.0.0.1/24", "fd00::1/64"]);
        let inside = |name, addresses: [&str; 2]| {
            let nets = [format!("{}/24", addresses[0]), format!("{}/64", addresses[1])];
            let place = connect(&host, name, &nets, ["10.0.0.1", "fd00::1"]);
            host.run(&["ip", "link", "set", name, "master", "nab-0"]);
            // A container reaches its own published port.
            host.run(&["ip", "link", "set", name, "type", "bridge_slave", "hairpin", "on"]);
            place
        };
        let (container, neighbour) = (inside("nae-0", CONTAINER), inside("nae-1", NEIGHBOUR));
        let [near, far] = [0, 1].map(|client| {
            let name = ["near", "far"][client];
            let own = [0, 1].map(|family| CLIENTS[family][client]);
            let hosts = [0, 1].map(|family| HOST[family][client]);
            let nets = |[v4, v6]: [&str; 2]| [format!("{v4}/24"), format!("{v6}/64")];
            let place = connect(&host, name, &nets(own), hosts);
            let nets = nets(hosts);
            add(&host, name, &[&nets[0], &nets[1]]);
            place
        });
        add(&host, "far", &["fe80::1/64"]);
        add(&host, "lo", &["198.51.100.7/32", "2001:db8:7::7/128"]);
        Self { host, near, far, container, neighbour }
    }

    /// Index of the far client's link, for link-local addresses.
    pub fn far_link(&self) -> String {
        let listed = self.far.run(&["ip", "-o", "link", "show", "eth0"]);
        listed.split(':').next().unwrap().to_owned()
    }
}

/// Addresses on a link of the host, which goes up.
fn add(host: &Place, link: &str, nets: &[&str]) {
    for net in nets {
        // IPv4 takes the word for nothing.
        host.run(&["ip", "address", "add", net, "dev", link, "nodad"]);
    }
    host.run(&["ip", "link", "set", link, "up"]);
}

/// A new place, connected to the link `name` of the host.
fn connect(host: &Place, name: &str, nets: &[String; 2], gateways: [&str; 2]) -> Place {
    let (place, file) = namespace(name);
    QUIET.iter().for_each(|key| drop(place.run(&["sysctl", "-qw", key])));
    host.run(&["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0"]);
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    host.run(&["ip", "link", "set", "eth0", "netns", &path]);
    host.run(&["ip", "link", "set", name, "up"]);
    add(&place, "eth0", &[&nets[0], &nets[1]]);
    for gateway in gateways {
        place.run(&["ip", "route", "add", "default", "via", gateway]);
    }
    place
}

/// A bridge network of both families with the rig's bridge.
pub fn bridge() -> BridgeSpec {
    BridgeSpec::new("nab-0".parse().unwrap(), Mtu::ETHERNET)
}

/// Installs the policy with a network of these settings and its container: TCP port 80 of it is
/// asked for and, where the network translates, published as host port 8080.
pub fn install(agent: &mut Nft, bridge: BridgeSpec, host: HostAddress) {
    let subnet = |pool: &str| Subnet {
        pool: pool.parse().unwrap(),
        gateway: None,
        range: None,
        aux: Default::default(),
    };
    let translates = bridge.mode_v4.translates() && bridge.mode_v6.translates();
    let network = NetworkSpec {
        id: NetworkId::from_bytes([7; 32]),
        name: None,
        origin: Origin::Netagent,
        driver: DriverSpec::Bridge(bridge),
        ipam: Ipam::Netagent,
        subnets: vec![subnet("10.0.0.0/24"), subnet("fd00::/64")],
        reach: Reach::External,
        labels: Default::default(),
        options: Default::default(),
        created_ms: 0,
    };
    let asked = |protocol, container| PortRequest {
        protocol,
        host: None,
        container,
        host_ports: PortRange::single(HOST_PORT),
    };
    let published = |protocol, container_first| Published {
        protocol,
        host,
        host_ports: PortRange::single(HOST_PORT).unwrap(),
        container_first,
    };
    let ports = vec![published(Protocol::Tcp, 80), published(Protocol::Udp, 53)];
    let endpoint = EndpointSpec {
        id: EndpointId::from_bytes([8; 32]),
        network: network.id,
        origin: Origin::Netagent,
        name: None,
        v4: Some("10.0.0.2/24".parse().unwrap()),
        v6: Some("fd00::2/64".parse().unwrap()),
        mac: MacAddr::from_id(&[8; 32]),
        attach: Attach::HandOff,
        sysctls: Default::default(),
        naming: Default::default(),
        asked: vec![asked(Protocol::Tcp, 80), asked(Protocol::Udp, 53)],
        publishes: true,
        ports: if translates { ports } else { Vec::new() },
    };
    let facts = Arc::new(Fake::ordinary());
    let mut wanted = driver::network_objects(&network, &facts);
    wanted.extend(driver::endpoint_objects(&network, &endpoint, EndpointPhase::Joined, &facts));
    let elements = wanted.into_iter().map(|wanted| wanted.object);
    let elements = elements.filter(|object| matches!(object, Object::Element(_)));
    let mut ops = vec![Op::Create(crate::harness::table())];
    if agent.read().unwrap().is_some() {
        ops.insert(0, Op::Delete(crate::harness::table()));
    }
    for op in ops {
        agent.transact(&[op]).unwrap();
    }
    agent.transact(&elements.map(Op::Create).collect::<Vec<_>>()).unwrap();
}

/// An address as a caller is seen by.
pub fn seen(address: &str) -> Option<IpAddr> {
    Some(address.parse().unwrap())
}
