//! How messages leave and enter a node: HTTP/2 between processes, or a simulated network inside a test.
//!
//! Both ends are plain interfaces. Outwards a [`Transport`] makes one client per node and lane; the stack of layers
//! stands above it (`peer/stack.rs`). Inwards an [`Inbound`] answers messages; no transport knows what they mean.

mod frame;
mod http2;
mod listener;
pub mod memory;
#[cfg(test)]
mod tests;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use bytes::Bytes;

use crate::peer::{Lane, NodeId, PeerClient, PeerRequest, PeerResponse, RemoteError};

pub use http2::{Http2, listen};
pub use listener::Listener;
pub(crate) use listener::MAX_STREAMS;

/// Whom to dial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The node that must answer.
    pub node: NodeId,
    /// `host:port` of its peer listener.
    pub address: String,
    /// The connection to use.
    pub lane: Lane,
}

/// Carries messages to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// A client of one node on one lane. It connects when it is first called and again after a failure.
    ///
    /// On [`Lane::Append`], calls made one after the other arrive in that order.
    fn lane(&self, target: Target) -> PeerClient;
}

/// Answers the messages of other nodes.
pub trait Inbound: Send + Sync + 'static {
    /// Answers one message of node `from`.
    fn handle(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, RemoteError>>;

    /// Answers a stream of append messages of node `from`, in their order, one answer each. An error ends it.
    fn append(
        &self,
        from: NodeId,
        messages: BoxStream<'static, Bytes>,
    ) -> BoxStream<'static, Result<Bytes, RemoteError>>;
}
