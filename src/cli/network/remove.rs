//! `network rm`.

use crate::api::client::Client;
use crate::cli::output::{Form, Output, json};
use crate::model::{ErrorClass, Result};

/// What `network rm` takes.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// A network that does not exist is no error
    #[arg(short, long)]
    force: bool,
    /// Print what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Removes one after the other; an error does not spare those behind it.
pub(super) async fn run(args: RemoveArgs, client: &Client, form: Form) -> Result<Output> {
    let mut removed = Vec::new();
    let mut plans = Vec::new();
    let mut errors = Vec::new();
    for reference in args.networks {
        let done = if args.dry_run {
            client.plan_remove(&reference).await
        } else {
            client.remove_network(&reference).await
        };
        match done {
            Ok(plan) => {
                removed.push(reference);
                plans.push(plan);
            }
            Err(error) if args.force && error.class == ErrorClass::NotFound => {}
            Err(error) => errors.push(error),
        }
    }
    let output = match (args.dry_run, form) {
        (true, _) if plans.is_empty() => Output::new(""),
        (true, form) => Output::plans(&plans, form)?,
        (false, Form::Json) => Output::new(json(&removed)?),
        (false, Form::Text) => {
            Output::new(removed.iter().map(|name| format!("{name}\n")).collect::<String>())
        }
    };
    Ok(Output { errors, ..output })
}
