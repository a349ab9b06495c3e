//! The agent as a service: what is started in which order, and how it ends.
//!
//! Decides nothing about networks. Everything that can refuse comes before the sockets, and the
//! sockets answer before systemd and dockerd hear that we are ready. When the agent ends, links,
//! routes and rules stay: containers lose no packet.

mod lock;
mod log;
mod notify;
mod probe;
mod serve;
mod sockets;
mod watch;

use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

pub use crate::cli::daemon::DaemonArgs;
use crate::config::{Config, DEFAULT_PATH};
use crate::docker::Client;
use crate::engine::Engine;
use crate::kernel::linux::{Iptables, Linux, Options};
use crate::model::{Error, ErrorClass, Result};
use crate::store::{Store, private_dir};

use lock::{HostLock, RuntimeLock};
use sockets::{Doors, Places};
use watch::Subscriptions;

/// Where systemd keeps the identity of the installation (`man 5 machine-id`).
const MACHINE_ID: &str = "/etc/machine-id";

/// Runs the agent in the foreground until SIGTERM or SIGINT.
pub fn run(args: DaemonArgs) -> Result<()> {
    check_root()?;
    let docker: Client = args.docker_host.parse()?;
    let config = read_config(&args.config)?;
    let log = log::start(config.log)?;
    private_dir(&args.runtime_dir)?;
    // Held until the process ends.
    let _lock = RuntimeLock::take(&args.runtime_dir)?;
    probe::check()?;
    raise_descriptor_limit();
    let (store, loaded) = Store::open(&args.state_dir, &args.runtime_dir)?;
    let _host = HostLock::take()?;
    let options = Options { mark: config.settings.mark, iptables: Iptables::Used };
    let mut kernel = Linux::open(options).map_err(|error| {
        Error::unavailable("open the host's network namespace", error.to_string())
            .with_errno(error.errno)
    })?;
    // Subscribed before the host is read for the first time: no change is lost between the two.
    let subscriptions = Subscriptions::open(&mut kernel)?;
    let engine = Engine::start(Box::new(kernel), store, loaded, config.settings)?;
    let places = Places {
        api: args.runtime_dir.join("netagent.sock"),
        docker: args.docker_plugin_dir.join("netagent.sock"),
    };
    let doors = Doors::open(&places)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "netagent begins");
    let reload = move || log.set(read_config(&args.config)?.log);
    let served = serve::until_told_to_stop(engine, doors, docker, subscriptions, reload);
    tracing::info!("netagent ends; networks and endpoints stay as they are");
    served
}

/// A held port is a descriptor, and a shell's soft limit of 1,024 is soon reached: as many as the
/// hard limit allows.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn check_root() -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(
        ErrorClass::Permission,
        "start the agent",
        format!(
            "it makes links, routes and firewall rules, which only root may do, and it runs as \
             user id {}",
            geteuid()
        ),
    )
    .advise("run it as root: `sudo netagent daemon`, or `systemctl start netagent`"))
}

/// The default file may be missing; one that was named may not.
fn read_config(path: &Path) -> Result<Config> {
    let named: Option<PathBuf> = (path != Path::new(DEFAULT_PATH)).then(|| path.to_owned());
    // A host without an identity shares its default IPv6 prefix with others like it.
    let machine_id = std::fs::read(MACHINE_ID).unwrap_or_default();
    Config::load(named.as_deref(), machine_id.trim_ascii())
}
