//! What users ask for, each as a host made ready and one action on it. Goldens, rollback and crash
//! tests all run over this list.

use std::net::{IpAddr, Ipv4Addr};

use netagent::engine::{
    AttachRequest, EndpointRequest, Engine, Mode, NetworkChange, NetworkRequest, PortRequest,
    SubnetRequest,
};
use netagent::kernel::fake::Fake;
use netagent::model::{
    EndpointId, Ipam, Mtu, NetworkId, Origin, PortRange, Protocol, Reach, Result,
};

/// One scenario.
pub struct Scenario {
    /// Its golden is `tests/cases/NAME.txt`.
    pub name: &'static str,
    /// Makes the host ready; not under test.
    pub ready: fn(&mut Engine, &Fake),
    /// What is under test.
    pub action: fn(&mut Engine) -> Result<()>,
    /// What a failure in it leaves.
    pub kind: Kind,
}

/// What a failed or unfinished action leaves.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Nothing: what was done is taken back.
    Making,
    /// Something: a reconcile finishes it.
    Removing,
    /// The host as before, or as its first half (this one) leaves it: first something goes, then
    /// something is made.
    Replacing(fn(&mut Engine) -> Result<()>),
    /// It changes records alone.
    Recording,
}

pub const WEB: NetworkId = NetworkId::from_bytes([0x3f; 32]);
pub const DB: NetworkId = NetworkId::from_bytes([0xdb; 32]);
pub const ONE: EndpointId = EndpointId::from_bytes([0x01; 32]);
pub const TWO: EndpointId = EndpointId::from_bytes([0x02; 32]);
pub const SANDBOX: &str = "/run/netns/box";
/// The sandbox of a container of Docker's.
pub const KEY: &str = "/var/run/docker/netns/c1";

pub fn network(id: NetworkId, name: &str, pool: &str) -> NetworkRequest {
    NetworkRequest {
        id: Some(id),
        name: Some(name.parse().unwrap()),
        origin: Origin::Netagent,
        driver: "bridge".into(),
        ipam: Ipam::Netagent,
        subnets: vec![subnet(pool)],
        v6: false,
        v4: true,
        reach: Reach::External,
        labels: Default::default(),
        options: Default::default(),
        created_ms: 1_790_000_000_000,
    }
}

pub fn subnet(pool: &str) -> SubnetRequest {
    SubnetRequest {
        pool: pool.parse().unwrap(),
        gateway: None,
        range: None,
        aux: Default::default(),
    }
}

/// A network as dockerd asks for it: it has chosen the gateway, and tells no name.
pub fn docker_network(id: NetworkId, pool: &str, gateway: &str) -> NetworkRequest {
    let gateway: Option<IpAddr> = Some(gateway.parse().unwrap());
    NetworkRequest {
        name: None,
        origin: Origin::Docker,
        driver: "netagent".into(),
        ipam: Ipam::Dockerd,
        subnets: vec![SubnetRequest { gateway, ..subnet(pool) }],
        ..network(id, "unused", pool)
    }
}

pub fn docker_endpoint(id: EndpointId, network: NetworkId, address: &str) -> EndpointRequest {
    EndpointRequest {
        id: Some(id),
        network,
        origin: Origin::Docker,
        name: None,
        v4: Some(address.parse().unwrap()),
        v6: None,
        mac: None,
        attach: AttachRequest::HandOff,
        sysctls: Default::default(),
        ports: vec![],
    }
}

pub fn sandboxed(id: EndpointId, network: NetworkId, ports: Vec<PortRequest>) -> EndpointRequest {
    EndpointRequest {
        id: Some(id),
        network,
        origin: Origin::Netagent,
        name: Some("box".into()),
        v4: None,
        v6: None,
        mac: None,
        attach: AttachRequest::Netns { path: SANDBOX.into(), interface: None, default_route: true },
        sysctls: Default::default(),
        ports,
    }
}

pub fn port(host: u16, container: u16) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        host: None,
        container,
        host_ports: PortRange::single(host),
    }
}

pub fn create(engine: &mut Engine, request: NetworkRequest) -> Result<()> {
    engine.create_network(request, Mode::Apply).map(drop)
}

fn nothing(_: &mut Engine, _: &Fake) {}

pub fn with_web(engine: &mut Engine, _: &Fake) {
    create(engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
}

fn with_internal(engine: &mut Engine, _: &Fake) {
    create(engine, internal()).unwrap();
}

fn internal() -> NetworkRequest {
    NetworkRequest { reach: Reach::Internal, ..network(DB, "db", "10.2.0.0/24") }
}

fn dual_stack() -> NetworkRequest {
    let mut request = network(WEB, "web", "10.1.0.0/24");
    request.subnets.push(subnet("fd00:1::/64"));
    request
}

fn with_dual_stack_sandbox(engine: &mut Engine, host: &Fake) {
    create(engine, dual_stack()).unwrap();
    host.add_namespace(SANDBOX);
}

pub fn with_docker_endpoint(engine: &mut Engine, host: &Fake) {
    with_docker_network(engine, host);
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
}

pub fn with_docker_network(engine: &mut Engine, _: &Fake) {
    create(engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
}

fn with_docker_container(engine: &mut Engine, host: &Fake) {
    with_docker_endpoint(engine, host);
    let joined = engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    assert!(host.hand_over(joined.source.as_ref().unwrap(), "/var/run/docker/netns/c1"));
}

pub fn with_published(engine: &mut Engine, host: &Fake) {
    with_docker_container(engine, host);
    engine.publish(WEB, ONE, &[port(8080, 80)]).unwrap();
}

pub fn with_sandbox(engine: &mut Engine, host: &Fake) {
    with_web(engine, host);
    host.add_namespace(SANDBOX);
}

fn publish_many(engine: &mut Engine) -> Result<()> {
    let loopback = PortRequest { host: Some(Ipv4Addr::LOCALHOST.into()), ..port(8443, 443) };
    let udp = PortRequest { protocol: Protocol::Udp, ..port(5353, 53) };
    let ephemeral = PortRequest { host_ports: None, ..port(1, 7000) };
    let range = (9000..=9002).map(|number| port(number, number));
    let mut ports = vec![port(8080, 80), loopback, udp, ephemeral];
    ports.extend(range);
    engine.publish(WEB, ONE, &ports)
}

/// A network with a sandbox of many ports and one of none.
pub fn with_busy_network(engine: &mut Engine, host: &Fake) {
    with_sandbox(engine, host);
    engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap();
    publish_many(engine).unwrap();
    host.add_namespace("/run/netns/mate");
    let mut mate = sandboxed(TWO, WEB, vec![]);
    if let AttachRequest::Netns { path, .. } = &mut mate.attach {
        *path = "/run/netns/mate".into();
    }
    engine.create_endpoint(EndpointRequest { name: Some("mate".into()), ..mate }).unwrap();
}

/// The same with these options.
fn with_busy_network_of(engine: &mut Engine, host: &Fake, options: &[(&str, &str)]) {
    with_busy_network(engine, host);
    update(engine, WEB, options).unwrap();
}

/// A change of options by the last part of their keys.
pub fn change(options: &[(&str, &str)]) -> NetworkChange {
    let key = |key: &str| {
        let keys = netagent::driver::bridge::OPTIONS.iter().map(|row| row.key);
        let mut found = keys.filter(|known| known.rsplit('.').next() == Some(key));
        found.next().unwrap().to_owned()
    };
    let options = options.iter().map(|(name, value)| (key(name), (*value).to_owned())).collect();
    NetworkChange { options, ..NetworkChange::default() }
}

pub fn update(engine: &mut Engine, id: NetworkId, options: &[(&str, &str)]) -> Result<()> {
    engine.update_network(id, &change(options), Mode::Apply).map(drop)
}

/// Name of the operator's bridge.
pub const LAN: &str = "br0";

/// A bridge of the operator's in 192.168.7.0/24 and fd00:7::/64, of another MTU than the uplink.
pub fn with_bridge(_: &mut Engine, host: &Fake) {
    let nets = ["192.168.7.10/24", "fd00:7::10/64"].map(|net| net.parse().unwrap());
    host.add_bridge(&LAN.parse().unwrap(), Mtu::ETHERNET, &nets);
}

/// A network on it, of both families, neighbours silenced.
pub fn adopting(subnets: [&str; 2]) -> NetworkRequest {
    let mut request = network(WEB, "web", subnets[0]);
    request.subnets.push(subnet(subnets[1]));
    request.options.insert("com.docker.network.bridge.name".into(), LAN.into());
    request.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
    request
}

/// Subnets that the operator does not have.
pub const APART: [&str; 2] = ["10.1.0.0/24", "fd00:1::/64"];
/// Those that the bridge is in.
pub const AMONG: [&str; 2] = ["192.168.7.0/24", "fd00:7::/64"];

fn with_adopted(engine: &mut Engine, host: &Fake) {
    with_bridge(engine, host);
    create(engine, adopting(APART)).unwrap();
    host.add_namespace(SANDBOX);
}

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(crate::joining::SCENARIOS)
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bridge/first_network",
        ready: nothing,
        action: |engine| create(engine, network(WEB, "web", "10.1.0.0/24")),
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/second_network",
        ready: with_web,
        action: |engine| create(engine, network(DB, "db", "10.2.0.0/24")),
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/internal",
        ready: nothing,
        action: |engine| create(engine, internal()),
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/first_external_network",
        ready: with_internal,
        action: |engine| create(engine, network(WEB, "web", "10.1.0.0/24")),
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/dual_stack_network",
        ready: nothing,
        action: |engine| create(engine, dual_stack()),
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/every_option",
        ready: nothing,
        action: |engine| {
            let mut request = network(WEB, "web", "10.1.0.0/24");
            request.subnets.push(subnet("fd00:1::/64"));
            let options = [
                ("com.docker.network.bridge.name", "br-web"),
                ("com.docker.network.bridge.enable_icc", "false"),
                ("com.docker.network.bridge.enable_ip_masquerade", "false"),
                ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
                ("com.docker.network.driver.mtu", "1400"),
                ("com.docker.network.container_iface_prefix", "net"),
            ];
            request.options = options.map(|(key, value)| (key.into(), value.into())).into();
            create(engine, request)
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/docker_endpoint",
        ready: with_docker_network,
        action: |engine| {
            engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).map(drop)
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/sandbox_endpoint_with_port",
        ready: with_sandbox,
        action: |engine| {
            engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).map(drop)
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/dual_stack_endpoint",
        ready: with_dual_stack_sandbox,
        action: |engine| engine.create_endpoint(sandboxed(ONE, WEB, vec![])).map(drop),
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/endpoint_at_a_ghosts_address",
        ready: with_published,
        action: |engine| {
            engine.create_endpoint(docker_endpoint(TWO, WEB, "172.18.0.2/16")).map(drop)
        },
        kind: Kind::Replacing(|engine| engine.delete_endpoint(WEB, ONE)),
    },
    Scenario {
        name: "bridge/publish",
        ready: with_docker_container,
        action: publish_many,
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/publish_other_ports",
        ready: with_published,
        action: |engine| engine.publish(WEB, ONE, &[port(8081, 80)]),
        kind: Kind::Making,
    },
    Scenario {
        name: "bridge/withdraw",
        ready: with_published,
        action: |engine| engine.withdraw(WEB, ONE),
        kind: Kind::Removing,
    },
    Scenario {
        name: "bridge/leave",
        ready: with_published,
        action: |engine| engine.leave(WEB, ONE),
        kind: Kind::Removing,
    },
    Scenario {
        name: "bridge/delete_endpoint",
        ready: with_published,
        action: |engine| engine.delete_endpoint(WEB, ONE),
        kind: Kind::Removing,
    },
    Scenario {
        name: "bridge/delete_network",
        ready: with_web,
        action: |engine| engine.delete_network(WEB, Mode::Apply).map(drop),
        kind: Kind::Removing,
    },
    Scenario {
        name: "bridge/delete_last_external_network",
        ready: |engine, host| {
            with_internal(engine, host);
            with_web(engine, host);
        },
        action: |engine| engine.delete_network(WEB, Mode::Apply).map(drop),
        kind: Kind::Removing,
    },
    Scenario {
        name: "bridge/delete_docker_network_with_ghost",
        ready: with_published,
        action: |engine| engine.delete_network(WEB, Mode::Apply).map(drop),
        kind: Kind::Removing,
    },
    Scenario {
        name: "update/mtu_down",
        ready: with_busy_network,
        action: |engine| update(engine, WEB, &[("mtu", "1400")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/mtu_up",
        ready: with_docker_container,
        action: |engine| update(engine, WEB, &[("mtu", "9000")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/icc_off",
        ready: with_busy_network,
        action: |engine| update(engine, WEB, &[("enable_icc", "false")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/icc_on",
        ready: |engine, host| with_busy_network_of(engine, host, &[("enable_icc", "false")]),
        action: |engine| update(engine, WEB, &[("enable_icc", "")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/masquerade_off",
        ready: with_busy_network,
        action: |engine| update(engine, WEB, &[("enable_ip_masquerade", "false")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/source_address",
        ready: with_busy_network,
        action: |engine| update(engine, WEB, &[("host_ipv4", "192.0.2.1")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/host_binding",
        ready: with_busy_network,
        action: |engine| update(engine, WEB, &[("host_binding_ipv4", "192.0.2.1")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/trusted",
        ready: with_published,
        action: |engine| update(engine, WEB, &[("trusted_host_interfaces", "lan0:lan1")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/nat_to_routed",
        ready: with_busy_network,
        action: |engine| update(engine, WEB, &[("gateway_mode_ipv4", "routed")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/routed_to_nat",
        ready: |engine, host| {
            with_busy_network_of(engine, host, &[("gateway_mode_ipv4", "routed")]);
        },
        action: |engine| update(engine, WEB, &[("gateway_mode_ipv4", "")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/nat_to_isolated",
        ready: with_internal,
        action: |engine| update(engine, DB, &[("gateway_mode_ipv4", "isolated")]),
        kind: Kind::Making,
    },
    Scenario {
        name: "update/further_subnet",
        ready: with_busy_network,
        action: |engine| {
            let subnets = vec![subnet("10.9.0.0/24"), subnet("fd00:9::/64")];
            let change = NetworkChange { subnets, ..NetworkChange::default() };
            engine.update_network(WEB, &change, Mode::Apply).map(drop)
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "update/adopted_bridge",
        ready: |engine, host| {
            with_adopted(engine, host);
            engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).unwrap();
        },
        action: |engine| {
            let options =
                [("enable_icc", ""), ("gateway_mode_ipv6", "routed"), ("inhibit_ipv4", "1")];
            update(engine, WEB, &options)
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "update/many_things",
        ready: with_busy_network,
        action: |engine| {
            let options = [
                ("mtu", "1300"),
                ("enable_icc", "false"),
                ("gateway_mode_ipv4", "nat-unprotected"),
                ("host_binding_ipv4", "127.0.0.1"),
                ("inhibit_ipv4", "true"),
            ];
            let labels = [("tier".to_owned(), "front".to_owned())].into();
            let change = NetworkChange { labels, ..change(&options) };
            engine.update_network(WEB, &change, Mode::Apply).map(drop)
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "adopted/network",
        ready: with_bridge,
        action: |engine| create(engine, adopting(APART)),
        kind: Kind::Making,
    },
    Scenario {
        name: "adopted/network_in_its_subnets",
        ready: with_bridge,
        action: |engine| create(engine, adopting(AMONG)),
        kind: Kind::Making,
    },
    Scenario {
        name: "adopted/internal",
        ready: with_bridge,
        action: |engine| {
            create(engine, NetworkRequest { reach: Reach::Internal, ..adopting(APART) })
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "adopted/endpoint",
        ready: with_adopted,
        action: |engine| {
            engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).map(drop)
        },
        kind: Kind::Making,
    },
    Scenario {
        name: "adopted/delete_endpoint",
        ready: |engine, host| {
            with_adopted(engine, host);
            engine.create_endpoint(sandboxed(ONE, WEB, vec![port(8080, 80)])).unwrap();
        },
        action: |engine| engine.delete_endpoint(WEB, ONE),
        kind: Kind::Removing,
    },
    Scenario {
        name: "adopted/delete_network",
        ready: with_adopted,
        action: |engine| engine.delete_network(WEB, Mode::Apply).map(drop),
        kind: Kind::Removing,
    },
];
