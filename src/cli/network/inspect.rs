//! `network inspect`.

use crate::api::client::Client;
use crate::api::wire::Network;
use crate::cli::output::{Output, json, value};
use crate::cli::template::Template;
use crate::model::{ErrorClass, Result};

/// What `network inspect` takes.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// `json`, or a Go template, e.g. '{{range .IPAM.Config}}{{.Subnet}}{{end}}'
    #[arg(short, long)]
    format: Option<String>,
    /// Taken as Docker takes it; everything is shown anyway
    #[arg(short, long, hide = true)]
    verbose: bool,
}

/// Shows what there is; what is missing becomes an error beside it.
pub(super) async fn run(args: InspectArgs, client: &Client) -> Result<Output> {
    let template = args
        .format
        .as_deref()
        .filter(|format| *format != "json")
        .map(Template::parse)
        .transpose()?;
    let mut networks: Vec<Network> = Vec::new();
    let mut errors = Vec::new();
    for reference in &args.networks {
        match client.network(reference).await {
            Ok(network) => networks.push(network),
            Err(error) if error.class == ErrorClass::NotFound => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    let text = match (&template, &args.format) {
        (Some(template), _) => {
            let shown = |network| Ok(template.render(&value(network)?)? + "\n");
            networks.iter().map(shown).collect::<Result<String>>()?
        }
        (None, Some(_)) => serde_json::to_string(&networks).unwrap_or_default() + "\n",
        (None, None) => json(&networks)?,
    };
    Ok(Output { errors, ..Output::new(text) })
}
