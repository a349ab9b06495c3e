//! The port allocator against a plain model: a list of who has which port on which address.

use std::net::IpAddr;

use netagent::engine::{Caveat, Engine, PortRequest};
use netagent::model::{EndpointId, HostAddress, PortRange, Protocol};
use proptest::prelude::*;

use crate::kit::Machine;
use crate::scenarios::*;

/// Endpoints: both families, IPv4 only, IPv6 only.
const ENDPOINTS: [(EndpointId, Option<&str>, Option<&str>); 3] = [
    (ONE, Some("10.1.0.2/24"), Some("fd00:1::2/64")),
    (TWO, Some("10.1.0.3/24"), None),
    (EndpointId::from_bytes([3; 32]), None, Some("fd00:1::4/64")),
];

/// One port on one address of one family, as the model has it. No address is every address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    owner: usize,
    protocol: Protocol,
    v6: bool,
    address: Option<IpAddr>,
    port: u16,
}

impl Taken {
    fn clashes(&self, other: &Self) -> bool {
        (self.protocol, self.v6, self.port) == (other.protocol, other.v6, other.port)
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// What a request takes if it gets `port`; `None` where the endpoint lacks the family.
fn taken_by(owner: usize, request: &PortRequest, port: u16) -> Option<Vec<Taken>> {
    let (_, v4, v6) = ENDPOINTS[owner];
    let protocol = request.protocol;
    let one = |v6, address| Taken { owner, protocol, v6, address, port };
    match request.host {
        None => {
            let families = [(false, v4.is_some()), (true, v6.is_some())];
            Some(families.iter().filter(|(_, has)| *has).map(|(v6, _)| one(*v6, None)).collect())
        }
        Some(host) if host.is_ipv6() && v6.is_none() => None,
        Some(host) if host.is_ipv4() && v4.is_none() => None,
        Some(host) => {
            let address = (!host.is_unspecified()).then_some(host);
            Some(vec![one(host.is_ipv6(), address)])
        }
    }
}

/// What the engine says is published.
fn published(engine: &Engine) -> Vec<Taken> {
    let owner = |id| ENDPOINTS.iter().position(|(known, ..)| *known == id).unwrap();
    let mut all = Vec::new();
    for holder in engine.ports() {
        let owner = owner(holder.endpoint_id);
        let protocol = holder.published.protocol;
        for port in holder.published.host_ports.iter() {
            let mut add = |v6, address| all.push(Taken { owner, protocol, v6, address, port });
            match holder.published.host {
                HostAddress::Any => {
                    add(false, None);
                    add(true, None);
                }
                HostAddress::At(host) => {
                    add(host.is_ipv6(), (!host.is_unspecified()).then_some(host));
                }
            }
        }
    }
    all
}

/// Whether the model has room for the requests as they are: fixed ports first, then each range
/// takes its first free port. Requests that differ by their address only are one choice; those
/// are left to the checks on what came of it.
fn fits(others: &[Taken], owner: usize, asked: &[PortRequest]) -> bool {
    let mut all = others.to_vec();
    let fixed = |request: &&PortRequest| request.host_ports.is_some_and(|ports| ports.count() == 1);
    let (fixed, free): (Vec<&PortRequest>, Vec<&PortRequest>) = asked.iter().partition(fixed);
    for request in fixed.into_iter().chain(free) {
        let ports = request.host_ports.unwrap();
        let chosen = ports.iter().find_map(|port| {
            let new = taken_by(owner, request, port)?;
            let free = !new.iter().any(|new| all.iter().any(|other| other.clashes(new)));
            free.then_some(new)
        });
        match chosen {
            Some(new) => all.extend(new),
            None => return false,
        }
    }
    true
}

fn request() -> impl Strategy<Value = PortRequest> {
    let hosts =
        [None, Some("0.0.0.0"), Some("::"), Some("127.0.0.1"), Some("127.0.0.2"), Some("::1")];
    let hosts = prop::sample::select(hosts.to_vec());
    let protocols = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let ports = prop_oneof![
        4 => (8000_u16..8006).prop_map(PortRange::single),
        1 => (8000_u16..8004).prop_map(|first| PortRange::new(first, first + 2)),
    ];
    (protocols, hosts, 80_u16..84, ports).prop_map(|(protocol, host, container, host_ports)| {
        let host = host.map(|host: &str| host.parse().unwrap());
        PortRequest { protocol, host, container, host_ports }
    })
}

fn steps() -> impl Strategy<Value = Vec<(usize, Vec<PortRequest>)>> {
    prop::collection::vec((0_usize..3, prop::collection::vec(request(), 0..4)), 1..12)
}

fn engine(machine: &Machine) -> Engine {
    let mut engine = machine.engine();
    let mut request = docker_network(WEB, "10.1.0.0/24", "10.1.0.1");
    request.subnets.push(subnet("fd00:1::/64"));
    create(&mut engine, request).unwrap();
    for (id, v4, v6) in ENDPOINTS {
        let mut endpoint = docker_endpoint(id, WEB, "10.1.0.2/24");
        endpoint.v4 = v4.map(|text| text.parse().unwrap());
        endpoint.v6 = v6.map(|text| text.parse().unwrap());
        engine.create_endpoint(endpoint).unwrap();
        let joined = engine.join(WEB, id, KEY.as_ref(), &[]).unwrap();
        assert!(machine.host.hand_over(joined.source.as_ref().unwrap(), "/run/docker/netns/c"));
    }
    engine
}

/// Requests whose outcome the plain model tells: no two of them differ by their address alone, which
/// would make them one choice.
fn is_plain(asked: &[PortRequest]) -> bool {
    asked.iter().enumerate().all(|(at, one)| {
        asked[..at].iter().all(|other| {
            let key =
                |request: &PortRequest| (request.protocol, request.container, request.host_ports);
            key(one) != key(other)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn ports_are_given_as_the_plain_model_gives_them(steps in steps()) {
        let machine = Machine::new();
        let mut engine = engine(&machine);
        for (owner, asked) in steps {
            let id = ENDPOINTS[owner].0;
            let before = published(&engine);
            let others: Vec<Taken> =
                before.iter().copied().filter(|taken| taken.owner != owner).collect();
            let done = engine.publish(WEB, id, &asked);
            let after = published(&engine);
            match &done {
                Ok(()) => {
                    let mine = after.iter().filter(|taken| taken.owner == owner);
                    let wanted: usize = {
                        let mut once = asked.clone();
                        once.sort_unstable();
                        once.dedup();
                        let families =
                            |request: &PortRequest| taken_by(owner, request, 1).unwrap().len();
                        once.iter().map(families).sum()
                    };
                    prop_assert_eq!(mine.count(), wanted);
                    for other in &others {
                        prop_assert!(after.contains(other), "{other:?} was lost");
                    }
                }
                Err(_) => prop_assert_eq!(&after, &before, "a refusal changes nothing"),
            }
            for (at, one) in after.iter().enumerate() {
                for other in &after[..at] {
                    prop_assert!(!one.clashes(other), "{one:?} and {other:?}");
                }
            }
            let possible = asked.iter().all(|request| taken_by(owner, request, 1).is_some());
            if !possible {
                prop_assert!(done.is_err());
            } else if is_plain(&asked) {
                prop_assert_eq!(done.is_ok(), fits(&others, owner, &asked), "{:?}: {:?}", asked, done);
            }
        }
        for (id, ..) in ENDPOINTS {
            engine.withdraw(WEB, id).unwrap();
        }
        prop_assert!(published(&engine).is_empty());
        prop_assert!(!machine.host.listing().contains("hold"), "{}", machine.host.listing());
    }

    #[test]
    fn ephemeral_ports_are_of_the_hosts_range_and_never_given_twice(
        counts in prop::collection::vec((0_usize..3, 1_u16..30), 1..8),
    ) {
        let machine = Machine::with(netagent::model::Facts {
            ephemeral_ports: (40000, 40049),
            ..crate::kit::facts()
        });
        let mut engine = engine(&machine);
        for (owner, count) in counts {
            let asked: Vec<PortRequest> = (1..=count)
                .map(|container| PortRequest { host_ports: None, ..port(1, container) })
                .collect();
            let others = published(&engine).iter().filter(|taken| taken.owner != owner).count();
            let done = engine.publish(WEB, ENDPOINTS[owner].0, &asked);
            let all = published(&engine);
            prop_assert!(all.iter().all(|taken| (40000..=40049).contains(&taken.port)));
            for (at, one) in all.iter().enumerate() {
                prop_assert!(all[..at].iter().all(|other| !one.clashes(other)));
            }
            if others == 0 {
                prop_assert!(done.is_ok(), "50 ports are enough for {count}");
            }
        }
    }
}

#[test]
fn ports_without_a_socket_are_said_not_to_be_reserved() {
    let machine = Machine::new();
    let mut engine = engine(&machine);
    let sctp = PortRequest { protocol: Protocol::Sctp, ..port(2905, 2905) };
    engine.publish(WEB, ONE, &[port(8080, 80), sctp]).unwrap();
    let caveats = |engine: &Engine| {
        let ports = engine.ports();
        ports.iter().map(|port| (port.published.protocol, port.caveat)).collect::<Vec<_>>()
    };
    assert_eq!(caveats(&engine), [(Protocol::Sctp, None), (Protocol::Tcp, None)]);
    machine.host.take_sctp_away();
    let unreserved = [(Protocol::Sctp, Some(Caveat::NotReserved)), (Protocol::Tcp, None)];
    assert_eq!(caveats(&engine), unreserved);
}
