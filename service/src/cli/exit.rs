//! What a command tells the shell.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::node::NodeError;

/// How a command ended; the only place where exit codes are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Done,
    /// There is no such key, a condition did not hold, or a step of the demo failed.
    Failed,
    /// The command line or its input cannot be understood. Nothing was changed.
    Usage,
    /// It could not be done. Nothing was changed.
    Unavailable,
    /// It may or may not have been done.
    Unknown,
}

impl Exit {
    /// The number for the shell.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
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

/// Why a command could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The cluster, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// What was given cannot be understood.
    #[error("{0}")]
    Input(String),
    /// A file or stream of this machine.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl CliError {
    /// `what` failed with `source`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => match error {
                ClientError::ConditionFailed { .. } => Exit::Failed,
                ClientError::Invalid { .. } | ClientError::Config { .. } => Exit::Usage,
                ClientError::Unavailable { .. } | ClientError::Protocol { .. } => Exit::Unavailable,
                ClientError::Unknown { .. } => Exit::Unknown,
            },
            Self::Node(error) if error.is_usage() => Exit::Usage,
            Self::Node(_) => Exit::Unavailable,
            Self::Input(_) => Exit::Usage,
            Self::Io { .. } => Exit::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_end_has_its_number() {
        let client = |error: ClientError| CliError::from(error).exit().code();
        assert_eq!(Exit::Done.code(), 0);
        assert_eq!(client(ClientError::ConditionFailed { current: None }), 1);
        assert_eq!(client(ClientError::Invalid { field: "key".to_owned(), detail: String::new() }), 2);
        assert_eq!(client(ClientError::Config { field: "nodes", detail: String::new() }), 2);
        let unavailable = ClientError::Unavailable { detail: String::new(), retry_after: None, source: None };
        assert_eq!(client(unavailable), 3);
        assert_eq!(client(ClientError::Unknown { detail: String::new(), source: None }), 4);
        assert_eq!(CliError::Input(String::new()).exit().code(), 2);
    }
}
