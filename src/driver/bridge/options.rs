//! The option table of the bridge driver, and how options become settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

use super::adopt::{adopt, named_bridge};
use super::objects::{bridge_name, is_on_bridge};
use crate::driver::GatewaySkips;
use crate::driver::options::{OptionRow, check_known};
use crate::model::{
    Announce, BridgeOwner, BridgeSpec, Error, Facts, ForeignBridge, GatewayAddress, GatewayMode,
    HostAddress, Icc, LinkName, Masquerade, Mtu, NetworkId, NetworkSpec, Reach, Result, Subnet,
    unfit_for_host,
};

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MODE_V4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const MODE_V6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INHIBIT_V4: &str = "com.docker.network.bridge.inhibit_ipv4";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const SOURCE_V4: &str = "com.docker.network.host_ipv4";
const SOURCE_V6: &str = "com.docker.network.host_ipv6";
const MTU_KEY: &str = "com.docker.network.driver.mtu";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const ANNOUNCE_COUNT: &str = "com.docker.network.advertise_addr_nmsgs";
const ANNOUNCE_INTERVAL: &str = "com.docker.network.advertise_addr_ms";

const fn row(
    key: &'static str,
    values: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> OptionRow {
    OptionRow { key, values, default, meaning }
}

/// Every option of Docker's bridge driver, by Docker's own key (source: moby,
/// libnetwork/drivers/bridge and libnetwork/netlabel).
pub const OPTIONS: &[OptionRow] = &[
    row(
        BRIDGE_NAME,
        "1 to 15 bytes",
        "nab- and the network's id",
        "name of the bridge on the host; one that exists is used and left in place",
    ),
    row(ENABLE_ICC, "true, false", "true", "containers of the network may talk to each other"),
    row(MASQUERADE, "true, false", "true", "packets that leave get the host's address"),
    row(
        HOST_BINDING,
        "an address of this host",
        "every address",
        "host address of published ports that name none",
    ),
    row(
        MODE_V4,
        "nat, nat-unprotected, routed, isolated",
        "nat",
        "how IPv4 gets in: by host ports; that and directly; at containers' own addresses",
    ),
    row(MODE_V6, "nat, nat-unprotected, routed, isolated", "nat", "the same for IPv6"),
    row(
        INHIBIT_V4,
        "true, false",
        "false",
        "the bridge has no IPv4 address: another host is the gateway, or none",
    ),
    row(
        TRUSTED,
        "links, colon between",
        "none",
        "links of this host that reach published ports at the containers' own addresses",
    ),
    row(SOURCE_V4, "an IPv4 address", "that of the link", "address that packets leave with"),
    row(SOURCE_V6, "an IPv6 address", "that of the link", "the same for IPv6"),
    row(
        MTU_KEY,
        "68 to 65535 bytes",
        "that of the default route's link",
        "largest packet on the bridge and in containers",
    ),
    row(INTERFACE_PREFIX, "1 to 12 bytes", "eth", "what interface names in containers begin with"),
    row(
        ANNOUNCE_COUNT,
        "0 to 3",
        "3",
        "0: a new container's addresses are not announced; else once, and by dockerd 28 this often",
    ),
    row(ANNOUNCE_INTERVAL, "100 to 2000 ms", "1000", "time between dockerd's announcements"),
    row(DEFAULT_BRIDGE, "false", "false", "marks docker0, which is Docker's own"),
];

/// The options of one network, with errors that name the key.
struct Options<'a>(&'a BTreeMap<String, String>);

impl Options<'_> {
    /// The value of a key; an empty one counts as none.
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn parsed<T: FromStr<Err: Display>>(&self, key: &str) -> Result<Option<T>> {
        let parse = |text: &str| text.parse().map_err(|why: T::Err| refuse(key, why.to_string()));
        self.text(key).map(parse).transpose()
    }

    /// An address; `what` it should be is said where it is not.
    fn address<T: FromStr>(&self, key: &str, what: &str) -> Result<Option<T>> {
        let parse =
            |text: &str| text.parse().map_err(|_| refuse(key, format!("\"{text}\" is not {what}")));
        self.text(key).map(parse).transpose()
    }

    /// A number within limits.
    fn number(&self, key: &str, limits: std::ops::RangeInclusive<u16>) -> Result<Option<u16>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        match text.parse() {
            Ok(number) if limits.contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => {
                let (low, high) = limits.into_inner();
                Err(refuse(key, format!("\"{text}\" is not a number from {low} to {high}")))
            }
        }
    }

    /// A boolean as Go's strconv.ParseBool takes it.
    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.text(key) {
            None => Ok(default),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(other) => {
                Err(refuse(key, format!("\"{other}\" is not a truth value: use true or false")))
            }
        }
    }
}

fn refuse(key: &str, why: String) -> Error {
    Error::usage(format!("option \"{key}\""), why)
}

/// Turns a user's options into settings; an unknown key or a bad value is an error.
pub fn settings(
    id: NetworkId,
    options: &BTreeMap<String, String>,
    subnets: &[Subnet],
    reach: Reach,
    facts: &Facts,
) -> Result<BridgeSpec> {
    for key in options.keys() {
        check_known(OPTIONS, "bridge", key)?;
    }
    let options = Options(options);
    if options.flag(DEFAULT_BRIDGE, false)? {
        return Err(refuse(DEFAULT_BRIDGE, "docker0 is Docker's own network".into())
            .advise("leave the option out"));
    }
    let prefix = options.text(INTERFACE_PREFIX).unwrap_or("eth");
    check_prefix(prefix).map_err(|why| refuse(INTERFACE_PREFIX, why))?;
    let mtu = match options.text(MTU_KEY) {
        Some("0") | None => None,
        Some(_) => options.parsed(MTU_KEY)?,
    };
    let mut spec = BridgeSpec {
        bridge: options.parsed(BRIDGE_NAME)?.unwrap_or_else(|| bridge_name(id)),
        owner: BridgeOwner::Netagent,
        mtu: mtu.unwrap_or(facts.default_mtu),
        icc: if options.flag(ENABLE_ICC, true)? { Icc::Allow } else { Icc::Deny },
        masquerade: match options.flag(MASQUERADE, true)? {
            true => Masquerade::On,
            false => Masquerade::Off,
        },
        source_v4: sendable(SOURCE_V4, options.address::<Ipv4Addr>(SOURCE_V4, "an IPv4 address")?)?,
        source_v6: sendable(SOURCE_V6, options.address::<Ipv6Addr>(SOURCE_V6, "an IPv6 address")?)?,
        mode_v4: mode(&options, MODE_V4, reach)?,
        mode_v6: mode(&options, MODE_V6, reach)?,
        gateway_v4: match options.flag(INHIBIT_V4, false)? {
            true => GatewayAddress::Inhibited,
            false => GatewayAddress::OnBridge,
        },
        kept: BTreeSet::new(),
        announce: announce(&options)?,
        trusted: trusted(&options)?,
        host_binding: host_binding(&options)?,
        interface_prefix: prefix.to_owned(),
    };
    if let Some(bridge) = named_bridge(&spec.bridge, facts)? {
        adopt(&mut spec, bridge, mtu, subnets)?;
    }
    check_mtu(spec.mtu, subnets)?;
    check_default_gateways(subnets, reach)?;
    Ok(spec)
}

/// Options that hold for as long as the network does, and why.
const FIXED: [(&str, &str); 3] = [
    (BRIDGE_NAME, "the bridge would be another link, without its containers"),
    (INTERFACE_PREFIX, "interfaces in containers that run have their names"),
    (DEFAULT_BRIDGE, "docker0 is Docker's own network"),
];

/// Whether two sets of options can be of one network: what cannot be changed is the same.
pub fn may_become(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    FIXED.iter().all(|(key, _)| Options(one).text(key) == Options(other).text(key))
}

/// The settings and options of a network after `changes` to its options, where an empty value takes
/// one back to its default. What is not changed stays as it was resolved when the network was made.
pub fn changed(
    network: &NetworkSpec,
    bridge: &BridgeSpec,
    changes: &BTreeMap<String, String>,
    subnets: &[Subnet],
    facts: &Facts,
) -> Result<(BridgeSpec, BTreeMap<String, String>)> {
    let mut options = network.options.clone();
    for (key, value) in changes {
        check_known(OPTIONS, "bridge", key)?;
        match value.is_empty() {
            true => options.remove(key),
            false => options.insert(key.clone(), value.clone()),
        };
    }
    let (old, new) = (Options(&network.options), Options(&options));
    for (key, why) in FIXED {
        if old.text(key) != new.text(key) {
            return Err(
                refuse(key, format!("it cannot be changed: {why}")).advise("make another network")
            );
        }
    }
    let kept_mtu = (old.text(MTU_KEY) == new.text(MTU_KEY)).then_some(bridge.mtu);
    let settings = settings(network.id, &options, subnets, network.reach, facts)?;
    let mtu = kept_mtu.unwrap_or(settings.mtu);
    check_mtu(mtu, subnets)?;
    // Of an operator's bridge, what we have put there is not the operator's now.
    let gateways = network.subnets.iter().filter_map(|subnet| subnet.gateway);
    let ours: BTreeSet<IpAddr> = gateways.filter(|it| is_on_bridge(bridge, *it)).collect();
    let kept = settings.kept.difference(&ours).chain(&bridge.kept).copied().collect();
    let (name, owner) = (bridge.bridge.clone(), bridge.owner);
    Ok((BridgeSpec { bridge: name, owner, mtu, kept, ..settings }, options))
}

/// An address that packets can leave the host with.
fn sendable<A: Copy + Into<IpAddr>>(key: &str, address: Option<A>) -> Result<Option<A>> {
    if let Some(ip) = address.map(Into::into) {
        let alone = ip.is_loopback() || ip.is_unspecified();
        let why = unfit_for_host(ip).or(alone.then_some("packets with it do not leave a host"));
        if let Some(why) = why {
            return Err(refuse(key, format!("{ip}: {why}")));
        }
    }
    Ok(address)
}

fn mode(options: &Options<'_>, key: &str, reach: Reach) -> Result<GatewayMode> {
    let mode = options.parsed(key)?.unwrap_or(GatewayMode::Nat);
    if mode == GatewayMode::Isolated && reach == Reach::External {
        return Err(refuse(
            key,
            "gateway mode \"isolated\" can only be used for an internal network".into(),
        )
        .advise("add --internal, or use another mode"));
    }
    Ok(mode)
}

/// More than once is for dockerd; that its settings are right is for us to say.
fn announce(options: &Options<'_>) -> Result<Announce> {
    options.number(ANNOUNCE_INTERVAL, 100..=2000)?;
    Ok(match options.number(ANNOUNCE_COUNT, 0..=3)? {
        Some(0) => Announce::Never,
        Some(_) | None => Announce::Once,
    })
}

/// Docker separates them by colons, which no link's name can have.
fn trusted(options: &Options<'_>) -> Result<BTreeSet<LinkName>> {
    let names = options.text(TRUSTED).unwrap_or_default().split(':');
    names
        .filter(|name| !name.is_empty())
        .map(|name| name.parse().map_err(|why| refuse(TRUSTED, why)))
        .collect()
}

/// 0.0.0.0 is what Docker's users write for every address, of IPv6 too.
fn host_binding(options: &Options<'_>) -> Result<HostAddress> {
    Ok(match options.address::<IpAddr>(HOST_BINDING, "an IP address")? {
        None => HostAddress::Any,
        Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => HostAddress::Any,
        Some(address) => match unfit_for_host(address) {
            Some(why) => return Err(refuse(HOST_BINDING, format!("{address}: {why}"))),
            None => HostAddress::At(address),
        },
    })
}

fn check_mtu(mtu: Mtu, subnets: &[Subnet]) -> Result<()> {
    if mtu < Mtu::IPV6 && subnets.iter().any(|subnet| matches!(subnet.pool, IpNet::V6(_))) {
        return Err(Error::usage(
            format!("mtu {mtu}"),
            format!("IPv6 needs at least {} bytes", Mtu::IPV6),
        )
        .advise("raise the MTU, or leave IPv6 out"));
    }
    Ok(())
}

/// Another host as the containers' gateway must be one of their neighbours, and an internal
/// network has no gateway.
fn check_default_gateways(subnets: &[Subnet], reach: Reach) -> Result<()> {
    let named = subnets.iter().flat_map(|subnet| &subnet.aux);
    for (name, address) in
        named.filter(|(name, _)| Subnet::DEFAULT_GATEWAYS.contains(&name.as_str()))
    {
        let doing = || format!("auxiliary address {name}={address}");
        if reach == Reach::Internal {
            return Err(Error::usage(doing(), "an internal network has no default gateway"));
        }
        if !subnets.iter().any(|subnet| subnet.pool.contains(address)) {
            return Err(Error::usage(doing(), "the default gateway must be part of the network"));
        }
    }
    Ok(())
}

/// The bridge of the operator's that a network of these options would use.
pub fn adopted<'a>(
    options: &BTreeMap<String, String>,
    facts: &'a Facts,
) -> Result<Option<&'a ForeignBridge>> {
    match Options(options).parsed(BRIDGE_NAME)? {
        Some(name) => named_bridge(&name, facts),
        None => Ok(None),
    }
}

/// The families of which a network of these options needs no gateway address.
pub fn gateway_skips(options: &BTreeMap<String, String>, reach: Reach) -> Result<GatewaySkips> {
    let options = Options(options);
    let isolated = |key| Ok::<_, Error>(mode(&options, key, reach)? == GatewayMode::Isolated);
    let inhibited = reach == Reach::Internal && options.flag(INHIBIT_V4, false)?;
    Ok(GatewaySkips { v4: inhibited || isolated(MODE_V4)?, v6: isolated(MODE_V6)? })
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
    format!("{prefix}0").parse::<LinkName>().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        crate::kernel::fake::Fake::ordinary()
    }

    fn with(key: &str, value: &str) -> Result<BridgeSpec> {
        let id = NetworkId::from_bytes([0x3f; 32]);
        settings(
            id,
            &BTreeMap::from([(key.to_owned(), value.to_owned())]),
            &[],
            Reach::External,
            &facts(),
        )
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
    fn what_only_an_internal_network_can_have_is_refused_on_others() {
        let error = with(MODE_V4, "isolated").unwrap_err();
        assert!(error.to_string().contains("can only be used for an internal network"), "{error}");
        assert_eq!(with(MODE_V6, "routed").unwrap().mode_v6, GatewayMode::Routed);
    }

    #[test]
    fn every_address_is_what_dockers_users_mean_by_zero() {
        assert_eq!(with(HOST_BINDING, "0.0.0.0").unwrap().host_binding, HostAddress::Any);
        assert_eq!(with(HOST_BINDING, "::").unwrap().host_binding, HostAddress::ANY_V6);
    }

    #[test]
    fn addresses_are_announced_unless_the_user_says_not_once() {
        for (key, value, announce) in [
            (ANNOUNCE_COUNT, "0", Announce::Never),
            (ANNOUNCE_COUNT, "1", Announce::Once),
            (ANNOUNCE_COUNT, "", Announce::Once),
            (ANNOUNCE_INTERVAL, "100", Announce::Once),
        ] {
            assert_eq!(with(key, value).unwrap().announce, announce, "{key}={value}");
        }
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for (key, value) in [
            (ENABLE_ICC, "yes"),
            (MASQUERADE, "2"),
            (HOST_BINDING, "localhost"),
            (MODE_V4, "bridge"),
            (MODE_V6, "NAT"),
            (INHIBIT_V4, "2"),
            (TRUSTED, "eth0:a/b"),
            (SOURCE_V4, "::1"),
            (SOURCE_V6, "10.0.0.1"),
            (SOURCE_V4, "127.0.0.1"),
            (SOURCE_V4, "0.0.0.0"),
            (SOURCE_V4, "224.1.1.1"),
            (SOURCE_V6, "::1"),
            (SOURCE_V6, "fe80::1"),
            (SOURCE_V6, "::ffff:1.2.3.4"),
            (HOST_BINDING, "255.255.255.255"),
            (HOST_BINDING, "ff02::1"),
            (ANNOUNCE_COUNT, "4"),
            (ANNOUNCE_INTERVAL, "99"),
            (DEFAULT_BRIDGE, "true"),
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
