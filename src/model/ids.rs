//! Identities of networks and endpoints: 32 bytes, shown as Docker shows them.

use std::fmt::{self, Write};
use std::str::FromStr;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdError(String);

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not an id of 64 hexadecimal digits", self.0)
    }
}

impl std::error::Error for IdError {}

fn parse(text: &str) -> Result<[u8; 32], IdError> {
    let refuse = || IdError(text.chars().take(80).collect());
    if text.len() != 64 || !text.is_ascii() {
        return Err(refuse());
    }
    let mut id = [0; 32];
    for (byte, at) in id.iter_mut().zip((0..64).step_by(2)) {
        let digits = text.get(at..at + 2).ok_or_else(refuse)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
    }
    Ok(id)
}

fn digits_of(id: &[u8; 32]) -> impl Iterator<Item = char> {
    let halves = id.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    halves.filter_map(|half| char::from_digit(u32::from(half), 16))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first `digits` hexadecimal digits; Docker shows 12 to users.
            pub fn hex(&self, digits: usize) -> String {
                digits_of(&self.0).take(digits).collect()
            }

            /// The first 12 hexadecimal digits, as lists and errors show ids.
            pub fn short(&self) -> String {
                self.hex(12)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                digits_of(&self.0).try_for_each(|digit| f.write_char(digit))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }
    };
}

id!(
    /// Identity of a network: Docker's NetworkID, or random for networks made here.
    NetworkId
);
id!(
    /// Identity of an endpoint: Docker's EndpointID, or random for endpoints made here.
    EndpointId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_and_is_short_in_lists() {
        let text = "d135ead8dabe3f4a85e9acd4acaa47ce9ecef272d67059d91bf87f1136ede889";
        let id: NetworkId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.short(), "d135ead8dabe");
    }

    #[test]
    fn anything_but_64_hex_digits_is_refused() {
        for text in ["", "d135", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert!(text.parse::<EndpointId>().is_err(), "{text}");
        }
    }
}
