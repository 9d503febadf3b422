//! The client of a cluster: the library that a program links.
//!
//! **When.** A program stores small shared state in a Seawall cluster. The command line, the demo and the tests use
//! nothing else.
//! **What.** Reads, writes and conditional writes of single keys. Nodes take turns; a call that certainly did nothing
//! is tried on the next node until the deadline; a write whose outcome nobody knows is never repeated, and is an error
//! of its own: [`ClientError::Unknown`].
//! **How.** A pool of HTTP/1.1 connections under a stack of our own layers, in `stack.rs` with a reason on each line.
//!
//! ```no_run
//! # async fn example() -> Result<(), seawall_kv::client::ClientError> {
//! use seawall_kv::Client;
//! use seawall_kv::client::Precondition;
//!
//! let client = Client::builder().nodes(["http://127.0.0.1:7101", "http://127.0.0.1:7102"]).build()?;
//! let first = client.put("greeting", "hello").await?;
//! let value = client.get("greeting").await?.expect("it was written");
//! assert_eq!(value.value, "hello");
//!
//! // Only if nobody wrote in between:
//! client.put_if("greeting", "hi", Precondition::RevisionIs(vec![first.revision])).await?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod builder;
mod calls;
mod error;
#[cfg(test)]
pub(crate) mod fake;

mod nodes;
mod policy;
mod stack;
#[cfg(test)]
mod tests;
mod transport;
mod types;

pub use builder::{ClientBuilder, DEFAULT_DEADLINE};
pub use calls::Client;
pub use error::ClientError;
pub(crate) use transport::{Call as HttpCall, Http, Node as HttpNode};
pub use types::{ClusterStatus, Consistency, DeleteOutcome, GetOptions, NodeReport, NodeStatus, PutOutcome, Value};

pub use crate::consensus::{Precondition, Revision};
