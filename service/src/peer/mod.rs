//! One remote node as a `tower::Service<PeerRequest>`.

mod error;
mod local;
mod rpc;

pub use error::{PeerError, RemoteCode, RemoteError};
pub use local::{Hello, LocalNode};
pub use rpc::{Lane, MessageKind, NodeId, PROTOCOL_VERSION, PeerClient, PeerRequest, PeerResponse, Peers};
