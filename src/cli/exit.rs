//! Exit codes: stable, and the only numbers a script needs.

use std::process::ExitCode;

use crate::model::ErrorClass;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Ok,
    /// The command line or the request is wrong.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Something else holds it, or it is in use.
    Conflict,
    /// The caller may not do this.
    Permission,
    /// The daemon is not there, the host cannot, or the agent is not as it should be.
    Degraded,
    /// A dry run found something to change.
    WouldChange,
}

impl Exit {
    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Permission => 5,
            Self::Degraded => 6,
            Self::WouldChange => 7,
        }
    }
}

impl From<ErrorClass> for Exit {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Usage => Self::Usage,
            ErrorClass::NotFound => Self::NotFound,
            ErrorClass::Conflict => Self::Conflict,
            ErrorClass::Permission => Self::Permission,
            ErrorClass::Unavailable | ErrorClass::Stuck => Self::Degraded,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The list of exit codes at the end of `netagent --help`.
pub const HELP: &str = "\
Exit codes: 0 done, 2 wrong usage, 3 not found, 4 conflict, 5 not permitted,
6 degraded or unavailable, 7 a dry run found something to change.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_documented_code() {
        for (class, code) in [
            (ErrorClass::Usage, 2),
            (ErrorClass::NotFound, 3),
            (ErrorClass::Conflict, 4),
            (ErrorClass::Permission, 5),
            (ErrorClass::Unavailable, 6),
            (ErrorClass::Stuck, 6),
        ] {
            assert_eq!(Exit::from(class).code(), code, "{class:?}");
            assert!(HELP.contains(&format!("{code} ")), "{code}");
        }
    }
}
