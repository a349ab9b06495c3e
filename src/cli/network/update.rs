//! `network update`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::create::pair;
use super::subnets::{Named, auxiliary, grouped};
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
    /// Further subnet in CIDR form
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<IpNet>,
    /// Address of the host in a further subnet, the containers' gateway
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Part of a further subnet that addresses are given out from
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<IpNet>,
    /// Address of a further subnet that is never given out
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = auxiliary)]
    aux_address: Vec<(String, IpAddr)>,
    /// Print what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: UpdateArgs, client: &Client, form: Form) -> Result<Output> {
    let UpdateArgs { subnet, gateway, ip_range, aux_address, .. } = &args;
    let config = grouped(&Named { subnet, gateway, ip_range, aux_address })?;
    let change = UpdateNetwork {
        ipam: CreateIpam { config },
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
