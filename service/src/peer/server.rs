//! What this node answers to its peers: each message goes to the part that owns it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};

use super::{LocalNode, MessageKind, NodeId, PeerRequest, PeerResponse, RemoteCode, RemoteError};
use crate::consensus::{Consensus, Member};
use crate::coordinator::Coordinator;
use crate::telemetry::metrics::{self, Direction};
use crate::topology::{Ping, Pong};
use crate::transport::Inbound;

/// Answers the messages of peers. Cheap to clone.
#[derive(Clone)]
pub struct PeerServer {
    local: LocalNode,
    consensus: Consensus,
    coordinator: Coordinator,
    /// The nodes that may tell this one which cluster is being formed; empty unless it is a founder.
    founders: Arc<[NodeId]>,
}

impl PeerServer {
    /// Answers for this node, which takes the word of `founders` about a cluster that is being formed.
    pub fn new(local: LocalNode, consensus: Consensus, coordinator: Coordinator, founders: Arc<[NodeId]>) -> Self {
        Self { local, consensus, coordinator, founders }
    }

    async fn answer(self, from: NodeId, request: PeerRequest) -> Result<PeerResponse, RemoteError> {
        match request.kind {
            MessageKind::Ping => self.pong(from, &request.body).await,
            MessageKind::Forward => self.coordinator.answer_forwarded(from, &request.body).await,
            MessageKind::Heartbeat
            | MessageKind::Vote
            | MessageKind::PreVote
            | MessageKind::TransferLeader
            | MessageKind::SnapshotBegin
            | MessageKind::Snapshot
            | MessageKind::ReadIndex
            | MessageKind::Append => self.consensus.handle(request).await,
        }
    }

    async fn pong(&self, from: NodeId, body: &[u8]) -> Result<PeerResponse, RemoteError> {
        let ping: Ping = postcard::from_bytes(body)
            .map_err(|error| RemoteError::new(RemoteCode::BadMessage, format!("a ping: {error}")))?;
        if let Some(cluster) = ping.adopt {
            self.adopt(from, &cluster).await?;
        }
        let status = self.consensus.status();
        let pong = Pong {
            node: self.local.id,
            member: Member::new(&self.local.peer_addr, &self.local.api_addr),
            cluster: self.local.cluster().map(str::to_owned),
            role: status.role,
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            revision: self.consensus.read(|keyspace| keyspace.revision()),
        };
        let body = postcard::to_stdvec(&pong)
            .map_err(|error| RemoteError::new(RemoteCode::Internal, format!("a pong: {error}")))?;
        Ok(PeerResponse { body: body.into() })
    }
}

impl PeerServer {
    /// A founder says which cluster is being formed. Kept on disk before the answer; an earlier one stands.
    async fn adopt(&self, from: NodeId, cluster: &str) -> Result<(), RemoteError> {
        let founder = self.founders.contains(&from);
        if !founder || self.local.cluster().is_some() {
            return Ok(()); // the answer says what this node belongs to
        }
        let id = cluster
            .parse()
            .map_err(|error| RemoteError::new(RemoteCode::BadMessage, format!("a cluster id: {error}")))?;
        self.consensus
            .adopt_cluster(id)
            .await
            .map_err(|error| RemoteError::new(RemoteCode::Internal, format!("the cluster id was not kept: {error}")))?;
        self.local.joined(cluster);
        tracing::info!(
            peer = from,
            message_type = "ping",
            action = "adopt",
            cluster,
            "this node belongs to a cluster now"
        );
        Ok(())
    }
}

impl Inbound for PeerServer {
    fn handle(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, RemoteError>> {
        metrics::peer_message(Direction::Received, request.kind);
        tracing::trace!(peer = from, message_type = %request.kind, action = "receive");
        self.clone().answer(from, request).boxed()
    }

    fn append(
        &self,
        from: NodeId,
        messages: BoxStream<'static, Bytes>,
    ) -> BoxStream<'static, Result<Bytes, RemoteError>> {
        let messages = messages.inspect(move |_| {
            metrics::peer_message(Direction::Received, MessageKind::Append);
            tracing::trace!(peer = from, message_type = "append", action = "receive");
        });
        self.consensus.append_session(messages).boxed()
    }
}
