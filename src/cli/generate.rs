//! `completions` and `man`: made from the command line's own description.

use std::path::PathBuf;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

use super::output::Output;
use crate::model::{Error, Result};

/// What `completions` takes.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shells,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shells {
    Bash,
    Zsh,
    Fish,
}

/// What `man` takes.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Where to; must exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Output {
    let shell = match args.shell {
        Shells::Bash => Shell::Bash,
        Shells::Zsh => Shell::Zsh,
        Shells::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "netagent", &mut script);
    Output::new(String::from_utf8_lossy(&script))
}

pub(super) fn man(args: &ManArgs, command: Command) -> Result<Output> {
    clap_mangen::generate_to(command, &args.directory).map_err(|error| {
        let task = format!("write man pages to \"{}\"", args.directory.display());
        Error::unavailable(task, error.to_string())
    })?;
    Ok(Output::new(""))
}
