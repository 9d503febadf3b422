//! One remote node as a `tower::Service<PeerRequest>`.

mod error;
mod rpc;

pub use error::{PeerError, RemoteCode, RemoteError};
pub use rpc::{Lane, MessageKind, NodeId, PROTOCOL_VERSION, PeerClient, PeerRequest, PeerResponse, Peers};
