//! Who places an endpoint's link in its sandbox, and under which name.

use netagent::engine::{
    AttachRequest, DockerView, EndpointRequest, Engine, NetworkRequest, Suspects,
};
use netagent::kernel::fake::Fake;
use netagent::kernel::faulty::{Fault, When};
use netagent::model::{Attach, EndpointId, EndpointPhase, Result};
use netagent::object::{Kind, Netns, ObjectKey};

use crate::kit::Machine;
use crate::scenarios::{Kind as ScenarioKind, *};

const PREFIX: &str = "com.docker.network.container_iface_prefix";

/// An endpoint of Docker's whose interface is not to be called as dockerd calls them.
fn with_named_endpoint(engine: &mut Engine, host: &Fake) {
    with_docker_network(engine, host);
    let named = AttachRequest::Named { interface: "lan0".parse().unwrap() };
    let mut request =
        EndpointRequest { attach: named, ..docker_endpoint(ONE, WEB, "172.18.0.2/16") };
    request.sysctls = [("net.ipv4.conf.IFNAME.log_martians".into(), "1".into())].into();
    engine.create_endpoint(request).unwrap();
}

fn with_placed_container(engine: &mut Engine, host: &Fake) {
    with_named_endpoint(engine, host);
    host.add_namespace(KEY);
    engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
}

/// A routed network of Docker's with an endpoint under a name of its own, or dockerd's.
fn with_routed_endpoint(engine: &mut Engine, attach: AttachRequest) {
    let mut request = docker_network(WEB, "172.18.0.0/16", "172.18.0.1");
    request.options.insert("com.docker.network.bridge.gateway_mode_ipv4".into(), "routed".into());
    create(engine, request).unwrap();
    let request = docker_endpoint(ONE, WEB, "172.18.0.2/16");
    engine.create_endpoint(EndpointRequest { attach, ..request }).unwrap();
}

fn lan0() -> AttachRequest {
    AttachRequest::Named { interface: "lan0".parse().unwrap() }
}

fn join_and_open(engine: &mut Engine) -> Result<()> {
    engine.join(WEB, ONE, KEY.as_ref(), &[port(8080, 80), port(8443, 443)]).map(drop)
}

/// Endpoints that come into sandboxes and leave them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "bridge/join",
        ready: with_docker_endpoint,
        action: |engine| engine.join(WEB, ONE, KEY.as_ref(), &[]).map(drop),
        kind: ScenarioKind::Recording,
    },
    Scenario {
        name: "bridge/named_endpoint_joins_a_sandbox",
        ready: |engine, host| {
            with_named_endpoint(engine, host);
            host.add_namespace(KEY);
        },
        action: |engine| engine.join(WEB, ONE, KEY.as_ref(), &[]).map(drop),
        kind: ScenarioKind::Making,
    },
    Scenario {
        name: "bridge/named_endpoint_is_handed_over_without_a_sandbox",
        ready: with_named_endpoint,
        action: |engine| engine.join(WEB, ONE, KEY.as_ref(), &[]).map(drop),
        kind: ScenarioKind::Making,
    },
    Scenario {
        name: "bridge/named_endpoint_leaves",
        ready: with_placed_container,
        action: |engine| engine.leave(WEB, ONE),
        kind: ScenarioKind::Removing,
    },
    Scenario {
        name: "bridge/delete_named_endpoint",
        ready: with_placed_container,
        action: |engine| engine.delete_endpoint(WEB, ONE),
        kind: ScenarioKind::Removing,
    },
    Scenario {
        name: "bridge/routed_endpoint_joins",
        ready: |engine, _| with_routed_endpoint(engine, AttachRequest::HandOff),
        action: join_and_open,
        kind: ScenarioKind::Making,
    },
    Scenario {
        name: "bridge/routed_named_endpoint_joins_a_sandbox",
        ready: |engine, host| {
            with_routed_endpoint(engine, lan0());
            host.add_namespace(KEY);
        },
        action: join_and_open,
        kind: ScenarioKind::Making,
    },
    Scenario {
        name: "bridge/routed_named_endpoint_joins_without_a_sandbox",
        ready: |engine, _| with_routed_endpoint(engine, lan0()),
        action: join_and_open,
        kind: ScenarioKind::Making,
    },
];

fn prefixed(prefix: &str) -> NetworkRequest {
    let mut request = docker_network(WEB, "172.18.0.0/16", "172.18.0.1");
    request.options.insert(PREFIX.into(), prefix.into());
    request
}

fn named(id: EndpointId, address: &str, interface: &str) -> EndpointRequest {
    let attach = AttachRequest::Named { interface: interface.parse().unwrap() };
    EndpointRequest { attach, ..docker_endpoint(id, WEB, address) }
}

/// What dockerd is told: the link to take, and the prefix.
fn join(engine: &mut Engine, id: EndpointId, sandbox: &str) -> (Option<String>, String) {
    let joined = engine.join(WEB, id, sandbox.as_ref(), &[]).unwrap();
    (joined.source.map(|name| name.to_string()), joined.prefix)
}

fn interface(engine: &Engine, id: EndpointId) -> Option<String> {
    match &engine.intent().endpoint(id).unwrap().spec.attach {
        Attach::Netns { interface, .. } => Some(interface.to_string()),
        Attach::HandOff | Attach::AtJoin => None,
    }
}

#[test]
fn a_link_is_handed_over_under_dockers_names_and_placed_under_others() {
    for (prefix, name, placed, answered) in [
        ("eth", None, None, "eth"),
        ("eth", Some("eth7"), None, "eth"),
        ("eth", Some("eth"), Some("eth"), "eth"),
        ("eth", Some("ethernet"), Some("ethernet"), "ethernet"),
        ("eth", Some("lan0"), Some("lan0"), "lan0"),
        ("lan", None, Some("lan0"), "lan"),
        ("lan", Some("eth7"), Some("lan0"), "lan"),
        ("lan", Some("lan7"), Some("lan7"), "lan"),
        ("lan", Some("wan7"), Some("wan7"), "wan7"),
    ] {
        let machine = Machine::new();
        let mut engine = with_an_easy_docker(&machine);
        create(&mut engine, prefixed(prefix)).unwrap();
        let request = match name {
            Some(name) => named(ONE, "172.18.0.2/16", name),
            None => docker_endpoint(ONE, WEB, "172.18.0.2/16"),
        };
        engine.create_endpoint(request).unwrap();
        machine.host.add_namespace(KEY);
        let (source, told) = join(&mut engine, ONE, KEY);
        let what = format!("prefix {prefix}, name {name:?}");
        assert_eq!(interface(&engine, ONE).as_deref(), placed, "{what}");
        assert_eq!((source.is_none(), told.as_str()), (placed.is_some(), answered), "{what}");
        assert_eq!(join(&mut engine, ONE, KEY), (source, told), "{what}: asked again");
        assert_eq!(engine.status().unwrap().drift, Vec::<String>::new(), "{what}");
    }
}

#[test]
fn without_a_sandbox_the_link_is_made_at_join_and_handed_over() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, prefixed("lan")).unwrap();
    engine.create_endpoint(named(ONE, "172.18.0.2/16", "wan0")).unwrap();
    let joined = engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    assert_eq!(joined.prefix, "wan", "so that dockerd gives it the name");
    assert!(machine.host.hand_over(&joined.source.unwrap(), KEY));
    assert_eq!(join(&mut engine, ONE, KEY).1, "wan", "asked again");
    assert_eq!(engine.status().unwrap().problems, vec![]);
}

/// A dockerd that takes any number of links it does not know.
fn with_an_easy_docker(machine: &Machine) -> Engine {
    let mut engine = machine.engine();
    engine.learn(&DockerView::default(), &Suspects::default()).unwrap();
    engine
}

/// A container on a network with another prefix than dockerd's: its link is placed.
fn with_a_placed_link(machine: &Machine) -> Engine {
    let mut engine = with_an_easy_docker(machine);
    create(&mut engine, prefixed("lan")).unwrap();
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
    machine.host.add_namespace(KEY);
    join(&mut engine, ONE, KEY);
    engine
}

#[test]
fn a_prefix_takes_the_lowest_number_that_is_free_in_the_sandbox() {
    let machine = Machine::new();
    let mut engine = with_an_easy_docker(&machine);
    create(&mut engine, prefixed("lan")).unwrap();
    let ids: Vec<EndpointId> = (1..=4).map(|id| EndpointId::from_bytes([id; 32])).collect();
    for (id, last) in ids.iter().zip(2..) {
        engine.create_endpoint(docker_endpoint(*id, WEB, &format!("172.18.0.{last}/16"))).unwrap();
    }
    // One link of the sandbox is dockerd's, as after a start of 20.10.
    let handed = engine.join(WEB, ids[0], KEY.as_ref(), &[]).unwrap().source.unwrap();
    assert!(machine.host.hand_over_as(&handed, KEY, &"lan1".parse().unwrap()));
    for (id, name) in ids[1..].iter().zip(["lan0", "lan2", "lan3"]) {
        join(&mut engine, *id, KEY);
        assert_eq!(interface(&engine, *id).as_deref(), Some(name));
    }
    engine.leave(WEB, ids[2]).unwrap();
    engine.delete_endpoint(WEB, ids[2]).unwrap();
    let again = EndpointId::from_bytes([9; 32]);
    engine.create_endpoint(docker_endpoint(again, WEB, "172.18.0.9/16")).unwrap();
    join(&mut engine, again, KEY);
    assert_eq!(interface(&engine, again).as_deref(), Some("lan2"), "a number is free again");
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_endpoint_is_as_before() {
    let machine = Machine::new();
    let mut engine = with_an_easy_docker(&machine);
    create(&mut engine, prefixed("eth")).unwrap();
    machine.host.add_namespace(KEY);
    for (id, address) in [(ONE, "172.18.0.2/16"), (TWO, "172.18.0.3/16")] {
        engine.create_endpoint(named(id, address, "lan0")).unwrap();
    }
    join(&mut engine, ONE, KEY);
    let before = (machine.host.listing(), engine.intent().clone());
    let error = engine.join(WEB, TWO, KEY.as_ref(), &[]).unwrap_err().to_string();
    assert!(error.contains("\"lan0\""), "{error}");
    assert_eq!((machine.host.listing(), engine.intent().clone()), before);
    engine.delete_endpoint(WEB, TWO).unwrap();
    assert_eq!(machine.host.listing(), before.0);
}

#[test]
fn a_docker_that_would_end_by_it_gets_one_placed_link_a_sandbox() {
    let three = [
        (EndpointId::from_bytes([3; 32]), "172.18.0.4/16", "net0"),
        (ONE, "172.18.0.2/16", "lan0"),
        (TWO, "172.18.0.3/16", "wan0"),
    ];
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, prefixed("eth")).unwrap();
    machine.host.add_namespace(KEY);
    machine.host.add_namespace(SANDBOX);
    for (id, address, name) in three {
        engine.create_endpoint(named(id, address, name)).unwrap();
    }
    let view = DockerView {
        api_version: Some((1, 48)),
        live_restore: Some(true),
        ..DockerView::default()
    };
    engine.learn(&view, &Suspects::default()).unwrap();
    assert_eq!(join(&mut engine, ONE, KEY), (None, "lan0".into()));
    let (source, prefix) = join(&mut engine, TWO, KEY);
    assert_eq!((source.is_some(), prefix.as_str()), (true, "wan"));
    assert_eq!(join(&mut engine, three[0].0, SANDBOX), (None, "net0".into()), "another sandbox");
    // dockerd would give a number again that we have given.
    let fourth = EndpointId::from_bytes([4; 32]);
    engine.create_endpoint(named(fourth, "172.18.0.5/16", "lan1")).unwrap();
    assert_eq!(join(&mut engine, fourth, KEY).1, "eth");
    // One that outlived a dockerd gets no other, even after the first has left.
    engine.docker_began().unwrap();
    engine.leave(WEB, ONE).unwrap();
    engine.delete_endpoint(WEB, ONE).unwrap();
    engine.create_endpoint(named(ONE, "172.18.0.2/16", "lan0")).unwrap();
    let (source, prefix) = join(&mut engine, ONE, KEY);
    assert_eq!((source.is_some(), prefix.as_str()), (true, "lan"));
}

#[test]
fn a_placed_link_is_not_joined_to_another_sandbox_before_it_left() {
    let machine = Machine::new();
    let mut engine = with_an_easy_docker(&machine);
    create(&mut engine, prefixed("lan")).unwrap();
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
    for sandbox in [KEY, SANDBOX] {
        machine.host.add_namespace(sandbox);
    }
    join(&mut engine, ONE, KEY);
    let error = engine.join(WEB, ONE, SANDBOX.as_ref(), &[]).unwrap_err().to_string();
    assert!(error.contains(KEY) && error.contains(SANDBOX), "{error}");
    for _ in 0..2 {
        engine.leave(WEB, ONE).unwrap();
    }
    join(&mut engine, ONE, SANDBOX);
    assert_eq!(engine.intent().endpoint(ONE).unwrap().phase, EndpointPhase::Joined);
    assert!(machine.host.listing().contains("peer box lan0"), "{}", machine.host.listing());
}

#[test]
fn a_sandbox_that_has_ended_is_never_plumbed_again_and_makes_a_ghost() {
    let machine = Machine::new();
    let engine = with_a_placed_link(&machine);
    let link = ObjectKey {
        kind: Kind::Link,
        netns: Netns::Host,
        name: format!("nae-{}", &ONE.to_string()[..11]),
    };
    // It ends, and another namespace is at its path.
    machine.host.end_namespace(KEY);
    machine.host.add_namespace(KEY);
    drop(engine);
    let mut engine = machine.engine();
    assert!(!machine.host.listing().contains(&link.name), "{}", machine.host.listing());
    assert!(!machine.host.listing().contains("lan0"), "{}", machine.host.listing());
    let problems = engine.status().unwrap().problems;
    assert!(
        problems.iter().any(|found| found.text.contains("container has ended")),
        "{problems:?}"
    );
    // What another link of that name has in there is not ours to take.
    engine.leave(WEB, ONE).unwrap();
    engine.delete_endpoint(WEB, ONE).unwrap();
    assert_eq!(engine.status().unwrap().problems, vec![]);
}

#[test]
fn an_agent_that_starts_finds_placed_links_as_it_left_them() {
    let machine = Machine::new();
    let engine = with_a_placed_link(&machine);
    let before = (machine.host.listing(), engine.intent().clone());
    drop(engine);
    machine.host.process_ended();
    let mut engine = machine.engine();
    assert_eq!((machine.host.listing(), engine.intent().clone()), before);
    assert_eq!(join(&mut engine, ONE, KEY), (None, "lan".into()));
}

#[test]
fn an_agent_that_starts_anew_answers_dockerd_as_before() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, prefixed("eth")).unwrap();
    engine.create_endpoint(named(ONE, "172.18.0.2/16", "wan0")).unwrap();
    let told = join(&mut engine, ONE, KEY);
    assert_eq!(told.1, "wan");
    drop(engine);
    assert_eq!(join(&mut machine.engine(), ONE, KEY), told);
}

#[test]
fn only_a_name_that_was_asked_for_is_insisted_on() {
    for (asked, again) in [(None, Ok("lan1")), (Some("lan0"), Err("\"lan0\""))] {
        let machine = Machine::new();
        let mut engine = with_an_easy_docker(&machine);
        create(&mut engine, prefixed("lan")).unwrap();
        let request = match asked {
            Some(name) => named(ONE, "172.18.0.2/16", name),
            None => docker_endpoint(ONE, WEB, "172.18.0.2/16"),
        };
        engine.create_endpoint(request).unwrap();
        engine.create_endpoint(docker_endpoint(TWO, WEB, "172.18.0.3/16")).unwrap();
        machine.host.add_namespace(KEY);
        join(&mut engine, ONE, KEY);
        assert_eq!(interface(&engine, ONE).as_deref(), Some("lan0"));
        engine.leave(WEB, ONE).unwrap();
        join(&mut engine, TWO, KEY);
        drop(engine);
        let mut engine = with_an_easy_docker(&machine);
        let joined = engine.join(WEB, ONE, KEY.as_ref(), &[]);
        match again {
            Ok(name) => assert_eq!(interface(&engine, ONE).as_deref(), Some(name)),
            Err(text) => assert!(joined.unwrap_err().to_string().contains(text)),
        }
    }
}

#[test]
fn a_link_that_would_not_go_goes_before_the_next_sandbox_gets_one() {
    let faults = |machine: &Machine, at| {
        let (errno, when) = (nix::errno::Errno::EBUSY as i32, When::Before);
        let mut engine = machine.start(Fault::Error { at, errno, when }).unwrap();
        engine.learn(&DockerView::default(), &Suspects::default()).unwrap();
        engine
    };
    let machine = Machine::new();
    let mut engine = with_an_easy_docker(&machine);
    create(&mut engine, prefixed("lan")).unwrap();
    engine.create_endpoint(docker_endpoint(ONE, WEB, "172.18.0.2/16")).unwrap();
    machine.host.add_namespace(KEY);
    machine.host.add_namespace(SANDBOX);
    join(&mut engine, ONE, KEY);
    drop(engine);
    let mut engine = faults(&machine, 0);
    engine.leave(WEB, ONE).unwrap_err();
    join(&mut engine, ONE, SANDBOX);
    let listing = machine.host.listing();
    assert!(listing.contains("peer box lan0") && !listing.contains("peer c1"), "{listing}");
    assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
}

#[test]
fn only_a_new_docker_that_may_restore_containers_takes_one_placed_link() {
    for (api_version, live_restore, both) in [
        (Some((1, 47)), Some(true), true),
        (Some((1, 48)), Some(true), false),
        (Some((1, 48)), Some(false), true),
        (Some((1, 48)), None, false),
        (Some((1, 100)), Some(true), false),
        (Some((2, 0)), Some(true), false),
    ] {
        let machine = Machine::new();
        let mut engine = machine.engine();
        let view = DockerView { api_version, live_restore, ..DockerView::default() };
        engine.learn(&view, &Suspects::default()).unwrap();
        create(&mut engine, prefixed("eth")).unwrap();
        machine.host.add_namespace(KEY);
        for (id, address, name) in [(ONE, "172.18.0.2/16", "lan0"), (TWO, "172.18.0.3/16", "wan0")]
        {
            engine.create_endpoint(named(id, address, name)).unwrap();
            join(&mut engine, id, KEY);
        }
        let placed = interface(&engine, TWO).is_some();
        assert_eq!(placed, both, "{api_version:?} {live_restore:?}");
    }
}
