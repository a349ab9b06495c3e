//! Namespaces attached by path, without Docker.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::network::text;
use super::parse_publish;
use crate::driver::{self, ENDPOINT_IFNAME};
use crate::engine::{self, EndpointRequest};
use crate::model::{Attach, EndpointSpec, Error, NetworkSpec, Origin, Result};

/// A namespace to attach to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Path of the namespace, e.g. `/run/netns/lab`.
    pub netns: PathBuf,
    /// Exact interface name inside; the network's prefix and 0 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// IPv4 address; a free one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// IPv6 address; a free one where absent and the network has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<String>,
    /// MAC address; made from the endpoint's id where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether the default route goes by this endpoint; true where absent.
    #[serde(default = "yes")]
    pub default_route: bool,
    /// Ports in Docker's grammar, e.g. `8080:80/tcp`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Endpoint options by Docker's own keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// What lists call it; the short id where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An endpoint that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    /// Its id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Its name, or short id.
    pub name: String,
    /// The network's id.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// The interface's name in the namespace; empty where dockerd numbers it.
    pub interface: String,
    /// MAC address.
    pub mac_address: String,
    /// IPv4 address with prefix length; empty without one.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// IPv6 address with prefix length; empty without one.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
    /// Published ports as `HOST:PORTS->PORTS/PROTOCOL`.
    pub ports: Vec<String>,
}

const fn yes() -> bool {
    true
}

impl AttachRequest {
    /// What the engine is asked for.
    pub fn request(self, network: &NetworkSpec) -> Result<EndpointRequest> {
        let task =
            format!("attach \"{}\" to network \"{}\"", self.netns.display(), network.label());
        self.checked(network).map_err(|error| error.within(task))
    }

    fn checked(self, network: &NetworkSpec) -> Result<EndpointRequest> {
        if !self.netns.is_absolute() {
            return Err(Error::usage("netns", "the path must be absolute"));
        }
        let (mut v4, mut v6) = (None, None);
        for (key, text) in [("ip", &self.ip), ("ip6", &self.ip6)] {
            match (key, text.as_deref().map(|text| address(key, text, network)).transpose()?) {
                (_, None) => {}
                ("ip", Some(IpNet::V4(net))) => v4 = Some(net),
                ("ip6", Some(IpNet::V6(net))) => v6 = Some(net),
                (key, Some(net)) => {
                    return Err(Error::usage(
                        format!("{key} \"{}\"", net.addr()),
                        "the address is of the other family",
                    ));
                }
            }
        }
        let settings = driver::endpoint_settings(&self.driver_opts)?;
        let named = self
            .interface
            .map(|name| name.parse().map_err(|why: String| Error::usage("interface", why)));
        let interface = match (named.transpose()?, settings.interface) {
            (Some(one), Some(other)) if one != other => {
                return Err(Error::usage(
                    format!("interface \"{one}\""),
                    format!("endpoint option \"{ENDPOINT_IFNAME}\" says \"{other}\""),
                ));
            }
            (one, other) => one.or(other),
        };
        let mut ports = Vec::new();
        for publish in &self.publish {
            ports.extend(parse_publish(publish)?);
        }
        Ok(EndpointRequest {
            id: None,
            network: network.id,
            origin: Origin::Netagent,
            name: self.name.filter(|name| !name.is_empty()),
            v4,
            v6,
            mac: self
                .mac
                .map(|mac| mac.parse().map_err(|why: String| Error::usage("mac", why)))
                .transpose()?,
            sysctls: settings.sysctls,
            attach: engine::AttachRequest::Netns {
                path: self.netns,
                interface,
                default_route: self.default_route,
            },
            ports,
        })
    }
}

/// An address with the prefix length of the network's subnet that holds it.
fn address(key: &str, text: &str, network: &NetworkSpec) -> Result<IpNet> {
    let refuse = |why: String| Error::usage(format!("{key} \"{text}\""), why);
    let bare = text.split_once('/').map_or(text, |(address, _)| address);
    let address: IpAddr = bare.parse().map_err(|_| refuse("this is not an address".into()))?;
    let subnet = network.subnets.iter().find(|subnet| subnet.pool.contains(&address));
    let pool = subnet.map(|subnet| subnet.pool).ok_or_else(|| {
        let pools: Vec<String> =
            network.subnets.iter().map(|subnet| subnet.pool.to_string()).collect();
        refuse(format!("the network has {}", pools.join(" and ")))
    })?;
    IpNet::new(address, pool.prefix_len()).map_err(|error| refuse(error.to_string()))
}

impl From<&EndpointSpec> for Endpoint {
    fn from(spec: &EndpointSpec) -> Self {
        Self {
            endpoint_id: spec.id.to_string(),
            name: spec.label(),
            network_id: spec.network.to_string(),
            interface: match &spec.attach {
                Attach::AtJoin => {
                    spec.naming.asked.as_ref().map_or_else(String::new, ToString::to_string)
                }
                Attach::HandOff => String::new(),
                Attach::Netns { interface, .. } => interface.to_string(),
            },
            mac_address: spec.mac.to_string(),
            ipv4_address: text(spec.v4),
            ipv6_address: text(spec.v6),
            ports: spec.ports.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::handlers::tests::network;

    fn attach(json: &str) -> Result<EndpointRequest> {
        serde_json::from_str::<AttachRequest>(json).unwrap().request(&network("lab"))
    }

    #[test]
    fn an_address_gets_the_prefix_of_its_subnet() {
        let request = attach(
            r#"{"netns":"/run/netns/a","ip":"10.1.0.5","publish":["8080:80"],"name":"box"}"#,
        )
        .unwrap();
        assert_eq!(request.v4, Some("10.1.0.5/24".parse().unwrap()));
        assert_eq!(request.ports.len(), 1);
        let engine::AttachRequest::Netns { default_route, .. } = request.attach else {
            panic!("hand-off")
        };
        assert!(default_route);
    }

    #[test]
    fn an_address_of_another_subnet_names_the_networks_own() {
        let error = attach(r#"{"netns":"/run/netns/a","ip":"10.9.0.5"}"#).unwrap_err();
        assert!(error.to_string().contains("the network has 10.1.0.0/24"), "{error}");
    }

    #[test]
    fn options_are_dockers_and_name_the_interface_only_once() {
        let request = attach(
            r#"{"netns":"/a","driver_opts":{"com.docker.network.endpoint.ifname":"lan0",
                "com.docker.network.endpoint.sysctls":"net.ipv4.conf.IFNAME.log_martians=1"}}"#,
        )
        .unwrap();
        assert_eq!(request.sysctls["net.ipv4.conf.IFNAME.log_martians"], "1");
        let engine::AttachRequest::Netns { interface, .. } = request.attach else {
            panic!("hand-off")
        };
        assert_eq!(interface, Some("lan0".parse().unwrap()));
        let error = attach(
            r#"{"netns":"/a","interface":"wan0",
                "driver_opts":{"com.docker.network.endpoint.ifname":"lan0"}}"#,
        )
        .unwrap_err();
        assert!(error.to_string().contains("says \"lan0\""), "{error}");
    }

    #[test]
    fn a_relative_path_and_a_bad_name_are_refused() {
        for body in [
            r#"{"netns":"lab"}"#,
            r#"{"netns":"/a","interface":"a/b"}"#,
            r#"{"netns":"/a","mac":"x"}"#,
            r#"{"netns":"/a","publish":["x"]}"#,
            r#"{"netns":"/a","driver_opts":{"x":"y"}}"#,
        ] {
            assert!(attach(body).is_err(), "{body}");
        }
    }
}
