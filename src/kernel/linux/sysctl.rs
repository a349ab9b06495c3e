//! Values below /proc/sys, of the host's namespace or a sandbox's.
//!
//! /proc/sys/net shows the namespace of the thread that opens it, so a sandbox's is read and
//! written on a thread in there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::netns;
use crate::kernel::KernelError;
use crate::object::{Netns, Revert, Sysctl};

/// Writes a value.
pub fn write(sysctl: &Sysctl) -> Result<(), KernelError> {
    let path = path(&sysctl.key)?;
    netns::run_in(&sysctl.netns, || write_value(&path, &sysctl.value))
}

/// Writes values where the calling thread is; an error names the first that cannot be written.
pub fn write_all(sysctls: &BTreeMap<String, String>) -> Result<(), KernelError> {
    for (key, value) in sysctls {
        write_value(&path(key)?, value).map_err(|error| {
            let name = key.replace('/', ".");
            let text = match error.errno {
                errno if errno == Errno::ENOENT as i32 => format!("there is no sysctl {name}"),
                _ => format!("sysctl {name} does not take \"{value}\""),
            };
            KernelError { text, ..error }
        })?;
    }
    Ok(())
}

/// Takes a value back: what it was before, if it is still what we wrote; what belongs to a link
/// goes with the link.
pub fn revert(sysctl: &Sysctl) -> Result<(), KernelError> {
    let Revert::To(before) = &sysctl.revert else { return Ok(()) };
    let path = path(&sysctl.key)?;
    netns::run_in(&sysctl.netns, || match read_value(&path)? {
        Some(now) if now == sysctl.value => write_value(&path, before),
        // Somebody else has decided, or its link is gone.
        Some(_) | None => Ok(()),
    })
}

/// Reads values of one namespace, those that exist.
pub fn read(netns: &Netns, keys: &[&str]) -> Result<Vec<Sysctl>, KernelError> {
    netns::run_in(netns, || {
        let mut found = Vec::new();
        for key in keys {
            if let Some(value) = read_value(&path(key)?)? {
                found.push(Sysctl {
                    netns: netns.clone(),
                    key: (*key).to_owned(),
                    value,
                    revert: Revert::WithLink,
                });
            }
        }
        Ok(found)
    })
}

/// A value of the host's namespace, if it exists and can be read.
pub fn host(key: &str) -> Option<String> {
    read_value(&path(key).ok()?).ok()?
}

/// Whether a value of the host's namespace is not 0.
pub fn host_is_on(key: &str) -> bool {
    host(key).is_some_and(|value| value != "0")
}

/// Whether the host's namespace has IPv6.
pub fn host_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf").exists()
}

fn path(key: &str) -> Result<PathBuf, KernelError> {
    let below = Path::new(key);
    if below.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(Path::new("/proc/sys").join(below));
    }
    Err(KernelError::new(Errno::EINVAL as i32, format!("\"{key}\" is no sysctl")))
}

fn read_value(path: &Path) -> Result<Option<String>, KernelError> {
    match fs::read_to_string(path) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        Err(error) => Err(netns::at(path, &error)),
    }
}

fn write_value(path: &Path, value: &str) -> Result<(), KernelError> {
    // Not `fs::write`: a sysctl that does not exist must not be asked to be created (EACCES).
    let file = fs::OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| netns::at(path, &error))
}
