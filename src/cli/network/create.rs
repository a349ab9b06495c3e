//! `network create`.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::subnets::{SubnetArgs, grouped};
use crate::api::client::Client;
use crate::api::filter::truth;
use crate::api::wire::{CreateIpam, CreateNetwork};
use crate::cli::output::{Form, Output, json};
use crate::model::Result;

/// What `network create` takes.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Name of the network
    name: String,
    /// Driver of the network
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Driver option; `netagent help driver bridge` lists them
    #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) subnets: SubnetArgs,
    /// No way out: the network's containers and the host only
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true,
          hide_possible_values = true, value_name = "BOOL")]
    internal: bool,
    /// Give addresses of IPv4 (on unless =false)
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL")]
    ipv4: Option<bool>,
    /// Give addresses of IPv6 (on where an IPv6 subnet is named)
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL")]
    ipv6: Option<bool>,
    /// Label of the network
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Taken as Docker takes it; no effect on a local network
    #[arg(long, value_parser = go_bool, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", default_value = "false", hide_default_value = true,
          value_name = "BOOL")]
    attachable: bool,
    /// How far the network goes: this host
    #[arg(long, value_name = "SCOPE", value_parser = ["local"], default_value = "local",
          hide_default_value = true)]
    scope: String,
    /// Print what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: CreateArgs, client: &Client, form: Form) -> Result<Output> {
    let network = CreateNetwork {
        ipam: CreateIpam { config: grouped(&args.subnets)? },
        name: args.name,
        driver: args.driver,
        scope: args.scope,
        enable_ipv4: args.ipv4,
        enable_ipv6: args.ipv6,
        internal: args.internal,
        attachable: args.attachable,
        options: args.options.into_iter().collect(),
        labels: args.label.into_iter().collect::<BTreeMap<_, _>>(),
    };
    if args.dry_run {
        return Output::plans(&[client.plan_create(&network).await?], form);
    }
    let created = client.create_network(&network).await?;
    Ok(Output::new(match form {
        Form::Json => json(&created)?,
        Form::Text => format!("{}\n", created.id),
    }))
}

/// `KEY=VALUE`, or a key with an empty value.
pub(super) fn pair(text: &str) -> std::result::Result<(String, String), Infallible> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((key.to_owned(), value.to_owned()))
}

fn go_bool(text: &str) -> std::result::Result<bool, String> {
    truth(text).ok_or_else(|| "use true or false".to_owned())
}
