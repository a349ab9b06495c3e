//! What Docker's API teaches, and what is done when it does not answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::StatusCode;
use netagent::docker::{Client, Pace, sync};
use netagent::engine::Engine;
use netagent::http::{self, Answer, Limits, Request};
use netagent::model::{EndpointId, NetworkId};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::agent::{Agent, DEADLINE};

const NETWORK: &str = "d135ead8dabe3f4a85e9acd4acaa47ce9ecef272d67059d91bf87f1136ede889";
const ENDPOINT: &str = "8f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f47";

fn network_id() -> NetworkId {
    NETWORK.parse().unwrap()
}

fn endpoint_id() -> EndpointId {
    ENDPOINT.parse().unwrap()
}

/// What the dockerd of paper knows.
#[derive(Debug, Default)]
struct Known {
    up: bool,
    network: bool,
    endpoint: bool,
    /// The endpoint shows from this view on.
    endpoint_from: usize,
    views: usize,
}

/// A dockerd's API.
struct Docker {
    known: Arc<Mutex<Known>>,
    task: JoinHandle<()>,
    client: Client,
}

impl Docker {
    fn start(agent: &Agent, known: Known) -> Self {
        let socket = agent.folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let known = Arc::new(Mutex::new(known));
        let shared = known.clone();
        let handler = move |request: Request| {
            let answer = page(&mut shared.lock().unwrap(), &request.path);
            async move { answer }
        };
        let task =
            tokio::spawn(http::serve(listener, Limits::default(), std::future::pending(), handler));
        Self { known, task, client: socket.to_str().unwrap().parse().unwrap() }
    }

    fn views(&self) -> usize {
        self.known.lock().unwrap().views
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn page(known: &mut Known, path: &str) -> Answer {
    if path == "/networks" {
        known.views += 1;
    }
    if !known.up {
        return Answer::text(StatusCode::SERVICE_UNAVAILABLE, "starting");
    }
    let endpoint = known.endpoint && known.views >= known.endpoint_from;
    let attached = json!({ "Name": "c1", "EndpointID": ENDPOINT, "IPv4Address": "172.18.0.2/16" });
    let containers = if endpoint { json!({ "c": attached }) } else { json!({}) };
    let network = json!({ "Name": "web", "Id": NETWORK, "Driver": "netagent", "Labels": { "a": "b" },
        "Containers": containers });
    let value = match (path, known.network) {
        ("/networks", true) => json!([network]),
        ("/networks", false) | ("/containers/json", _) => json!([]),
        (_, true) => network,
        (_, false) => return Answer::text(StatusCode::NOT_FOUND, "no such network"),
    };
    Answer::json(StatusCode::OK, &value)
}

fn pace() -> Pace {
    let moment = Duration::from_millis(5);
    Pace {
        rest_at_most: Duration::from_millis(20),
        debounce: moment,
        confirm: moment,
        retry: moment,
        retry_at_most: moment,
        give_up: moment * 4,
    }
}

/// An agent with a network and a joined endpoint of Docker's.
async fn agent() -> Agent {
    let agent = Agent::start();
    for method in CALLS {
        call(&agent, method).await;
    }
    agent
}

const CALLS: [&str; 5] = [
    "Plugin.Activate",
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.ProgramExternalConnectivity",
];

async fn call(agent: &Agent, method: &str) {
    let options =
        json!({ "com.docker.network.portmap": [{ "Proto": 6, "Port": 80, "HostPort": 8080 }] });
    let of = json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "Options": options, "SandboxKey": "/s",
        "Interface": { "Address": "172.18.0.2/16" },
        "IPv4Data": [{ "AddressSpace": "LocalDefault", "Pool": "172.18.0.0/16", "Gateway": "172.18.0.1/16" }] });
    let body = match method {
        "Plugin.Activate" => None,
        "NetworkDriver.CreateNetwork" => Some(without(&of, "Options")),
        _ => Some(of),
    };
    let mut caller = agent.connect("").await;
    assert_eq!(caller.call(method, body.as_ref()).await.error(method), None, "{method}");
}

fn without(value: &Value, key: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove(key);
    value
}

/// Waits until the engine is as wanted.
async fn until(agent: &Agent, wanted: impl Fn(&Engine) -> bool + Copy + Send + 'static) {
    let reached = async {
        while !agent.look(move |engine| wanted(engine)).await {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, reached).await.expect("reached in time");
}

async fn until_views(docker: &Docker, views: usize) {
    let reached = async {
        while docker.views() < views {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, reached).await.expect("asked in time");
}

fn learn(agent: &Agent, docker: &Docker) -> JoinHandle<netagent::model::Result<()>> {
    learn_at(pace(), agent, docker)
}

fn learn_at(pace: Pace, agent: &Agent, docker: &Docker) -> JoinHandle<netagent::model::Result<()>> {
    let (client, engine, bell) = (docker.client.clone(), agent.engine.clone(), agent.bell.clone());
    tokio::spawn(sync::run(client, engine, bell, pace))
}

#[tokio::test]
async fn names_and_labels_are_learned_and_nothing_that_docker_knows_is_removed() {
    let agent = agent().await;
    let known = Known { up: true, network: true, endpoint: true, ..Known::default() };
    let docker = Docker::start(&agent, known);
    let task = learn(&agent, &docker);
    until(&agent, |engine| {
        let network = &engine.intent().network(network_id()).unwrap().spec;
        let endpoint = &engine.intent().endpoint(endpoint_id()).unwrap().spec;
        network.name.is_some()
            && network.labels["a"] == "b"
            && endpoint.name.as_deref() == Some("c1")
    })
    .await;
    task.abort();
    agent.stop().await;
}

#[tokio::test]
async fn a_ghost_goes_with_its_ports_after_the_second_view_that_lacks_it() {
    let agent = agent().await;
    let docker = Docker::start(&agent, Known { up: true, network: true, ..Known::default() });
    let task = learn(&agent, &docker);
    until(&agent, |engine| engine.intent().endpoint(endpoint_id()).is_none()).await;
    assert!(docker.views() >= 2, "{} views", docker.views());
    assert!(agent.look(|engine| engine.ports().is_empty()).await);
    assert!(agent.look(|engine| engine.intent().network(network_id()).is_some()).await);
    task.abort();
    agent.stop().await;
}

#[tokio::test]
async fn views_that_come_too_early_condemn_nobody() {
    let agent = agent().await;
    let docker = Docker::start(&agent, Known { up: true, ..Known::default() });
    let task = learn_at(Pace { confirm: 2 * DEADLINE, ..pace() }, &agent, &docker);
    for views in 1..5 {
        until_views(&docker, views).await;
        agent.bell.ring();
    }
    until_views(&docker, 5).await;
    assert!(agent.look(|engine| engine.intent().endpoint(endpoint_id()).is_some()).await);
    task.abort();
    agent.stop().await;
}

#[tokio::test]
async fn a_new_dockerd_a_new_network_and_a_join_are_reasons_to_ask() {
    let agent = Agent::start();
    let known = Known { up: true, network: true, endpoint: true, ..Known::default() };
    let docker = Docker::start(&agent, known);
    let task = learn(&agent, &docker);
    until_views(&docker, 1).await;
    for (method, asks) in CALLS.into_iter().zip([true, true, false, true, false]) {
        let before = docker.views();
        call(&agent, method).await;
        if asks {
            until_views(&docker, before + 1).await;
        }
    }
    task.abort();
    agent.stop().await;
}

#[tokio::test]
async fn a_network_that_docker_removed_while_we_were_down_goes() {
    let agent = agent().await;
    let docker = Docker::start(&agent, Known { up: true, ..Known::default() });
    let task = learn(&agent, &docker);
    until(&agent, |engine| engine.intent().networks().next().is_none()).await;
    assert!(docker.views() >= 2, "{} views", docker.views());
    task.abort();
    agent.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_shows_only_in_the_second_view_was_being_started_and_stays() {
    let agent = agent().await;
    let known = Known { up: true, network: true, endpoint: true, endpoint_from: 2, views: 0 };
    let docker = Docker::start(&agent, known);
    let task = learn(&agent, &docker);
    until(&agent, |engine| {
        engine.intent().endpoint(endpoint_id()).expect("it stays").spec.name.is_some()
    })
    .await;
    task.abort();
    agent.stop().await;
}

#[tokio::test]
async fn a_docker_that_does_not_answer_changes_nothing_until_it_does() {
    let agent = agent().await;
    let docker = Docker::start(&agent, Known::default());
    let task = learn(&agent, &docker);
    // Asked more often than two views would take, also after giving up and being rung for again.
    until_views(&docker, 3).await;
    agent.bell.ring();
    until_views(&docker, 6).await;
    assert!(agent.look(|engine| engine.intent().endpoint(endpoint_id()).is_some()).await);
    docker.known.lock().unwrap().up = true;
    agent.bell.ring();
    until(&agent, |engine| engine.intent().networks().next().is_none()).await;
    task.abort();
    agent.stop().await;
}

#[tokio::test]
async fn no_call_of_dockerds_waits_for_dockers_api() {
    let agent = Agent::start();
    let socket = agent.folder.path().join("docker.sock");
    // It takes connections, as systemd does for a dockerd that is only starting, and says nothing.
    let _silent = UnixListener::bind(&socket).unwrap();
    let client: Client = socket.to_str().unwrap().parse().unwrap();
    let task = tokio::spawn(sync::run(client, agent.engine.clone(), agent.bell.clone(), pace()));
    let mut caller = agent.connect("").await;
    for method in ["Plugin.Activate", "NetworkDriver.GetCapabilities", "Plugin.Activate"] {
        assert_eq!(caller.call(method, None).await.error(method), None);
    }
    assert!(!task.is_finished());
    task.abort();
    agent.stop().await;
}
