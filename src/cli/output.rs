//! What a command prints: tables, templates, JSON.

use serde::Serialize;
use serde_json::Value;

use super::exit::Exit;
use super::template::Template;
use crate::api::wire::Plan;
use crate::model::{Error, Result};

/// Everything a command has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// For stdout.
    pub text: String,
    /// For stderr, each behind `netagent: warning: `.
    pub warnings: Vec<String>,
    /// For stderr, each behind `netagent: `.
    pub errors: Vec<Error>,
    /// How the command ended where there are no errors.
    pub exit: Exit,
}

impl Output {
    /// A success that prints `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), warnings: Vec::new(), errors: Vec::new(), exit: Exit::Ok }
    }

    /// The result of a dry run: its text, and whether anything would change.
    pub fn plans(plans: &[Plan], form: Form) -> Result<Self> {
        let changes = plans.iter().any(|plan| !plan.steps.is_empty());
        let text = match (form, plans) {
            (Form::Json, [only]) => json(only)?,
            (Form::Json, plans) => json(plans)?,
            (Form::Text, _) if plans.iter().all(|plan| plan.text.is_empty()) => {
                "Nothing would change.\n".into()
            }
            (Form::Text, plans) => {
                let texts = plans.iter().map(|plan| plan.text.as_str());
                texts.filter(|text| !text.is_empty()).collect::<Vec<&str>>().join("\n")
            }
        };
        let exit = if changes { Exit::WouldChange } else { Exit::Ok };
        Ok(Self { exit, ..Self::new(text) })
    }

    /// With warnings, which JSON holds already.
    pub fn warn(self, warnings: Vec<String>, form: Form) -> Self {
        match form {
            Form::Text => Self { warnings, ..self },
            Form::Json => self,
        }
    }

    /// How the command ended: as its first error says, if there is one.
    pub fn exit(&self) -> Exit {
        self.errors.first().map_or(self.exit, |error| error.class.into())
    }
}

impl From<Error> for Output {
    fn from(error: Error) -> Self {
        Self { errors: vec![error], ..Self::new("") }
    }
}

/// What the user reads it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Eyes.
    Text,
    /// A program.
    Json,
}

/// Indented by four, as Docker does.
pub fn json(value: &(impl Serialize + ?Sized)) -> Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    let failed = |why: String| Error::unavailable("write JSON", why);
    value.serialize(&mut serializer).map_err(|error| failed(error.to_string()))?;
    let mut text = String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
    text.push('\n');
    Ok(text)
}

/// A value as templates see it.
pub fn value(of: &impl Serialize) -> Result<Value> {
    serde_json::to_value(of).map_err(|error| Error::unavailable("write JSON", error.to_string()))
}

/// A column of a list: its name in templates, and its heading.
pub type Column = (&'static str, &'static str);

/// Rows as `--format` asks: `json` for one object a line, `table …` for aligned columns with
/// headings, anything else once a row.
pub fn formatted(format: &str, headings: &[Column], rows: &[Value]) -> Result<String> {
    if format == "json" {
        let line = |row: &Value| {
            let cell = |(name, _): &Column| Some(((*name).to_owned(), row.get(name)?.clone()));
            format!("{}\n", headings.iter().filter_map(cell).collect::<Value>())
        };
        return Ok(rows.iter().map(line).collect());
    }
    let Some(format) = format.strip_prefix("table").map(str::trim_start) else {
        return lines(&Template::parse(format)?, rows);
    };
    let template = Template::parse(format)?;
    let heading: Value = headings
        .iter()
        .map(|(name, heading)| ((*name).to_owned(), Value::from(*heading)))
        .collect();
    let text = lines(&template, std::iter::once(&heading).chain(rows))?;
    let cells = text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    Ok(aligned(cells))
}

fn lines<'a>(template: &Template, rows: impl IntoIterator<Item = &'a Value>) -> Result<String> {
    rows.into_iter().map(|row| template.render(row).map(|text| text + "\n")).collect()
}

/// A table with headings.
pub fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let heading = headings.iter().map(|heading| (*heading).to_owned()).collect();
    aligned(std::iter::once(heading).chain(rows).collect())
}

/// Columns padded to their widest cell and three spaces, as Docker's are; no white space at the
/// end of a line.
pub fn aligned(rows: Vec<Vec<String>>) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEADINGS: &[Column] = &[("ID", "NETWORK ID"), ("Name", "NAME")];

    fn shown(format: &str) -> String {
        let rows = [json!({"ID": "3f", "Name": "web"}), json!({"ID": "4a", "Name": "database"})];
        formatted(format, HEADINGS, &rows).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_format_is_used_once_a_row() {
        assert_eq!(shown("{{.ID}}: {{.Name}}"), "3f: web\n4a: database\n");
        assert_eq!(
            shown("json"),
            "{\"ID\":\"3f\",\"Name\":\"web\"}\n{\"ID\":\"4a\",\"Name\":\"database\"}\n"
        );
        assert!(shown("{{.Nme}}").contains("did you mean \"Name\"?"));
    }

    #[test]
    fn a_table_has_headings_and_aligned_columns() {
        assert_eq!(
            shown(r"table {{.Name}}\t{{.ID}}"),
            "NAME       NETWORK ID\nweb        3f\ndatabase   4a\n"
        );
    }

    #[test]
    fn columns_count_characters_and_lines_end_without_spaces() {
        let rows = vec![vec!["ü".into(), "b".into()], vec!["lang".into(), String::new()]];
        assert_eq!(table(&["A", "B"], rows), "A      B\nü      b\nlang\n");
    }

    #[test]
    fn a_dry_run_that_would_change_something_says_so() {
        let empty = Plan::default();
        let step = crate::api::wire::Step { change: "+ link".into(), why: "asked".into() };
        let full = Plan { text: "+ link  asked\n".into(), steps: vec![step], ..Plan::default() };
        assert_eq!(
            Output::plans(std::slice::from_ref(&empty), Form::Text).unwrap().exit(),
            Exit::Ok
        );
        let output = Output::plans(&[empty, full], Form::Text).unwrap();
        assert_eq!((output.exit(), output.text.as_str()), (Exit::WouldChange, "+ link  asked\n"));
    }
}
