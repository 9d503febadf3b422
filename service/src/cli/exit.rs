//! What a command tells the shell.

use std::process::ExitCode;

/// How a command ended; the only place where exit codes are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Done,
    /// The key is not there, or a condition did not hold. Nothing was changed.
    NotFound,
    /// The command line or its input cannot be understood. Nothing was changed.
    Usage,
    /// No node could do it. Nothing was changed.
    Unavailable,
    /// It may or may not have been done.
    Unknown,
}

impl Exit {
    /// The number for the shell.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotFound => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::Unknown => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
