//! The directories and files state lies in: root's alone, whatever the umask.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use crate::model::{Error, ErrorClass, Result};

/// Makes the directory with mode 0700 where it is missing. One that exists keeps its mode, but
/// is refused where everybody may write into it.
pub(crate) fn private_dir(dir: &Path) -> Result<()> {
    let failed =
        |error: &io::Error| io_error(format!("make directory \"{}\"", dir.display()), error);
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| failed(&error))?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => std::fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(|error| failed(&error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_existing(dir),
        Err(error) => Err(failed(&error)),
    }
}

fn check_existing(dir: &Path) -> Result<()> {
    let doing = || format!("use directory \"{}\"", dir.display());
    let meta = std::fs::metadata(dir).map_err(|error| io_error(doing(), &error))?;
    if !meta.is_dir() {
        return Err(Error::unavailable(doing(), "it is not a directory"));
    }
    if meta.mode() & 0o002 != 0 {
        return Err(Error::new(ErrorClass::Permission, doing(), "everybody may write into it")
            .advise(format!("chmod 0700 {}, or name another directory", dir.display())));
    }
    Ok(())
}

/// Opens a file for reading and writing; never through a symbolic link at its end. Its mode is
/// 0600 afterwards.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(path)?;
    if file.metadata()?.mode() & 0o777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Makes a file that was not there, with mode 0600.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// An error of the file system in our words.
pub(super) fn io_error(doing: String, error: &io::Error) -> Error {
    let class = if error.kind() == io::ErrorKind::PermissionDenied {
        ErrorClass::Permission
    } else {
        ErrorClass::Unavailable
    };
    let made = Error::new(class, doing, error.to_string());
    match error.raw_os_error() {
        Some(errno) => made.with_errno(errno),
        None => made,
    }
}
