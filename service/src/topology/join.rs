//! How a node becomes a member: it asks until it is one, and every step is the leader's.
//!
//! An id is allocated through the log, the node is added as a learner, it catches up, and it becomes a voter while
//! there are fewer than [`MAX_VOTERS`]. Each ask does the next step that is due and says where things stand, so that
//! a leader that dies between two steps leaves nothing half done: the next ask goes on at the next leader.

use serde::{Deserialize, Serialize};

use crate::consensus::{CAUGHT_UP_ENTRIES, Consensus, Member, MembershipError, ProposeError};
use crate::peer::NodeId;

/// With five voters two may fail; more would make every write slower and hardly any cluster safer.
pub const MAX_VOTERS: usize = 5;

/// A node asks to become a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The id it was given by an earlier answer; absent the first time.
    #[serde(default)]
    pub id: Option<NodeId>,
    /// Where other nodes reach it, as `host:port`.
    pub peer_addr: String,
    /// Where clients reach it, as `host:port`.
    pub api_addr: String,
}

/// Where a joining node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// Its id, never used before.
    pub id: NodeId,
    /// The cluster it joins, as 32 hexadecimal digits.
    pub cluster_id: String,
    /// What it is by now.
    pub standing: Standing,
}

/// What a joining node is by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has an id; it must start and ask again with it.
    Allocated,
    /// It receives the log and has not caught up yet; it must ask again.
    CatchingUp,
    /// It is a learner for good: there are enough voters.
    Learner,
    /// It votes.
    Voter,
}

impl JoinRequest {
    /// The request of a node reached at these addresses; with its `id` once it has one.
    pub fn new(id: Option<NodeId>, peer_addr: &str, api_addr: &str) -> Self {
        Self { id, peer_addr: peer_addr.to_owned(), api_addr: api_addr.to_owned() }
    }
}

impl Standing {
    /// Whether there is nothing left to ask for.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Learner | Self::Voter)
    }
}

/// Does the next step for a joining node; only the leader can.
pub(crate) async fn admit(consensus: &Consensus, request: &JoinRequest) -> Result<JoinAnswer, MembershipError> {
    // From the log, not from this node's identity file: ids given out before it is there could be a founder's.
    let (formed, highest_id) = consensus.read(|keyspace| (keyspace.cluster_id(), keyspace.highest_node()));
    let Some(cluster_id) = formed else {
        return Err(MembershipError::InProgress);
    };
    let answer = |id, standing| JoinAnswer { id, cluster_id: cluster_id.to_string(), standing };
    let member = Member::new(&request.peer_addr, &request.api_addr);
    let Some(id) = request.id else {
        check_addresses(consensus, &member)?;
        let id = consensus.allocate_node().await.map_err(proposed)?;
        return Ok(answer(id, Standing::Allocated));
    };
    if id > highest_id {
        return Err(MembershipError::Refused(format!("id {id} was never given out; ask without an id first")));
    }
    if consensus.status().members.joint {
        consensus.finish_change().await?; // a former leader's change; this node is in it or is not
    }
    let members = consensus.status().members;
    match members.get(id) {
        Some(known) if *known != member => {
            let why = format!("node {id} is a member at {}, not at {}", known.peer_addr, member.peer_addr);
            return Err(MembershipError::Refused(why));
        }
        Some(_) if members.voters.contains_key(&id) => return Ok(answer(id, Standing::Voter)),
        Some(_) => {}
        None => {
            check_addresses(consensus, &member)?;
            consensus.add_learner(id, member).await?;
            return Ok(answer(id, Standing::CatchingUp));
        }
    }
    if members.voters.len() >= MAX_VOTERS {
        return Ok(answer(id, Standing::Learner));
    }
    let status = consensus.status();
    let matched = status.followers.get(&id).and_then(|follower| follower.matched);
    let caught_up = matched.is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= status.last_log.unwrap_or_default());
    if !caught_up {
        return Ok(answer(id, Standing::CatchingUp));
    }
    consensus.promote(id).await?;
    Ok(answer(id, Standing::Voter))
}

/// Two members at one address would be one node that votes twice.
fn check_addresses(consensus: &Consensus, new: &Member) -> Result<(), MembershipError> {
    for (id, member) in consensus.status().members.iter() {
        if member.peer_addr == new.peer_addr || member.api_addr == new.api_addr {
            let why = format!("node {id} is a member at that address; a node that lost its data joins at another");
            return Err(MembershipError::Refused(why));
        }
    }
    Ok(())
}

fn proposed(error: ProposeError) -> MembershipError {
    match error {
        ProposeError::NotLeader(error) => MembershipError::NotLeader(error),
        ProposeError::TooBusy => MembershipError::InProgress,
        ProposeError::Stopping => MembershipError::Stopping,
        ProposeError::Unknown(outcome) => MembershipError::Unknown(outcome),
    }
}
