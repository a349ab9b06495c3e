//! What the driver asks for: made, found again, repaired and removed, by the plan's own steps.

use std::collections::BTreeMap;

use netagent::driver;
use netagent::model::{
    Attach, BridgeSpec, DriverSpec, EndpointId, EndpointPhase, EndpointSpec, Facts, HostAddress,
    Icc, Ipam, Needs, NetworkId, NetworkSpec, Origin, Published, Reach, SandboxId, Subnet,
};
use netagent::object::Wanted;
use netagent::plan::{self, Plan};

use super::rig::*;

fn subnet(pool: &str, gateway: &str) -> Subnet {
    Subnet {
        pool: pool.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        range: None,
        aux: BTreeMap::new(),
    }
}

fn network() -> NetworkSpec {
    let id = NetworkId::from_bytes([3; 32]);
    NetworkSpec {
        id,
        name: None,
        origin: Origin::Netagent,
        driver: DriverSpec::Bridge(BridgeSpec {
            icc: Icc::Deny,
            ..BridgeSpec::new(name("nab-03030303030"), mtu(1450))
        }),
        ipam: Ipam::Netagent,
        subnets: vec![subnet("10.9.0.0/24", "10.9.0.1"), subnet("fd00:9::/64", "fd00:9::1")],
        reach: Reach::External,
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        created_ms: 0,
    }
}

fn endpoint(number: u8, attach: Attach, ports: Vec<Published>) -> EndpointSpec {
    EndpointSpec {
        id: EndpointId::from_bytes([number; 32]),
        network: network().id,
        origin: Origin::Netagent,
        name: None,
        v4: Some(format!("10.9.0.{number}/24").parse().unwrap()),
        v6: Some(format!("fd00:9::{number}/64").parse().unwrap()),
        mac: mac(number),
        attach,
        sysctls: BTreeMap::new(),
        naming: Default::default(),
        asked: Vec::new(),
        publishes: true,
        ports,
    }
}

fn published(protocol: Protocol, first: u16, last: u16, container_first: u16) -> Published {
    let host_ports = PortRange::new(first, last).unwrap();
    Published { protocol, host: HostAddress::Any, host_ports, container_first }
}

/// A network without neighbours' talk, one container plumbed by us and one by dockerd.
fn wanted(facts: &Facts, sandbox: &Sandbox) -> Vec<Wanted> {
    let network = network();
    let ours = Attach::Netns {
        path: sandbox.path.clone(),
        id: SandboxId(1),
        interface: name("eth0"),
        default_route: true,
    };
    let ports =
        vec![published(Protocol::Tcp, 8080, 8080, 80), published(Protocol::Udp, 5000, 5009, 5000)];
    let mut wanted = driver::host_objects(
        facts,
        &Needs { outside: true, outside_v6: true, ..Needs::default() },
        &BTreeMap::new(),
    );
    wanted.extend(driver::network_objects(&network, facts));
    for endpoint in [endpoint(2, ours, ports), endpoint(3, Attach::HandOff, vec![])] {
        let phase = EndpointPhase::Ready;
        wanted.extend(driver::endpoint_objects(&network, &endpoint, phase, facts));
    }
    wanted
}

fn carry_out(kernel: &mut Linux, plan: &Plan) {
    let ops = plan.ops();
    for (op, outcome) in ops.iter().zip(kernel.perform(&ops)) {
        assert_eq!(outcome, Outcome::Done, "{op}\nof\n{plan}");
    }
}

fn drift(kernel: &mut Linux, wanted: &[Wanted]) -> Plan {
    let keys = wanted.iter().map(|wanted| wanted.object.key()).collect();
    plan::reconcile(&kernel.observe(&Scope::Everything(keys)).unwrap(), wanted)
}

fn check_converged(kernel: &mut Linux, wanted: &[Wanted]) {
    let drift = drift(kernel, wanted);
    assert_eq!(drift, Plan::default(), "\n{drift}");
}

tests! {
    fn what_the_driver_wants_is_made_found_repaired_and_removed() {
        sh("ip link add up0 type veth peer wire0; ip link set up0 up; ip link set wire0 up");
        sh("ip addr add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1");
        let before = sh("ip -o link; ip route; iptables -S; ip6tables -S; nft list ruleset inet");
        let mut kernel = with_iptables();
        let sandbox = Sandbox::new();
        let wanted = wanted(&kernel.facts().unwrap(), &sandbox);
        carry_out(&mut kernel, &plan::delta(&[], &wanted));
        check_converged(&mut kernel, &wanted);
        // Facts are the same with our own things there.
        let facts = kernel.facts().unwrap();
        assert_eq!(facts.uplinks.len(), 1, "{:?}", facts.uplinks);
        for damage in [
            "ip link set nae-03030303030 mtu 1300 nomaster",
            "ip addr del 10.9.0.1/24 dev nab-03030303030",
            "ip addr add 10.99.0.1/24 dev nab-03030303030",
            "echo 0 > /proc/sys/net/ipv4/conf/up0/forwarding",
            "iptables -F DOCKER-USER; ip6tables -F FORWARD",
            "ip link del nae-03030303030",
            "ip link del nab-03030303030",
        ] {
            sh(damage);
            let repair = drift(&mut kernel, &wanted);
            assert!(!repair.is_empty() && repair.clashes.is_empty(), "{damage}\n{repair}");
            carry_out(&mut kernel, &repair);
            check_converged(&mut kernel, &wanted);
        }
        // After a restart only the held ports are gone.
        drop(kernel);
        let mut kernel = with_iptables();
        let repair = drift(&mut kernel, &wanted);
        let lost: Vec<&str> = wanted
            .iter()
            .filter(|wanted| matches!(wanted.object, Object::Hold(_)))
            .map(|_| "create")
            .collect();
        let verbs: Vec<&str> = repair.steps.iter().map(|step| step.op.verb()).collect();
        assert_eq!(verbs, lost, "\n{repair}");
        carry_out(&mut kernel, &repair);
        carry_out(&mut kernel, &plan::delta(&wanted, &[]));
        wait_until("garbage is collected", || kernel.garbage() == 0);
        let left = kernel.observe(&Scope::Everything(vec![])).unwrap();
        assert!(left.is_empty(), "{left:#?}");
        let after = sh("ip -o link; ip route; iptables -S; ip6tables -S; nft list ruleset inet");
        assert_eq!(after, before);
    }
}
