//! `network prune`.

use std::io::{self, BufRead, Write};

use crate::api::client::Client;
use crate::api::filter::{Filters, PRUNE};
use crate::cli::output::{Form, Output, json};
use crate::model::{Error, Result};

/// What `network prune` takes.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove networks that pass: label=KEY[=VALUE], label!=KEY[=VALUE] or until=TIME
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

const QUESTION: &str = "\
WARNING! This will remove all of netagent's own networks that have no endpoints.
Are you sure you want to continue? [y/N] ";

pub(super) async fn run(args: PruneArgs, client: &Client, form: Form) -> Result<Output> {
    let filters = Filters::from_args(&args.filter, PRUNE)?;
    if args.dry_run {
        let pruned = client.plan_prune(&filters).await?;
        return match pruned.plans.is_empty() {
            true => Ok(Output::new("")),
            false => Output::plans(&pruned.plans, form),
        };
    }
    if !args.force && !confirmed(&mut io::stdin().lock(), &mut io::stderr())? {
        return Err(Error::usage("prune networks", "not confirmed, so nothing was removed")
            .advise("answer y, or use --force"));
    }
    let pruned = client.prune(&filters).await?;
    let text = match form {
        Form::Json => json(&pruned)?,
        Form::Text if pruned.networks_deleted.is_empty() => String::new(),
        Form::Text => {
            let names = pruned.networks_deleted.iter().map(|name| format!("{name}\n"));
            format!("Deleted Networks:\n{}\n", names.collect::<String>())
        }
    };
    let errors = pruned.errors.into_iter().map(Error::from).collect();
    Ok(Output { errors, ..Output::new(text) })
}

fn confirmed(answer: &mut impl BufRead, ask: &mut impl Write) -> Result<bool> {
    let failed = |error: io::Error| Error::unavailable("ask for confirmation", error.to_string());
    ask.write_all(QUESTION.as_bytes()).and_then(|()| ask.flush()).map_err(failed)?;
    let mut line = String::new();
    answer.read_line(&mut line).map_err(failed)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_confirms() {
        for (answer, expected) in
            [("y\n", true), ("Y\n", true), ("n\n", false), ("\n", false), ("", false)]
        {
            let mut asked = Vec::new();
            assert_eq!(confirmed(&mut answer.as_bytes(), &mut asked).unwrap(), expected);
            assert!(String::from_utf8(asked).unwrap().ends_with("[y/N] "));
        }
    }
}
