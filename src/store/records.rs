//! The forms that specs take on disk. Fields are only ever added with a new record version.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::model::{
    Attach, BridgeSpec, DriverSpec, EndpointPhase, EndpointSpec, Icc, Ipam, Masquerade, Mtu,
    NetworkPhase, NetworkSpec, Origin, PortRange, Protocol, Published, Reach, SandboxId,
    StoredEndpoint, StoredNetwork, Subnet,
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
spelling!(ProtocolRecord = Protocol { Tcp, Udp });

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
    bridge: crate::model::LinkName,
    mtu: u32,
    icc: IccRecord,
    masquerade: MasqueradeRecord,
    host_binding: Ipv4Addr,
    interface_prefix: String,
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
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum AttachRecord {
    HandOff,
    Netns {
        path: PathRecord,
        id: u64,
        #[serde(with = "text")]
        interface: crate::model::LinkName,
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
struct PublishedRecord {
    protocol: ProtocolRecord,
    host: Ipv4Addr,
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
            host_binding: spec.host_binding,
            interface_prefix: spec.interface_prefix.clone(),
        }
    }
}

impl TryFrom<BridgeRecord> for BridgeSpec {
    type Error = String;
    fn try_from(record: BridgeRecord) -> Result<Self, String> {
        Ok(Self {
            bridge: record.bridge,
            mtu: Mtu::new(record.mtu).ok_or_else(|| format!("{} is not an MTU", record.mtu))?,
            icc: record.icc.into(),
            masquerade: record.masquerade.into(),
            host_binding: record.host_binding,
            interface_prefix: record.interface_prefix,
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
        }
    }
}

impl TryFrom<EndpointRecord> for StoredEndpoint {
    type Error = String;
    fn try_from(record: EndpointRecord) -> Result<Self, String> {
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
                ports: record.ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            phase: record.phase.into(),
        })
    }
}

impl From<&Attach> for AttachRecord {
    fn from(attach: &Attach) -> Self {
        match attach {
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
