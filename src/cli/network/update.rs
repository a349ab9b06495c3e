//! `network update`.

use super::create::pair;
use super::subnets::{SubnetArgs, grouped};
use crate::api::client::Client;
use crate::api::wire::{CreateIpam, UpdateNetwork};
use crate::cli::output::{Form, Output, json};
use crate::model::Result;

/// What `network update` takes.
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// Name, id, or beginning of an id
    network: String,
    /// Driver option; an empty value takes one back to its default
    #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
    /// Label to add or replace
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Label to remove
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    #[command(flatten)]
    subnets: SubnetArgs,
    /// Print what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: UpdateArgs, client: &Client, form: Form) -> Result<Output> {
    let change = UpdateNetwork {
        ipam: CreateIpam { config: grouped(&args.subnets)? },
        options: args.options.into_iter().collect(),
        labels: args.label.into_iter().collect(),
        remove_labels: args.label_rm.into_iter().collect(),
    };
    if args.dry_run {
        let updated = client.plan_update(&args.network, &change).await?;
        let output = match form {
            Form::Json => Output { text: json(&updated)?, ..Output::plans(&[updated.plan], form)? },
            Form::Text => Output::plans(&[updated.plan], form)?,
        };
        return Ok(output.warn(updated.warnings, form));
    }
    let updated = client.update_network(&args.network, &change).await?;
    let output = match form {
        Form::Json => Output::new(json(&updated)?),
        Form::Text => Output::new(format!("{}\n", args.network)),
    };
    Ok(output.warn(updated.warnings, form))
}
