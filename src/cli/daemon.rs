//! The command line of the daemon.

use std::path::PathBuf;

/// Runs the daemon in the foreground.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct DaemonArgs {
    /// Where networks are kept; survives a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/netagent")]
    pub state_dir: PathBuf,
    /// Where endpoints, leases and the API's socket are kept; dies with the boot
    #[arg(long, value_name = "DIR", default_value = "/run/netagent")]
    pub runtime_dir: PathBuf,
    /// Where dockerd looks for its plugins' sockets
    #[arg(long, value_name = "DIR", default_value = "/run/docker/plugins")]
    pub docker_plugin_dir: PathBuf,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/netagent/netagent.toml")]
    pub config: PathBuf,
    /// Docker's API, asked for names and for what it has forgotten
    #[arg(long, value_name = "URL", default_value = "unix:///run/docker.sock")]
    pub docker_host: String,
}
