//! `network ls`.

use serde_json::{Value, json};

use crate::api::client::Client;
use crate::api::filter::{Filters, LIST};
use crate::api::wire::Network;
use crate::cli::output::{self, Column, Form, Output};
use crate::model::Result;

/// What `network ls` takes.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show networks that pass: name, id, driver, label, scope, type or dangling
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print whole ids
    #[arg(long)]
    no_trunc: bool,
    /// `json`, `table TEMPLATE`, or a Go template, e.g. '{{.ID}} {{.Name}}'
    #[arg(long)]
    format: Option<String>,
}

/// Names in templates, and headings; the first four are Docker's own.
const COLUMNS: &[Column] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Subnets", "SUBNETS"),
    ("Origin", "ORIGIN"),
    ("Endpoints", "ENDPOINTS"),
    ("Internal", "INTERNAL"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

pub(super) async fn run(args: ListArgs, client: &Client, form: Form) -> Result<Output> {
    let filters = Filters::from_args(&args.filter, LIST)?;
    let networks = client.networks(&filters).await?;
    shown(&networks, &args, form).map(Output::new)
}

fn shown(networks: &[Network], args: &ListArgs, form: Form) -> Result<String> {
    let id = |network: &Network| {
        let digits = if args.no_trunc { 64 } else { 12 };
        network.id.chars().take(digits).collect::<String>()
    };
    match (form, &args.format) {
        (Form::Json, None) => output::json(networks),
        (Form::Text, None) if args.quiet => {
            Ok(networks.iter().map(|network| id(network) + "\n").collect())
        }
        (Form::Text, None) => {
            let row = |network: &Network| {
                vec![
                    id(network),
                    network.name.clone(),
                    network.driver.clone(),
                    network.scope.clone(),
                    subnets(network),
                    network.origin.clone(),
                ]
            };
            let headings: Vec<&str> = COLUMNS.iter().take(6).map(|(_, heading)| *heading).collect();
            Ok(output::table(&headings, networks.iter().map(row).collect()))
        }
        (Form::Text | Form::Json, Some(format)) => {
            let rows: Vec<Value> =
                networks.iter().map(|network| row(network, id(network))).collect();
            output::formatted(format, COLUMNS, &rows)
        }
    }
}

/// A row as Docker's templates see it: texts only.
fn row(network: &Network, id: String) -> Value {
    let labels: Vec<String> =
        network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "ID": id,
        "Name": network.name,
        "Driver": network.driver,
        "Scope": network.scope,
        "Subnets": subnets(network),
        "Origin": network.origin,
        "Endpoints": network.containers.len().to_string(),
        "Internal": network.internal.to_string(),
        "IPv4": network.enable_ipv4.to_string(),
        "IPv6": network.enable_ipv6.to_string(),
        "Labels": labels.join(","),
        "Label": network.labels,
        "CreatedAt": network.created,
    })
}

fn subnets(network: &Network) -> String {
    let subnets: Vec<&str> =
        network.ipam.config.iter().map(|config| config.subnet.as_str()).collect();
    subnets.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Vec<Network> {
        let network = json!({
            "Name": "web", "Id": "3f".repeat(32), "Created": "2026-01-31T12:00:00Z",
            "Scope": "local", "Driver": "netagent", "EnableIPv4": true, "EnableIPv6": true,
            "IPAM": {"Driver": "netagent", "Options": {}, "Config": [
                {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"}, {"Subnet": "fd00::/64"}]},
            "Internal": false, "Attachable": false, "Ingress": false,
            "ConfigFrom": {"Network": ""}, "ConfigOnly": false, "Containers": {},
            "Options": {}, "Labels": {"a": "b", "c": ""}, "Origin": "docker",
        });
        vec![serde_json::from_value(network).unwrap()]
    }

    fn list(quiet: bool, no_trunc: bool, format: Option<&str>) -> String {
        let format = format.map(str::to_owned);
        let args = ListArgs { quiet, filter: Vec::new(), no_trunc, format };
        shown(&networks(), &args, Form::Text).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn the_table_begins_with_dockers_columns() {
        assert_eq!(
            list(false, false, None),
            "NETWORK ID     NAME   DRIVER     SCOPE   SUBNETS                  ORIGIN\n\
             3f3f3f3f3f3f   web    netagent   local   10.1.0.0/24, fd00::/64   docker\n"
        );
    }

    #[test]
    fn quiet_prints_ids_and_no_trunc_whole_ones() {
        assert_eq!(list(true, false, None), "3f3f3f3f3f3f\n");
        assert_eq!(list(true, true, None), format!("{}\n", "3f".repeat(32)));
    }

    #[test]
    fn formats_of_docker_users_work() {
        assert_eq!(list(false, false, Some("{{.ID}}: {{.Driver}}")), "3f3f3f3f3f3f: netagent\n");
        assert_eq!(
            list(false, false, Some(r"table {{.Name}}\t{{.Labels}}\t{{.IPv6}}")),
            "NAME   LABELS   IPV6\nweb    a=b,c=   true\n"
        );
        assert_eq!(list(false, false, Some("{{.Label \"a\"}}{{.Label \"x\"}}")), "b\n");
        assert!(!list(false, false, Some("json")).contains("\"Label\""));
        assert!(list(false, false, Some("json")).contains("\"Name\":\"web\""));
    }
}
