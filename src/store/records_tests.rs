use super::*;
use crate::model::{Attach, HostAddress};

/// As the first agent wrote them.
const NETWORK: &str = r#"{"id":"ID","name":"web","origin":"docker","driver":{"bridge":{"bridge":"nab-3f3f3f3f3f3",
    "mtu":1450,"icc":"deny","masquerade":"on","host_binding":"HOST","interface_prefix":"eth"}},"ipam":"dockerd",
    "subnets":[{"pool":"172.18.0.0/16","gateway":"172.18.0.1","range":null,"aux":{}}],"reach":"external",
    "labels":{},"options":{},"created_ms":7,"phase":"ready"}"#;
const ENDPOINT: &str = r#"{"id":"ID","network":"ID","origin":"docker","name":null,"v4":"172.18.0.2/16","v6":null,
    "mac":"02:42:ac:12:00:02","attach":"hand_off","ports":[{"protocol":"tcp","host":"0.0.0.0","first":8080,"last":8081,
    "container_first":80},{"protocol":"udp","host":"127.0.0.1","first":53,"last":53,"container_first":53}],"phase":"joined"}"#;

fn id() -> String {
    "3f".repeat(32)
}

fn network(host: &str) -> BridgeSpec {
    let text = NETWORK.replace("ID", &id()).replace("HOST", host);
    let record: NetworkRecord = serde_json::from_str(&text).unwrap();
    let DriverSpec::Bridge(bridge) = StoredNetwork::try_from(record).unwrap().spec.driver;
    bridge
}

#[test]
fn a_network_of_the_first_version_has_what_was_said_and_defaults_for_the_rest() {
    let plain = BridgeSpec::new("nab-3f3f3f3f3f3".parse().unwrap(), Mtu::new(1450).unwrap());
    let plain = BridgeSpec { icc: Icc::Deny, ..plain };
    assert_eq!(network("0.0.0.0"), plain);
    let bound = network("127.0.0.1").host_binding;
    assert_eq!(bound, HostAddress::At("127.0.0.1".parse().unwrap()));
}

#[test]
fn what_an_endpoint_of_the_first_version_had_published_is_what_it_asks_for() {
    let record: EndpointRecord = serde_json::from_str(&ENDPOINT.replace("ID", &id())).unwrap();
    let spec = StoredEndpoint::try_from(record).unwrap().spec;
    assert_eq!(spec.attach, Attach::HandOff);
    assert!(spec.publishes && spec.sysctls.is_empty());
    let shown: Vec<String> = spec.ports.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["0.0.0.0:8080-8081->80-81/tcp", "127.0.0.1:53->53/udp"]);
    let asked = |request: &PortRequest| {
        let ports = request.host_ports.map_or(0, PortRange::first);
        (request.host.map(|host| host.to_string()), ports, request.container)
    };
    let asked: Vec<_> = spec.asked.iter().map(asked).collect();
    let loopback = Some("127.0.0.1".to_owned());
    assert_eq!(asked, [(None, 8080, 80), (None, 8081, 81), (loopback, 53, 53)]);
}

#[test]
fn an_endpoint_of_the_first_version_that_published_nothing_asks_for_nothing() {
    let text = ENDPOINT.replace("ID", &id());
    let (before, _) = text.split_once("\"ports\":[").unwrap();
    let text = format!("{before}\"ports\":[],\"phase\":\"ready\"}}");
    let record: EndpointRecord = serde_json::from_str(&text).unwrap();
    let spec = StoredEndpoint::try_from(record).unwrap().spec;
    assert!(!spec.publishes && spec.asked.is_empty() && spec.ports.is_empty());
}
