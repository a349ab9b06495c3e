//! `help`: commands as clap describes them, and drivers' option tables.

use clap::Command;
use serde::Serialize;

use super::output::{Form, Output, json};
use crate::driver::OptionRow;
use crate::driver::bridge::OPTIONS as BRIDGE;
use crate::model::{Error, Result, nearest};

/// What `help` takes.
#[derive(Debug, clap::Args)]
pub struct HelpArgs {
    /// A command, or `driver NAME`
    topic: Vec<String>,
    /// Print a driver's options as a table for a README
    #[arg(long)]
    markdown: bool,
}

/// Drivers, their options, and a line about each.
const DRIVERS: &[(&str, &[OptionRow], &str)] =
    &[("bridge", BRIDGE, "one Linux bridge a network, one veth pair an endpoint")];

pub(super) fn run(args: &HelpArgs, mut command: Command, form: Form) -> Result<Output> {
    match args.topic.iter().map(String::as_str).collect::<Vec<&str>>().as_slice() {
        ["driver" | "drivers"] => Ok(Output::new(drivers())),
        ["driver", name] => driver(name, args, form).map(Output::new),
        topic => {
            // Fills in what subcommands inherit, as parsing would have done.
            command.build();
            let found = topic.iter().try_fold(&mut command, |command, name| {
                let known: Vec<String> =
                    command.get_subcommands().map(|known| known.get_name().to_owned()).collect();
                command
                    .find_subcommand_mut(name)
                    .ok_or_else(|| unknown("command", name, known.iter().map(String::as_str)))
            })?;
            Ok(Output::new(found.render_long_help().to_string()))
        }
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::usage(format!("help for {what} \"{name}\""), format!("no such {what}"));
    match nearest(name, known) {
        Some(near) => error.advise(format!("did you mean \"{near}\"?")),
        None => error,
    }
}

fn drivers() -> String {
    let lines = DRIVERS.iter().map(|(name, _, about)| format!("  {name}   {about}\n"));
    format!(
        "Drivers:\n{}\n`netagent help driver NAME` lists a driver's options.\n",
        lines.collect::<String>()
    )
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    key: &'static str,
    values: &'static str,
    default: &'static str,
    meaning: &'static str,
}

fn driver(name: &str, args: &HelpArgs, form: Form) -> Result<String> {
    let known = DRIVERS.iter().find(|(known, ..)| *known == name);
    let names = DRIVERS.iter().map(|(known, ..)| *known);
    let (name, options, about) = known.ok_or_else(|| unknown("driver", name, names))?;
    match (form, args.markdown) {
        (Form::Json, _) => {
            let row = |row: &OptionRow| Row {
                key: row.key,
                values: row.values,
                default: row.default,
                meaning: row.meaning,
            };
            json(&options.iter().map(row).collect::<Vec<Row>>())
        }
        (Form::Text, true) => Ok(markdown(options)),
        (Form::Text, false) => Ok(format!(
            "The {name} driver: {about}.\n\n\
             Options (netagent network create -o KEY=VALUE NAME):\n\n{}",
            options.iter().map(listed).collect::<String>(),
        )),
    }
}

fn listed(row: &OptionRow) -> String {
    format!(
        "  {}\n      {}\n      {} (default: {})\n\n",
        row.key, row.meaning, row.values, row.default
    )
}

fn markdown(options: &[OptionRow]) -> String {
    let row = |row: &OptionRow| {
        format!("| `{}` | {} | {} | {} |\n", row.key, row.values, row.default, row.meaning)
    };
    let mut text = String::from("| option | values | default | meaning |\n|---|---|---|---|\n");
    text.extend(options.iter().map(row));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(topic: &[&str], markdown: bool) -> String {
        let topic = topic.iter().map(ToString::to_string).collect();
        let command = Command::new("netagent").subcommand(Command::new("ports").about("All ports"));
        match run(&HelpArgs { topic, markdown }, command, Form::Text) {
            Ok(output) => output.text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_option_is_listed() {
        let text = help(&["driver", "bridge"], false);
        for row in BRIDGE {
            assert!(text.contains(row.key), "{}", row.key);
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn markdown_has_a_row_an_option() {
        let text = help(&["driver", "bridge"], true);
        assert_eq!(text.matches("| `com.docker.").count(), BRIDGE.len());
    }

    #[test]
    fn commands_and_wrong_topics_are_told_apart() {
        assert!(help(&["ports"], false).contains("All ports"));
        assert!(help(&["port"], false).contains("did you mean \"ports\"?"));
        assert!(help(&["driver", "bridg"], false).contains("did you mean \"bridge\"?"));
    }
}
