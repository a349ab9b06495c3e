//! `status`: how the agent is, in sentences.

use super::exit::Exit;
use super::output::{Form, Output, json};
use crate::api::client::Client;
use crate::api::wire::Status;
use crate::model::Result;

/// What `status` takes.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Return when no link waits to be deleted any more
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(args: StatusArgs, client: &Client, form: Form) -> Result<Output> {
    let status = if args.wait { client.status_settled().await? } else { client.status().await? };
    let waited_in_vain = args.wait && status.garbage > 0;
    let text = match form {
        Form::Json => json(&status)?,
        Form::Text => prose(&status),
    };
    let well = is_well(&status) && !waited_in_vain;
    Ok(Output { exit: if well { Exit::Ok } else { Exit::Degraded }, ..Output::new(text) })
}

fn is_well(status: &Status) -> bool {
    status.drift.is_empty() && status.problems.is_empty()
}

fn prose(status: &Status) -> String {
    let mut text = format!(
        "netagent is {}: {}, {}, {}.\n",
        if is_well(status) { "well" } else { "degraded" },
        counted(status.networks, "network"),
        counted(status.endpoints, "endpoint"),
        counted(status.ports, "published port"),
    );
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n"));
            text.extend(lines.iter().map(|line| format!("  {line}\n")));
        }
    };
    let problem = |subject: &str, text: &str| {
        format!("{subject}: {}", text.trim_end().replace('\n', "\n    "))
    };
    let problems = &status.problems;
    section(
        "Problems",
        problems.iter().map(|found| problem(&found.subject, &found.text)).collect(),
    );
    section("The host differs from what was asked for; this would repair it", status.drift.clone());
    let sysctls = &status.host_sysctls;
    section(
        "Settings of the host that were changed, and go back with the last network",
        sysctls.iter().map(|saved| format!("{} was {}", saved.key, saved.before)).collect(),
    );
    if status.garbage > 0 {
        let links = counted(status.garbage, "link");
        let verb = if status.garbage == 1 { "waits" } else { "wait" };
        text.push_str(&format!("\n{links} out of service {verb} to be deleted.\n"));
    }
    text
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{Problem, Sysctl};

    #[test]
    fn a_healthy_agent_is_one_line() {
        let status = Status { networks: 1, endpoints: 2, ..Status::default() };
        assert_eq!(
            prose(&status),
            "netagent is well: 1 network, 2 endpoints, no published ports.\n"
        );
    }

    #[test]
    fn whatever_is_wrong_is_said() {
        let status = Status {
            networks: 1,
            drift: vec!["+ link   host nab-3f".into()],
            problems: vec![Problem { subject: "DOCKER-USER".into(), text: "gone\nadd it".into() }],
            host_sysctls: vec![Sysctl { key: "net.ipv4.x".into(), before: "0".into() }],
            garbage: 2,
            ..Status::default()
        };
        assert_eq!(
            prose(&status),
            "netagent is degraded: 1 network, no endpoints, no published ports.\n\
             \n\
             Problems\n  \
               DOCKER-USER: gone\n    \
                 add it\n\
             \n\
             The host differs from what was asked for; this would repair it\n  \
               + link   host nab-3f\n\
             \n\
             Settings of the host that were changed, and go back with the last network\n  \
               net.ipv4.x was 0\n\
             \n\
             2 links out of service wait to be deleted.\n"
        );
    }
}
