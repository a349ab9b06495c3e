//! Docker's networks, changed while their containers run.

use std::time::Duration;

use serde_json::Value;

use crate::support::flow::{Flow, listen};
use crate::support::{Findings, Lab, driver, until};

const MTU: &str = "com.docker.network.driver.mtu";
const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";

#[test]
fn a_docker_network_changes_while_its_container_runs() {
    if driver() != "netagent" {
        let required = std::env::var_os("NETAGENT_REQUIRE_ROOT").is_some();
        assert!(!required, "networks of the driver \"{}\" cannot change", driver());
        println!("SKIP a_docker_network_changes_while_its_container_runs: not netagent's driver");
        return;
    }
    let Some(lab) = Lab::with_dockerd() else { return };
    lab.docker_network("web", "172.30.1.0/24", &["--label", "tier=front"]);
    // Its name and labels come from Docker's API, behind the caller's back.
    until("the agent knows the network's name", Duration::from_secs(15), || {
        lab.try_netagent(&["network", "inspect", "web"]).out.contains("tier").then_some(())
    });
    let web = lab.container("web", &["--network", "web", "-p", "8080:7", "-p", "80"]);
    let address = lab.address("web", "web");
    let (neighbour, inside) = (lab.neighbour(), listen(&web, "0.0.0.0:7"));
    let outside = listen(&neighbour, "0.0.0.0:7000");
    let published = Flow::open(&neighbour, "10.99.0.1:8080", &inside);
    let out = Flow::open(&web, "10.99.0.2:7000", &outside);
    let own = Flow::open(&lab.host(), &format!("{address}:7"), &inside);
    let update = |option: &str, value: &str| {
        let option = format!("{option}={value}");
        lab.netagent(&["network", "update", "-o", &option, "web"]);
        [&published, &out, &own].iter().for_each(|flow| flow.goes_on(&option));
    };
    let mut findings = Findings::default();
    for mtu in ["1300", "9000", "1400"] {
        update(MTU, mtu);
        for (place, links) in [(&web, ": eth0"), (&lab.host(), ": nae-"), (&lab.host(), ": nab-")] {
            let shown = place.run(&["ip", "-o", "link"]);
            let line = shown.lines().find(|line| line.contains(links)).unwrap_or_default();
            findings.holds(&format!("mtu {mtu}: {line}"), line.contains(&format!("mtu {mtu} ")));
        }
    }
    // Without the container's name, which may be learned in between.
    let numbers = || {
        let of =
            |port: Value| ["HostIP", "HostPorts", "ContainerPorts"].map(|key| port[key].clone());
        lab.ports().into_iter().map(of).collect::<Vec<_>>()
    };
    let ports = numbers();
    assert_eq!(ports.len(), 2, "{ports:?}");
    update("com.docker.network.bridge.enable_icc", "false");
    update("com.docker.network.bridge.enable_ip_masquerade", "false");
    update("com.docker.network.bridge.enable_ip_masquerade", "");
    update(MODE, "nat-unprotected");
    update(BINDING, "10.99.0.1");
    update(BINDING, "");
    assert_eq!(numbers(), ports, "every port has the number it had");

    for (args, says) in [
        (["--label", "a=b"], "made by Docker, which keeps its labels"),
        (["--subnet", "172.30.9.0/24"], "made by Docker, which gives out addresses"),
        (["-o", "com.docker.network.bridge.name=br-web"], "cannot be changed"),
    ] {
        let ran = lab.try_netagent(&[&["network", "update"][..], &args, &["web"]].concat());
        findings.holds(&format!("{says}: {ran:?}"), !ran.ok && ran.err.contains(says));
    }

    // dockerd asks for the network again, with the options that it knows.
    lab.stop_agent();
    lab.start_agent();
    [&published, &out, &own].iter().for_each(|flow| flow.goes_on("a restart of the agent"));
    drop((published, out, own));
    lab.kill_dockerd();
    lab.start_dockerd();
    lab.docker(&["rm", "-f", "web"]);
    let again = lab.container("again", &["--network", "web"]);
    let link = again.run(&["ip", "-o", "link"]);
    findings.holds(&format!("a container has the new MTU:\n{link}"), link.contains("mtu 1400"));
    lab.docker(&["rm", "-f", "again"]);
    lab.docker(&["network", "rm", "web"]);
    lab.nothing_left();
}
