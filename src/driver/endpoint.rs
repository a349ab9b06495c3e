//! Options of one endpoint, by Docker's own keys; the same for every driver.

use std::collections::BTreeMap;

use super::options::OptionRow;
use crate::model::{Error, LinkName, Result, nearest};

/// A comma list of sysctls of the endpoint's interface.
pub const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// The interface's exact name.
pub const ENDPOINT_IFNAME: &str = "com.docker.network.endpoint.ifname";

/// Every option of an endpoint (source: moby, libnetwork/netlabel).
pub const ENDPOINT_OPTIONS: &[OptionRow] = &[
    OptionRow {
        key: ENDPOINT_SYSCTLS,
        values: "net.ipv4|ipv6|mpls.X.IFNAME.Y=VALUE, comma between",
        default: "none",
        meaning: "sysctls of the interface, written when it is made",
    },
    OptionRow {
        key: ENDPOINT_IFNAME,
        values: "1 to 15 bytes",
        default: "the network's prefix and a number",
        meaning: "name of the interface",
    },
];

/// What stands for the interface's name in a sysctl.
const IFNAME: &str = "IFNAME";
/// The same as `docker run --network name=…,driver-opt=…` writes it: the CLI turns all to small
/// letters.
const SMALL_IFNAME: &str = "ifname";

/// The settings of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointSettings {
    /// The interface's exact name, where one is asked for.
    pub interface: Option<LinkName>,
    /// Sysctls by name as the user gave them, with `IFNAME` for the interface.
    pub sysctls: BTreeMap<String, String>,
}

/// Turns a user's options into settings; an unknown key or a bad value is an error.
pub fn endpoint_settings(options: &BTreeMap<String, String>) -> Result<EndpointSettings> {
    let mut settings = EndpointSettings::default();
    for (key, value) in options {
        match key.as_str() {
            ENDPOINT_SYSCTLS => settings.sysctls = sysctls(value)?,
            ENDPOINT_IFNAME if value.is_empty() => {}
            ENDPOINT_IFNAME => {
                settings.interface = Some(value.parse().map_err(|why| refuse(key, why))?);
            }
            unknown => return Err(unknown_option(unknown)),
        }
    }
    Ok(settings)
}

fn refuse(key: &str, why: String) -> Error {
    Error::usage(format!("endpoint option \"{key}\""), why)
}

fn unknown_option(key: &str) -> Error {
    let keys = || ENDPOINT_OPTIONS.iter().map(|row| row.key);
    let advice = match nearest(key, keys()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("leave it out; what there is: {}", keys().collect::<Vec<_>>().join(", ")),
    };
    refuse(key, "netagent has no endpoint option of this name".into()).advise(advice)
}

fn sysctls(list: &str) -> Result<BTreeMap<String, String>> {
    let given = list.split(',').filter(|given| !given.is_empty());
    given
        .map(|given| match given.split_once('=') {
            Some((name, value)) if is_of_an_interface(name) && !value.is_empty() => {
                let name = name.replace(&format!(".{SMALL_IFNAME}."), &format!(".{IFNAME}."));
                Ok((name, value.to_owned()))
            }
            Some(_) | None => Err(unrecognised(given)),
        })
        .collect()
}

fn unrecognised(given: &str) -> Error {
    let shown: String = given.chars().take(80).flat_map(char::escape_default).collect();
    refuse(ENDPOINT_SYSCTLS, format!("unrecognised network interface sysctl \"{shown}\""))
        .advise("write them as net.ipv4.conf.IFNAME.log_martians=1, comma between")
}

/// Whether it is `net.FAMILY.KIND.IFNAME.NAME`, of parts that are safe in a path.
fn is_of_an_interface(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let [net, family, kind, interface, last] = parts.as_slice() else { return false };
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !part.is_empty() && part.bytes().all(allowed)
    };
    *net == "net"
        && matches!(*family, "ipv4" | "ipv6" | "mpls")
        && [IFNAME, SMALL_IFNAME].contains(interface)
        && plain(kind)
        && plain(last)
}

/// The path below /proc/sys of a checked sysctl's name, for this interface.
pub(super) fn sysctl_path(name: &str, interface: &LinkName) -> String {
    let part = |part| if part == IFNAME { interface.as_str() } else { part };
    name.split('.').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, value: &str) -> Result<EndpointSettings> {
        endpoint_settings(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn a_list_of_sysctls_is_taken_apart_and_aimed_at_the_interface() {
        let list = "net.ipv4.conf.ifname.log_martians=1,net.ipv6.neigh.IFNAME.app_solicit=2,net.mpls.conf.IFNAME.input=1";
        let settings = of(ENDPOINT_SYSCTLS, list).unwrap();
        assert_eq!(settings.sysctls.len(), 3);
        assert_eq!(settings.sysctls["net.ipv6.neigh.IFNAME.app_solicit"], "2");
        let interface = "lan.0".parse().unwrap();
        let name = "net.ipv4.conf.IFNAME.log_martians";
        assert_eq!(settings.sysctls[name], "1", "small letters are the same");
        let path = sysctl_path(name, &interface);
        assert_eq!(path, "net/ipv4/conf/lan.0/log_martians");
        assert_eq!(of(ENDPOINT_SYSCTLS, "").unwrap(), EndpointSettings::default());
    }

    #[test]
    fn what_is_no_sysctl_of_an_interface_is_refused_by_name() {
        for bad in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.log_martians=1",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.core.conf.IFNAME.x=1",
            "kernel.ipv4.conf.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.IFNAME.log_martians=",
            "net.ipv4.conf.IFNAME...=1",
            "net.ipv4.../.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "net.ipv4.conf.IFNAME.a.b=1",
            " net.ipv4.conf.IFNAME.log_martians=1",
        ] {
            let list = format!("net.ipv4.conf.IFNAME.proxy_arp=1,{bad}");
            let error = of(ENDPOINT_SYSCTLS, &list).unwrap_err().to_string();
            let expected = format!("unrecognised network interface sysctl \"{bad}\"");
            assert!(error.contains(&expected), "{error}");
        }
    }

    #[test]
    fn a_name_is_one_the_kernel_takes() {
        assert_eq!(of(ENDPOINT_IFNAME, "lan0").unwrap().interface, Some("lan0".parse().unwrap()));
        assert_eq!(of(ENDPOINT_IFNAME, "").unwrap().interface, None);
        let error = of(ENDPOINT_IFNAME, "sixteen-bytes-ab").unwrap_err().to_string();
        assert!(error.contains(ENDPOINT_IFNAME) && error.contains("16 bytes"), "{error}");
    }

    #[test]
    fn an_unknown_option_is_refused_and_a_misspelt_one_set_right() {
        let error = of("com.example.opt", "zzz").unwrap_err().to_string();
        assert!(error.contains("\"com.example.opt\""), "{error}");
        let error = of("com.docker.networks.endpoint.sysctls", "x").unwrap_err().to_string();
        assert!(error.contains(&format!("did you mean \"{ENDPOINT_SYSCTLS}\"?")), "{error}");
    }
}
