//! One remote node as a `tower::Service<PeerRequest>`: what is said, through which layers, and what is answered.

mod error;
mod local;
mod only_before;
mod policy;
mod rpc;
mod server;
mod set;
mod stack;

pub use error::{PeerError, RemoteCode, RemoteError};
pub use local::{Hello, LocalNode};
pub use rpc::{Lane, MessageKind, NodeId, PROTOCOL_VERSION, PeerClient, PeerRequest, PeerResponse, Peers};
pub use server::PeerServer;
pub use set::PeerSet;
pub use stack::Timing;
