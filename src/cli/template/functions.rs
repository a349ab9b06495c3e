//! Functions of templates: Go's own, and those Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use crate::model::nearest;

type Call = fn(&[Value]) -> Result<Value, String>;

/// A function by its name, with how few arguments it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    name: &'static str,
    least: usize,
    most: usize,
    call: Call,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

const MANY: usize = usize::MAX;

const FUNCTIONS: &[Function] = &[
    function("and", 1, MANY, |values| Ok(first(values, |value| !truth(value)))),
    function("eq", 2, MANY, equal),
    function("ge", 2, 2, |values| ordered(values, Ordering::is_ge)),
    function("gt", 2, 2, |values| ordered(values, Ordering::is_gt)),
    function("index", 1, MANY, index),
    function("join", 2, 2, join),
    function("json", 1, 1, |values| Ok(Value::String(json(values)))),
    function("le", 2, 2, |values| ordered(values, Ordering::is_le)),
    function("len", 1, 1, length),
    function("lower", 1, 1, |values| Ok(text(values, str::to_lowercase))),
    function("lt", 2, 2, |values| ordered(values, Ordering::is_lt)),
    function("ne", 2, 2, |values| equal(values).map(|equal| Value::Bool(!truth(&equal)))),
    function("not", 1, 1, |values| Ok(Value::Bool(!values.iter().all(truth)))),
    function("or", 1, MANY, |values| Ok(first(values, truth))),
    function("print", 0, MANY, |values| Ok(Value::String(print(values)))),
    function("printf", 1, MANY, printf),
    function("println", 0, MANY, |values| Ok(Value::String(println(values)))),
    function("split", 2, 2, split),
    function("upper", 1, 1, |values| Ok(text(values, str::to_uppercase))),
];

const fn function(name: &'static str, least: usize, most: usize, call: Call) -> Function {
    Function { name, least, most, call }
}

impl Function {
    /// The function of this name.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let found = FUNCTIONS.iter().find(|function| function.name == name).copied();
        found.ok_or_else(|| {
            let names = || FUNCTIONS.iter().map(|function| function.name);
            match nearest(name, names()) {
                Some(near) => format!("there is no function \"{name}\"; did you mean \"{near}\"?"),
                None => {
                    let names: Vec<&str> = names().collect();
                    format!("there is no function \"{name}\"; there are {}", names.join(", "))
                }
            }
        })
    }

    /// Its value for these arguments.
    pub(super) fn call(&self, arguments: &[Value]) -> Result<Value, String> {
        let (count, name) = (arguments.len(), self.name);
        if count < self.least {
            let least = if self.most == self.least { "" } else { "at least " };
            return Err(format!("{name} takes {least}{} arguments, not {count}", self.least));
        }
        if count > self.most {
            return Err(format!("{name} takes {} arguments, not {count}", self.most));
        }
        (self.call)(arguments)
    }
}

/// Whether a value counts as true: not false, zero, empty or nothing.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let parts: Vec<String> = list.iter().map(plain).collect();
            format!("[{}]", parts.join(" "))
        }
        Value::Object(map) => {
            let part = |(key, value): (&String, &Value)| format!("{key}:{}", plain(value));
            let parts: Vec<String> = map.iter().map(part).collect();
            format!("map[{}]", parts.join(" "))
        }
    }
}

/// What a value is called in errors.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// The first value that decides, else the last.
fn first(values: &[Value], decides: impl Fn(&Value) -> bool) -> Value {
    values.iter().find(|value| decides(value)).or(values.last()).cloned().unwrap_or(Value::Null)
}

fn json(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect()
}

fn text(values: &[Value], change: impl Fn(&str) -> String) -> Value {
    Value::String(values.iter().map(|value| change(&plain(value))).collect())
}

/// Whether the first is equal to any of the others.
fn equal(values: &[Value]) -> Result<Value, String> {
    let Some((first, others)) = values.split_first() else { return Ok(Value::Bool(false)) };
    for other in others {
        let comparable = std::mem::discriminant(first) == std::mem::discriminant(other)
            || first.is_null()
            || other.is_null();
        if !comparable {
            return Err(format!("{} cannot be compared with {}", kind(first), kind(other)));
        }
    }
    Ok(Value::Bool(others.iter().any(|other| same(first, other))))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

fn ordered(values: &[Value], holds: fn(Ordering) -> bool) -> Result<Value, String> {
    let ordering = match values {
        [Value::Number(a), Value::Number(b)] => a.as_f64().partial_cmp(&b.as_f64()),
        [Value::String(a), Value::String(b)] => Some(a.cmp(b)),
        [a, b] => return Err(format!("{} cannot be compared with {}", kind(a), kind(b))),
        _ => None,
    };
    Ok(Value::Bool(ordering.is_some_and(holds)))
}

/// The element at each further argument in turn. A map's missing key gives an empty text, as in
/// Go for maps of texts.
fn index(values: &[Value]) -> Result<Value, String> {
    let Some((of, keys)) = values.split_first() else { return Ok(Value::Null) };
    let mut value = of.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Object(map), Value::String(key)) => {
                map.get(key).cloned().unwrap_or_else(|| Value::String(String::new()))
            }
            (Value::Array(list), Value::Number(at)) => {
                let found = at.as_u64().and_then(|at| list.get(usize::try_from(at).ok()?));
                found.cloned().ok_or_else(|| {
                    format!("index {at} is beyond the list's {} elements", list.len())
                })?
            }
            (value, key) => {
                return Err(format!("{} cannot be looked up in {}", kind(key), kind(value)));
            }
        };
    }
    Ok(value)
}

fn length(values: &[Value]) -> Result<Value, String> {
    match values {
        [Value::String(text)] => Ok(Value::from(text.len())),
        [Value::Array(list)] => Ok(Value::from(list.len())),
        [Value::Object(map)] => Ok(Value::from(map.len())),
        [other] => Err(format!("len: {} has no length", kind(other))),
        _ => Ok(Value::Null),
    }
}

fn join(values: &[Value]) -> Result<Value, String> {
    match values {
        [Value::Array(list), Value::String(between)] => {
            let parts: Vec<String> = list.iter().map(plain).collect();
            Ok(Value::String(parts.join(between)))
        }
        _ => Err("join takes a list and a text".into()),
    }
}

fn split(values: &[Value]) -> Result<Value, String> {
    match values {
        [Value::String(text), Value::String(at)] => {
            Ok(text.split(at.as_str()).map(Value::from).collect())
        }
        _ => Err("split takes two texts".into()),
    }
}

/// Go's fmt.Sprint: a space between two values neither of which is a text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    let mut last_is_text = true;
    for value in values {
        if !last_is_text && !value.is_string() {
            out.push(' ');
        }
        last_is_text = value.is_string();
        out.push_str(&plain(value));
    }
    out
}

fn println(values: &[Value]) -> String {
    let parts: Vec<String> = values.iter().map(plain).collect();
    format!("{}\n", parts.join(" "))
}

/// The verbs s, d, v and q, without widths.
fn printf(values: &[Value]) -> Result<Value, String> {
    let [Value::String(format), arguments @ ..] = values else {
        return Err("printf takes a text first".into());
    };
    let mut arguments = arguments.iter();
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('%') => out.push('%'),
            Some(verb @ ('s' | 'd' | 'v' | 'q')) => {
                let value = arguments.next().ok_or("printf has too few arguments")?;
                let shown = plain(value);
                out.push_str(&if verb == 'q' { Value::from(shown).to_string() } else { shown });
            }
            Some(other) => return Err(format!("printf: \"%{other}\" is not known here")),
            None => return Err("printf: \"%\" at the end".into()),
        }
    }
    match arguments.next() {
        None => Ok(Value::String(out)),
        Some(_) => Err("printf has too many arguments".into()),
    }
}
