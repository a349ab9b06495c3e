//! What is in which table under which key.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Change;
use super::file::{Contents, Table, Write, move_aside};
use super::records::{EndpointRecord, NetworkRecord};
use super::seal::{Broken, seal, unseal};
use crate::ipam::{AddressBook, Lease, Pool, PoolId, Purpose};
use crate::model::{Error, Result, SavedSysctl, StoredEndpoint, StoredNetwork};

const NETWORKS: Table = "networks";
const ENDPOINTS: Table = "endpoints";
const POOLS: Table = "pools";
const CURSORS: Table = "cursors";
const LEASES: Table = "leases";
const SYSCTLS: Table = "sysctls";
const COUNTERS: Table = "counters";

/// The tables of what survives a reboot.
pub(super) const STATE: [Table; 1] = [NETWORKS];
/// The tables of what dies with the boot.
pub(super) const RUNTIME: [Table; 6] = [ENDPOINTS, POOLS, CURSORS, LEASES, SYSCTLS, COUNTERS];

const GENERATION: &[u8] = b"generation";

/// A pool without its leases, so that an attach writes one lease and not all of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolRecord {
    range: Option<String>,
    references: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseRecord {
    purpose: PurposeRecord,
    generation: u64,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum PurposeRecord {
    Gateway,
    Auxiliary,
    Endpoint,
}

/// Which of the two databases a change belongs to, and what it writes there.
pub(super) enum Encoded {
    State(Vec<Write>),
    Runtime(Vec<Write>),
}

/// The writes that a change is.
pub(super) fn encode(change: &Change) -> Result<Encoded> {
    Ok(match change {
        Change::PutNetwork(network) => {
            let key = network.spec.id.as_bytes().to_vec();
            Encoded::State(vec![put(NETWORKS, key, &NetworkRecord::from(&**network))?])
        }
        Change::DropNetwork(id) => {
            Encoded::State(vec![Write::Remove(NETWORKS, id.as_bytes().to_vec())])
        }
        Change::PutEndpoint(endpoint) => {
            let key = endpoint.spec.id.as_bytes().to_vec();
            Encoded::Runtime(vec![put(ENDPOINTS, key, &EndpointRecord::from(&**endpoint))?])
        }
        Change::DropEndpoint(id) => {
            Encoded::Runtime(vec![Write::Remove(ENDPOINTS, id.as_bytes().to_vec())])
        }
        Change::PutPool(pool) => Encoded::Runtime(put_pool(pool)?),
        Change::DropPool(id) => Encoded::Runtime(vec![
            Write::Remove(POOLS, pool_key(id.net())),
            Write::Remove(CURSORS, pool_key(id.net())),
            Write::Replace(LEASES, lease_prefix(id.net()), BTreeMap::new()),
        ]),
        Change::PutLease { pool, address, lease, cursor } => Encoded::Runtime(vec![
            put(LEASES, lease_key(pool.net(), *address), &LeaseRecord::from(*lease))?,
            cursor_write(pool.net(), *cursor)?,
        ]),
        Change::DropLease { pool, address } => {
            Encoded::Runtime(vec![Write::Remove(LEASES, lease_key(pool.net(), *address))])
        }
        Change::Generation(generation) => {
            Encoded::Runtime(vec![put(COUNTERS, GENERATION.to_vec(), generation)?])
        }
        Change::SaveSysctl(saved) => {
            let key = saved.key.clone().into_bytes();
            Encoded::Runtime(vec![put(SYSCTLS, key, &saved.before)?])
        }
        Change::DropSysctl(key) => {
            Encoded::Runtime(vec![Write::Remove(SYSCTLS, key.clone().into_bytes())])
        }
    })
}

fn put(table: Table, key: Vec<u8>, record: &impl Serialize) -> Result<Write> {
    let sealed = seal(&key, record).map_err(|error| {
        Error::unavailable(format!("write a record of {table}"), error.to_string())
    })?;
    Ok(Write::Put(table, key, sealed))
}

fn put_pool(pool: &Pool) -> Result<Vec<Write>> {
    let head = PoolRecord {
        range: pool.range.map(|range| range.to_string()),
        references: pool.references,
    };
    let mut leases = BTreeMap::new();
    for (address, lease) in &pool.leases {
        let key = lease_key(pool.net, *address);
        if let Write::Put(_, key, sealed) = put(LEASES, key, &LeaseRecord::from(*lease))? {
            leases.insert(key, sealed);
        }
    }
    Ok(vec![
        put(POOLS, pool_key(pool.net), &head)?,
        cursor_write(pool.net, pool.cursor)?,
        Write::Replace(LEASES, lease_prefix(pool.net), leases),
    ])
}

fn cursor_write(net: IpNet, cursor: Option<IpAddr>) -> Result<Write> {
    match cursor {
        Some(cursor) => put(CURSORS, pool_key(net), &cursor),
        None => Ok(Write::Remove(CURSORS, pool_key(net))),
    }
}

/// Keys are text where the model has one: `10.0.0.0/24`, and `10.0.0.0/24 10.0.0.5` for a lease.
fn pool_key(net: IpNet) -> Vec<u8> {
    net.to_string().into_bytes()
}

fn lease_prefix(net: IpNet) -> Vec<u8> {
    format!("{net} ").into_bytes()
}

fn lease_key(net: IpNet, address: IpAddr) -> Vec<u8> {
    format!("{net} {address}").into_bytes()
}

/// Reads the records of one database.
pub(super) struct Reader<'a> {
    /// The file, for messages.
    pub(super) path: &'a Path,
    /// What it holds.
    pub(super) contents: &'a Contents,
}

impl Reader<'_> {
    /// The networks.
    pub(super) fn networks(&self) -> Result<Vec<StoredNetwork>> {
        self.each(NETWORKS, |key, record: NetworkRecord| {
            let stored = StoredNetwork::try_from(record)?;
            same_key(key, stored.spec.id.as_bytes())?;
            Ok(stored)
        })
    }

    /// The endpoints.
    pub(super) fn endpoints(&self) -> Result<Vec<StoredEndpoint>> {
        self.each(ENDPOINTS, |key, record: EndpointRecord| {
            let stored = StoredEndpoint::try_from(record)?;
            same_key(key, stored.spec.id.as_bytes())?;
            Ok(stored)
        })
    }

    /// Pools with their leases.
    pub(super) fn book(&self) -> Result<AddressBook> {
        let mut pools: BTreeMap<IpNet, Pool> = self
            .each(POOLS, |key, record: PoolRecord| {
                let net: IpNet = parse(key)?;
                let range = record.range.map(|range| parse(range.as_bytes())).transpose()?;
                let references = record.references;
                Ok((net, Pool { net, range, references, leases: BTreeMap::new(), cursor: None }))
            })?
            .into_iter()
            .collect();
        for (net, cursor) in self.each(CURSORS, |key, at: IpAddr| Ok((parse(key)?, at)))? {
            if let Some(pool) = pools.get_mut(&net) {
                pool.cursor = Some(cursor);
            }
        }
        for (net, address, lease) in self.each(LEASES, lease)? {
            if let Some(pool) = pools.get_mut(&net) {
                pool.leases.insert(address, lease);
            }
        }
        let generation = self.each(COUNTERS, |_, generation: u64| Ok(generation))?;
        let generation = generation.into_iter().next().unwrap_or(0);
        Ok(AddressBook::restore(pools.into_values(), generation))
    }

    /// Sysctls as they were before us.
    pub(super) fn sysctls(&self) -> Result<Vec<SavedSysctl>> {
        self.each(SYSCTLS, |key, before: String| Ok(SavedSysctl { key: parse(key)?, before }))
    }

    /// Each record of a table; the first that cannot be read ends it.
    fn each<R: DeserializeOwned, T>(
        &self,
        table: Table,
        read: impl Fn(&[u8], R) -> Result<T, String>,
    ) -> Result<Vec<T>> {
        let entries = self.contents.get(table).into_iter().flatten();
        entries
            .map(|(key, bytes)| {
                unseal(key, bytes)
                    .and_then(|record| read(key, record).map_err(Broken::Damaged))
                    .map_err(|broken| self.refusal(table, key, broken))
            })
            .collect()
    }

    fn refusal(&self, table: Table, key: &[u8], broken: Broken) -> Error {
        let path = self.path.display();
        let doing = format!("read record \"{}\" of {table} in \"{path}\"", shown(table, key));
        match broken {
            Broken::Newer(version) => Error::unavailable(
                doing,
                format!("its version {version} is newer than this netagent understands"),
            )
            .advise("start the newer netagent again; the file has not been touched"),
            Broken::Damaged(why) => Error::unavailable(doing, why).advise(move_aside(self.path)),
        }
    }
}

fn lease(key: &[u8], record: LeaseRecord) -> Result<(IpNet, IpAddr, Lease), String> {
    let text = std::str::from_utf8(key).map_err(|error| error.to_string())?;
    let (net, address) = text.split_once(' ').ok_or("its key is no lease")?;
    let (net, address) = (parse(net.as_bytes())?, parse(address.as_bytes())?);
    Ok((net, address, record.into()))
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(key: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(key).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn same_key(key: &[u8], id: &[u8; 32]) -> Result<(), String> {
    if key == id { Ok(()) } else { Err("it lies under the key of another record".into()) }
}

/// A key as a reader knows it: ids as 12 digits, the rest as the text it is.
fn shown(table: Table, key: &[u8]) -> String {
    match table {
        NETWORKS | ENDPOINTS => key.iter().take(6).map(|byte| format!("{byte:02x}")).collect(),
        _ => String::from_utf8_lossy(key).into_owned(),
    }
}

impl From<Lease> for LeaseRecord {
    fn from(lease: Lease) -> Self {
        let purpose = match lease.purpose {
            Purpose::Gateway => PurposeRecord::Gateway,
            Purpose::Auxiliary => PurposeRecord::Auxiliary,
            Purpose::Endpoint => PurposeRecord::Endpoint,
        };
        Self { purpose, generation: lease.generation }
    }
}

impl From<LeaseRecord> for Lease {
    fn from(record: LeaseRecord) -> Self {
        let purpose = match record.purpose {
            PurposeRecord::Gateway => Purpose::Gateway,
            PurposeRecord::Auxiliary => Purpose::Auxiliary,
            PurposeRecord::Endpoint => Purpose::Endpoint,
        };
        Self { purpose, generation: record.generation }
    }
}

/// The change that makes the store agree with `pool` about one address: what an attach writes,
/// independent of how many leases there are.
pub(super) fn lease_change(pool: &Pool, address: IpAddr) -> Change {
    let id: PoolId = pool.id();
    match pool.leases.get(&address) {
        Some(lease) => Change::PutLease { pool: id, address, lease: *lease, cursor: pool.cursor },
        None => Change::DropLease { pool: id, address },
    }
}
