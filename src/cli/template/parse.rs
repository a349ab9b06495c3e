//! From tokens to a tree.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde_json::Value;

use super::functions::Function;
use super::lex::{Piece, Token};

/// How deep blocks and parentheses nest; far beyond what anybody writes, far below the stack.
const DEPTH: usize = 64;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Text as it is shown.
    Text(String),
    /// A value to show.
    Show(Pipeline),
    /// `{{$name := …}}` or `{{$name = …}}`; shows nothing.
    Set { name: String, how: Setting, value: Pipeline },
    /// `{{if …}}…{{else}}…{{end}}`
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    /// `{{with …}}…{{else}}…{{end}}`
    With { name: Option<String>, value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    /// `{{range …}}…{{else}}…{{end}}`
    Range(Box<Range>),
    /// `{{break}}`
    Break,
    /// `{{continue}}`
    Continue,
}

/// Whether a variable is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// A loop.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    /// Variable of the index or key.
    pub key: Option<String>,
    /// Variable of the element.
    pub element: Option<String>,
    /// What it goes over.
    pub over: Pipeline,
    /// Once for each element.
    pub body: Vec<Node>,
    /// When there are none.
    pub otherwise: Vec<Node>,
}

/// Commands, each given the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    /// The first.
    pub first: Command,
    /// Those behind bars.
    pub then: Vec<(Function, Vec<Operand>)>,
}

/// A value, or a function with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    /// A value.
    Value(Operand),
    /// A call.
    Call(Function, Vec<Operand>),
}

/// A term and the fields taken of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    /// What stands there.
    pub term: Term,
    /// Fields, outermost first.
    pub fields: Vec<String>,
}

/// The smallest part.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Term {
    /// The value at hand.
    Dot,
    /// A variable, with its dollar.
    Variable(String),
    /// A value as written.
    Literal(Value),
    /// A function without arguments inside another's arguments.
    Call(Function),
    /// What is in parentheses.
    Parens(Box<Pipeline>),
}

/// The tree of a template.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, String> {
    let mut parser = Parser { pieces: pieces.into_iter(), depth: 0, loops: 0 };
    match parser.block()? {
        (nodes, Ended::Out) => Ok(nodes),
        (_, Ended::End) => Err("{{end}} without a block".into()),
        (_, Ended::Else(_)) => Err("{{else}} without a block".into()),
    }
}

type Words = Peekable<IntoIter<Token>>;

/// What ended a block.
enum Ended {
    Out,
    End,
    Else(Words),
}

struct Parser {
    pieces: IntoIter<Piece>,
    depth: usize,
    loops: usize,
}

impl Parser {
    fn block(&mut self) -> Result<(Vec<Node>, Ended), String> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            let mut words = tokens.into_iter().peekable();
            let node = match keyword.as_str() {
                "end" => {
                    words.next();
                    finish(&mut words)?;
                    return Ok((nodes, Ended::End));
                }
                "else" => {
                    words.next();
                    return Ok((nodes, Ended::Else(words)));
                }
                "if" | "with" | "range" => {
                    words.next();
                    self.nested(&keyword, words)?
                }
                "break" | "continue" if self.loops == 0 => {
                    return Err(format!("{{{{{keyword}}}}} outside of a range"));
                }
                "break" => Node::Break,
                "continue" => Node::Continue,
                _ => statement(words)?,
            };
            nodes.push(node);
        }
        Ok((nodes, Ended::Out))
    }

    fn nested(&mut self, keyword: &str, words: Words) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("blocks are nested too deep: more than {DEPTH}"));
        }
        let node = match keyword {
            "range" => self.range(words)?,
            "with" => {
                let (mut names, value) = declared(words)?;
                if names.len() > 1 {
                    return Err("with takes one variable".into());
                }
                let (then, otherwise) = self.branches(keyword)?;
                Node::With { name: names.pop(), value, then, otherwise }
            }
            _ => {
                let condition = whole(words)?;
                let (then, otherwise) = self.branches(keyword)?;
                Node::If { condition, then, otherwise }
            }
        };
        self.depth -= 1;
        Ok(node)
    }

    fn range(&mut self, words: Words) -> Result<Node, String> {
        let (names, over) = declared(words)?;
        let mut names = names.into_iter();
        let (key, element) = match (names.next(), names.next(), names.next()) {
            (None, ..) => (None, None),
            (Some(element), None, _) => (None, Some(element)),
            (key, element, None) => (key, element),
            (_, _, Some(_)) => return Err("range takes at most two variables".into()),
        };
        self.loops += 1;
        let branches = self.branches("range");
        self.loops -= 1;
        let (body, otherwise) = branches?;
        Ok(Node::Range(Box::new(Range { key, element, over, body, otherwise })))
    }

    /// The block up to `{{else}}` or `{{end}}`, and the one behind `{{else}}`.
    fn branches(&mut self, keyword: &str) -> Result<(Vec<Node>, Vec<Node>), String> {
        let missing = || format!("{{{{{keyword}}}}} has no {{{{end}}}}");
        let (then, mut words) = match self.block()? {
            (then, Ended::End) => return Ok((then, Vec::new())),
            (_, Ended::Out) => return Err(missing()),
            (then, Ended::Else(words)) => (then, words),
        };
        match words.next() {
            None => {}
            Some(Token::Word(word)) if word == "if" || word == "with" => {
                return Ok((then, vec![self.nested(&word, words)?]));
            }
            Some(token) => return Err(format!("{} behind else", describe(&token))),
        }
        match self.block()? {
            (otherwise, Ended::End) => Ok((then, otherwise)),
            (_, Ended::Out) => Err(missing()),
            (_, Ended::Else(_)) => Err(format!("{{{{{keyword}}}}} has two {{{{else}}}}")),
        }
    }
}

/// A pipeline to show, or a variable to set.
fn statement(words: Words) -> Result<Node, String> {
    let mut ahead = words.clone();
    if let Some(Token::Variable(name)) = ahead.next() {
        let sign = ahead.next();
        for (wanted, how) in [(Token::Declare, Setting::Declare), (Token::Assign, Setting::Assign)]
        {
            if sign.as_ref() == Some(&wanted) {
                return Ok(Node::Set { name, how, value: whole(ahead)? });
            }
        }
    }
    whole(words).map(Node::Show)
}

/// `$a, $b := pipeline`, or a pipeline alone.
fn declared(words: Words) -> Result<(Vec<String>, Pipeline), String> {
    let mut ahead = words.clone();
    let mut names = Vec::new();
    while let Some(Token::Variable(name)) = ahead.next() {
        names.push(name);
        match ahead.next() {
            Some(Token::Comma) => {}
            Some(Token::Declare) => return Ok((names, whole(ahead)?)),
            _ => break,
        }
    }
    Ok((Vec::new(), whole(words)?))
}

/// A pipeline that ends with its action.
fn whole(mut words: Words) -> Result<Pipeline, String> {
    let pipeline = pipeline(&mut words, 0)?;
    finish(&mut words)?;
    Ok(pipeline)
}

fn finish(words: &mut Words) -> Result<(), String> {
    match words.next() {
        None => Ok(()),
        Some(token) => Err(format!("{} is not expected here", describe(&token))),
    }
}

fn pipeline(words: &mut Words, depth: usize) -> Result<Pipeline, String> {
    let first = command(words, depth)?;
    let mut then = Vec::new();
    while words.next_if_eq(&Token::Pipe).is_some() {
        match command(words, depth)? {
            Command::Call(function, arguments) => then.push((function, arguments)),
            Command::Value(_) => return Err("only a function can stand behind \"|\"".into()),
        }
    }
    Ok(Pipeline { first, then })
}

fn command(words: &mut Words, depth: usize) -> Result<Command, String> {
    let Some(Operand { term, fields }) = operand(words, depth)? else {
        return Err(match words.peek() {
            None => "a value is missing".into(),
            Some(token) => format!("{} where a value is expected", describe(token)),
        });
    };
    let mut arguments = Vec::new();
    while let Some(argument) = operand(words, depth)? {
        arguments.push(argument);
    }
    if let (Term::Call(function), true) = (&term, fields.is_empty()) {
        return Ok(Command::Call(*function, arguments));
    }
    let operand = Operand { term, fields };
    if arguments.is_empty() {
        return Ok(Command::Value(operand));
    }
    if operand.fields.is_empty() {
        return Err("only a function takes arguments".into());
    }
    // Docker's rows have a method, `.Label "key"`: a field with arguments is looked up in.
    let arguments = std::iter::once(operand).chain(arguments).collect();
    Ok(Command::Call(Function::named("index")?, arguments))
}

/// The next operand; `None` where something else comes.
fn operand(words: &mut Words, depth: usize) -> Result<Option<Operand>, String> {
    let is_operand = |token: &Token| {
        !matches!(token, Token::Close | Token::Pipe | Token::Comma | Token::Declare | Token::Assign)
    };
    let Some(token) = words.next_if(is_operand) else { return Ok(None) };
    let mut fields = Vec::new();
    let term = match token {
        Token::Dot => Term::Dot,
        Token::Field(name) | Token::Inner(name) => {
            fields.push(name);
            Term::Dot
        }
        Token::Variable(name) => Term::Variable(name),
        Token::Text(text) => Term::Literal(Value::String(text)),
        Token::Number(number) => Term::Literal(Value::Number(number)),
        Token::Word(word) => match word.as_str() {
            "true" => Term::Literal(Value::Bool(true)),
            "false" => Term::Literal(Value::Bool(false)),
            "nil" => Term::Literal(Value::Null),
            name => Term::Call(Function::named(name)?),
        },
        Token::Open if depth >= DEPTH => {
            return Err(format!("parentheses are nested too deep: more than {DEPTH}"));
        }
        Token::Open => {
            let inner = pipeline(words, depth + 1)?;
            words.next_if_eq(&Token::Close).ok_or("\")\" is missing")?;
            Term::Parens(Box::new(inner))
        }
        Token::Close | Token::Pipe | Token::Comma | Token::Declare | Token::Assign => {
            return Ok(None);
        }
    };
    while let Some(Token::Inner(name)) = words.next_if(|token| matches!(token, Token::Inner(_))) {
        fields.push(name);
    }
    Ok(Some(Operand { term, fields }))
}

fn describe(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("\"{word}\""),
        Token::Field(name) | Token::Inner(name) => format!("\".{name}\""),
        Token::Dot => "\".\"".into(),
        Token::Variable(name) => format!("\"{name}\""),
        Token::Text(text) => format!("the text \"{text}\""),
        Token::Number(number) => format!("\"{number}\""),
        Token::Open => "\"(\"".into(),
        Token::Close => "\")\"".into(),
        Token::Pipe => "\"|\"".into(),
        Token::Comma => "\",\"".into(),
        Token::Declare => "\":=\"".into(),
        Token::Assign => "\"=\"".into(),
    }
}
