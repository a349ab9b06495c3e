//! Entering network namespaces: the only place that calls setns(2) and unshare(2).
//!
//! A thread that changed its namespace does one thing there and ends; it never joins a pool. A
//! netlink socket stays bound to the namespace it was opened in, so a socket is all that comes
//! back from there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::statfs::{FsType, fstatfs};

use super::wire::{Wire, refused};
use crate::kernel::KernelError;
use crate::model::SandboxId;
use crate::object::Netns;

/// NSFS_MAGIC (uapi linux/magic.h): what a namespace's file is on.
const NSFS: FsType = FsType(0x6e73_6673);

/// Opens a namespace by path. One that is gone, or whose mount is gone and left an empty file
/// behind, is ENOENT.
pub fn open(path: &Path) -> Result<File, KernelError> {
    let gone = |why: &str| {
        let text = format!("network namespace \"{}\" {why}", path.display());
        KernelError::new(Errno::ENOENT as i32, text)
    };
    let file = File::open(path).map_err(|error| match error.raw_os_error() {
        Some(errno) if errno == Errno::ENOENT as i32 => gone("is gone"),
        Some(errno) => KernelError::new(errno, format!("network namespace \"{}\"", path.display())),
        None => refused(error),
    })?;
    match fstatfs(&file) {
        Ok(stat) if stat.filesystem_type() == NSFS => Ok(file),
        Ok(_) => Err(gone("is no namespace, or no longer one")),
        Err(errno) => Err(KernelError::new(errno as i32, format!("{}", path.display()))),
    }
}

/// Which namespace is at `path`. The calling thread's own is refused: an endpoint there would give
/// the host a second default route.
pub fn identity(path: &Path) -> Result<SandboxId, KernelError> {
    let inode = |file: &File| file.metadata().map(|meta| meta.ino()).map_err(refused);
    let id = inode(&open(path)?)?;
    if id == inode(&current()?)? {
        let text = format!("network namespace \"{}\" is the host's own", path.display());
        return Err(KernelError::new(Errno::EINVAL as i32, text));
    }
    Ok(SandboxId(id))
}

/// The calling thread's namespace.
pub fn current() -> Result<File, KernelError> {
    File::open("/proc/thread-self/ns/net").map_err(refused)
}

/// Does `work` on a fresh thread in the namespace at `path`.
pub fn within<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    let file = open(path)?;
    inside(&file, &format!("\"{}\"", path.display()), work)
}

/// Does `work` on a fresh thread in an open namespace, called `name` in errors.
fn inside<T: Send>(
    file: &File,
    name: &str,
    work: impl FnOnce() -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    on_a_fresh_thread(|| {
        enter(file)
            .map_err(|errno| KernelError::new(errno as i32, format!("cannot enter {name}")))?;
        work()
    })
}

/// Does `work` on a fresh thread in a new namespace that ends with it.
pub fn scratch<T: Send>(
    work: impl FnOnce() -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    on_a_fresh_thread(|| {
        leave_for_a_new_one().map_err(|errno| {
            KernelError::new(errno as i32, "cannot make a network namespace (CAP_SYS_ADMIN)")
        })?;
        work()
    })
}

fn on_a_fresh_thread<T: Send>(
    work: impl FnOnce() -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work);
        worker
            .map_err(refused)?
            .join()
            .unwrap_or_else(|_| Err(KernelError::new(0, "the namespace thread panicked")))
    })
}

#[expect(clippy::disallowed_methods, reason = "on a thread of its own that ends after its work")]
fn enter(file: &File) -> nix::Result<()> {
    nix::sched::setns(file, CloneFlags::CLONE_NEWNET)
}

#[expect(clippy::disallowed_methods, reason = "on a thread of its own that ends after its work")]
fn leave_for_a_new_one() -> nix::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
}

/// Does `work` where `netns` says: on this thread for the host.
pub fn run_in<T: Send>(
    netns: &Netns,
    work: impl FnOnce() -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    match netns {
        Netns::Host => work(),
        Netns::Path(path) => within(path, work),
    }
}

/// The sockets of one batch of operations: the host's, and one for each sandbox it touches. An
/// open socket keeps its namespace alive, so those of sandboxes go when the batch is done.
#[derive(Debug)]
pub struct Wires<'a> {
    host: &'a mut Wire,
    sandboxes: BTreeMap<PathBuf, Wire>,
    numbered: BTreeMap<i32, Wire>,
    /// Where a namespace of a number was seen: only a hint, as another can be there by now.
    hints: BTreeMap<i32, PathBuf>,
}

impl<'a> Wires<'a> {
    /// No sandbox entered yet.
    pub fn new(host: &'a mut Wire) -> Self {
        Self { host, sandboxes: BTreeMap::new(), numbered: BTreeMap::new(), hints: BTreeMap::new() }
    }

    /// The host's socket.
    pub fn host(&mut self) -> &mut Wire {
        self.host
    }

    /// The socket of a namespace.
    pub fn of(&mut self, netns: &Netns) -> Result<&mut Wire, KernelError> {
        let Netns::Path(path) = netns else { return Ok(self.host) };
        match self.sandboxes.entry(path.clone()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(within(path, Wire::open)?)),
        }
    }

    /// The socket of a namespace, once `work` has been done there: both take one visit.
    pub fn after(
        &mut self,
        netns: &Netns,
        work: impl FnOnce() -> Result<(), KernelError> + Send,
    ) -> Result<&mut Wire, KernelError> {
        let Netns::Path(path) = netns else { return work().map(|()| &mut *self.host) };
        match self.sandboxes.entry(path.clone()) {
            Entry::Occupied(entry) => within(path, work).map(|()| entry.into_mut()),
            Entry::Vacant(entry) => {
                let socket = within(path, || work().and_then(|()| Wire::open()))?;
                Ok(entry.insert(socket))
            }
        }
    }

    /// The socket of the namespace that the host's has this number for; `None` where neither a
    /// mount nor a process leads there.
    pub fn numbered(&mut self, number: i32) -> Result<Option<&mut Wire>, KernelError> {
        if !self.numbered.contains_key(&number) {
            let Some(file) = self.find(number)? else { return Ok(None) };
            let wire = inside(&file, &format!("namespace number {number}"), Wire::open)?;
            self.numbered.insert(number, wire);
        }
        Ok(self.numbered.get_mut(&number))
    }

    /// The namespace of a number, open: what was asked for its number is what is entered.
    fn find(&mut self, number: i32) -> Result<Option<File>, KernelError> {
        if let Some(Ok(file)) = self.hints.get(&number).map(|path| open(path))
            && self.host.number_of(&file)? == Some(number)
        {
            return Ok(Some(file));
        }
        self.hints.clear();
        let mut found = None;
        for path in paths() {
            let Ok(file) = open(&path) else { continue };
            if let Some(there) = self.host.number_of(&file)? {
                self.hints.insert(there, path);
                found = found.or((there == number).then_some(file));
            }
        }
        Ok(found)
    }
}

/// Where namespaces are bound to files: Docker's sandboxes, those of `ip netns`.
const MOUNTS: [&str; 2] = ["/run/docker/netns", "/run/netns"];

/// A path to every namespace that a mount or a process leads to, each once.
fn paths() -> Vec<PathBuf> {
    let entries = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
    let mounted = MOUNTS.into_iter().flat_map(entries).map(|entry| entry.path());
    let of_processes = entries("/proc").map(|entry| entry.path().join("ns/net"));
    let mut known = BTreeSet::new();
    let mut is_new = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| known.insert(meta.ino()));
    mounted.chain(of_processes).filter(|path| is_new(path)).collect()
}

/// Whether an error says that the namespace itself is gone.
pub fn is_gone(error: &KernelError) -> bool {
    error.errno == Errno::ENOENT as i32
}

/// The error of a file below /proc, with its path.
pub fn at(path: &Path, error: &io::Error) -> KernelError {
    KernelError::new(error.raw_os_error().unwrap_or(0), format!("\"{}\"", path.display()))
}
