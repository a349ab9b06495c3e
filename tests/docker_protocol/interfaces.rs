//! Networks without a gateway, and endpoints that want a name or sysctls.

use netagent::model::EndpointId;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::caller::Caller;

const NETWORK: &str = "d135ead8dabe3f4a85e9acd4acaa47ce9ecef272d67059d91bf87f1136ede889";
const ENDPOINT: &str = "8f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f47";
const KEY: &str = "/var/run/docker/netns/c1bb55c5e056";
const CREATE: &str = "NetworkDriver.CreateEndpoint";
const JOIN: &str = "NetworkDriver.Join";
const GENERIC: &str = "com.docker.network.generic";
const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE_V6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INHIBIT: &str = "com.docker.network.bridge.inhibit_ipv4";
const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

async fn succeed(caller: &mut Caller, method: &str, body: &Value) -> Value {
    let reply = caller.call(method, Some(body)).await;
    assert_eq!(reply.error(method), None, "{method} {body}");
    reply.json()
}

async fn create_network(caller: &mut Caller, options: Value, v4: Value) {
    let call = json!({ "NetworkID": NETWORK, "Options": options, "IPv4Data": [v4] });
    succeed(caller, "NetworkDriver.CreateNetwork", &call).await;
}

fn endpoint(options: Value) -> Value {
    json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT,
        "Interface": { "Address": "172.18.0.2/16" }, "Options": options })
}

fn join() -> Value {
    json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": KEY, "Options": {} })
}

/// An agent with a network of these options.
async fn agent(options: Value) -> (Agent, Caller) {
    let agent = Agent::start();
    let mut caller = agent.connect("").await;
    let pool = json!({ "Pool": "172.18.0.0/16", "Gateway": "172.18.0.1/16" });
    create_network(&mut caller, json!({ GENERIC: options }), pool).await;
    (agent, caller)
}

#[tokio::test]
async fn dockerd_asks_whether_a_gateway_is_needed_and_is_told() {
    let agent = Agent::start();
    let mut caller = agent.connect("").await;
    let capabilities = caller.call("NetworkDriver.GetCapabilities", None).await.json();
    assert_eq!(capabilities["GwAllocChecker"], true);
    let check = "NetworkDriver.GwAllocCheck";
    for (internal, options, skips) in [
        (false, json!({}), (false, false)),
        (true, json!({}), (false, false)),
        (true, json!({ MODE: "isolated" }), (true, false)),
        (true, json!({ MODE: "isolated", MODE_V6: "isolated" }), (true, true)),
        (true, json!({ INHIBIT: "true" }), (true, false)),
        (false, json!({ INHIBIT: "true" }), (false, false)),
    ] {
        let mut all = json!({ "com.docker.network.enable_ipv4": true, GENERIC: options });
        if internal {
            all["com.docker.network.internal"] = json!(true);
        }
        let answer = succeed(&mut caller, check, &json!({ "Options": all })).await;
        assert_eq!(answer, json!({ "SkipIPv4": skips.0, "SkipIPv6": skips.1 }), "{all}");
    }
    let answer = succeed(&mut caller, check, &json!({ "Options": null })).await;
    assert_eq!(answer, json!({ "SkipIPv4": false, "SkipIPv6": false }));
    let bad = json!({ "Options": { GENERIC: { MODE: "isolated" } } });
    let error = caller.call(check, Some(&bad)).await.error(check).unwrap();
    assert!(error.contains("can only be used for an internal network"), "{error}");
    agent.stop().await;
}

#[tokio::test]
async fn a_network_without_a_gateway_works_down_to_two_addresses() {
    for pool in [
        json!({ "AddressSpace": "LocalDefault", "Pool": "172.18.0.2/31" }),
        json!({ "AddressSpace": "LocalDefault", "Pool": "172.18.0.2/31", "Gateway": null }),
    ] {
        let agent = Agent::start();
        let mut caller = agent.connect("").await;
        let options = json!({ "com.docker.network.internal": true, GENERIC: { MODE: "isolated" } });
        create_network(&mut caller, options, pool).await;
        for (id, address) in [("a", "172.18.0.2/31"), ("b", "172.18.0.3/31")] {
            let call = json!({ "NetworkID": NETWORK, "EndpointID": id.repeat(64),
                "Interface": { "Address": address } });
            succeed(&mut caller, CREATE, &call).await;
            let call =
                json!({ "NetworkID": NETWORK, "EndpointID": id.repeat(64), "SandboxKey": "" });
            let joined = succeed(&mut caller, JOIN, &call).await;
            assert_eq!(joined["Gateway"], "");
            assert_eq!(joined["DisableGatewayService"], true);
        }
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_named_interface_is_placed_and_dockerd_moves_nothing() {
    let (agent, mut caller) = agent(json!({})).await;
    agent.host.add_namespace(KEY);
    let sysctls = "net.ipv4.conf.ifname.log_martians=1";
    let options = json!({ IFNAME: "lan0", SYSCTLS: sysctls });
    let made = succeed(&mut caller, CREATE, &endpoint(options)).await;
    assert_eq!(made["Interface"]["MacAddress"], "02:42:ac:12:00:02");
    // dockerd repeats a call whose answer was lost.
    for _ in 0..2 {
        let joined = succeed(&mut caller, JOIN, &join()).await;
        assert_eq!(joined["InterfaceName"], json!({ "SrcName": "", "DstPrefix": "lan0" }));
        assert_eq!(joined["Gateway"], "172.18.0.1");
        assert_eq!(joined["DisableGatewayService"], false);
    }
    let listing = agent.host.listing();
    for part in [
        "peer c1bb55c5e056 lan0 02:42:ac:12:00:02",
        "address  c1bb55c5e056 172.18.0.2/16 dev lan0",
        "sysctl c1bb55c5e056 net/ipv4/conf/lan0/log_martians = 1",
        "sysctl c1bb55c5e056 net/ipv6/conf/lan0/disable_ipv6 = 1",
    ] {
        assert!(listing.contains(part), "no {part} in:\n{listing}");
    }
    assert!(!listing.contains("route "), "routes are dockerd's:\n{listing}");
    let of = json!({ "NetworkID": NETWORK, "EndpointID": ENDPOINT });
    for method in ["NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"] {
        for _ in 0..2 {
            succeed(&mut caller, method, &of).await;
            assert!(!agent.host.listing().contains("lan0"), "{method}");
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn without_a_sandbox_the_link_is_handed_over() {
    let (agent, mut caller) =
        agent(json!({ "com.docker.network.container_iface_prefix": "net" })).await;
    succeed(&mut caller, CREATE, &endpoint(json!({}))).await;
    assert!(!agent.host.listing().contains("nac-"), "it is not known yet who places it");
    for _ in 0..2 {
        let joined = succeed(&mut caller, JOIN, &join()).await;
        let name = json!({ "SrcName": "nac-8f476ffd31b", "DstPrefix": "net" });
        assert_eq!(joined["InterfaceName"], name);
    }
    let name = "nac-8f476ffd31b".parse().unwrap();
    assert!(agent.host.hand_over(&name, KEY));
    agent.stop().await;
}

#[tokio::test]
async fn a_bad_name_or_sysctl_is_refused_and_makes_nothing() {
    let (agent, mut caller) = agent(json!({})).await;
    for (options, why) in [
        (json!({ IFNAME: "sixteen-bytes-ab" }), "16 bytes"),
        (json!({ IFNAME: 7 }), "not a text"),
        (json!({ SYSCTLS: "net.ipv4.ip_forward=1" }), "unrecognised network interface sysctl"),
        (
            json!({ SYSCTLS: "net.ipv4.conf.eth0.log_martians=1" }),
            "net.ipv4.conf.eth0.log_martians=1",
        ),
    ] {
        let error = caller.call(CREATE, Some(&endpoint(options))).await.error(CREATE).unwrap();
        assert!(error.contains(why), "{error}");
    }
    let id: EndpointId = ENDPOINT.parse().unwrap();
    assert!(agent.look(move |engine| engine.intent().endpoint(id).is_none()).await);
    agent.stop().await;
}
