//! `/cluster`: what the cluster looks like from here, and how a node asks to join.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;

use super::extract::{NoQuery, Whole};
use super::{Api, ApiError};
use crate::consensus::{LogIndex, Member, Revision, Status};
use crate::peer::NodeId;
use crate::topology::{JoinAnswer, JoinRequest};

/// A join request is two addresses.
const MAX_JOIN_BYTES: usize = 4096;

/// The body of `/cluster/status`.
#[derive(Debug, Serialize)]
pub(super) struct ClusterStatus {
    cluster_id: Option<String>,
    /// The node that answers.
    node_id: NodeId,
    leader: Option<NodeId>,
    term: u64,
    /// The revision of this node's keyspace.
    revision: Revision,
    nodes: Vec<NodeStatus>,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    id: NodeId,
    /// Where clients reach it.
    address: String,
    /// Where other nodes reach it.
    peer_address: String,
    /// The other members.
    peers: Vec<NodeId>,
    /// `unknown` while it does not answer.
    role: &'static str,
    voter: bool,
    healthy: bool,
    /// How long ago it last answered this node; 0 for the node itself.
    last_heartbeat_ms: Option<u64>,
    commit_index: Option<LogIndex>,
    last_applied: Option<LogIndex>,
    revision: Option<Revision>,
}

pub(super) async fn status(State(api): State<Api>, _: NoQuery) -> Json<ClusterStatus> {
    let status = api.consensus.status();
    let members: Vec<_> = status.members.iter().map(|(id, member)| (id, member.clone())).collect();
    let nodes = members
        .iter()
        .map(|(id, member)| {
            let peers = members.iter().map(|(other, _)| *other).filter(|other| other != id).collect();
            if *id == status.node_id {
                this_node(&api, &status, member, peers)
            } else {
                peer(&api, &status, *id, member, peers)
            }
        })
        .collect();
    Json(ClusterStatus {
        cluster_id: api.local.cluster().map(str::to_owned),
        node_id: status.node_id,
        leader: api.leader(),
        term: status.term,
        revision: api.consensus.read(|keyspace| keyspace.revision()),
        nodes,
    })
}

fn this_node(api: &Api, status: &Status, member: &Member, peers: Vec<NodeId>) -> NodeStatus {
    NodeStatus {
        id: status.node_id,
        address: member.api_addr.clone(),
        peer_address: member.peer_addr.clone(),
        peers,
        role: status.role.name(),
        voter: status.members.voters.contains_key(&status.node_id),
        healthy: status.failure.is_none(),
        last_heartbeat_ms: Some(0),
        commit_index: status.committed,
        last_applied: status.applied,
        revision: Some(api.consensus.read(|keyspace| keyspace.revision())),
    }
}

fn peer(api: &Api, status: &Status, id: NodeId, member: &Member, peers: Vec<NodeId>) -> NodeStatus {
    let health = api.heartbeats.get(id);
    let pong = health.as_ref().and_then(|health| health.pong.as_ref());
    let healthy = health.as_ref().is_some_and(|health| health.healthy);
    let silent_for = health.as_ref().and_then(|health| health.last_answer).map(|at| api.clock.now() - at);
    NodeStatus {
        id,
        address: member.api_addr.clone(),
        peer_address: member.peer_addr.clone(),
        peers,
        role: pong.filter(|_| healthy).map_or("unknown", |pong| pong.role.name()),
        voter: status.members.voters.contains_key(&id),
        healthy,
        last_heartbeat_ms: silent_for.map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
        commit_index: pong.and_then(|pong| pong.committed),
        last_applied: pong.and_then(|pong| pong.applied),
        revision: pong.map(|pong| pong.revision),
    }
}

pub(super) async fn add_member(
    State(api): State<Api>,
    _: NoQuery,
    body: Whole<MAX_JOIN_BYTES>,
) -> Result<Json<JoinAnswer>, ApiError> {
    let request: JoinRequest =
        serde_json::from_slice(&body.bytes).map_err(|error| ApiError::invalid("body", error.to_string()))?;
    for (field, address) in [("peer_addr", &request.peer_addr), ("api_addr", &request.api_addr)] {
        crate::config::check_advertised(address).map_err(|reason| ApiError::invalid(field, reason))?;
    }
    Ok(Json(api.coordinator.join(request).await?))
}

/// What the dashboard and people find at `/`, until there is more to see.
pub(super) async fn index(State(api): State<Api>, _: NoQuery) -> Json<Value> {
    Json(serde_json::json!({
        "service": "seawall-kv",
        "version": env!("CARGO_PKG_VERSION"),
        "node_id": api.local.id,
        "see": ["/cluster/status", "/health/ready", "/metrics", "/v1/strong/{key}"],
    }))
}
