//! ProgramExternalConnectivity: the list replaces what was published.

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::caller::Caller;

const NETWORK: &str = "d135ead8dabe3f4a85e9acd4acaa47ce9ecef272d67059d91bf87f1136ede889";
const PEC: &str = "NetworkDriver.ProgramExternalConnectivity";

fn port(container: u16, host: u16) -> Value {
    json!({ "Proto": 6, "IP": "", "Port": container, "HostIP": "", "HostPort": host, "HostPortEnd": host })
}

fn of(endpoint: &str, address: &str, ports: &[Value]) -> Value {
    let key = if address.contains(':') { "AddressIPv6" } else { "Address" };
    json!({ "NetworkID": NETWORK, "EndpointID": endpoint.repeat(64), "Interface": { key: address },
        "Options": { "com.docker.network.portmap": ports } })
}

/// An agent with a network of both families.
async fn agent() -> (Agent, Caller) {
    let agent = Agent::start();
    let mut caller = agent.connect("").await;
    let network = json!({ "NetworkID": NETWORK,
        "IPv4Data": [{ "AddressSpace": "LocalDefault", "Pool": "172.18.0.0/16", "Gateway": "172.18.0.1/16" }],
        "IPv6Data": [{ "AddressSpace": "LocalDefault", "Pool": "fd00::/64", "Gateway": "fd00::1/64" }] });
    succeed(&mut caller, "NetworkDriver.CreateNetwork", &network).await;
    (agent, caller)
}

async fn succeed(caller: &mut Caller, method: &str, body: &Value) {
    assert_eq!(caller.call(method, Some(body)).await.error(method), None, "{body}");
}

async fn published(agent: &Agent) -> Vec<String> {
    let texts = |engine: &mut netagent::engine::Engine| {
        engine.ports().iter().map(|holder| holder.published.to_string()).collect()
    };
    agent.look(texts).await
}

#[tokio::test]
async fn a_new_list_replaces_the_old_one_and_an_empty_one_withdraws() {
    let (agent, mut caller) = agent().await;
    let none = of("a", "172.18.0.2/16", &[]);
    succeed(&mut caller, "NetworkDriver.CreateEndpoint", &none).await;
    for (ports, expected) in [
        (
            vec![port(80, 8080), port(81, 9090)],
            vec!["0.0.0.0:8080->80/tcp", "0.0.0.0:9090->81/tcp"],
        ),
        (vec![port(80, 8081)], vec!["0.0.0.0:8081->80/tcp"]),
        (vec![], vec![]),
    ] {
        // Twice: dockerd repeats a call whose answer was lost.
        for _ in 0..2 {
            succeed(&mut caller, PEC, &of("a", "172.18.0.2/16", &ports)).await;
            assert_eq!(published(&agent).await, expected);
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn sixteen_thousand_ports_are_one_range() {
    let (agent, mut caller) = agent().await;
    let udp = |port: u16| json!({ "Proto": 17, "IP": "", "Port": port, "HostIP": "", "HostPort": port, "HostPortEnd": port });
    let ports: Vec<Value> = (20_000..=36_000).map(udp).collect();
    let call = of("a", "172.18.0.2/16", &ports);
    succeed(&mut caller, "NetworkDriver.CreateEndpoint", &call).await;
    succeed(&mut caller, PEC, &call).await;
    assert_eq!(published(&agent).await, ["0.0.0.0:20000-36000->20000-36000/udp"]);
    agent.stop().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_had_leaves_the_old_one_and_names_the_owner() {
    let (agent, mut caller) = agent().await;
    for (endpoint, address, host) in [("a", "172.18.0.2/16", 8080), ("b", "172.18.0.3/16", 8081)] {
        let call = of(endpoint, address, &[port(80, host)]);
        succeed(&mut caller, "NetworkDriver.CreateEndpoint", &call).await;
        succeed(&mut caller, PEC, &call).await;
    }
    let before = published(&agent).await;
    let taken = of("b", "172.18.0.3/16", &[port(80, 8082), port(81, 8080)]);
    let error = caller.call(PEC, Some(&taken)).await.error(PEC).unwrap();
    assert!(error.contains("8080") && error.contains("aaaaaaaaaaaa"), "{error}");
    assert_eq!(published(&agent).await, before);
    agent.stop().await;
}

#[tokio::test]
async fn an_endpoint_without_ipv4_publishes_on_ipv6_addresses_only() {
    let (agent, mut caller) = agent().await;
    let none = of("a", "fd00::2/64", &[]);
    succeed(&mut caller, "NetworkDriver.CreateEndpoint", &none).await;
    succeed(&mut caller, PEC, &none).await;
    let some = of("a", "fd00::2/64", &[port(80, 8080)]);
    succeed(&mut caller, PEC, &some).await;
    assert_eq!(published(&agent).await, ["[::]:8080->80/tcp"]);
    let mut on_v4 = port(80, 8081);
    on_v4["HostIP"] = json!("127.0.0.1");
    let error = caller.call(PEC, Some(&of("a", "fd00::2/64", &[on_v4]))).await.error(PEC).unwrap();
    assert!(error.contains("no IPv4 address to lead it to"), "{error}");
    agent.stop().await;
}
