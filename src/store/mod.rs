//! Intent on disk: definitions survive a reboot, endpoints and leases die with the boot.
//!
//! Two databases of one form: `state.redb` in the state directory (networks, durable before the
//! answer) and `state.redb` in the runtime directory (endpoints, pools, saved sysctls; tmpfs).
//! Every record carries its version and a checksum; a newer version is refused and left untouched,
//! and so is a damaged file.
//!
//! Never decides anything and never repairs: what it cannot read it refuses, naming file and
//! record. `file` holds the database, `codec` the tables and keys, `records` the forms of specs.

mod backend;
mod codec;
mod dirs;
mod fault;
mod file;
mod guard;
mod records;
mod seal;

use std::fs::{File, TryLockError};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use self::codec::{Encoded, Reader};
use self::file::{DatabaseFile, Sync};
use crate::ipam::{AddressBook, Lease, Pool, PoolId};
use crate::model::{
    EndpointId, Error, Intent, NetworkId, Result, SavedSysctl, StoredEndpoint, StoredNetwork,
};

pub(crate) use dirs::private_dir;

/// Name of both database files in their directories.
const FILE: &str = "state.redb";

/// One change to what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Add or replace a network.
    PutNetwork(Box<StoredNetwork>),
    /// Forget a network.
    DropNetwork(NetworkId),
    /// Add or replace an endpoint.
    PutEndpoint(Box<StoredEndpoint>),
    /// Forget an endpoint.
    DropEndpoint(EndpointId),
    /// Add or replace a pool with its leases.
    PutPool(Box<Pool>),
    /// Forget a pool and its leases.
    DropPool(PoolId),
    /// Add or replace one lease of a stored pool; made by [`Change::lease`].
    PutLease {
        /// The pool.
        pool: PoolId,
        /// The address.
        address: IpAddr,
        /// Its lease.
        lease: Lease,
        /// The pool's cursor.
        cursor: Option<IpAddr>,
    },
    /// Forget one lease.
    DropLease {
        /// The pool.
        pool: PoolId,
        /// The address.
        address: IpAddr,
    },
    /// The generation of dockerd that pools and leases belong to.
    Generation(u64),
    /// Remember a sysctl's value before our first write.
    SaveSysctl(SavedSysctl),
    /// Forget it, once restored.
    DropSysctl(String),
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Networks and endpoints.
    pub intent: Intent,
    /// Pools and leases.
    pub book: AddressBook,
    /// Host sysctls as they were before us.
    pub sysctls: Vec<SavedSysctl>,
}

impl Change {
    /// What makes the store agree with `pool` about this one address, given out or taken back.
    /// As cheap with 65,000 leases as with one; [`Change::PutPool`] compares all of them.
    pub fn lease(pool: &Pool, address: IpAddr) -> Self {
        codec::lease_change(pool, address)
    }
}

/// The two databases.
#[derive(Debug)]
pub struct Store {
    state: DatabaseFile,
    runtime: DatabaseFile,
    /// Locked for as long as the store lives, also while a database is opened again.
    _locks: [DirLock; 2],
}

impl Store {
    /// Opens or makes the databases and reads all of them. Both are verified before either is
    /// opened for writing.
    ///
    /// The directories are made with mode 0700 where missing, the files with 0600. One process
    /// at a time can have them. A file whose pages or records are not what was written is
    /// refused; after a crash the last commit that was acknowledged is what is read. Damage in the
    /// very last commit of an agent that crashed looks like a commit that was never finished, and
    /// is taken for one.
    pub fn open(state_dir: &Path, runtime_dir: &Path) -> Result<(Self, Loaded)> {
        private_dir(state_dir)?;
        private_dir(runtime_dir)?;
        check_two(state_dir, runtime_dir)?;
        let locks = [lock(state_dir)?, lock(runtime_dir)?];
        let path = state_dir.join(FILE);
        let (state, networks) = DatabaseFile::open(&path, &codec::STATE, Sync::Disk, |contents| {
            Reader { path: &path, contents }.networks()
        })?;
        let path = runtime_dir.join(FILE);
        let (runtime, mut loaded) =
            DatabaseFile::open(&path, &codec::RUNTIME, Sync::Kernel, |contents| {
                let reader = Reader { path: &path, contents };
                let mut intent = Intent::default();
                reader.endpoints()?.into_iter().for_each(|endpoint| intent.put_endpoint(endpoint));
                Ok(Loaded { intent, book: reader.book()?, sysctls: reader.sysctls()? })
            })?;
        networks.into_iter().for_each(|network| loaded.intent.put_network(network));
        Ok((Self { state, runtime, _locks: locks }, loaded))
    }

    /// Writes the changes, each database's in one transaction: networks are on disk when this
    /// returns, the rest survives a crash of the agent.
    ///
    /// Networks are written first. When the second transaction fails, the first stands: the caller
    /// must write the opposite, or go on with networks whose endpoints or pools are not stored. After
    /// an error what is stored is either as before or as asked for; writing it again is always
    /// right, and the store can be used again as soon as the disk can.
    pub fn commit(&mut self, changes: &[Change]) -> Result<()> {
        let mut state = Vec::new();
        let mut runtime = Vec::new();
        for change in changes {
            match codec::encode(change)? {
                Encoded::State(writes) => state.extend(writes),
                Encoded::Runtime(writes) => runtime.extend(writes),
            }
        }
        self.state.commit(&state)?;
        self.runtime.commit(&runtime)
    }

    /// The files of the store: what survives a reboot, and what dies with it.
    pub fn paths(&self) -> [&Path; 2] {
        [self.state.path(), self.runtime.path()]
    }
}

/// Both databases have the same name, so they need two directories.
fn check_two(state_dir: &Path, runtime_dir: &Path) -> Result<()> {
    let identity = |dir: &Path| std::fs::metadata(dir).map(|meta| (meta.dev(), meta.ino())).ok();
    if identity(state_dir).is_some_and(|state| Some(state) == identity(runtime_dir)) {
        return Err(Error::usage(
            format!("open the store in \"{}\"", state_dir.display()),
            "the state directory and the runtime directory are the same",
        )
        .advise("name two directories, the second one on a tmpfs"));
    }
    Ok(())
}

/// A directory locked against other agents; the kernel drops the lock when we die.
#[derive(Debug)]
struct DirLock(File);

impl Drop for DirLock {
    fn drop(&mut self) {
        // A process being spawned at this moment has a copy of the descriptor until it begins:
        // closing ours would leave the lock to it. A lock that cannot be dropped goes with the
        // last copy.
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<DirLock> {
    let failed = |error| dirs::io_error(format!("lock directory \"{}\"", dir.display()), &error);
    let handle = File::open(dir).map_err(failed)?;
    match handle.try_lock() {
        Ok(()) => Ok(DirLock(handle)),
        Err(TryLockError::WouldBlock) => Err(file::in_use(&dir.join(FILE))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
