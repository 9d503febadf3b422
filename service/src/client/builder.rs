//! How a client is made.

use std::time::Duration;

use crate::client::stack::Stack;
use crate::client::transport::{Http, Node};
use crate::client::{Client, ClientError};

/// How long a call may take with all its retries, unless the builder says otherwise: several elections fit into it.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// Collects what a [`Client`] needs; see [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    nodes: Vec<String>,
    deadline: Duration,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), deadline: DEFAULT_DEADLINE }
    }

    /// The nodes to talk to, as `http://HOST:PORT` or `HOST:PORT`. One suffices; with several, calls go on when one
    /// is down.
    pub fn nodes<N: Into<String>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        self.nodes.extend(nodes.into_iter().map(Into::into));
        self
    }

    /// How long one call may take, retries included (default [`DEFAULT_DEADLINE`]).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Checks everything and makes the client. Connections are opened when they are needed.
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] names the setting that is wrong.
    pub fn build(self) -> Result<Client, ClientError> {
        let config = |field, detail| ClientError::Config { field, detail };
        if self.nodes.is_empty() {
            return Err(config("nodes", "at least one is needed".to_owned()));
        }
        let nodes = self.nodes.iter().map(|url| Node::parse(url)).collect::<Result<Vec<_>, _>>();
        let nodes = nodes.map_err(|detail| config("nodes", detail))?;
        if self.deadline < Duration::from_millis(1) {
            return Err(config("deadline", format!("{:?} is too short; the least is 1ms", self.deadline)));
        }
        let stack =
            Stack::new(&Http::new(), &nodes, self.deadline).map_err(|error| config("deadline", error.to_string()))?;
        Ok(Client::new(stack))
    }
}
