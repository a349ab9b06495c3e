//! The `netagent` binary: a command line whose `daemon` command is the agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    netagent::cli::main()
}
