//! From text to pieces: plain text, and the tokens of each action.

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// Text as it is shown.
    Text(String),
    /// What is between two pairs of braces.
    Action(Vec<Token>),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `range`, `json`, `true`.
    Word(String),
    /// `.Name`, without its dot.
    Field(String),
    /// `.Name` that stands directly behind what it is a field of.
    Inner(String),
    /// `.` alone.
    Dot,
    /// `$` or `$name`, with its dollar.
    Variable(String),
    /// A quoted text.
    Text(String),
    /// A number.
    Number(serde_json::Number),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `|`
    Pipe,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// The pieces of a template.
pub(super) fn lex(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trim_next = false;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (behind, trim_before) = match behind.strip_prefix('-') {
            Some(trimmed) if trimmed.starts_with(char::is_whitespace) => (trimmed, true),
            Some(_) | None => (behind, false),
        };
        text(&mut pieces, before, trim_next, trim_before);
        let inner = behind.trim_start();
        let (tokens, after, trimmed) = if inner.starts_with("/*") {
            let (_, after) = inner.split_once("*/").ok_or("a comment has no end")?;
            (None, after, close(after.trim_start()))
        } else {
            let (tokens, after) = action(behind)?;
            (Some(tokens), after, close(after))
        };
        let Some((after, trim)) = trimmed else {
            return Err(format!("\"{}\" where \"}}}}\" is expected", start(after)));
        };
        pieces.extend(tokens.map(Piece::Action));
        (rest, trim_next) = (after, trim);
    }
    text(&mut pieces, rest, trim_next, false);
    Ok(pieces)
}

/// Whether the action ends here; what is behind it, and whether white space there is dropped.
fn close(text: &str) -> Option<(&str, bool)> {
    text.strip_prefix("-}}")
        .map(|rest| (rest, true))
        .or_else(|| text.strip_prefix("}}").map(|rest| (rest, false)))
}

fn text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    let mut text = text.as_str();
    if trim_start {
        text = text.trim_start();
    }
    if trim_end {
        text = text.trim_end();
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// The tokens of one action, and the text from its closing braces on.
fn action(text: &str) -> Result<(Vec<Token>, &str), String> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = text;
    loop {
        let spaced = rest.trim_start();
        let space_before = spaced.len() != rest.len() || tokens.is_empty();
        rest = spaced;
        if close(rest).is_some() {
            return Ok((tokens, rest));
        }
        let (mut token, after) = token(rest)?;
        if let (Token::Field(name), false) = (&token, space_before) {
            let before = tokens.last();
            if matches!(
                before,
                Some(Token::Field(_) | Token::Inner(_) | Token::Variable(_) | Token::Close)
            ) {
                token = Token::Inner(name.clone());
            }
        }
        tokens.push(token);
        rest = after;
    }
}

fn token(text: &str) -> Result<(Token, &str), String> {
    let mut characters = text.chars();
    let first = characters.next().ok_or("an action has no end: \"}}\" is missing")?;
    let rest = characters.as_str();
    Ok(match first {
        '(' => (Token::Open, rest),
        ')' => (Token::Close, rest),
        '|' => (Token::Pipe, rest),
        ',' => (Token::Comma, rest),
        '=' => (Token::Assign, rest),
        ':' => match rest.strip_prefix('=') {
            Some(rest) => (Token::Declare, rest),
            None => return Err("\":\" has no meaning without \"=\"".into()),
        },
        '"' => quoted(rest)?,
        '`' => {
            let (raw, rest) = rest.split_once('`').ok_or("a quoted text has no end")?;
            (Token::Text(raw.to_owned()), rest)
        }
        '.' => match word(rest) {
            ("", rest) if rest.starts_with(|next: char| next.is_ascii_digit()) => {
                return Err("numbers begin with a digit".into());
            }
            ("", rest) => (Token::Dot, rest),
            (name, rest) => (Token::Field(name.to_owned()), rest),
        },
        '$' => {
            let (name, rest) = word(rest);
            (Token::Variable(format!("${name}")), rest)
        }
        '-' | '+' | '0'..='9' => number(text)?,
        first if first == '_' || first.is_alphabetic() => {
            let (name, rest) = word(text);
            (Token::Word(name.to_owned()), rest)
        }
        other => {
            return Err(format!("the character \"{}\" has no meaning", other.escape_default()));
        }
    })
}

/// A leading identifier and the rest; empty where there is none.
fn word(text: &str) -> (&str, &str) {
    let inside = |character: char| character == '_' || character.is_alphanumeric();
    let end = text.find(|character| !inside(character)).unwrap_or(text.len());
    match text.chars().next() {
        Some(first) if first == '_' || first.is_alphabetic() => text.split_at(end),
        Some(_) | None => ("", text),
    }
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let inside = |at: usize, character: char| {
        character.is_alphanumeric()
            || matches!(character, '.' | '_')
            || (at == 0 && matches!(character, '-' | '+'))
    };
    let end = text.char_indices().find(|(at, character)| !inside(*at, *character));
    let (digits, rest) = text.split_at(end.map_or(text.len(), |(at, _)| at));
    let whole = digits.parse::<i64>().ok().map(serde_json::Number::from);
    let number = whole
        .or_else(|| digits.parse::<f64>().ok().and_then(serde_json::Number::from_f64))
        .ok_or_else(|| format!("\"{}\" is not a number", start(digits)))?;
    Ok((Token::Number(number), rest))
}

/// A text up to its closing quotation mark, its escapes resolved.
fn quoted(text: &str) -> Result<(Token, &str), String> {
    let mut out = String::new();
    let mut characters = text.chars();
    let mut next = || characters.next().ok_or("a quoted text has no end");
    loop {
        match next()? {
            '"' => break,
            '\\' => out.push(match next()? {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                same @ ('"' | '\\' | '\'') => same,
                other => {
                    return Err(format!("\"\\{}\" is not an escape", other.escape_default()));
                }
            }),
            plain => out.push(plain),
        }
    }
    Ok((Token::Text(out), characters.as_str()))
}

fn start(text: &str) -> String {
    text.chars().take(20).collect()
}
