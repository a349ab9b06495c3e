//! The firewall: a typed model of tables, chains and sets, and the policy written in it.
//!
//! What a packet may do is decided in [`policy`]; [`nftables`] turns the model into the bytes
//! that nf_tables takes. [`admission`] says which flows end when the policy changes. [`oracle`] says the policy once more, to check it and to be read.
//! Pure: the kernel is reached only through `kernel::linux`.

pub mod admission;
pub mod model;
pub mod nftables;
pub mod oracle;
pub mod policy;
