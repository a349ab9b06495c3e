//! From a tree and a value to text.

use serde_json::Value;

use super::functions::{kind, plain, truth};
use super::parse::{Command, Node, Operand, Pipeline, Range, Setting, Term};
use crate::model::nearest;

/// Largest text made of one value, in bytes: loops in loops multiply.
const OUTPUT_BYTES: usize = 16 << 20;

/// The text of a template for one value.
pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String, String> {
    let mut scope = Scope { out: String::new(), variables: vec![("$".into(), value.clone())] };
    scope.run(nodes, value)?;
    Ok(scope.out)
}

/// How a block ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Scope {
    out: String,
    variables: Vec<(String, Value)>,
}

impl Scope {
    fn run(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        let known = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                self.variables.truncate(known);
                return Ok(flow);
            }
            if self.out.len() > OUTPUT_BYTES {
                return Err("the text grows beyond 16 MiB".into());
            }
        }
        self.variables.truncate(known);
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Show(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.out.push_str(&plain(&value));
            }
            Node::Set { name, how, value } => {
                let value = self.pipeline(value, dot)?;
                self.set(name, *how, value)?;
            }
            Node::If { condition, then, otherwise } => {
                let condition = self.pipeline(condition, dot)?;
                return self.run(if truth(&condition) { then } else { otherwise }, dot);
            }
            Node::With { name, value, then, otherwise } => {
                let value = self.pipeline(value, dot)?;
                if !truth(&value) {
                    return self.run(otherwise, dot);
                }
                let known = self.variables.len();
                self.variables.extend(name.iter().map(|name| (name.clone(), value.clone())));
                let flow = self.run(then, &value)?;
                self.variables.truncate(known);
                return Ok(flow);
            }
            Node::Range(range) => return self.range(range, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, range: &Range, dot: &Value) -> Result<Flow, String> {
        let pairs: Vec<(Value, Value)> = match self.pipeline(&range.over, dot)? {
            Value::Array(list) => {
                list.into_iter().enumerate().map(|(at, value)| (Value::from(at), value)).collect()
            }
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (Value::from(key), value)).collect()
            }
            Value::Null => Vec::new(),
            other @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                return Err(format!("range: {} has no elements", kind(&other)));
            }
        };
        if pairs.is_empty() {
            return self.run(&range.otherwise, dot);
        }
        let known = self.variables.len();
        for (key, element) in pairs {
            self.variables.extend(range.key.iter().map(|name| (name.clone(), key.clone())));
            self.variables.extend(range.element.iter().map(|name| (name.clone(), element.clone())));
            let flow = self.run(&range.body, &element)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn set(&mut self, name: &str, how: Setting, value: Value) -> Result<(), String> {
        match how {
            Setting::Declare => self.variables.push((name.to_owned(), value)),
            Setting::Assign => {
                let found = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                found.ok_or_else(|| no_variable(name))?.1 = value;
            }
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut value = match &pipeline.first {
            Command::Value(operand) => self.operand(operand, dot)?,
            Command::Call(function, arguments) => function.call(&self.operands(arguments, dot)?)?,
        };
        for (function, arguments) in &pipeline.then {
            let mut arguments = self.operands(arguments, dot)?;
            arguments.push(value);
            value = function.call(&arguments)?;
        }
        Ok(value)
    }

    fn operands(&self, operands: &[Operand], dot: &Value) -> Result<Vec<Value>, String> {
        operands.iter().map(|operand| self.operand(operand, dot)).collect()
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let made;
        let mut value = match &operand.term {
            Term::Dot => dot,
            Term::Literal(value) => value,
            Term::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                &found.ok_or_else(|| no_variable(name))?.1
            }
            Term::Call(function) => {
                made = function.call(&[])?;
                &made
            }
            Term::Parens(pipeline) => {
                made = self.pipeline(pipeline, dot)?;
                &made
            }
        };
        for name in &operand.fields {
            value = field(value, name)?;
        }
        Ok(value.clone())
    }
}

fn no_variable(name: &str) -> String {
    format!("there is no variable \"{name}\"")
}

fn field<'a>(value: &'a Value, name: &str) -> Result<&'a Value, String> {
    let Value::Object(map) = value else {
        return Err(format!("there is no field \"{name}\" in {}", kind(value)));
    };
    map.get(name).ok_or_else(|| {
        let names = || map.keys().map(String::as_str);
        match nearest(name, names()) {
            Some(near) => format!("there is no field \"{name}\"; did you mean \"{near}\"?"),
            None if map.is_empty() => format!("there is no field \"{name}\", nor any other"),
            None => {
                let names: Vec<&str> = names().take(24).collect();
                format!("there is no field \"{name}\"; there are {}", names.join(", "))
            }
        }
    })
}
