//! The units: what they say must be what the agent does.

#[test]
fn units_name_the_sockets_as_the_agent_does() {
    let api = include_str!("../scripts/systemd/netagent.socket");
    assert!(api.contains("ListenStream=/run/netagent/netagent.sock\n"));
    assert!(api.contains("FileDescriptorName=netagent-api\n"));
    let docker = include_str!("../scripts/systemd/netagent-docker.socket");
    assert!(docker.contains("ListenStream=/run/docker/plugins/netagent.sock\n"));
    assert!(docker.contains("FileDescriptorName=netagent-docker\n"));
    for unit in [api, docker] {
        assert!(unit.contains("SocketMode=0600\n"));
    }
}

#[test]
fn the_service_may_announce_addresses() {
    let unit = include_str!("../scripts/systemd/netagent.service");
    let words = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    assert!(words("RestrictAddressFamilies=").split(' ').any(|family| family == "AF_PACKET"));
    assert!(words("CapabilityBoundingSet=").split(' ').any(|name| name == "CAP_NET_RAW"));
}

#[test]
fn the_service_may_name_the_owner_of_a_taken_port_and_is_always_started_again() {
    let unit = include_str!("../scripts/systemd/netagent.service");
    let bounds = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let bounds: Vec<&str> = bounds.unwrap().split(' ').collect();
    for capability in ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN", "CAP_NET_ADMIN"] {
        assert!(bounds.contains(&capability), "{capability} of {bounds:?}");
    }
    assert!(unit.contains("Restart=on-failure\n") && unit.contains("StartLimitIntervalSec=0\n"));
}
