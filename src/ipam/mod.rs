//! Address pools and leases: who has which address, and which is next.
//!
//! Pure: what is taken on the host comes in as facts, what was given out is stored by the engine.
//! Read [`AddressBook`] first; `span` holds the arithmetic.

mod book;
mod defaults;
mod pool;
mod span;

pub use book::AddressBook;
pub use defaults::{DefaultPool, default_pools};
pub use pool::{Lease, Pool, PoolId, Purpose};
