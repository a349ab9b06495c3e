//! `netagent network …`, in Docker's grammar.

mod connect;
mod create;
mod inspect;
mod list;
mod prune;
mod remove;
mod subnets;
mod update;

use super::output::{Form, Output};
use crate::api::client::Client;
use crate::model::Result;

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum NetworkCommand {
    /// Create a network and print its id
    Create(create::CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::ListArgs),
    /// Show networks in detail, as `docker network inspect` does
    Inspect(inspect::InspectArgs),
    /// Change a network while its containers run
    Update(update::UpdateArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(remove::RemoveArgs),
    /// Remove all networks without endpoints
    Prune(prune::PruneArgs),
    /// Attach a network namespace to a network and print the endpoint's id
    Connect(connect::ConnectArgs),
    /// Take an endpoint out of a network
    Disconnect(connect::DisconnectArgs),
}

pub(super) async fn run(command: NetworkCommand, client: &Client, form: Form) -> Result<Output> {
    match command {
        NetworkCommand::Create(args) => create::run(args, client, form).await,
        NetworkCommand::Ls(args) => list::run(args, client, form).await,
        NetworkCommand::Inspect(args) => inspect::run(args, client).await,
        NetworkCommand::Update(args) => update::run(args, client, form).await,
        NetworkCommand::Rm(args) => remove::run(args, client, form).await,
        NetworkCommand::Prune(args) => prune::run(args, client, form).await,
        NetworkCommand::Connect(args) => connect::connect(args, client, form).await,
        NetworkCommand::Disconnect(args) => connect::disconnect(args, client, form).await,
    }
}
