//! One agent a runtime directory, and one a network namespace.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::model::{Error, Result};

/// The lock, held as long as this lives; the kernel drops it when we die. The file stays: to
/// remove it would let two agents lock two files of one name.
#[derive(Debug)]
pub(super) struct RuntimeLock {
    _file: File,
}

impl RuntimeLock {
    /// Takes the lock and leaves our process id in it, for whoever comes second.
    pub(super) fn take(runtime_dir: &Path) -> Result<Self> {
        let path = runtime_dir.join("netagent.lock");
        let failed = |error: std::io::Error| {
            Error::unavailable(format!("lock \"{}\"", path.display()), error.to_string())
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(runtime_dir, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The host's network is ours as long as this lives. An abstract socket belongs to its network
/// namespace and goes with the process, so it tells agents apart that share nothing else.
#[derive(Debug)]
pub(super) struct HostLock {
    _socket: UnixListener,
}

impl HostLock {
    /// Takes the network namespace of the calling thread.
    pub(super) fn take() -> Result<Self> {
        let bound = SocketAddr::from_abstract_name(b"netagent")
            .and_then(|name| UnixListener::bind_addr(&name));
        match bound {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Error::conflict(
                "start on this host",
                "another netagent, with other directories, owns its networks",
            )
            .advise("stop it first, or start this one in a network namespace of its own")),
            Err(error) => Err(Error::unavailable("start on this host", error.to_string())),
        }
    }
}

fn held(runtime_dir: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // The holder may not have written its id yet.
    let pid: Option<u32> =
        file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let why = format!("another netagent{who} runs on this runtime directory");
    Error::conflict(format!("start on \"{}\"", runtime_dir.display()), why)
        .advise("stop it first, or name other directories with --runtime-dir and --state-dir")
}
