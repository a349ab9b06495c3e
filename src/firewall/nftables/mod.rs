//! Turns the model into nf_tables netlink messages, and dumps back into values.
//!
//! Pure: bytes in, bytes out; the socket is in `kernel::linux::nft`. [`Batch`] is the way in,
//! [`decode`] the way back; constants are named as in uapi linux/netfilter/nf_tables.h.

mod batch;
pub mod decode;
pub(crate) mod element;
mod expr;
mod message;
pub(crate) mod wire;

pub use batch::{Batch, Ownership, adopt};
pub use message::{fingerprint, generation_request, rules_request, set_request, table_request};

use std::fmt;

/// An operation that cannot be said to nf_tables: a mistake of the caller, found before anything
/// is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Which of the operations.
    pub op: usize,
    /// What is wrong with it.
    pub text: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl std::error::Error for Unfit {}
