//! `gc`: what is netagent's and nothing asks for.

use super::output::{Form, Output, json};
use crate::api::client::Client;
use crate::model::Result;

/// What `gc` takes.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: GcArgs, client: &Client, form: Form) -> Result<Output> {
    if args.dry_run {
        return Output::plans(&[client.plan_collect_garbage().await?], form);
    }
    let plan = client.collect_garbage().await?;
    Ok(Output::new(match form {
        Form::Json => json(&plan)?,
        Form::Text if plan.text.is_empty() => "Nothing to remove.\n".into(),
        Form::Text => plan.text,
    }))
}
