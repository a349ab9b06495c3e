//! Networks to make, key-compatible with the body of Docker's `POST /networks/create`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::SubnetConfig;
use crate::engine::{NetworkRequest, SubnetRequest};
use crate::model::{self, Error, Origin, Reach, Result};

/// A network to make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateNetwork {
    /// The name.
    pub name: String,
    /// The driver; `bridge` where empty.
    #[serde(default)]
    pub driver: String,
    /// `local`, or empty.
    #[serde(default)]
    pub scope: String,
    /// Whether an IPv4 subnet is chosen when none is named; true where absent.
    #[serde(rename = "EnableIPv4", default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv4: Option<bool>,
    /// Whether an IPv6 subnet is chosen when none is named; false where absent.
    #[serde(rename = "EnableIPv6", default, skip_serializing_if = "Option::is_none")]
    pub enable_ipv6: Option<bool>,
    /// Address management.
    #[serde(rename = "IPAM", default)]
    pub ipam: CreateIpam,
    /// Whether nothing beyond the host can be reached.
    #[serde(default)]
    pub internal: bool,
    /// Taken for Docker's sake; has no effect on a local network.
    #[serde(default)]
    pub attachable: bool,
    /// Driver options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Address management of a network to make.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CreateIpam {
    /// The subnets.
    #[serde(default)]
    pub config: Vec<SubnetConfig>,
}

impl CreateNetwork {
    /// What the engine is asked for, as of `created_ms` (milliseconds since 1970 UTC).
    pub fn request(self, created_ms: u64) -> Result<NetworkRequest> {
        let task = format!("create network \"{}\"", self.name);
        self.checked(created_ms).map_err(|error| error.within(task))
    }

    fn checked(self, created_ms: u64) -> Result<NetworkRequest> {
        let name = self.name.parse().map_err(|why: String| Error::usage("", why))?;
        if !matches!(self.scope.as_str(), "" | "local") {
            return Err(Error::usage(
                format!("scope \"{}\"", self.scope),
                "networks end at this host: use local",
            ));
        }
        let subnets = self
            .ipam
            .config
            .into_iter()
            .map(SubnetRequest::try_from)
            .collect::<Result<Vec<SubnetRequest>>>()?;
        let named_v6 = subnets.iter().any(|subnet| matches!(subnet.pool, IpNet::V6(_)));
        let named_v4 = subnets.iter().any(|subnet| matches!(subnet.pool, IpNet::V4(_)));
        let v4 = self.enable_ipv4.unwrap_or(true);
        let v6 = self.enable_ipv6.unwrap_or(named_v6);
        match (v4, v6) {
            (false, false) => Err(Error::usage("", "IPv4 or IPv6 must be enabled")),
            (false, true) if named_v4 => {
                Err(Error::usage("", "an IPv4 subnet is named while IPv4 is off"))
            }
            (true, false) if named_v6 => {
                Err(Error::usage("", "an IPv6 subnet is named while IPv6 is off"))
            }
            (true | false, _) => Ok(NetworkRequest {
                id: None,
                name: Some(name),
                origin: Origin::Netagent,
                driver: if self.driver.is_empty() { "bridge".into() } else { self.driver },
                ipam: model::Ipam::Netagent,
                subnets,
                v6,
                v4,
                reach: if self.internal { Reach::Internal } else { Reach::External },
                labels: self.labels,
                options: self.options,
                created_ms,
            }),
        }
    }
}

impl TryFrom<SubnetConfig> for SubnetRequest {
    type Error = Error;

    fn try_from(config: SubnetConfig) -> Result<Self> {
        let pool: IpNet = net("subnet", &config.subnet)?;
        let range = Some(config.ip_range.as_str()).filter(|range| !range.is_empty()).map(|range| {
            net("ip-range", range).and_then(|range| {
                if pool.contains(&range) {
                    return Ok(range);
                }
                Err(outside("ip-range", range, pool))
            })
        });
        let within = |what: &str, text: &str| {
            let address: IpAddr = text.parse().map_err(|_| {
                Error::usage(format!("{what} \"{text}\""), "this is not an address")
            })?;
            if pool.contains(&address) { Ok(address) } else { Err(outside(what, address, pool)) }
        };
        Ok(Self {
            pool,
            gateway: Some(config.gateway.as_str())
                .filter(|gateway| !gateway.is_empty())
                .map(|gateway| within("gateway", gateway))
                .transpose()?,
            range: range.transpose()?,
            aux: config
                .auxiliary_addresses
                .into_iter()
                .map(|(name, address)| {
                    within(&format!("auxiliary address {name}"), &address)
                        .map(|address| (name, address))
                })
                .collect::<Result<_>>()?,
        })
    }
}

fn outside(what: &str, value: impl Display, pool: IpNet) -> Error {
    Error::usage(format!("{what} \"{value}\""), format!("it is not in its subnet {pool}"))
}

fn net(what: &str, text: &str) -> Result<IpNet> {
    let net: IpNet = text.parse().map_err(|_| {
        Error::usage(format!("{what} \"{text}\""), "this is not a subnet like 10.1.0.0/24")
    })?;
    if net.trunc() != net {
        let why = format!("it has host bits set: it should be {}", net.trunc());
        return Err(Error::usage(format!("{what} \"{text}\""), why));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(json: &str) -> Result<NetworkRequest> {
        serde_json::from_str::<CreateNetwork>(json).unwrap().request(1)
    }

    #[test]
    fn a_body_of_dockers_becomes_a_request() {
        let request = create(
            r#"{"Name":"web","Driver":"bridge","Internal":true,"IPAM":{"Config":[
                {"Subnet":"10.1.0.0/24","IPRange":"10.1.0.128/25","Gateway":"10.1.0.1",
                 "AuxiliaryAddresses":{"nas":"10.1.0.9"}}]},
                "Options":{"com.docker.network.driver.mtu":"1400"},"Labels":{"a":"b"}}"#,
        )
        .unwrap();
        let [subnet] = request.subnets.as_slice() else { panic!("{request:?}") };
        assert_eq!(subnet.range, Some("10.1.0.128/25".parse().unwrap()));
        assert_eq!(subnet.gateway, Some("10.1.0.1".parse().unwrap()));
        assert_eq!(subnet.aux.get("nas"), Some(&"10.1.0.9".parse().unwrap()));
        assert_eq!((request.v4, request.v6, request.reach), (true, false, Reach::Internal));
    }

    #[test]
    fn a_named_v6_subnet_turns_ipv6_on() {
        assert!(create(r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"fd00::/64"}]}}"#).unwrap().v6);
    }

    #[test]
    fn nonsense_is_refused_by_what_is_wrong_with_it() {
        for (body, expected) in [
            (r#"{"Name":"a b"}"#, "not a network name"),
            (r#"{"Name":"a","EnableIPv4":false}"#, "IPv4 or IPv6 must be enabled"),
            (r#"{"Name":"a","Scope":"swarm"}"#, "use local"),
            (r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.1/24"}]}}"#, "be 10.1.0.0/24"),
            (r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"x"}]}}"#, "not a subnet"),
            (
                r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.0/24","Gateway":"10.2.0.1"}]}}"#,
                "gateway \"10.2.0.1\": it is not in its subnet 10.1.0.0/24",
            ),
            (
                r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.1.0.0/24","IPRange":"10.0.0.0/8"}]}}"#,
                "not in its subnet",
            ),
        ] {
            let error = create(body).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<CreateNetwork>(r#"{"Name":"a","Internl":true}"#).is_err());
    }
}
