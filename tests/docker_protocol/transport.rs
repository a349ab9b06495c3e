//! What can go wrong on the way, through the real door.

use serde_json::{Value, json};

use crate::agent::Agent;

const NETWORK: &str = "d135ead8dabe3f4a85e9acd4acaa47ce9ecef272d67059d91bf87f1136ede889";

/// Methods that mean nothing without a body.
const WITH_BODY: [&str; 12] = [
    "NetworkDriver.CreateNetwork",
    "NetworkDriver.DeleteNetwork",
    "NetworkDriver.CreateEndpoint",
    "NetworkDriver.DeleteEndpoint",
    "NetworkDriver.Join",
    "NetworkDriver.Leave",
    "NetworkDriver.ProgramExternalConnectivity",
    "NetworkDriver.RevokeExternalConnectivity",
    "IpamDriver.RequestPool",
    "IpamDriver.ReleasePool",
    "IpamDriver.RequestAddress",
    "IpamDriver.ReleaseAddress",
];

fn network() -> Value {
    json!({ "NetworkID": NETWORK, "Options": { "com.docker.network.generic": {} },
        "IPv4Data": [{ "AddressSpace": "LocalDefault", "Pool": "172.18.0.0/16", "Gateway": "172.18.0.1/16" }],
        "IPv6Data": [] })
}

#[tokio::test]
async fn a_retry_with_an_empty_body_is_an_error_and_changes_nothing() {
    let agent = Agent::start();
    let mut caller = agent.connect("").await;
    for method in WITH_BODY {
        let error = caller.call(method, None).await.error(method).unwrap();
        assert!(error.contains("dockerd retried after a dropped connection"), "{error}");
    }
    let (networks, pools) = agent
        .look(|engine| (engine.intent().networks().count(), engine.book().pools().count()))
        .await;
    assert_eq!((networks, pools), (0, 0));
    agent.stop().await;
}

#[tokio::test]
async fn what_is_no_json_is_an_error_that_names_the_call() {
    let agent = Agent::start();
    let mut caller = agent.connect("").await;
    let half = network().to_string();
    let half = &half.as_bytes()[..half.len() / 2];
    for body in [half, b"\xff\xfe", b"null", b"[]", b"{}", b"{\"NetworkID\":5}"] {
        for method in WITH_BODY {
            let error = caller.post(method, body).await.error(method).unwrap();
            assert!(error.starts_with(method), "{error}");
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_body_of_10_mb_is_refused_with_the_limit_and_others_go_on() {
    let agent = Agent::start();
    for method in ["NetworkDriver.CreateNetwork", "IpamDriver.RequestPool"] {
        let mut large = agent.connect("").await;
        let reply = large.post(method, &vec![b' '; 10_000_000]).await;
        let error = reply.error(method).unwrap();
        assert!(error.contains("larger than the limit of 8388608 bytes"), "{error}");
        assert!(reply.closes);
        large.ended().await;
    }
    let reply = agent.connect("").await.call("Plugin.Activate", None).await;
    assert_eq!(reply.error("Plugin.Activate"), None);
    agent.stop().await;
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_404_and_another_verb_405() {
    let agent = Agent::start();
    let mut caller = agent.connect("").await;
    for method in ["NetworkDriver.Fly", "IpamDriver.Fly", "VolumeDriver.Create", "Plugin", ""] {
        let reply = caller.call(method, None).await;
        assert_eq!(reply.status, 404, "{method}: {}", reply.text);
        assert!(reply.text.contains("no method"), "{}", reply.text);
    }
    caller.send(b"GET /Plugin.Activate HTTP/1.1\r\nHost:\r\n\r\n").await;
    assert_eq!(caller.reply().await.status, 405);
    agent.stop().await;
}

#[tokio::test]
async fn calls_sent_one_behind_the_other_are_answered_in_order() {
    let agent = Agent::start();
    let mut caller = agent.connect("plugin.moby.localhost").await;
    let create = network().to_string();
    let twice = caller.head("NetworkDriver.CreateNetwork", create.len()) + &create;
    let all = twice.clone() + &twice + &caller.head("NetworkDriver.GetCapabilities", 0);
    caller.send(all.as_bytes()).await;
    assert_eq!(caller.reply().await.json(), json!({}));
    assert_eq!(caller.reply().await.json(), json!({}), "the same again is done already");
    assert_eq!(caller.reply().await.json()["Scope"], "local");
    agent.stop().await;
}

#[tokio::test]
async fn half_a_call_is_never_carried_out() {
    let agent = Agent::start();
    let body = network().to_string();
    for length in [0, 1, body.len() - 1] {
        let mut caller = agent.connect("").await;
        let head = caller.head("NetworkDriver.CreateNetwork", body.len());
        caller.send(head.as_bytes()).await;
        caller.send(&body.as_bytes()[..length]).await;
        caller.shut().await;
        caller.ended().await;
    }
    assert_eq!(agent.look(|engine| engine.intent().networks().count()).await, 0);
    agent.stop().await;
}

#[tokio::test]
async fn two_hundred_idle_connections_keep_nobody_waiting() {
    let agent = Agent::start();
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut caller = agent.connect("").await;
        // Half of them were used before.
        if number % 2 == 0 {
            caller.call("NetworkDriver.GetCapabilities", None).await.json();
        }
        idle.push(caller);
    }
    let mut caller = agent.connect("").await;
    let reply = caller.call("NetworkDriver.CreateNetwork", Some(&network())).await;
    assert_eq!(reply.json(), json!({}));
    for mut caller in idle {
        caller.call("NetworkDriver.GetCapabilities", None).await.json();
    }
    agent.stop().await;
}

#[tokio::test]
async fn what_ends_something_may_come_twice_alone_or_for_unknown_ids() {
    let agent = Agent::start();
    let mut caller = agent.connect("").await;
    let of = json!({ "NetworkID": NETWORK, "EndpointID": "8".repeat(64), "PoolID": "netagent/10.9.0.0/24",
        "Address": "10.9.0.2" });
    let elsewhere = json!({ "PoolID": "other/10.9.0.0/24", "Address": "10.9.0.2" });
    for method in WITH_BODY {
        let ends =
            ["Delete", "Leave", "Revoke", "Release"].iter().any(|verb| method.contains(verb));
        if !ends {
            continue;
        }
        for _ in 0..2 {
            assert_eq!(caller.call(method, Some(&of)).await.error(method), None, "{method}");
        }
        if method.starts_with("IpamDriver.") {
            assert_eq!(caller.call(method, Some(&elsewhere)).await.error(method), None);
        }
    }
    agent.stop().await;
}
