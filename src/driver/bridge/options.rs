//! The option table of the bridge driver, and how options become settings.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::objects::bridge_name;
use crate::driver::options::{Availability, OptionRow, check_known};
use crate::model::{BridgeSpec, Error, Facts, Icc, Masquerade, Mtu, NetworkId, Result, Subnet};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU_KEY: &str = "com.docker.network.driver.mtu";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

const fn works(
    key: &'static str,
    values: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> OptionRow {
    OptionRow { key, values, default, meaning, availability: Availability::Works }
}

const fn not_yet(key: &'static str, meaning: &'static str) -> OptionRow {
    OptionRow { key, values: "", default: "", meaning, availability: Availability::NotYet }
}

/// Every option of Docker's bridge driver, by Docker's own key (source: moby,
/// libnetwork/drivers/bridge and libnetwork/netlabel).
pub const OPTIONS: &[OptionRow] = &[
    works(
        BRIDGE_NAME,
        "1 to 15 bytes",
        "nab- and the network's id",
        "name of the bridge on the host",
    ),
    works(ENABLE_ICC, "true, false", "true", "containers of the network may talk to each other"),
    works(MASQUERADE, "true, false", "true", "packets that leave get the host's address"),
    works(
        HOST_BINDING,
        "an IPv4 address",
        "0.0.0.0",
        "host address of published ports that name none",
    ),
    works(
        MTU_KEY,
        "68 to 65535 bytes",
        "that of the default route's link",
        "largest packet on the bridge and in containers",
    ),
    works(
        INTERFACE_PREFIX,
        "1 to 12 bytes",
        "eth",
        "what interface names in containers begin with",
    ),
    not_yet(
        "com.docker.network.bridge.gateway_mode_ipv4",
        "nat, routed, nat-unprotected or isolated",
    ),
    not_yet("com.docker.network.bridge.gateway_mode_ipv6", "the same for IPv6"),
    not_yet("com.docker.network.bridge.inhibit_ipv4", "no gateway address on the bridge"),
    not_yet(
        "com.docker.network.bridge.trusted_host_interfaces",
        "links that may reach containers directly",
    ),
    not_yet("com.docker.network.host_ipv4", "source address instead of masquerading"),
    not_yet("com.docker.network.host_ipv6", "the same for IPv6"),
    not_yet("com.docker.network.bridge.default_bridge", "marks docker0"),
    not_yet("com.docker.network.advertise_addr_nmsgs", "how many gratuitous ARPs dockerd sends"),
    not_yet("com.docker.network.advertise_addr_ms", "how far apart"),
];

/// Turns a user's options into settings; an unknown key or a bad value is an error.
pub fn settings(
    id: NetworkId,
    options: &BTreeMap<String, String>,
    subnets: &[Subnet],
    facts: &Facts,
) -> Result<BridgeSpec> {
    for key in options.keys() {
        check_known(OPTIONS, "bridge", key)?;
    }
    let get = |key: &str| options.get(key).map(String::as_str);
    let refuse = |key: &str, why: String| Error::usage(format!("option \"{key}\""), why);
    let bridge = match get(BRIDGE_NAME) {
        None | Some("") => bridge_name(id),
        Some(name) => name.parse().map_err(|why| refuse(BRIDGE_NAME, why))?,
    };
    let mtu = match get(MTU_KEY) {
        None | Some("" | "0") => facts.default_mtu,
        Some(text) => text.parse().map_err(|why| refuse(MTU_KEY, why))?,
    };
    if mtu < Mtu::IPV6 && subnets.iter().any(|subnet| matches!(subnet.pool, IpNet::V6(_))) {
        return Err(Error::usage(
            format!("mtu {mtu}"),
            format!("IPv6 needs at least {} bytes", Mtu::IPV6),
        )
        .advise("raise the MTU, or leave IPv6 out"));
    }
    let host_binding = match get(HOST_BINDING) {
        None | Some("") => Ipv4Addr::UNSPECIFIED,
        Some(text) => text
            .parse()
            .map_err(|_| refuse(HOST_BINDING, format!("\"{text}\" is not an IPv4 address")))?,
    };
    let prefix = get(INTERFACE_PREFIX).filter(|prefix| !prefix.is_empty()).unwrap_or("eth");
    check_prefix(prefix).map_err(|why| refuse(INTERFACE_PREFIX, why))?;
    Ok(BridgeSpec {
        bridge,
        mtu,
        icc: if flag(options, ENABLE_ICC)? { Icc::Allow } else { Icc::Deny },
        masquerade: if flag(options, MASQUERADE)? { Masquerade::On } else { Masquerade::Off },
        host_binding,
        interface_prefix: prefix.to_owned(),
    })
}

/// A prefix leaves room for a number of three digits, and must not itself end in one: `eth1` and
/// `0` would be read as `eth` and `10`.
fn check_prefix(prefix: &str) -> std::result::Result<(), String> {
    if prefix.len() > 12 {
        return Err(format!(
            "prefix \"{prefix}\" is longer than 12 bytes: a number must still fit"
        ));
    }
    if prefix.ends_with(|last: char| last.is_ascii_digit()) {
        return Err(format!("prefix \"{prefix}\" ends in a digit, so names would be ambiguous"));
    }
    format!("{prefix}0").parse::<crate::model::LinkName>().map(drop)
}

/// A boolean as Go's strconv.ParseBool takes it; true when absent.
fn flag(options: &BTreeMap<String, String>, key: &str) -> Result<bool> {
    match options.get(key).map(String::as_str) {
        None | Some("" | "1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(other) => Err(Error::usage(
            format!("option \"{key}\""),
            format!("\"{other}\" is not a truth value: use true or false"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        crate::kernel::fake::Fake::ordinary()
    }

    fn with(key: &str, value: &str) -> Result<BridgeSpec> {
        let id = NetworkId::from_bytes([0x3f; 32]);
        settings(id, &BTreeMap::from([(key.to_owned(), value.to_owned())]), &[], &facts())
    }

    #[test]
    fn mtu_is_the_hosts_unless_the_user_says_otherwise() {
        assert_eq!(with(MTU_KEY, "").unwrap().mtu, facts().default_mtu);
        assert_eq!(with(MTU_KEY, "1400").unwrap().mtu, Mtu::new(1400).unwrap());
        assert!(with(MTU_KEY, "12").is_err());
    }

    #[test]
    fn a_misspelt_option_names_the_right_one() {
        let error = with("com.docker.network.driver.mtuu", "1400").unwrap_err();
        assert!(
            error.to_string().contains("did you mean \"com.docker.network.driver.mtu\"?"),
            "{error}"
        );
    }

    #[test]
    fn an_option_of_dockers_that_is_not_there_yet_says_so() {
        let error = with("com.docker.network.bridge.gateway_mode_ipv4", "routed").unwrap_err();
        assert!(error.to_string().contains("does not have it yet"), "{error}");
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for (key, value) in [
            (ENABLE_ICC, "yes"),
            (MASQUERADE, "2"),
            (HOST_BINDING, "::1"),
            (BRIDGE_NAME, "sixteen-bytes-ab"),
            (INTERFACE_PREFIX, "averyveryverylong"),
            (INTERFACE_PREFIX, "eth1"),
            (INTERFACE_PREFIX, "a/b"),
        ] {
            let error = with(key, value).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
