//! Raw calls as the four daemons sent them.

use super::*;
use crate::docker::wire::parse;

const NETWORK: &str = "5f3d7aea13165f3d7aea13165f3d7aea13165f3d7aea13165f3d7aea13165f3d";
const ENDPOINT: &str = "8f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f476ffd31b48f47";

fn network(text: &str) -> Result<NetworkRequest> {
    parse::<CreateNetwork>("CreateNetwork", text.replace("NET", NETWORK).as_bytes())?.try_into()
}

fn endpoint(text: &str) -> Result<EndpointRequest> {
    let text = text.replace("NET", NETWORK).replace("END", ENDPOINT);
    (&parse::<CreateEndpoint>("CreateEndpoint", text.as_bytes())?).try_into()
}

fn pool(text: &str) -> Result<PoolRequest> {
    (&parse::<RequestPool>("RequestPool", text.as_bytes())?).try_into()
}

/// Recorded (28): `docker network create --internal --ipv6 --subnet 172.30.0.0/24
/// --gateway 172.30.0.254 --aux-address router=172.30.0.130 --subnet fd00:30::/64 -o …`.
#[test]
fn a_network_with_everything_is_read_whole() {
    let request = network(
        r#"{"NetworkID":"NET","Options":{"com.docker.network.enable_ipv4":true,
        "com.docker.network.enable_ipv6":true,"com.docker.network.internal":true,
        "com.docker.network.generic":{"com.docker.network.driver.mtu":"1400","my.opt":"foo"}},
        "IPv4Data":[{"AddressSpace":"LocalDefault","AuxAddresses":{"router":"172.30.0.130/24"},
        "Gateway":"172.30.0.254/24","Pool":"172.30.0.0/24"}],
        "IPv6Data":[{"AddressSpace":"LocalDefault","Gateway":"fd00:30::1/64","Pool":"fd00:30::/64"}]}"#,
    )
    .unwrap();
    assert_eq!(request.id.unwrap().to_string(), NETWORK);
    assert_eq!((request.ipam, request.reach), (Ipam::Dockerd, Reach::Internal));
    assert_eq!(request.options["com.docker.network.driver.mtu"], "1400");
    assert_eq!(request.options["my.opt"], "foo", "refused by the driver, by name");
    let [v4, v6] = request.subnets.as_slice() else { panic!("{:?}", request.subnets) };
    assert_eq!(v4.pool, "172.30.0.0/24".parse().unwrap());
    assert_eq!(v4.gateway, Some("172.30.0.254".parse().unwrap()));
    assert_eq!(v4.aux["router"], "172.30.0.130".parse::<IpAddr>().unwrap());
    assert_eq!(v6.gateway, Some("fd00:30::1".parse().unwrap()));
}

/// Recorded (20.10): no `enable_ipv4`, no `internal`, `AuxAddresses` omitted.
#[test]
fn the_oldest_daemons_network_is_external_with_addresses_of_the_space_that_gave_them() {
    for (space, ipam) in [("LocalDefault", Ipam::Dockerd), ("netagent", Ipam::Netagent)] {
        let request = network(&format!(
            r#"{{"NetworkID":"NET","Options":{{"com.docker.network.enable_ipv6":false,
            "com.docker.network.generic":{{}}}},"IPv4Data":[{{"AddressSpace":"{space}",
            "Gateway":"172.18.0.1/16","Pool":"172.18.0.0/16"}}],"IPv6Data":[]}}"#
        ))
        .unwrap();
        assert_eq!((request.ipam, request.reach), (ipam, Reach::External));
        assert!(request.options.is_empty());
    }
}

#[test]
fn null_and_missing_collections_are_empty() {
    let request = network(
        r#"{"NetworkID":"NET","Options":null,"IPv4Data":[{"Pool":"10.0.0.0/24","AuxAddresses":null}],
        "IPv6Data":null}"#,
    )
    .unwrap();
    assert_eq!(request.subnets.len(), 1);
    assert_eq!(request.subnets[0].gateway, None);
}

#[test]
fn a_network_that_cannot_be_is_refused_with_the_reason() {
    for (text, why) in [
        // Recorded: `--ipam-driver null`.
        (
            r#"{"NetworkID":"NET","IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}]}"#,
            "null IPAM driver",
        ),
        (r#"{"NetworkID":"NET","IPv4Data":[],"IPv6Data":[]}"#, "no address pool"),
        (r#"{"NetworkID":"NET","IPv4Data":[{"Pool":"fd00::/64"}]}"#, "not a subnet of IPv4"),
        (r#"{"NetworkID":"NET","IPv4Data":[{"Pool":""}]}"#, "Pool \"\""),
        (
            r#"{"NetworkID":"NET","IPv4Data":[{"Pool":"10.0.0.0/24","Gateway":"x"}]}"#,
            "Gateway \"x\"",
        ),
        (r#"{"NetworkID":"short","IPv4Data":[]}"#, "NetworkID \"short\""),
        (r#"{"IPv4Data":[]}"#, "missing field `NetworkID`"),
        (
            r#"{"NetworkID":"NET","IPv4Data":[{"Pool":"10.0.0.0/24"}],
            "Options":{"com.docker.network.internal":"yes"}}"#,
            "neither true nor false",
        ),
        (
            r#"{"NetworkID":"NET","IPv4Data":[{"Pool":"10.0.0.0/24"}],
            "Options":{"com.docker.network.generic":{"a":[1]}}}"#,
            "option \"a\"",
        ),
        (r#"{"NetworkID":"NET""#, "cannot be read"),
        ("null", "not a JSON object"),
        ("", "dockerd retried after a dropped connection"),
    ] {
        let error = network(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let error = parse::<CreateNetwork>("CreateNetwork", b"{\"NetworkID\":\"\xff\"}").unwrap_err();
    assert!(error.to_string().contains("not UTF-8 after 14 bytes"), "{error}");
}

/// Recorded: the readable MAC address counts, not the base64 one among the options.
#[test]
fn an_endpoint_keeps_what_dockerd_chose() {
    let request = endpoint(
        r#"{"NetworkID":"NET","EndpointID":"END","Interface":{"Address":"172.18.0.2/16",
        "AddressIPv6":"fd00:30::99/64","MacAddress":"02:11:22:33:44:55"},
        "Options":{"com.docker.network.endpoint.macaddress":"AhEiM0RV",
        "com.docker.network.endpoint.dnsservers":["9.9.9.9"],
        "com.docker.network.endpoint.exposedports":[{"Proto":6,"Port":80}],
        "com.docker.network.portmap":[{"Proto":132,"IP":"","Port":80,"HostIP":"::1"}]}}"#,
    )
    .unwrap();
    assert_eq!(request.v4.unwrap().to_string(), "172.18.0.2/16");
    assert_eq!(request.v6.unwrap().to_string(), "fd00:30::99/64");
    assert_eq!(request.mac.unwrap().to_string(), "02:11:22:33:44:55");
    assert_eq!(request.attach, AttachRequest::HandOff);
    assert!(request.ports.is_empty(), "they come with ProgramExternalConnectivity");
}

#[test]
fn an_endpoint_without_interface_or_options_leaves_all_open() {
    for interface in ["", r#","Interface":null,"Options":null"#, r#","Interface":{}"#] {
        let request =
            endpoint(&format!(r#"{{"NetworkID":"NET","EndpointID":"END"{interface}}}"#)).unwrap();
        assert_eq!((request.v4, request.v6, request.mac), (None, None, None));
    }
}

#[test]
fn a_malformed_endpoint_is_refused_by_its_field() {
    for (text, field) in [
        (r#"{"NetworkID":"NET","EndpointID":"x"}"#, "EndpointID"),
        (r#"{"NetworkID":"NET"}"#, "EndpointID"),
        (r#"{"NetworkID":"NET","EndpointID":"END","Interface":{"Address":"1.2.3.4"}}"#, "Address"),
        (
            r#"{"NetworkID":"NET","EndpointID":"END","Interface":{"MacAddress":"01:00:5e:00:00:01"}}"#,
            "MacAddress",
        ),
    ] {
        let error = endpoint(text).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

/// Recorded but for the address space's name and the options.
#[test]
fn a_pool_is_asked_for_by_subnet_or_by_family() {
    let named = pool(
        r#"{"AddressSpace":"netagent","Pool":"10.60.0.0/16","SubPool":"10.60.5.0/24",
        "Options":{},"V6":false}"#,
    )
    .unwrap();
    assert_eq!(named.pool, Some("10.60.0.0/16".parse().unwrap()));
    assert_eq!(named.range, Some("10.60.5.0/24".parse().unwrap()));
    for (v6, family) in [("true", Family::V6), ("false", Family::V4)] {
        let any = pool(&format!(
            r#"{{"AddressSpace":"netagent","Pool":"","SubPool":"","Options":null,"V6":{v6}}}"#
        ))
        .unwrap();
        assert_eq!(any, PoolRequest { pool: None, range: None, family });
    }
}

#[test]
fn a_pool_that_cannot_be_given_is_refused_with_the_reason() {
    for (text, why) in [
        (r#"{"AddressSpace":"other","Pool":""}"#, "address space \"other\""),
        (r#"{"AddressSpace":"netagent","Pool":"","SubPool":"10.60.5.0/24"}"#, "needs the subnet"),
        (r#"{"AddressSpace":"netagent","Pool":"0.0.0.0/0"}"#, "every address"),
        (
            r#"{"AddressSpace":"netagent","Pool":"10.0.0.0/8","SubPool":"fd00::/64"}"#,
            "not a subnet of IPv4",
        ),
        (r#"{"AddressSpace":"netagent","Pool":"10.0.0.0"}"#, "Pool \"10.0.0.0\""),
        (r#"{"AddressSpace":"netagent","Pool":"","Options":{"ik":"iv"}}"#, "IPAM option \"ik\""),
    ] {
        let error = pool(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn the_gateways_address_is_told_from_an_endpoints() {
    let of = |address: &str, options: &str| {
        wanted_address(address, &serde_json::from_str(options).unwrap()).unwrap()
    };
    assert_eq!(
        of("10.60.0.9", r#"{"RequestAddressType":"com.docker.network.gateway"}"#),
        (Some("10.60.0.9".parse().unwrap()), Purpose::Gateway)
    );
    assert_eq!(of("", r#"{"com.docker.network.endpoint.name":"c1"}"#), (None, Purpose::Endpoint));
    let error = wanted_address("10.60.0.9/16", &Map::new()).unwrap_err();
    assert!(error.to_string().contains("Address \"10.60.0.9/16\""), "{error}");
}
