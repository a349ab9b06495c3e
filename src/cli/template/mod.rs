//! The part of Go's text/template that `--format` is used with, over JSON values.
//!
//! Fields, `index`, `range`, `if`, `with`, variables, pipelines, and Docker's `json`, `join`,
//! `split`, `lower`, `upper`. A field or function that does not exist is an error that names it,
//! where Go prints `<no value>`; a field with arguments, as in Docker's `.Label "key"`, is looked up
//! in. Not there: `define`, `template`, `block`.
//! Source: pkg.go.dev/text/template; docker/cli templates package.

mod eval;
mod functions;
mod lex;
mod parse;

use serde_json::Value;

use crate::model::{Error, Result};
use parse::Node;

/// A template, read once and used for every row.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Reads a template; `\t` and `\n` in its text are a tab and a line's end, as in Docker.
    pub fn parse(text: &str) -> Result<Self> {
        lex::lex(text)
            .and_then(parse::parse)
            .map(|nodes| Self { nodes })
            .map_err(|why| Error::usage("read the format", why))
    }

    /// The text for one value.
    pub fn render(&self, value: &Value) -> Result<String> {
        eval::render(&self.nodes, value).map_err(|why| Error::usage("use the format", why))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn network() -> Value {
        json!({
            "Name": "web", "Internal": false, "Count": 3,
            "Labels": {"a.b": "c", "tier": "front"},
            "IPAM": {"Driver": "netagent", "Config": [
                {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"},
                {"Subnet": "fd00::/64", "Gateway": ""}]},
            "Containers": {"e1": {"Name": "one"}, "e2": {"Name": "two"}},
            "Empty": [],
        })
    }

    fn shown(template: &str) -> String {
        match Template::parse(template).and_then(|template| template.render(&network())) {
            Ok(text) => text,
            Err(error) => format!("error: {}", error.why),
        }
    }

    fn check(cases: &[(&str, &str)]) {
        for (template, expected) in cases {
            assert_eq!(shown(template), *expected, "{template}");
        }
    }

    #[test]
    fn fields_and_text_are_shown() {
        check(&[
            ("", ""),
            ("{{.Name}}", "web"),
            ("{{ .IPAM.Driver }}!", "netagent!"),
            (r"{{.Name}}\t{{.Count}}\n", "web\t3\n"),
            ("{{.Internal}} {{$.Name}}", "false web"),
            ("a {{- .Name -}} b", "awebb"),
            ("{{/* nothing */}}{{.Name}}", "web"),
            ("{{\"a\\tb\"}}{{`c\\t`}}", "a\tbc\\t"),
        ]);
    }

    #[test]
    fn json_is_a_function_and_a_filter() {
        check(&[
            ("{{json .Labels}}", r#"{"a.b":"c","tier":"front"}"#),
            ("{{.Name | json}}", "\"web\""),
            ("{{json .Empty}}", "[]"),
        ]);
    }

    #[test]
    fn ranges_go_over_lists_and_maps() {
        check(&[
            ("{{range .IPAM.Config}}{{.Subnet}} {{end}}", "10.1.0.0/24 fd00::/64 "),
            ("{{range $k, $v := .Containers}}{{$k}}={{$v.Name}};{{end}}", "e1=one;e2=two;"),
            ("{{range $v := .Containers}}{{$v.Name}};{{end}}", "one;two;"),
            ("{{range $i, $c := .IPAM.Config}}{{$i}}{{end}}", "01"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range .IPAM.Config}}{{$.Name}}{{break}}{{end}}", "web"),
            (
                "{{range .IPAM.Config}}{{if .Gateway}}{{continue}}{{end}}{{.Subnet}}{{end}}",
                "fd00::/64",
            ),
        ]);
    }

    #[test]
    fn conditions_choose() {
        check(&[
            ("{{if .Internal}}in{{else}}out{{end}}", "out"),
            ("{{if eq .Name \"web\"}}yes{{end}}", "yes"),
            ("{{if eq .Name \"a\" \"web\"}}yes{{end}}", "yes"),
            ("{{if ne .Name \"web\"}}a{{else if .Count}}b{{else}}c{{end}}", "b"),
            ("{{if and .Name (not .Internal)}}yes{{end}}", "yes"),
            ("{{or .Internal .Name}}", "web"),
            ("{{if gt .Count 2}}many{{end}}{{if lt .Count 2}}few{{end}}", "many"),
            ("{{with .IPAM}}{{.Driver}}{{end}}", "netagent"),
            ("{{with .Empty}}x{{else}}y{{end}}", "y"),
            ("{{$n := .Name}}{{range .IPAM.Config}}{{$n}}{{end}}", "webweb"),
            ("{{$n := 1}}{{if true}}{{$n = 2}}{{end}}{{$n}}", "2"),
        ]);
    }

    #[test]
    fn functions_work_as_in_go() {
        check(&[
            ("{{index .Labels \"a.b\"}}", "c"),
            ("{{index .Labels \"missing\"}}", ""),
            ("{{(index .IPAM.Config 0).Subnet}}", "10.1.0.0/24"),
            ("{{index .IPAM.Config 1 \"Subnet\"}}", "fd00::/64"),
            ("{{.Labels \"a.b\"}}", "c"),
            ("{{len .Containers}}{{len .Name}}", "23"),
            ("{{println .Name .Count}}", "web 3\n"),
            ("{{range .Containers}}{{println .Name}}{{end}}", "one\ntwo\n"),
            ("{{.Name | upper | printf \"%s!\"}}", "WEB!"),
            ("{{join (split \"a,b\" \",\") \"-\"}}", "a-b"),
            ("{{print .Name .Count}}", "web3"),
            ("{{printf \"%d %v %q %%\" .Count .Name .Name}}", "3 web \"web\" %"),
        ]);
    }

    #[test]
    fn what_does_not_exist_is_named() {
        check(&[
            ("{{.Nam}}", "error: there is no field \"Nam\"; did you mean \"Name\"?"),
            ("{{.IPAM.Foo}}", "error: there is no field \"Foo\"; there are Config, Driver"),
            ("{{.Name.X}}", "error: there is no field \"X\" in a text"),
            ("{{jsn .}}", "error: there is no function \"jsn\"; did you mean \"json\"?"),
            ("{{$x}}", "error: there is no variable \"$x\""),
            ("{{index .IPAM.Config 9}}", "error: index 9 is beyond the list's 2 elements"),
            ("{{len .Count}}", "error: len: a number has no length"),
            ("{{.Name \"x\"}}", "error: a text cannot be looked up in a text"),
            ("{{eq 1}}", "error: eq takes at least 2 arguments, not 1"),
        ]);
    }

    #[test]
    fn malformed_templates_are_refused() {
        for template in [
            "{{",
            "{{}}",
            "{{.Name",
            "{{if .Name}}",
            "{{end}}",
            "{{range}}{{end}}",
            "{{else}}",
            "{{\"a}}",
            "{{(.Name}}",
            "{{.Name)}}",
            "{{| json}}",
            "{{.Name |}}",
            "{{$a := }}",
            "{{.Name | .Name}}",
            "{{break}}",
            "{{#}}",
            "{{/* open",
            "{{1a}}",
            "{{if .A}}{{else}}{{else}}{{end}}",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let deep = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(shown(&deep).contains("nested too deep"));
        let blocks = "{{if 1}}".repeat(100_000);
        assert!(shown(&blocks).contains("nested too deep"));
    }

    #[test]
    fn a_letter_that_is_a_number_too_is_a_word_and_no_endless_one() {
        assert!(shown("{{Ⅷ}}").starts_with("error:"));
        assert!(shown("{{.Ⅷ}}").starts_with("error:"));
    }

    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{{",
            "}}",
            "{{-",
            "-}}",
            ".Name",
            ".",
            "$",
            "$k",
            " ",
            "range ",
            "if ",
            "else",
            "end",
            ":=",
            "=",
            ",",
            "|",
            "(",
            ")",
            "index ",
            "json ",
            "len ",
            "printf ",
            "\"%s%d\"",
            "`x`",
            "0",
            "-1",
            "9e9",
            ".IPAM.Config",
            "é",
            "{{end}}",
            "{{else}}",
            "break",
            "eq ",
            "\\t",
            "'",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            shown(&text);
            shown(&format!("{{{{{text}}}}}"));
        }

        #[test]
        fn no_mixture_of_its_own_words_makes_it_panic(text in pieces()) {
            shown(&text);
        }
    }
}
