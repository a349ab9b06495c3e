//! The configuration file: what an operator may set, checked, with the place of each mistake.
//!
//! Every key has a default, and a host needs no file at all. Keys are few on purpose: networks are
//! described by requests, not here.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};

use crate::engine::Settings;
use crate::ipam::{DefaultPool, default_pools};
use crate::model::{Error, ErrorClass, Mark, Result, nearest};

/// Where the file is unless the command line names another.
pub const DEFAULT_PATH: &str = "/etc/netagent/netagent.toml";

/// Every key of the file, for "did you mean".
const KEYS: [&str; 5] = ["mark", "default_pools", "log", "base", "size"];

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// We coped.
    Warn,
    /// State changed.
    #[default]
    Info,
    /// Requests and operations.
    Debug,
    /// Messages to and from the kernel.
    Trace,
}

impl LogLevel {
    /// The level's name, as the file and the environment spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LogLevel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| {
                format!("\"{text}\" is not a log level: use error, warn, info, debug or trace")
            })
    }
}

/// What the file says, with defaults where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// For the engine.
    pub settings: Settings,
    /// How much is logged.
    pub log: LogLevel,
}

impl Config {
    /// Reads the named file, or the default one if it is there. `machine_id` are the bytes of
    /// /etc/machine-id, which the default IPv6 pools are made of.
    pub fn load(path: Option<&Path>, machine_id: &[u8]) -> Result<Self> {
        let default = Path::new(DEFAULT_PATH);
        let file = path.unwrap_or(default);
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, &file.display().to_string(), machine_id),
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
                Self::parse("", DEFAULT_PATH, machine_id)
            }
            Err(error) => Err(unreadable(file, &error)),
        }
    }

    /// Reads the text of a file; `name` is for messages.
    pub fn parse(text: &str, name: &str, machine_id: &[u8]) -> Result<Self> {
        let file: FileForm = toml::from_str(text).map_err(|error| refusal(text, name, &error))?;
        let defaults = default_pools(machine_id);
        let mut pools: Vec<DefaultPool> =
            file.default_pools.into_iter().flatten().map(|pool| pool.0).collect();
        // A family that the operator says nothing about keeps its defaults.
        for v6 in [false, true] {
            let of_family = |pool: &&DefaultPool| pool.base.network().is_ipv6() == v6;
            if !pools.iter().any(|pool| of_family(&pool)) {
                pools.extend(defaults.iter().filter(of_family));
            }
        }
        let mark = file.mark.map_or(Mark::DEFAULT, |mark| mark.0);
        let log = file.log.map(|log| log.0).unwrap_or_default();
        Ok(Self { settings: Settings { mark, default_pools: pools }, log })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    mark: Option<MarkForm>,
    default_pools: Option<Vec<PoolForm>>,
    log: Option<LogForm>,
}

struct MarkForm(Mark);

impl<'de> Deserialize<'de> for MarkForm {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = u32;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number with one bit set, such as 0x10000000")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<u32, E> {
                u32::try_from(number).map_err(|_| E::custom("a mark has 32 bits"))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u32, E> {
                let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
                digits
                    .map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
                    .ok_or_else(|| E::custom(format!("\"{text}\" is not a number of 32 bits")))
            }
        }
        let bits = from.deserialize_any(Form)?;
        let refused = || {
            D::Error::custom(format!(
                "mark {bits:#x} has {} bits set; it must have one, such as {}",
                bits.count_ones(),
                Mark::DEFAULT
            ))
        };
        Mark::new(bits).map(Self).ok_or_else(refused)
    }
}

struct LogForm(LogLevel);

impl<'de> Deserialize<'de> for LogForm {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Self).map_err(D::Error::custom)
    }
}

struct PoolForm(DefaultPool);

impl<'de> Deserialize<'de> for PoolForm {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form {
            base: BaseForm,
            size: u8,
        }
        let Form { base: BaseForm(base), size } = Form::deserialize(from)?;
        if size < base.prefix_len() || size > base.max_prefix_len() {
            return Err(D::Error::custom(format!(
                "pools of size {size} cannot be cut from {base}: use {} to {}",
                base.prefix_len(),
                base.max_prefix_len()
            )));
        }
        Ok(Self(DefaultPool { base, size }))
    }
}

struct BaseForm(IpNet);

impl<'de> Deserialize<'de> for BaseForm {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let net: IpNet = text.parse().map_err(|_| {
            D::Error::custom(format!("\"{text}\" is not a subnet such as 10.200.0.0/16"))
        })?;
        if net.trunc() != net {
            return Err(D::Error::custom(format!(
                "base {net} has host bits set; the subnet is {}",
                net.trunc()
            )));
        }
        if net.prefix_len() == 0 {
            return Err(D::Error::custom(format!("base {net} is every address there is")));
        }
        Ok(Self(net))
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Error {
    let class = if error.kind() == io::ErrorKind::PermissionDenied {
        ErrorClass::Permission
    } else {
        ErrorClass::Usage
    };
    Error::new(class, format!("read the configuration \"{}\"", file.display()), error.to_string())
        .advise("name a file that can be read, or none to run with the defaults")
}

/// What is wrong, in which line, and the key that was probably meant.
fn refusal(text: &str, name: &str, error: &toml::de::Error) -> Error {
    let span = error.span().unwrap_or_default();
    let line = 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
    let doing = format!("read the configuration \"{name}\", line {line}");
    // The parser may add lines of its own; one sentence is enough where the line is named.
    let why = error.message().lines().next().unwrap_or_default().to_owned();
    let made = Error::usage(doing, why);
    let word = text.get(span).unwrap_or_default().trim().trim_matches(['"', '\'']);
    if !error.message().starts_with("unknown field") {
        return made.advise(format!("correct line {line} of {name}"));
    }
    match nearest(word, KEYS) {
        Some(key) => made.advise(format!("did you mean \"{key}\"?")),
        None => made.advise(format!("remove line {line} of {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, "test.toml", b"machine")
    }

    #[track_caller]
    fn check_refused(text: &str, words: &[&str]) {
        let error = parse(text).unwrap_err();
        assert_eq!(error.class, ErrorClass::Usage);
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.settings.mark, Mark::DEFAULT);
        assert_eq!(config.settings.default_pools, default_pools(b"machine"));
        assert_eq!(config.log, LogLevel::Info);
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "log = \"debug\"\nmark = 0x4000\n[[default_pools]]\nbase = \"10.200.0.0/16\"\nsize = 26",
        )
        .unwrap();
        assert_eq!(config.settings.mark.bits(), 0x4000);
        assert_eq!(config.log, LogLevel::Debug);
        let pools = &config.settings.default_pools;
        assert_eq!((pools[0].base.to_string(), pools[0].size), ("10.200.0.0/16".into(), 26));
        // IPv6 was not mentioned and keeps its default; IPv4 was.
        assert_eq!(pools.len(), 2);
        assert!(pools[1].base.network().is_ipv6());
        for mark in ["\"0x4000\"", "\"16384\"", "16384"] {
            assert_eq!(parse(&format!("mark = {mark}")).unwrap().settings.mark.bits(), 0x4000);
        }
        let inline = "default_pools = [{base = \"fd00:1::/48\", size = 64}]";
        let inline = parse(inline).unwrap().settings.default_pools;
        assert_eq!(inline.len(), 17);
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_the_right_word() {
        check_refused("\nmarc = 1", &["line 2", "marc", "did you mean \"mark\"?"]);
        check_refused("default_pool = []", &["line 1", "\"default_pools\""]);
        check_refused("\n\nfoobar = 1", &["line 3", "foobar", "remove line 3"]);
        check_refused("[[default_pools]]\nbase=\"10.0.0.0/8\"\nsizes=9", &["line 3", "\"size\""]);
        check_refused("log = \"info\"\nmark = 3", &["line 2", "0x3 has 2 bits"]);
        check_refused("mark = 0", &["0 bits"]);
        check_refused("mark = -1", &["32 bits"]);
        check_refused("mark = 1.5", &["one bit set"]);
        check_refused("mark = \"0xzz\"", &["0xzz"]);
        check_refused("log = \"loud\"", &["line 1", "loud", "debug"]);
        check_refused("log = \"info", &["line 1"]);
        let pool = |base, size| format!("default_pools = [{{base = \"{base}\", size = {size}}}]");
        check_refused(&pool("172.17.0.0/12", "24"), &["the subnet is 172.16.0.0/12"]);
        check_refused(&pool("10.0.0.0/16", "8"), &["use 16 to 32"]);
        check_refused(&pool("10.0.0.0/16", "64"), &["use 16 to 32"]);
        check_refused(&pool("0.0.0.0/0", "24"), &["every address"]);
        check_refused(&pool("ten", "24"), &["\"ten\" is not a subnet"]);
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = Config::load(Some(Path::new("/nonexistent/x.toml")), b"").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x.toml"), "{error}");
    }
}
