//! The forms that specs take on disk. Fields are only ever added, with a new record version and with
//! what stands for them in older records.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::model::{
    Announce, Attach, BridgeOwner, BridgeSpec, DriverSpec, EndpointPhase, EndpointSpec,
    GatewayAddress, GatewayMode, HostAddress, Icc, Ipam, LinkName, Masquerade, Mtu, Naming,
    NetworkPhase, NetworkSpec, Origin, PortRange, PortRequest, Protocol, Published, Reach,
    SandboxId, StoredEndpoint, StoredNetwork, Subnet,
};

/// Values that are written as their own text form.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }

    /// The same for values that may be missing.
    pub(super) mod option {
        use super::{Deserialize, Deserializer, Display, Error, FromStr, Serializer};

        pub(in super::super) fn serialize<T: Display, S: Serializer>(
            value: &Option<T>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => to.collect_str(value),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<T>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
        }
    }
}

/// Enums of the model in a fixed spelling.
macro_rules! spelling {
    ($name:ident = $model:ident { $($variant:ident),+ }) => {
        #[derive(Serialize, Deserialize, Clone, Copy)]
        #[serde(rename_all = "snake_case")]
        pub(super) enum $name { $($variant),+ }

        impl From<$model> for $name {
            fn from(value: $model) -> Self {
                match value { $($model::$variant => Self::$variant),+ }
            }
        }

        impl From<$name> for $model {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),+ }
            }
        }
    };
}

spelling!(NetworkPhaseRecord = NetworkPhase { Creating, Ready, Deleting });
spelling!(EndpointPhaseRecord = EndpointPhase { Creating, Ready, Joined, Leaving, Deleting });
spelling!(OriginRecord = Origin { Docker, Netagent });
spelling!(IpamRecord = Ipam { Netagent, Dockerd });
spelling!(ReachRecord = Reach { External, Internal });
spelling!(IccRecord = Icc { Allow, Deny });
spelling!(MasqueradeRecord = Masquerade { On, Off });
spelling!(ProtocolRecord = Protocol { Tcp, Udp, Sctp });
spelling!(BridgeOwnerRecord = BridgeOwner { Netagent, Operator });
spelling!(GatewayModeRecord = GatewayMode { Nat, NatUnprotected, Routed, Isolated });
spelling!(AnnounceRecord = Announce { Once, Never });
spelling!(GatewayAddressRecord = GatewayAddress { OnBridge, Inhibited });

/// A network; its id is the key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkRecord {
    id: String,
    #[serde(with = "text::option")]
    name: Option<crate::model::NetworkName>,
    origin: OriginRecord,
    driver: DriverRecord,
    ipam: IpamRecord,
    subnets: Vec<SubnetRecord>,
    reach: ReachRecord,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
    created_ms: u64,
    phase: NetworkPhaseRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DriverRecord {
    Bridge(BridgeRecord),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BridgeRecord {
    #[serde(with = "text")]
    bridge: LinkName,
    mtu: u32,
    icc: IccRecord,
    masquerade: MasqueradeRecord,
    interface_prefix: String,
    /// Of version 1, where 0.0.0.0 was every address there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_binding: Option<Ipv4Addr>,
    /// Since version 2.
    #[serde(default)]
    more: Option<MoreBridgeRecord>,
}

/// What version 2 added to a bridge.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoreBridgeRecord {
    owner: BridgeOwnerRecord,
    source_v4: Option<Ipv4Addr>,
    source_v6: Option<Ipv6Addr>,
    mode_v4: GatewayModeRecord,
    mode_v6: GatewayModeRecord,
    gateway_v4: GatewayAddressRecord,
    kept: BTreeSet<IpAddr>,
    announce: AnnounceRecord,
    trusted: BTreeSet<String>,
    #[serde(with = "text")]
    host_binding: HostAddress,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetRecord {
    #[serde(with = "text")]
    pool: IpNet,
    gateway: Option<IpAddr>,
    #[serde(with = "text::option")]
    range: Option<IpNet>,
    aux: BTreeMap<String, IpAddr>,
}

/// An endpoint; its id is the key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointRecord {
    id: String,
    network: String,
    origin: OriginRecord,
    name: Option<String>,
    #[serde(with = "text::option")]
    v4: Option<Ipv4Net>,
    #[serde(with = "text::option")]
    v6: Option<Ipv6Net>,
    #[serde(with = "text")]
    mac: crate::model::MacAddr,
    attach: AttachRecord,
    ports: Vec<PublishedRecord>,
    phase: EndpointPhaseRecord,
    /// Since version 2.
    #[serde(default)]
    more: Option<MoreEndpointRecord>,
}

/// What version 2 added to an endpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoreEndpointRecord {
    sysctls: BTreeMap<String, String>,
    #[serde(with = "text::option")]
    interface: Option<LinkName>,
    told_prefix: Option<String>,
    asked: Vec<RequestRecord>,
    publishes: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum AttachRecord {
    AtJoin,
    HandOff,
    Netns {
        path: PathRecord,
        id: u64,
        #[serde(with = "text")]
        interface: LinkName,
        default_route: bool,
    },
}

/// A path need not be UTF-8; JSON must.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathRecord {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestRecord {
    protocol: ProtocolRecord,
    host: Option<IpAddr>,
    container: u16,
    host_ports: Option<(u16, u16)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedRecord {
    protocol: ProtocolRecord,
    #[serde(with = "text")]
    host: HostAddress,
    first: u16,
    last: u16,
    container_first: u16,
}

impl From<&StoredNetwork> for NetworkRecord {
    fn from(stored: &StoredNetwork) -> Self {
        let spec = &stored.spec;
        Self {
            id: spec.id.to_string(),
            name: spec.name.clone(),
            origin: spec.origin.into(),
            driver: match &spec.driver {
                DriverSpec::Bridge(bridge) => DriverRecord::Bridge(bridge.into()),
            },
            ipam: spec.ipam.into(),
            subnets: spec.subnets.iter().map(Into::into).collect(),
            reach: spec.reach.into(),
            labels: spec.labels.clone(),
            options: spec.options.clone(),
            created_ms: spec.created_ms,
            phase: stored.phase.into(),
        }
    }
}

impl TryFrom<NetworkRecord> for StoredNetwork {
    type Error = String;
    fn try_from(record: NetworkRecord) -> Result<Self, String> {
        Ok(Self {
            spec: NetworkSpec {
                id: record.id.parse().map_err(shown)?,
                name: record.name,
                origin: record.origin.into(),
                driver: match record.driver {
                    DriverRecord::Bridge(bridge) => DriverSpec::Bridge(bridge.try_into()?),
                },
                ipam: record.ipam.into(),
                subnets: record.subnets.into_iter().map(Into::into).collect(),
                reach: record.reach.into(),
                labels: record.labels,
                options: record.options,
                created_ms: record.created_ms,
            },
            phase: record.phase.into(),
        })
    }
}

impl From<&BridgeSpec> for BridgeRecord {
    fn from(spec: &BridgeSpec) -> Self {
        Self {
            bridge: spec.bridge.clone(),
            mtu: spec.mtu.bytes(),
            icc: spec.icc.into(),
            masquerade: spec.masquerade.into(),
            interface_prefix: spec.interface_prefix.clone(),
            host_binding: None,
            more: Some(MoreBridgeRecord {
                owner: spec.owner.into(),
                source_v4: spec.source_v4,
                source_v6: spec.source_v6,
                mode_v4: spec.mode_v4.into(),
                mode_v6: spec.mode_v6.into(),
                gateway_v4: spec.gateway_v4.into(),
                kept: spec.kept.clone(),
                announce: spec.announce.into(),
                trusted: spec.trusted.iter().map(ToString::to_string).collect(),
                host_binding: spec.host_binding,
            }),
        }
    }
}

impl TryFrom<BridgeRecord> for BridgeSpec {
    type Error = String;
    fn try_from(record: BridgeRecord) -> Result<Self, String> {
        let mtu = Mtu::new(record.mtu).ok_or_else(|| format!("{} is not an MTU", record.mtu))?;
        let spec = Self {
            icc: record.icc.into(),
            masquerade: record.masquerade.into(),
            interface_prefix: record.interface_prefix,
            host_binding: match record.host_binding {
                Some(address) if !address.is_unspecified() => HostAddress::At(address.into()),
                Some(_) | None => HostAddress::Any,
            },
            ..Self::new(record.bridge, mtu)
        };
        let Some(more) = record.more else { return Ok(spec) };
        Ok(Self {
            owner: more.owner.into(),
            source_v4: more.source_v4,
            source_v6: more.source_v6,
            mode_v4: more.mode_v4.into(),
            mode_v6: more.mode_v6.into(),
            gateway_v4: more.gateway_v4.into(),
            kept: more.kept,
            announce: more.announce.into(),
            trusted: more.trusted.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
            host_binding: more.host_binding,
            ..spec
        })
    }
}

impl From<&Subnet> for SubnetRecord {
    fn from(subnet: &Subnet) -> Self {
        let Subnet { pool, gateway, range, aux } = subnet.clone();
        Self { pool, gateway, range, aux }
    }
}

impl From<SubnetRecord> for Subnet {
    fn from(record: SubnetRecord) -> Self {
        let SubnetRecord { pool, gateway, range, aux } = record;
        Self { pool, gateway, range, aux }
    }
}

impl From<&StoredEndpoint> for EndpointRecord {
    fn from(stored: &StoredEndpoint) -> Self {
        let spec = &stored.spec;
        Self {
            id: spec.id.to_string(),
            network: spec.network.to_string(),
            origin: spec.origin.into(),
            name: spec.name.clone(),
            v4: spec.v4,
            v6: spec.v6,
            mac: spec.mac,
            attach: (&spec.attach).into(),
            ports: spec.ports.iter().map(Into::into).collect(),
            phase: stored.phase.into(),
            more: Some(MoreEndpointRecord {
                sysctls: spec.sysctls.clone(),
                interface: spec.naming.asked.clone(),
                told_prefix: spec.naming.told.clone(),
                asked: spec.asked.iter().map(Into::into).collect(),
                publishes: spec.publishes,
            }),
        }
    }
}

impl TryFrom<EndpointRecord> for StoredEndpoint {
    type Error = String;
    fn try_from(record: EndpointRecord) -> Result<Self, String> {
        let ports: Vec<Published> =
            record.ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let more = match record.more {
            Some(more) => more,
            // What was published is what was asked for.
            None => MoreEndpointRecord {
                sysctls: BTreeMap::new(),
                interface: None,
                told_prefix: None,
                asked: ports.iter().flat_map(requests).map(|request| (&request).into()).collect(),
                publishes: !ports.is_empty(),
            },
        };
        Ok(Self {
            spec: EndpointSpec {
                id: record.id.parse().map_err(shown)?,
                network: record.network.parse().map_err(shown)?,
                origin: record.origin.into(),
                name: record.name,
                v4: record.v4,
                v6: record.v6,
                mac: record.mac,
                attach: record.attach.into(),
                naming: Naming { asked: more.interface, told: more.told_prefix },
                sysctls: more.sysctls,
                asked: more.asked.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
                publishes: more.publishes,
                ports,
            },
            phase: record.phase.into(),
        })
    }
}

impl From<&Attach> for AttachRecord {
    fn from(attach: &Attach) -> Self {
        match attach {
            Attach::AtJoin => Self::AtJoin,
            Attach::HandOff => Self::HandOff,
            Attach::Netns { path, id, interface, default_route } => Self::Netns {
                path: path.as_path().into(),
                id: id.0,
                interface: interface.clone(),
                default_route: *default_route,
            },
        }
    }
}

impl From<AttachRecord> for Attach {
    fn from(record: AttachRecord) -> Self {
        match record {
            AttachRecord::AtJoin => Self::AtJoin,
            AttachRecord::HandOff => Self::HandOff,
            AttachRecord::Netns { path, id, interface, default_route } => {
                Self::Netns { path: path.into(), id: SandboxId(id), interface, default_route }
            }
        }
    }
}

impl From<&Path> for PathRecord {
    fn from(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }
}

impl From<PathRecord> for PathBuf {
    fn from(record: PathRecord) -> Self {
        match record {
            PathRecord::Text(text) => Self::from(text),
            PathRecord::Bytes(bytes) => Self::from(OsString::from_vec(bytes)),
        }
    }
}

/// The requests that a block of published ports meets.
fn requests(published: &Published) -> impl Iterator<Item = PortRequest> + use<> {
    let Published { protocol, host, host_ports, .. } = *published;
    let host = match host {
        HostAddress::At(address) if !address.is_unspecified() => Some(address),
        HostAddress::Any | HostAddress::At(_) => None,
    };
    let pairs = host_ports.iter().zip(published.container_ports().iter());
    pairs.map(move |(port, container)| PortRequest {
        protocol,
        host,
        container,
        host_ports: PortRange::single(port),
    })
}

impl From<&PortRequest> for RequestRecord {
    fn from(port: &PortRequest) -> Self {
        Self {
            protocol: port.protocol.into(),
            host: port.host,
            container: port.container,
            host_ports: port.host_ports.map(|ports| (ports.first(), ports.last())),
        }
    }
}

impl TryFrom<RequestRecord> for PortRequest {
    type Error = String;
    fn try_from(record: RequestRecord) -> Result<Self, String> {
        let RequestRecord { protocol, host, container, host_ports } = record;
        let range = |(first, last)| {
            PortRange::new(first, last)
                .ok_or_else(|| format!("{first} to {last} is no range of ports"))
        };
        let host_ports = host_ports.map(range).transpose()?;
        Ok(Self { protocol: protocol.into(), host, container, host_ports })
    }
}

impl From<&Published> for PublishedRecord {
    fn from(port: &Published) -> Self {
        Self {
            protocol: port.protocol.into(),
            host: port.host,
            first: port.host_ports.first(),
            last: port.host_ports.last(),
            container_first: port.container_first,
        }
    }
}

impl TryFrom<PublishedRecord> for Published {
    type Error = String;
    fn try_from(record: PublishedRecord) -> Result<Self, String> {
        let PublishedRecord { protocol, host, first, last, container_first } = record;
        let host_ports = PortRange::new(first, last)
            .ok_or_else(|| format!("{first} to {last} is no range of ports"))?;
        Ok(Self { protocol: protocol.into(), host, host_ports, container_first })
    }
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
