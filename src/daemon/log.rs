//! Where log lines go: to the journal where systemd has connected us to it, else to stderr.

use std::io::IsTerminal;

use nix::sys::stat::fstat;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::LogLevel;
use crate::model::{Error, Result};

/// Overrides the configured level, in the syntax of tracing's filters: `debug`,
/// `info,netagent::docker=trace`.
const ENVIRONMENT: &str = "NETAGENT_LOG";

/// A way to change the level while the agent runs.
#[derive(Debug, Clone)]
pub(super) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Begins to log.
pub(super) fn start(level: LogLevel) -> Result<Log> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let journal = if journal_is_stderr() { tracing_journald::layer().ok() } else { None };
    let to_stderr = journal.is_none().then(|| {
        fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
    });
    registry
        .with(journal)
        .with(to_stderr)
        .try_init()
        .map_err(|error| Error::unavailable("begin to log", error.to_string()))?;
    Ok(Log { filter: handle })
}

impl Log {
    /// Changes the level, except where the environment names one.
    pub(super) fn set(&self, level: LogLevel) -> Result<()> {
        self.filter
            .reload(filter(level)?)
            .map_err(|error| Error::unavailable("change the log level", error.to_string()))
    }
}

fn filter(level: LogLevel) -> Result<EnvFilter> {
    let named = std::env::var(ENVIRONMENT).ok().filter(|text| !text.is_empty());
    let text = named.as_deref().unwrap_or(level.as_str());
    EnvFilter::builder().parse(text).map_err(|error| {
        Error::usage(format!("read {ENVIRONMENT}=\"{text}\""), error.to_string())
            .advise("use error, warn, info, debug or trace")
    })
}

/// Whether stderr is the journal: systemd names its device and inode in JOURNAL_STREAM
/// (`man 5 systemd.exec`); a variable inherited by a shell's child names another one.
fn journal_is_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
