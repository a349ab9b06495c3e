//! Which dockerd a lab runs: the installed one, or one that `scripts/dockerds` unpacked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::lab::Lab;
use super::until;

const PATH: &str = "PATH=/usr/sbin:/usr/bin";

/// A version of dockerd in use: that of Debian bookworm, trixie and forky. Ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V20,
    V26,
    V28,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V20 => "20.10",
            Self::V26 => "26.1",
            Self::V28 => "28.5",
        })
    }
}

/// Where a dockerd comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This machine's own.
    Installed,
    /// A folder with all it needs, libraries too, that becomes its root.
    Folder(PathBuf),
}

impl Version {
    /// Where this version is, or why it cannot be had.
    pub fn find(self) -> Result<Source, String> {
        let base = match std::env::var_os("NETAGENT_DOCKERDS") {
            Some(dir) => PathBuf::from(dir),
            // The agent is TARGET/PROFILE/netagent.
            None => Path::new(env!("CARGO_BIN_EXE_netagent"))
                .ancestors()
                .nth(2)
                .unwrap()
                .join("dockerds"),
        };
        let folder = base.join(self.to_string());
        if folder.join("usr/sbin/dockerd").exists() {
            return Ok(Source::Folder(folder));
        }
        if installed().contains(&format!(" version {self}.")) {
            return Ok(Source::Installed);
        }
        match std::fs::read_to_string(base.join(format!("{self}.skipped"))) {
            Ok(reason) => Err(reason.trim().to_owned()),
            // Nobody has even tried: that is no reason where nothing may be skipped.
            Err(_) if std::env::var("NETAGENT_REQUIRE_ROOT").as_deref() == Ok("1") => {
                panic!("dockerd {self} is not in {}: run scripts/dockerds", base.display())
            }
            Err(_) => Err(format!("not in {}; scripts/dockerds unpacks it", base.display())),
        }
    }
}

fn installed() -> String {
    let out = Command::new("dockerd").arg("--version").output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default()
}

/// Makes an unpacked folder the root of a mount namespace, for dockerd and its client, and keeps it.
/// It must be a root of its own: after a mere chroot, `docker exec` would end in the lab's. `/run` is
/// one with the lab's, so that the agent sees the sandboxes that dockerd mounts there.
const ENTER: &str = r#"
set -eu
folder=$1 root=$2 data=$3
mkdir -p "$folder/etc/docker"
mount --bind "$folder" "$root"
mount -o remount,bind,ro "$root"
for dir in dev proc sys run; do mount --rbind "/$dir" "$root/$dir"; done
mount --make-rprivate /run
mount --bind "$data" "$root/data"
for dir in tmp etc/docker; do mount -t tmpfs tmpfs "$root/$dir"; done
for file in hosts resolv.conf; do mount --bind "/etc/$file" "$root/etc/$file"; done
cd "$root"
pivot_root . .
exec /bin/busybox sh -c 'umount -l . && : >/data/root.ready && exec sleep 1000000'
"#;

/// Whoever keeps an unpacked folder as the root of a mount namespace.
pub struct Root {
    pub(super) child: Child,
    pid: String,
}

impl Lab {
    /// The lab as most tests want it, with this version of dockerd; `None` (with a `SKIP` line)
    /// where it cannot be had.
    pub fn with(version: Version) -> Option<Self> {
        let lab = Self::with_agent_beside(version)?;
        lab.start_dockerd();
        Some(lab)
    }

    /// The same, but this dockerd is not started yet.
    pub fn with_agent_beside(version: Version) -> Option<Self> {
        let source = match version.find() {
            Ok(source) => source,
            Err(reason) => {
                let name = std::thread::current().name().unwrap_or("lab").to_owned();
                println!("SKIP {name}: no dockerd {version}: {reason}");
                return None;
            }
        };
        let mut lab = Self::with_agent()?;
        lab.version = version;
        if let Source::Folder(folder) = source {
            lab.root = Some(lab.own_root(&folder.to_string_lossy()));
        }
        Some(lab)
    }

    /// A command of Docker's as it must be called: in its own root, where it has one.
    pub fn of_docker<'a>(&'a self, argv: &[&'a str]) -> Vec<&'a str> {
        let mut whole = match &self.root {
            Some(root) => {
                ["env", "HOME=/tmp", "TMPDIR=/tmp", PATH, "nsenter", "-m", "-t", &root.pid].to_vec()
            }
            None => Vec::new(),
        };
        whole.extend(argv);
        whole
    }

    /// A mount namespace with `folder` as its root.
    fn own_root(&self, folder: &str) -> Root {
        let (root, data) = (self.data("root"), self.data(""));
        self.run(&["mkdir", &root]);
        self.run(&["mount", "--make-shared", "/run"]);
        let unshare = ["unshare", "--mount", "--propagation", "unchanged", "bash", "-c", ENTER];
        let line = [&unshare[..], &["enter", folder, &root, &data]].concat();
        let mut child = self.spawn_daemon("root", &line);
        let ready = self.inside(&self.data("root.ready"));
        until("dockerd's root is ready", Duration::from_secs(20), || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {:?}", std::fs::read_to_string(self.log("root")));
            ready.exists().then_some(())
        });
        Root { child, pid: self.daemon_pid("root") }
    }
}
