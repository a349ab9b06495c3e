//! The command line: Docker's grammar for networks, and verbs beyond it.
//!
//! Asks the daemon and prints; decides nothing but which subnet a gateway belongs to. One verb
//! family a file.

pub mod daemon;
mod exit;
mod gc;
mod generate;
mod help;
mod network;
mod output;
mod ports;
mod status;
mod template;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::api::client::Client;
use crate::model::{Error, Result};
pub use exit::Exit;
use output::{Form, Output};

/// Container networking over netlink: Docker's network drivers, implemented natively
#[derive(Debug, Parser)]
#[command(name = "netagent", version, disable_help_subcommand = true, after_help = exit::HELP,
          arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    /// Socket of the daemon [env: NETAGENT_SOCKET] [default: /run/netagent/netagent.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Global options")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(short, long, global = true, help_heading = "Global options")]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, show and remove networks
    #[command(subcommand, arg_required_else_help = true)]
    Network(network::NetworkCommand),
    /// List every published port and whose it is
    Ports(ports::PortsArgs),
    /// Say how the agent is, and what is wrong
    Status(status::StatusArgs),
    /// Remove what is netagent's and nothing asks for
    Gc(gc::GcArgs),
    /// Run the daemon
    Daemon(daemon::DaemonArgs),
    /// Print help for a command, or a driver's options: `help driver bridge`
    Help(help::HelpArgs),
    /// Print completions for a shell
    Completions(generate::CompletionsArgs),
    /// Write man pages
    Man(generate::ManArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    main_with(std::env::args_os())
}

fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    if let Command::Daemon(args) = cli.command {
        return report(crate::daemon::run(args).map_or_else(Output::from, |()| Output::new("")));
    }
    report(run(cli).unwrap_or_else(Output::from))
}

fn run(cli: Cli) -> Result<Output> {
    let form = if cli.json { Form::Json } else { Form::Text };
    let socket = cli
        .socket
        .or_else(|| std::env::var_os("NETAGENT_SOCKET").map(PathBuf::from))
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or_else(|| PathBuf::from(crate::api::SOCKET));
    let client = Client::new(socket);
    match cli.command {
        Command::Network(command) => wait(network::run(command, &client, form)),
        Command::Ports(args) => wait(ports::run(args, &client, form)),
        Command::Status(args) => wait(status::run(args, &client, form)),
        Command::Gc(args) => wait(gc::run(args, &client, form)),
        Command::Help(args) => help::run(&args, Cli::command(), form),
        Command::Completions(args) => Ok(generate::completions(&args, Cli::command())),
        Command::Man(args) => generate::man(&args, Cli::command()),
        Command::Daemon(_) => Ok(Output::new("")),
    }
}

/// Waits for a conversation with the daemon.
fn wait(conversation: impl Future<Output = Result<Output>>) -> Result<Output> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::unavailable("begin", error.to_string()))?
        .block_on(conversation)
}

/// Help and versions go to stdout; what is wrong with a command line, to stderr.
fn refused(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        print(&mut io::stdout().lock(), &text);
        return Exit::Ok.into();
    }
    let text = match text.strip_prefix("error: ") {
        Some(text) => format!("netagent: {text}"),
        None => text,
    };
    print(&mut io::stderr().lock(), &text);
    Exit::Usage.into()
}

fn report(output: Output) -> ExitCode {
    let exit = output.exit();
    print(&mut io::stdout().lock(), &output.text);
    for warning in &output.warnings {
        print(&mut io::stderr().lock(), &format!("netagent: warning: {warning}\n"));
    }
    for error in &output.errors {
        print(&mut io::stderr().lock(), &format!("netagent: {error}\n"));
    }
    exit.into()
}

/// A reader that goes away, as `head` does, is no error of ours; nothing could be said to it.
fn print(to: &mut impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dockers_own_lines_are_taken() {
        for line in [
            "network create -d bridge --subnet 10.1.0.0/24 --gateway 10.1.0.1 -o a=b web",
            "network create --internal --ipv6 --attachable --label a --label b=c --scope local web",
            "network create --ipv4=false --ipv6=true --aux-address nas=10.1.0.9 web",
            "network ls -q --no-trunc -f name=a --filter driver=bridge",
            "network list --format json",
            "network inspect -f {{.Name}} web other",
            "network update -o a=b --opt c= --label d=e --label-rm f --dry-run web",
            "network update --subnet 10.1.0.0/24 --gateway 10.1.0.1 web",
            "network rm -f web other",
            "network remove web",
            "network prune -f --filter until=24h",
            "-j status --wait",
            "ports -j --socket /a",
        ] {
            let words = ["netagent"].into_iter().chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "network create",
            "network create --scope swarm web",
            "network create --ipv6=maybe web",
            "network create --subnet nonsense web",
            "network create --aux-address 10.1.0.9 web",
            "network create --intrnal web",
            "network rm",
            "network update -o a=b",
            "network inspect",
            "completions tcsh",
        ] {
            let words = ["netagent"].into_iter().chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
