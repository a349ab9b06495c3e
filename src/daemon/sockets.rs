//! The sockets of the doors: systemd's where it opened them for us, else our own.
//!
//! A socket of systemd exists before we run and after we end, so that dockerd never meets a missing
//! one; it is never removed here. A socket of our own appears complete, with its mode, and is
//! removed when we end: dockerd gives up on a missing socket sooner than on a dead one.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;

use crate::model::{Error, Result};
use crate::store::private_dir;

/// Names of the sockets in units (`FileDescriptorName=`).
const API: &str = "netagent-api";
const DOCKER: &str = "netagent-docker";

/// Where the sockets are bound that systemd does not hand over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) api: PathBuf,
    pub(super) docker: PathBuf,
}

/// The listening sockets.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) api: Door,
    pub(super) docker: Door,
}

impl Doors {
    /// Takes over systemd's sockets and binds the others.
    pub(super) fn open(places: &Places) -> Result<Self> {
        let mut handed = Handed::from_environment()?;
        let api = Door::open(handed.take(API), &places.api)?;
        let docker = Door::open(handed.take(DOCKER), &places.docker)?;
        for (name, _) in handed.sockets {
            tracing::warn!(name, "systemd handed over a socket that netagent does not know");
        }
        Ok(Self { api, docker })
    }
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: UnixListener,
    /// Removed when this is dropped.
    pub(super) file: Option<SocketFile>,
    /// Where it can be reached.
    pub(super) path: PathBuf,
}

impl Door {
    fn open(handed: Option<UnixListener>, place: &Path) -> Result<Self> {
        let door = match handed {
            Some(listener) => {
                let address = listener.local_addr().ok();
                let bound = address.and_then(|address| address.as_pathname().map(Path::to_owned));
                Self { listener, file: None, path: bound.unwrap_or_else(|| place.to_owned()) }
            }
            None => {
                let (listener, file) = bind(place)?;
                Self { listener, file: Some(file), path: place.to_owned() }
            }
        };
        door.listener.set_nonblocking(true).map_err(|error| failed(&door.path, &error))?;
        Ok(door)
    }
}

/// A socket file that we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else's socket may be in its place by now.
        let ours = self.path.symlink_metadata().is_ok_and(|meta| meta.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

/// Sockets that systemd opened, by name.
#[derive(Debug)]
struct Handed {
    sockets: Vec<(String, UnixListener)>,
}

impl Handed {
    fn from_environment() -> Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let listener = handed.take_unix_listener(index).map_err(|error| {
                Error::usage(
                    format!("take over the socket \"{name}\" of systemd"),
                    format!("it is no unix stream socket: {error}"),
                )
                .advise("correct ListenStream= of its unit: it must be a path")
            })?;
            sockets.extend(listener.map(|listener| (name, listener)));
        }
        Ok(Self { sockets })
    }

    fn take(&mut self, name: &str) -> Option<UnixListener> {
        let index = self.sockets.iter().position(|(known, _)| known == name)?;
        Some(self.sockets.swap_remove(index).1)
    }
}

/// Binds beside the place, sets the mode, and moves the socket there: nobody ever meets it with
/// another mode, or bound and not listening.
fn bind(place: &Path) -> Result<(UnixListener, SocketFile)> {
    if let Some(dir) = place.parent() {
        private_dir(dir)?;
    }
    clear(place)?;
    let mut draft = place.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    clear(&draft)?;
    let bound = || -> io::Result<(UnixListener, u64)> {
        let listener = UnixListener::bind(&draft)?;
        std::fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        std::fs::rename(&draft, place)?;
        Ok((listener, place.symlink_metadata()?.ino()))
    };
    let (listener, inode) = bound().map_err(|error| failed(place, &error))?;
    Ok((listener, SocketFile { path: place.to_owned(), inode }))
}

/// Removes a socket that nobody listens on any more; anything else in its place is refused.
fn clear(place: &Path) -> Result<()> {
    let meta = match place.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(place, &error)),
    };
    let doing = || format!("listen on \"{}\"", place.display());
    if !meta.file_type().is_socket() {
        return Err(Error::conflict(doing(), "there is something else that is no socket")
            .advise(format!("remove {}, or name another directory", place.display())));
    }
    match UnixStream::connect(place) {
        Ok(_) => Err(Error::conflict(doing(), "another process listens there")
            .advise(format!("find it with `ss -xlp src {}` and stop it", place.display()))),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(place).map_err(|error| failed(place, &error))
        }
        Err(error) => Err(failed(place, &error)),
    }
}

fn failed(place: &Path, error: &io::Error) -> Error {
    let made = Error::unavailable(format!("listen on \"{}\"", place.display()), error.to_string());
    match error.raw_os_error() {
        Some(errno) => made.with_errno(errno),
        None => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ErrorClass;

    fn places() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("sub").join("x.sock");
        (dir, place)
    }

    #[test]
    fn a_socket_is_the_owner_s_alone_and_goes_when_it_is_dropped() {
        let (_dir, place) = places();
        let door = Door::open(None, &place).unwrap();
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&place).unwrap();
        drop(door);
        assert!(!place.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_refused() {
        let (_dir, place) = places();
        std::fs::create_dir(place.parent().unwrap()).unwrap();
        drop(UnixListener::bind(&place).unwrap());
        let _door = Door::open(None, &place).unwrap();
        let error = Door::open(None, &place).unwrap_err();
        assert_eq!(error.class, ErrorClass::Conflict);
        assert!(error.to_string().contains("another process listens"), "{error}");
        UnixStream::connect(&place).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_never_removed() {
        let (_dir, place) = places();
        std::fs::create_dir(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "precious").unwrap();
        assert_eq!(Door::open(None, &place).unwrap_err().class, ErrorClass::Conflict);
        assert_eq!(std::fs::read(&place).unwrap(), b"precious");
    }

    #[test]
    fn a_socket_of_systemd_is_left_where_it_is() {
        let (_dir, place) = places();
        std::fs::create_dir(place.parent().unwrap()).unwrap();
        let handed = UnixListener::bind(&place).unwrap();
        let door = Door::open(Some(handed), Path::new("/elsewhere")).unwrap();
        assert_eq!(door.path, place);
        drop(door);
        assert!(place.exists());
    }
}
