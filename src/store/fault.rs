//! What can go wrong inside the embedded database, in one type.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the database's error enums are open; what is not about the disk is about content"
)]

use std::io;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

/// What can go wrong inside redb, in one type.
#[derive(Debug)]
pub(super) enum Fault {
    /// The disk or the file system.
    Io(io::Error),
    /// Another process has it.
    InUse,
    /// A format of redb that this version cannot read.
    OldFormat(u8),
    /// It is not what was written.
    Damaged(String),
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<DatabaseError> for Fault {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            DatabaseError::UpgradeRequired(version) => Self::OldFormat(version),
            DatabaseError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<TransactionError> for Fault {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    /// A copy in memory has no disk that could fail: redb's errors of that kind are about content.
    pub(super) fn of_copy(self) -> Self {
        match self {
            Self::Io(error) => Self::Damaged(error.to_string()),
            Self::InUse | Self::OldFormat(_) | Self::Damaged(_) => self,
        }
    }
}
