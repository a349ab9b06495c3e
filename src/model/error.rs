//! The one error type of the agent: what was done, on what, why it failed, what to do.
//!
//! Front doors map [`ErrorClass`] to their own codes in one table each; prose is made only here.

use std::fmt;

use super::Protocol;

/// Shorthand for results that carry [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of refusal an error is; decides exit codes, HTTP status and log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request itself is wrong: syntax, ranges, unknown options, impossible combinations.
    Usage,
    /// A network, endpoint or pool that does not exist.
    NotFound,
    /// Something else holds the name, subnet, address or port, or the object is in use.
    Conflict,
    /// The caller may not do this.
    Permission,
    /// The host cannot do it now: kernel feature missing, pool exhausted, disk full.
    Unavailable,
    /// The change failed and could not be undone whole; the text names what is stuck.
    Stuck,
}

/// A failure in four parts. Displayed as `doing: why` and, on a second line, the advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The kind of refusal.
    pub class: ErrorClass,
    /// What was tried and on what, e.g. `create network "web"`.
    pub doing: String,
    /// Why it failed, in the kernel's words where it was the kernel, e.g. `EBUSY: …`.
    pub why: String,
    /// What the reader can do about it; empty where there is nothing to say.
    pub advice: String,
    /// The kernel's errno where there was one.
    pub errno: Option<i32>,
    /// The port that another program has, where that is why.
    pub port: Option<(Protocol, u16)>,
}

impl Error {
    /// An error of `class` while `doing`, because of `why`.
    pub fn new(class: ErrorClass, doing: impl Into<String>, why: impl Into<String>) -> Self {
        let (doing, why, advice) = (doing.into(), why.into(), String::new());
        Self { class, doing, why, advice, errno: None, port: None }
    }

    /// The request is wrong.
    pub fn usage(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(ErrorClass::Usage, doing, why)
    }

    /// What was named does not exist.
    pub fn not_found(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(ErrorClass::NotFound, doing, why)
    }

    /// Somebody else holds it.
    pub fn conflict(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(ErrorClass::Conflict, doing, why)
    }

    /// The host cannot do it now.
    pub fn unavailable(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(ErrorClass::Unavailable, doing, why)
    }

    /// Adds what the reader can do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// Adds the kernel's errno.
    #[must_use]
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.errno = Some(errno);
        self
    }

    /// Adds the port that another program has.
    #[must_use]
    pub fn with_port(mut self, port: Option<(Protocol, u16)>) -> Self {
        self.port = port;
        self
    }

    /// Puts the larger task in front: `create network "web": create link …`.
    #[must_use]
    pub fn within(mut self, task: impl fmt::Display) -> Self {
        self.doing = if self.doing.is_empty() {
            task.to_string()
        } else {
            format!("{task}: {}", self.doing)
        };
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.doing.is_empty(), self.why.is_empty()) {
            (false, false) => write!(f, "{}: {}", self.doing, self.why)?,
            _ => write!(f, "{}{}", self.doing, self.why)?,
        }
        if !self.advice.is_empty() {
            write!(f, "\n  {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The candidate nearest to `word`, for "did you mean" advice: by its last dotted part, equal or
/// begun alike, else by edit distance (at most a third of its length).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |text: &'a str| text.rsplit('.').next().unwrap_or(text);
    let own = word.rsplit('.').next().unwrap_or(word);
    let measure = |candidate: &'a str| {
        let begun = own.len() >= 4 && last(candidate).starts_with(own);
        if last(candidate) == own || begun { 1 } else { distance(word, candidate) }
    };
    candidates
        .into_iter()
        .map(|candidate| (measure(candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((cb, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or(0);
            next.push((diagonal + usize::from(ca != *cb)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_a_misspelt_key_and_refuses_a_far_one() {
        let keys = ["com.docker.network.driver.mtu", "com.docker.network.bridge.enable_icc"];
        assert_eq!(nearest("com.docker.network.driver.mtuu", keys), Some(keys[0]));
        assert_eq!(nearest("parent", keys), None);
        assert_eq!(nearest("mtu", keys), Some(keys[0]));
        let keys = [keys[1], "com.docker.network.bridge.enable_ip_masquerade"];
        assert_eq!(nearest("com.docker.network.bridge.enable_ip_masq", keys), Some(keys[1]));
    }

    #[test]
    fn display_says_what_why_and_what_to_do() {
        let error = Error::conflict("create network \"web\"", "the name is taken")
            .advise("pick another name");
        assert_eq!(
            error.to_string(),
            "create network \"web\": the name is taken\n  pick another name"
        );
    }
}
