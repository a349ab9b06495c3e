//! The real binary against a daemon with an in-memory host, and against none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod agent;
mod update;

use agent::{Agent, netagent};

#[test]
fn a_network_lives_from_create_to_rm() {
    let agent = Agent::start();
    let made =
        agent.run(&["network", "create", "--subnet", "10.1.0.0/24", "--label", "a=b", "web"]);
    made.succeeded();
    let id = made.stdout.trim();
    assert_eq!(id.len(), 64, "{made:?}");

    let listed = agent.run(&["network", "ls"]);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[0].starts_with("NETWORK ID     NAME"), "{listed:?}");
    assert!(lines[1].starts_with(&id[..12]) && lines[1].contains("10.1.0.0/24"), "{listed:?}");
    assert_eq!(agent.run(&["network", "ls", "-q", "--no-trunc"]).stdout, made.stdout);
    assert_eq!(agent.run(&["network", "list", "-q", "-f", "label=a=c"]).stdout, "");

    let format = "{{.Name}} {{.Driver}} {{(index .IPAM.Config 0).Gateway}} {{index .Labels \"a\"}}";
    let shown = agent.run(&["network", "inspect", "-f", format, &id[..6]]);
    assert_eq!(shown.stdout, "web netagent 10.1.0.1 b\n", "{shown:?}");

    let removed = agent.run(&["network", "rm", "web"]);
    removed.succeeded();
    assert_eq!(removed.stdout, "web\n");
    assert_eq!(agent.run(&["network", "ls", "-q"]).stdout, "");
}

#[test]
fn inspect_prints_what_docker_would() {
    let agent = Agent::start();
    agent.run(&["network", "create", "--subnet", "10.1.0.0/24", "--internal", "web"]).succeeded();
    let shown = agent.run(&["network", "inspect", "web"]);
    let networks: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(networks[0]["Name"], "web");
    assert_eq!(networks[0]["Internal"], true);
    assert_eq!(networks[0]["IPAM"]["Config"][0]["Subnet"], "10.1.0.0/24");
    assert!(shown.stdout.starts_with("[\n    {\n        \"Name\": \"web\",\n"), "{shown:?}");
}

#[test]
fn a_missing_network_is_an_empty_list_and_exit_3() {
    let agent = Agent::start();
    let shown = agent.run(&["network", "inspect", "nope"]);
    assert_eq!((shown.code, shown.stdout.as_str()), (3, "[]\n"), "{shown:?}");
    assert!(shown.stderr.starts_with("netagent: network \"nope\""), "{shown:?}");
    assert_eq!(agent.run(&["network", "rm", "nope"]).code, 3);
    agent.run(&["network", "rm", "-f", "nope"]).succeeded();
}

#[test]
fn conflicts_exit_4_and_wrong_requests_2() {
    let agent = Agent::start();
    agent.run(&["network", "create", "--subnet", "10.1.0.0/24", "web"]).succeeded();
    let taken = agent.run(&["network", "create", "web"]);
    assert_eq!(taken.code, 4, "{taken:?}");
    assert!(taken.stderr.contains("already exists"), "{taken:?}");
    let overlapping = agent.run(&["network", "create", "--subnet", "10.1.0.0/25", "other"]);
    assert_eq!(overlapping.code, 4, "{overlapping:?}");
    let misspelt = agent.run(&["network", "create", "-o", "com.docker.network.driver.mtuu=1", "x"]);
    assert_eq!(misspelt.code, 2, "{misspelt:?}");
    assert!(misspelt.stderr.contains("did you mean"), "{misspelt:?}");
    let lonely = agent.run(&["network", "create", "--gateway", "10.9.0.1", "x"]);
    assert_eq!(lonely.code, 2, "{lonely:?}");
}

#[test]
fn a_dry_run_prints_the_plan_exits_7_and_changes_nothing() {
    let agent = Agent::start();
    let line = ["network", "create", "--subnet", "10.1.0.0/24", "--dry-run", "web"];
    let planned = agent.run(&line);
    assert_eq!(planned.code, 7, "{planned:?}");
    assert!(planned.stdout.contains("+ link") && planned.stdout.contains("bridge"), "{planned:?}");
    assert_eq!(agent.run(&["network", "ls", "-q"]).stdout, "");
    agent.run(&["network", "create", "--subnet", "10.1.0.0/24", "web"]).succeeded();
    let planned = agent.run(&["network", "rm", "--dry-run", "web"]);
    assert_eq!(planned.code, 7, "{planned:?}");
    assert!(planned.stdout.contains("- link"), "{planned:?}");
    let gc = agent.run(&["gc", "--dry-run"]);
    assert_eq!((gc.code, gc.stdout.as_str()), (0, "Nothing would change.\n"), "{gc:?}");
}

#[test]
fn a_namespace_is_attached_published_and_detached() {
    let agent = Agent::start();
    agent.run(&["network", "create", "--subnet", "10.1.0.0/24", "web"]).succeeded();
    agent.host.add_namespace("/run/netns/lab");
    let line = ["network", "connect", "--name", "box", "--ip", "10.1.0.7", "-p", "8080:80", "web"];
    let made = agent.run(&[&line[..], &["/run/netns/lab"]].concat());
    made.succeeded();
    assert_eq!(made.stdout.trim().len(), 64, "{made:?}");

    let ports = agent.run(&["ports"]);
    let row = ports.stdout.lines().nth(1).unwrap_or_default().split_whitespace();
    let expected = ["0.0.0.0:8080", "tcp", "10.1.0.7:80", "box", "web"];
    assert_eq!(row.collect::<Vec<_>>(), expected, "{ports:?}");
    let shown = agent.run(&[
        "network",
        "inspect",
        "-f",
        "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
        "web",
    ]);
    assert_eq!(shown.stdout, "box 10.1.0.7/24\n", "{shown:?}");

    let busy = agent.run(&["network", "rm", "web"]);
    assert_eq!(busy.code, 4, "{busy:?}");
    agent.run(&["network", "disconnect", "web", "box"]).succeeded();
    assert_eq!(agent.run(&["ports", "--format", "{{.Host}}"]).stdout, "");
    agent.run(&["network", "rm", "web"]).succeeded();
}

#[test]
fn what_docker_made_is_left_to_docker() {
    let agent = Agent::start();
    agent.add_docker_network("theirs", "10.2.0.0/24");
    let refused = agent.run(&["network", "rm", "theirs"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("`docker network rm theirs`"), "{refused:?}");
    let refused = agent.run(&["network", "disconnect", "theirs", "c1"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("`docker network disconnect theirs c1`"), "{refused:?}");
    let pruned = agent.run(&["network", "prune", "-f"]);
    assert_eq!((pruned.code, pruned.stdout.as_str()), (0, ""), "{pruned:?}");
}

#[test]
fn prune_removes_unused_networks_that_pass() {
    let agent = Agent::start();
    for (name, label) in [("one", "tier=front"), ("two", "tier=back")] {
        agent.run(&["network", "create", "--label", label, name]).succeeded();
    }
    let planned = agent.run(&["network", "prune", "--dry-run", "--filter", "label=tier=back"]);
    assert_eq!(planned.code, 7, "{planned:?}");
    assert!(planned.stdout.contains("network \"two\""), "{planned:?}");
    assert!(!planned.stdout.contains("network \"one\""), "{planned:?}");
    let declined = agent.run(&["network", "prune"]);
    assert_eq!(declined.code, 2, "{declined:?}");
    let pruned = agent.run(&["network", "prune", "--force", "--filter", "label=tier=back"]);
    assert_eq!(pruned.stdout, "Deleted Networks:\ntwo\n\n", "{pruned:?}");
    assert_eq!(agent.run(&["network", "ls", "--format", "{{.Name}}"]).stdout, "one\n");
}

#[test]
fn status_is_a_sentence_or_json() {
    let agent = Agent::start();
    agent.run(&["network", "create", "web"]).succeeded();
    let status = agent.run(&["status", "--wait"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(status.stdout.starts_with("netagent is well: 1 network, no endpoints"), "{status:?}");
    let status = agent.run(&["-j", "status"]);
    let value: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(value["Networks"], 1, "{status:?}");
}

#[test]
fn unknown_requests_and_bad_bodies_are_refused_in_json() {
    let agent = Agent::start();
    for (method, path, body, status, text) in [
        ("GET", "/v2/networks", "", 404, "no such request"),
        ("PUT", "/v1/networks", "", 404, "no such request"),
        ("POST", "/v1/networks", "{", 400, "read the request's JSON"),
        ("POST", "/v1/networks", r#"{"Name":"a","Drvier":"b"}"#, 400, "unknown field"),
        ("POST", "/v1/networks?dryrun=1", r#"{"Name":"a"}"#, 400, "takes dry_run"),
        ("GET", "/v1/networks/%zz", "", 400, "not well escaped"),
        ("GET", "/v1/networks?filters=%7B%22x%22%3A%5B%5D%7D", "", 400, "no such filter"),
        ("GET", "/v1/version", "", 200, "\"ApiVersion\":\"v1\""),
    ] {
        let answer = agent.ask(method, path, body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
        assert!(answer.contains(text), "{method} {path}: {answer}");
    }
    let large = agent.ask("POST", "/v1/networks", &"x".repeat((8 << 20) + 1));
    assert!(large.starts_with("HTTP/1.1 400 ") && large.contains("larger than"), "{large}");
}

#[test]
fn without_a_daemon_every_verb_says_what_to_do() {
    for line in [&["network", "ls"][..], &["ports"], &["status"], &["gc"], &["network", "rm", "a"]]
    {
        let ran = netagent("/nowhere/netagent.sock", line);
        assert_eq!(ran.code, 6, "{ran:?}");
        assert!(
            ran.stderr.starts_with("netagent: cannot reach netagent at /nowhere/netagent.sock: "),
            "{ran:?}"
        );
        assert!(ran.stderr.contains("is it running? `systemctl start netagent`"), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn wrong_command_lines_exit_2_on_stderr() {
    for line in [&["netwrk"][..], &["network", "create"], &["ports", "--all"], &["help", "nope"]] {
        let ran = netagent("/nowhere", line);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        assert!(ran.stderr.starts_with("netagent: "), "{ran:?}");
    }
}

#[test]
fn help_completions_and_man_pages_need_no_daemon() {
    let help = netagent("/nowhere", &["--help"]);
    assert!(help.code == 0 && help.stdout.contains("Exit codes"), "{help:?}");
    let topic = netagent("/nowhere", &["help", "network", "create"]);
    assert!(topic.stdout.contains("Usage: netagent network create"), "{topic:?}");
    let driver = netagent("/nowhere", &["help", "driver", "bridge"]);
    assert!(driver.stdout.contains("com.docker.network.driver.mtu"), "{driver:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = netagent("/nowhere", &["completions", shell]);
        assert!(script.code == 0 && script.stdout.contains("inspect"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    netagent("/nowhere", &["man", directory.path().to_str().unwrap()]).succeeded();
    for page in ["netagent.1", "netagent-network-create.1", "netagent-daemon.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
}
