//! `network update` on the command line.

use netagent::model::EndpointId;

use crate::agent::Agent;

const MTU: &str = "com.docker.network.driver.mtu";

/// An agent with a network and an endpoint on it, whose id comes along.
fn started() -> (Agent, EndpointId) {
    let agent = Agent::start();
    agent
        .run(&["network", "create", "--subnet", "10.1.0.0/24", "--label", "a=b", "web"])
        .succeeded();
    agent.host.add_namespace("/run/netns/lab");
    let made = agent.run(&["network", "connect", "--name", "box", "-p", "80", "web", "lab"]);
    made.succeeded();
    (agent, made.stdout.trim().parse().unwrap())
}

fn inspected(agent: &Agent, format: &str) -> String {
    agent.run(&["network", "inspect", "-f", format, "web"]).stdout
}

#[test]
fn a_network_is_changed_and_says_its_name() {
    let (agent, _) = started();
    let mtu = format!("{MTU}=1400");
    let labels = ["--label", "c=d", "--label-rm", "a"];
    let update = ["network", "update", "-o", &mtu, "--subnet", "10.9.0.0/24", "web"];
    let updated = agent.run(&[&update[..], &labels].concat());
    assert_eq!((updated.code, updated.stdout.as_str()), (0, "web\n"), "{updated:?}");
    assert_eq!(updated.stderr, "");
    let format = format!("{{{{index .Options {MTU:?}}}}} {{{{.Labels}}}} {{{{len .IPAM.Config}}}}");
    assert_eq!(inspected(&agent, &format), "1400 map[c:d] 2\n");
    assert!(agent.host.listing().contains("bridge mtu 1400"), "{}", agent.host.listing());

    agent.run(&["network", "update", "-o", &format!("{MTU}="), "web"]).succeeded();
    assert!(agent.host.listing().contains("bridge mtu 1450"), "{}", agent.host.listing());
    assert_eq!(inspected(&agent, "{{.Options}}"), "map[]\n");
}

#[test]
fn a_dry_run_prints_the_plan_exits_7_and_changes_nothing() {
    let (agent, _) = started();
    let before = agent.host.listing();
    let mtu = format!("{MTU}=1400");
    let planned = agent.run(&["network", "update", "--dry-run", "-o", &mtu, "web"]);
    assert_eq!(planned.code, 7, "{planned:?}");
    assert!(planned.stdout.contains("bridge mtu 1450 → bridge mtu 1400"), "{planned:?}");
    assert_eq!(agent.host.listing(), before);
    let json = agent.run(&["-j", "network", "update", "--dry-run", "-o", &mtu, "web"]);
    assert_eq!(json.code, 7, "{json:?}");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["Steps"].as_array().unwrap().len(), 2, "{json}");
    let same = agent.run(&["network", "update", "--dry-run", "--label", "a=b", "web"]);
    assert_eq!((same.code, same.stdout.as_str()), (0, "Nothing would change.\n"), "{same:?}");
}

#[test]
fn what_cannot_be_is_refused_with_its_exit_code() {
    let (agent, _) = started();
    agent.run(&["network", "create", "--subnet", "10.2.0.0/24", "other"]).succeeded();
    agent.add_docker_network("dockers", "10.3.0.0/24");
    for (args, code, says) in [
        (&["web"][..], 2, "update network \"web\": nothing to change is named"),
        (&["-o", "com.docker.network.bridge.name=br0", "web"], 2, "it cannot be changed"),
        (&["-o", "com.docker.network.driver.mtuu=", "web"], 2, "did you mean"),
        (&["-o", "com.docker.network.bridge.enable_icc=si", "web"], 2, "not a truth value"),
        (&["--gateway", "10.9.0.1", "web"], 2, "no --subnet contains it"),
        (&["--subnet", "10.2.0.0/25", "web"], 4, "it overlaps 10.2.0.0/24 of network \"other\""),
        (&["--label", "a=b", "dockers"], 4, "made by Docker, which keeps its labels"),
        (&["--subnet", "10.9.0.0/24", "dockers"], 4, "made by Docker"),
        (&["-o", "a=b", "nowhere"], 3, "no such network"),
    ] {
        let ran = agent.run(&[&["network", "update"], args].concat());
        assert!(ran.code == code && ran.stderr.contains(says), "{args:?}: {ran:?}");
    }
    let icc = "com.docker.network.bridge.enable_icc=false";
    agent.run(&["network", "update", "-o", icc, "dockers"]).succeeded();
    let answer = agent.ask("PATCH", "/v1/networks/web?dry_run=maybe", r#"{"Labels":{"a":"c"}}"#);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn an_endpoint_that_keeps_its_mtu_is_a_warning() {
    let (agent, endpoint) = started();
    let link = netagent::driver::host_end(endpoint).name.parse().unwrap();
    agent.host.hide_other_end(&link);
    let mtu = format!("{MTU}=9000");
    let updated = agent.run(&["network", "update", "-o", &mtu, "web"]);
    assert_eq!((updated.code, updated.stdout.as_str()), (0, "web\n"), "{updated:?}");
    assert!(updated.stderr.starts_with("netagent: warning: the interface of endpoint \"box\""));
}
