//! The parts of a request target: percent-encoding and query parameters (RFC 3986).

use crate::model::{Error, Result};

/// Escapes everything but unreserved characters, so that `text` is one path segment or value.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// Undoes [`encode`]; also takes `+` for a space, as forms write it.
pub fn decode(text: &str) -> Result<String> {
    let refuse = || Error::usage("read the address", format!("\"{text}\" is not well escaped"));
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().ok_or_else(refuse)?, digit().ok_or_else(refuse)?);
                u8::try_from(high * 16 + low).map_err(|_| refuse())?
            }
            plain => plain,
        });
    }
    String::from_utf8(out).map_err(|_| refuse())
}

/// The parameters behind the question mark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the parameters; one that is not among `known` is an error, not silence.
    pub fn parse(raw: &str, known: &[&str]) -> Result<Self> {
        let mut parameters = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key)?, decode(value)?);
            if !known.contains(&key.as_str()) {
                return Err(Error::usage(
                    format!("parameter \"{key}\""),
                    match known {
                        [] => "this request takes none".to_owned(),
                        some => format!("this request takes {}", some.join(", ")),
                    },
                ));
            }
            parameters.push((key, value));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A parameter that is on or off; bare, as in `?wait`, it is on.
    pub fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(other) => Err(Error::usage(
                format!("parameter \"{key}\""),
                format!("\"{other}\" is neither 1 nor 0"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_the_way_there_and_back() {
        for text in ["", "web", "a/b?c=d&e", "ü %+ \0", "{\"label\":[\"a=b\"]}"] {
            assert_eq!(decode(&encode(text)).unwrap(), text);
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_parameter_is_an_error_that_lists_the_right_ones() {
        let error = Query::parse("dryrun=1", &["dry_run"]).unwrap_err();
        assert!(error.to_string().contains("takes dry_run"), "{error}");
        assert!(Query::parse("dry_run", &["dry_run"]).unwrap().flag("dry_run").unwrap());
        assert!(Query::parse("dry_run=maybe", &["dry_run"]).unwrap().flag("dry_run").is_err());
    }
}
