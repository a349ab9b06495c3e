//! Names of links and networks, checked once.

use std::fmt;
use std::str::FromStr;

/// Longest link name in bytes: IFNAMSIZ (uapi linux/if.h) less the terminating zero.
const LINK_NAME_BYTES: usize = 15;

/// The kernel name of a link: 1 to 15 bytes, no slash, colon or white space, not `.` or `..`
/// (dev_valid_name in net/core/dev.c), and printable ASCII so that it is safe in every list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkName(String);

impl LinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
        if text.is_empty() {
            return Err("a link name must not be empty".into());
        }
        if text.len() > LINK_NAME_BYTES {
            return Err(format!(
                "link name \"{shown}\" has {} bytes; the kernel takes at most {LINK_NAME_BYTES}",
                text.len()
            ));
        }
        let valid =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%' | b'"' | b'*');
        if text == "." || text == ".." || !text.bytes().all(valid) {
            return Err(format!(
                "link name \"{shown}\" has a character the kernel or the shell cannot take: \
                 use letters, digits, '-', '_' and '.'"
            ));
        }
        if matches!(text, "all" | "default") {
            return Err(format!("link name \"{text}\" is one the kernel keeps for its settings"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A network's name as Docker takes it: starts with a letter or digit, then letters, digits, `_`,
/// `.` and `-`; at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if !first || !text.bytes().all(rest) || text.len() > 255 {
            return Err(format!(
                "\"{shown}\" is not a network name: use letters, digits, '_', '.' and '-', \
                 beginning with a letter or digit, at most 255"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_of_16_bytes_is_refused_and_15_are_taken() {
        assert!("abcdefghijklmno".parse::<LinkName>().is_ok());
        let error = "abcdefghijklmnop".parse::<LinkName>().unwrap_err();
        assert!(error.contains("16 bytes"), "{error}");
    }

    #[test]
    fn names_with_path_parts_spaces_or_controls_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "a:b", "a\0", "a\n", "veth%d", "ü"] {
            assert!(name.parse::<LinkName>().is_err(), "{name:?}");
        }
        for name in ["", "-a", "a/b", "a b", "../x", "ü"] {
            assert!(name.parse::<NetworkName>().is_err(), "{name:?}");
        }
    }
}
