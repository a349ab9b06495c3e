//! What is stored comes back, or is refused: over restarts, damage, full disks and kill -9.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod damage;
mod disk;
mod process;
mod specs;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netagent::ipam::{AddressBook, Lease, Pool, Purpose};
use netagent::model::{
    Announce, Attach, BridgeOwner, BridgeSpec, DriverSpec, EndpointId, EndpointPhase, EndpointSpec,
    Error, ErrorClass, GatewayAddress, GatewayMode, HostAddress, Icc, Ipam, MacAddr, Masquerade,
    Mtu, Naming, NetworkId, NetworkPhase, NetworkSpec, Origin, PortRange, PortRequest, Protocol,
    Published, Reach, SavedSysctl, StoredEndpoint, StoredNetwork, Subnet,
};
use netagent::store::{Change, Loaded, Store};
use tempfile::TempDir;

/// A child that is being made holds copies of our locks until it runs its own program: while one
/// is, nobody opens a store.
static MAKING_A_CHILD: RwLock<()> = RwLock::new(());

struct Dirs {
    _root: TempDir,
    state: PathBuf,
    runtime: PathBuf,
}

impl Dirs {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (state, runtime) = (root.path().join("state"), root.path().join("runtime"));
        Self { _root: root, state, runtime }
    }

    fn open(&self) -> Result<(Store, Loaded), Error> {
        let _no_child_is_made = MAKING_A_CHILD.read().unwrap_or_else(PoisonError::into_inner);
        Store::open(&self.state, &self.runtime)
    }

    fn state_file(&self) -> PathBuf {
        self.state.join("state.redb")
    }

    fn runtime_file(&self) -> PathBuf {
        self.runtime.join("state.redb")
    }
}

fn lan(id: u8) -> StoredNetwork {
    StoredNetwork {
        spec: NetworkSpec {
            id: NetworkId::from_bytes([id; 32]),
            name: Some(format!("lan{id}").parse().unwrap()),
            origin: Origin::Docker,
            driver: DriverSpec::Bridge(BridgeSpec::new(
                format!("nab-{id}").parse().unwrap(),
                Mtu::ETHERNET,
            )),
            ipam: Ipam::Netagent,
            subnets: vec![Subnet {
                pool: format!("10.0.{id}.0/24").parse().unwrap(),
                gateway: Some(format!("10.0.{id}.1").parse().unwrap()),
                range: None,
                aux: BTreeMap::new(),
            }],
            reach: Reach::External,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created_ms: 1,
        },
        phase: NetworkPhase::Ready,
    }
}

fn endpoint(number: u32) -> StoredEndpoint {
    let mut id = [7; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    StoredEndpoint {
        spec: EndpointSpec {
            id: EndpointId::from_bytes(id),
            network: NetworkId::from_bytes([1; 32]),
            origin: Origin::Docker,
            name: None,
            v4: None,
            v6: None,
            mac: MacAddr::from_id(&id),
            attach: Attach::HandOff,
            sysctls: Default::default(),
            naming: Default::default(),
            asked: Vec::new(),
            publishes: false,
            ports: Vec::new(),
        },
        phase: EndpointPhase::Joined,
    }
}

fn pool(number: u8, leases: u8) -> Pool {
    Pool {
        net: format!("10.0.{number}.0/24").parse().unwrap(),
        range: None,
        references: 1,
        leases: (1..=leases)
            .map(|host| {
                let lease = Lease { purpose: Purpose::Endpoint, generation: 3 };
                (IpAddr::V4(Ipv4Addr::new(10, 0, number, host)), lease)
            })
            .collect(),
        cursor: Some(IpAddr::V4(Ipv4Addr::new(10, 0, number, leases))),
    }
}

fn some_of_everything() -> Vec<Change> {
    vec![
        Change::PutNetwork(Box::new(lan(1))),
        Change::PutNetwork(Box::new(lan(2))),
        Change::PutEndpoint(Box::new(endpoint(1))),
        Change::PutEndpoint(Box::new(endpoint(2))),
        Change::PutPool(Box::new(pool(1, 5))),
        Change::Generation(3),
        Change::SaveSysctl(SavedSysctl { key: "net/ipv4/ip_forward".into(), before: "0".into() }),
    ]
}

/// What the store is to hold after these changes.
#[derive(Default)]
struct Model {
    loaded: Loaded,
    pools: BTreeMap<IpNet, Pool>,
    generation: u64,
    sysctls: BTreeMap<String, String>,
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::PutNetwork(network) => self.loaded.intent.put_network(*network),
            Change::DropNetwork(id) => drop(self.loaded.intent.remove_network(id)),
            Change::PutEndpoint(endpoint) => self.loaded.intent.put_endpoint(*endpoint),
            Change::DropEndpoint(id) => drop(self.loaded.intent.remove_endpoint(id)),
            Change::PutPool(pool) => drop(self.pools.insert(pool.net, *pool)),
            Change::DropPool(id) => drop(self.pools.remove(&id.net())),
            Change::PutLease { pool, address, lease, cursor } => {
                let pool = self.pools.get_mut(&pool.net()).unwrap();
                pool.leases.insert(address, lease);
                pool.cursor = cursor;
            }
            Change::DropLease { pool, address } => {
                self.pools.get_mut(&pool.net()).unwrap().leases.remove(&address);
            }
            Change::Generation(generation) => self.generation = generation,
            Change::SaveSysctl(saved) => drop(self.sysctls.insert(saved.key, saved.before)),
            Change::DropSysctl(key) => drop(self.sysctls.remove(&key)),
        }
    }

    fn loaded(&self) -> Loaded {
        let saved = |(key, before): (&String, &String)| SavedSysctl {
            key: key.clone(),
            before: before.clone(),
        };
        Loaded {
            intent: self.loaded.intent.clone(),
            book: AddressBook::restore(self.pools.values().cloned(), self.generation),
            sysctls: self.sysctls.iter().map(saved).collect(),
        }
    }
}

fn after(changes: &[Change]) -> Loaded {
    let mut model = Model::default();
    changes.iter().for_each(|change| model.apply(change));
    model.loaded()
}

#[test]
fn a_new_store_is_empty_and_what_is_written_comes_back() {
    let dirs = Dirs::new();
    let (mut store, loaded) = dirs.open().unwrap();
    assert_eq!(loaded, Loaded::default());
    store.commit(&some_of_everything()).unwrap();
    store.commit(&[]).unwrap();
    drop(store);
    let (mut store, loaded) = dirs.open().unwrap();
    assert_eq!(loaded, after(&some_of_everything()));
    let gone = [
        Change::DropNetwork(lan(1).spec.id),
        Change::DropEndpoint(endpoint(1).spec.id),
        Change::DropPool(pool(1, 0).id()),
        Change::DropSysctl("net/ipv4/ip_forward".into()),
        Change::DropSysctl("never/saved".into()),
    ];
    store.commit(&gone).unwrap();
    drop(store);
    let all: Vec<Change> = some_of_everything().into_iter().chain(gone).collect();
    assert_eq!(dirs.open().unwrap().1, after(&all));
}

#[test]
fn one_lease_is_written_without_the_others() {
    let dirs = Dirs::new();
    let mut book = AddressBook::restore([pool(1, 5), pool(10, 2)], 3);
    let (mut store, _) = dirs.open().unwrap();
    let pools: Vec<Change> =
        book.pools().map(|pool| Change::PutPool(Box::new(pool.clone()))).collect();
    store.commit(&pools).unwrap();
    store.commit(&[Change::Generation(3)]).unwrap();
    let id = pool(1, 0).id();
    let given = book.request_address(&id, None, Purpose::Endpoint).unwrap().addr();
    store.commit(&[Change::lease(book.pool(&id).unwrap(), given)]).unwrap();
    let released = "10.0.1.2".parse().unwrap();
    book.release_address(&id, released);
    store.commit(&[Change::lease(book.pool(&id).unwrap(), released)]).unwrap();
    drop(store);
    let (mut store, loaded) = dirs.open().unwrap();
    assert_eq!(loaded.book, book);
    // A pool put again drops the leases it no longer has, and no other pool's.
    store.commit(&[Change::PutPool(Box::new(pool(1, 1)))]).unwrap();
    drop(store);
    let left = dirs.open().unwrap().1.book;
    assert_eq!(left, AddressBook::restore([pool(1, 1), pool(10, 2)], 3));
}

#[track_caller]
fn check_refused(result: Result<(Store, Loaded), Error>, class: ErrorClass, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.class, class, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_store_in_use_or_in_a_bad_place_is_refused() {
    let dirs = Dirs::new();
    let held = dirs.open().unwrap();
    check_refused(dirs.open(), ErrorClass::Conflict, &["another netagent uses it"]);
    drop(held);
    drop(dirs.open().unwrap());
    let same = Store::open(&dirs.state, &dirs.state);
    check_refused(same, ErrorClass::Usage, &["are the same"]);
    std::fs::set_permissions(&dirs.state, PermissionsExt::from_mode(0o777)).unwrap();
    check_refused(dirs.open(), ErrorClass::Permission, &["everybody may write", "chmod"]);
    std::fs::set_permissions(&dirs.state, PermissionsExt::from_mode(0o700)).unwrap();
    let moved = dirs.state.join("elsewhere");
    std::fs::rename(dirs.state_file(), &moved).unwrap();
    symlink(&moved, dirs.state_file()).unwrap();
    check_refused(dirs.open(), ErrorClass::Unavailable, &["state.redb"]);
}
