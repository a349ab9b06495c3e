//! Who hears of an endpoint's addresses, when, and from whom.

use nix::errno::Errno;

use crate::kit::Machine;
use crate::scenarios::*;
use netagent::engine::{DockerView, EndpointRequest, Engine, NetworkRequest, Suspects};
use netagent::kernel::Announcement;
use netagent::kernel::faulty::{Fault, When};
use netagent::model::NetworkId;
use netagent::object::{Object, Op};

/// What was announced, in short: bridge, MAC address, addresses.
fn told(machine: &Machine) -> Vec<String> {
    let short = |told: &Announcement| format!("{} {} {:?}", told.bridge, told.mac, told.addresses);
    machine.host.announced().iter().map(short).collect()
}

fn dual_stack(id: NetworkId) -> NetworkRequest {
    let mut request = network(id, "web", "10.1.0.0/24");
    request.subnets.push(subnet("fd00:1::/64"));
    request
}

#[test]
fn an_attach_is_announced_once_with_all_its_addresses() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, dual_stack(WEB)).unwrap();
    machine.host.add_namespace(SANDBOX);
    let mac = Some("02:00:00:00:00:09".parse().unwrap());
    let request = EndpointRequest { mac, ..sandboxed(ONE, WEB, vec![port(8080, 80)]) };
    engine.create_endpoint(request.clone()).unwrap();
    let once = ["nab-3f3f3f3f3f3 02:00:00:00:00:09 [10.1.0.2, fd00:1::2]"];
    assert_eq!(told(&machine), once);
    engine.create_endpoint(request).unwrap();
    engine.reconcile().unwrap();
    assert_eq!(told(&machine), once, "nothing has moved since");
}

/// An endpoint that heard its own IPv6 address announced would make the kernel log a warning.
#[test]
fn an_attach_is_announced_before_its_link_is_there() {
    let machine = Machine::new();
    let at = {
        let machine = Machine::new();
        create(&mut machine.engine(), dual_stack(WEB)).unwrap();
        machine.log.len()
    };
    let fault = Fault::Error { at, errno: Errno::ENOMEM as i32, when: When::Before };
    let mut engine = machine.start(fault).unwrap();
    create(&mut engine, dual_stack(WEB)).unwrap();
    machine.host.add_namespace(SANDBOX);
    engine.create_endpoint(sandboxed(ONE, WEB, vec![])).unwrap_err();
    let first = &machine.log.since(at)[0];
    assert!(matches!(first, Op::Create(Object::Link(_))), "what failed is the link: {first}");
    assert_eq!(told(&machine).len(), 1);
}

fn hand_over(engine: &mut Engine) {
    create(engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
}

#[test]
fn a_link_is_announced_when_dockerd_asks_for_it() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    hand_over(&mut engine);
    assert_eq!(told(&machine), [""; 0], "a created container that is not started");
    engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    assert_eq!(told(&machine), ["nab-3f3f3f3f3f3 02:42:ac:12:00:02 [172.18.0.2]"]);
    engine.leave(WEB, ONE).unwrap();
    engine.delete_endpoint(WEB, ONE).unwrap();
    assert_eq!(told(&machine).len(), 1);
}

#[test]
fn a_dockerd_that_announces_itself_is_not_doubled() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    let says = |api_version| DockerView { api_version, ..DockerView::default() };
    engine.learn(&says(Some((1, 48))), &Suspects::default()).unwrap();
    hand_over(&mut engine);
    engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    assert_eq!(told(&machine), [""; 0]);
    // What we plumb ourselves, no dockerd announces.
    machine.host.add_namespace(SANDBOX);
    create(&mut engine, network(DB, "db", "10.2.0.0/24")).unwrap();
    engine.create_endpoint(sandboxed(TWO, DB, vec![])).unwrap();
    assert_eq!(told(&machine).len(), 1);
    // An older one took its place.
    engine.learn(&says(Some((1, 47))), &Suspects::default()).unwrap();
    engine.leave(WEB, ONE).unwrap();
    engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    assert_eq!(told(&machine).len(), 2);
}
