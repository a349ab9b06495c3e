//! What Docker's API tells: names, and what dockerd has forgotten without telling us.

use crate::kit::Machine;
use crate::requests::{THREE, two_endpoints};
use crate::scenarios::*;
use netagent::engine::{DockerView, PoolRequest};
use netagent::model::ErrorClass;

#[test]
fn suspects_that_docker_does_not_know_are_removed_and_names_are_learnt() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    create(&mut engine, docker_network(DB, "172.19.0.0/16", "172.19.0.1")).unwrap();
    let suspects = engine.docker_began().unwrap();
    let third = docker_endpoint(THREE, WEB, "172.18.0.4/16");
    engine.create_endpoint(third).unwrap();

    let mut view = DockerView::default();
    let web = netagent::engine::DockerNetwork { name: "web".into(), labels: Default::default() };
    view.networks.insert(WEB, web);
    view.endpoints.insert(ONE, "shop-web-1".into());
    engine.learn(&view, &suspects).unwrap();

    assert!(engine.intent().network(DB).is_none(), "removed while we were down");
    assert!(engine.intent().endpoint(TWO).is_none(), "removed while we were down");
    assert!(engine.intent().endpoint(THREE).is_some(), "younger than the suspicion");
    assert_eq!(engine.find_network("web").unwrap(), WEB);
    assert_eq!(engine.intent().endpoint(ONE).unwrap().spec.label(), "shop-web-1");
    assert_eq!(engine.status().unwrap().drift, Vec::<String>::new());
}

#[test]
fn a_network_that_docker_forgot_gives_its_subnet_to_the_next() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    create(&mut engine, docker_network(DB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    assert!(engine.intent().network(WEB).is_none());
    engine.create_endpoint(docker_endpoint(ONE, DB, "172.18.0.2/16")).unwrap();
    let joined = engine.join(DB, ONE, KEY.as_ref(), &[]).unwrap();
    machine.host.hand_over(joined.source.as_ref().unwrap(), "/var/run/docker/netns/c1");
    let error =
        create(&mut engine, docker_network(WEB, "172.18.0.0/16", "172.18.0.1")).unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict, "a container lives on it: {error}");
}

#[test]
fn a_container_that_lives_is_not_removed_because_the_wrong_docker_was_asked() {
    let machine = Machine::new();
    let mut engine = two_endpoints(&machine);
    let joined = engine.join(WEB, ONE, KEY.as_ref(), &[]).unwrap();
    machine.host.hand_over(joined.source.as_ref().unwrap(), "/var/run/docker/netns/c1");
    let suspects = engine.suspects();
    engine.learn(&DockerView::default(), &suspects).unwrap();
    assert!(engine.intent().endpoint(ONE).is_some(), "its container lives");
    assert!(engine.intent().endpoint(TWO).is_none(), "no container ever took it");
    assert!(engine.intent().network(WEB).is_some());
    assert_eq!(engine.status().unwrap().problems.len(), 1);
}

#[test]
fn docker_gets_no_pool_that_a_network_made_here_uses() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    engine.docker_began().unwrap();
    let request = PoolRequest {
        pool: Some("10.1.0.0/24".parse().unwrap()),
        range: None,
        family: netagent::model::Family::V4,
    };
    let error = engine.request_pool(&request).unwrap_err();
    assert!(error.to_string().contains("network \"web\""), "{error}");
}

#[test]
fn a_name_that_two_networks_have_is_no_name() {
    let machine = Machine::new();
    let mut engine = machine.engine();
    create(&mut engine, network(WEB, "web", "10.1.0.0/24")).unwrap();
    create(&mut engine, docker_network(DB, "172.18.0.0/16", "172.18.0.1")).unwrap();
    let mut view = DockerView::default();
    let web = netagent::engine::DockerNetwork { name: "web".into(), labels: Default::default() };
    view.networks.insert(DB, web);
    engine.learn(&view, &Default::default()).unwrap();
    let error = engine.find_network("web").unwrap_err();
    assert!(error.to_string().contains("several networks"), "{error}");
    assert_eq!(engine.find_network(&DB.to_string()).unwrap(), DB);
}
