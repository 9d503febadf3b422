//! Who belongs to the group: forming it, changing it, handing leadership over.

use std::collections::BTreeMap;

use openraft::ChangeMembers;
use openraft::errors::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use tokio::time::Instant;

use crate::consensus::error::{InitialiseError, MembershipError, NotLeader, ProposeError, UnknownOutcome, WaitError};
use crate::consensus::raft::TypeConfig;
use crate::consensus::status::not_leader;
use crate::consensus::{ClusterId, Command, Consensus, Keyspace, Member, Response, Role, Status};
use crate::peer::NodeId;

/// Ids given out later are log positions; founders choose theirs far enough below the end of the range.
const MAX_FOUNDER_ID: NodeId = 1 << 48;
impl Consensus {
    /// Forms a new group of these members, once, and gives the cluster its identity.
    ///
    /// One of the founders does this, or all of them with the same list. It resolves when the identity is applied here;
    /// that takes a quorum of the members. Dropped or failed after its first step, it continues when called again.
    ///
    /// # Errors
    ///
    /// The node belongs to a group already, the list is not one to start with, or the node stops.
    pub async fn initialise(
        &self,
        cluster_id: ClusterId,
        members: BTreeMap<NodeId, Member>,
    ) -> Result<(), InitialiseError> {
        if !members.contains_key(&self.node_id()) {
            return Err(InitialiseError::Members("this node is not among them"));
        }
        if members.keys().next_back().is_some_and(|id| *id >= MAX_FOUNDER_ID) {
            return Err(InitialiseError::Members("an id is 2^48 or greater"));
        }
        if members.contains_key(&0) {
            return Err(InitialiseError::Members("an id is 0"));
        }
        match self.raft().initialize(members).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                if self.read(Keyspace::cluster_id).is_some() {
                    return Err(InitialiseError::AlreadyFormed);
                }
            }
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                return Err(InitialiseError::Members("this node is not among them"));
            }
            Err(RaftError::Fatal(_)) => return Err(InitialiseError::Stopping),
        }
        self.form(cluster_id).await
    }

    /// Resolves when the cluster's identity is in the log and applied here. Every founder calls it: the one that leads
    /// proposes it, so that a founder that stopped half-way holds nobody up.
    ///
    /// # Errors
    ///
    /// See [`InitialiseError`].
    pub async fn form(&self, cluster_id: ClusterId) -> Result<(), InitialiseError> {
        let mut status = self.watch();
        let mut applied = self.state().applied();
        loop {
            if let Some(formed) = self.read(Keyspace::cluster_id) {
                return if formed == cluster_id { Ok(()) } else { Err(InitialiseError::OtherCluster(formed)) };
            }
            // Copied out: the publisher of the status waits while it is borrowed.
            let role = status.borrow_and_update().role;
            match role {
                Role::Stopped => return Err(InitialiseError::Stopping),
                Role::Leader => match self.propose(self.form_command(cluster_id)).await {
                    // Leadership may move before the entry is committed; the founder that leads then proposes it.
                    Ok(_) | Err(ProposeError::NotLeader(_) | ProposeError::Unknown(UnknownOutcome::Discarded)) => {}
                    Err(ProposeError::Stopping) => return Err(InitialiseError::Stopping),
                    Err(error) => return Err(InitialiseError::Identity(error)),
                },
                _ => {}
            }
            tokio::select! {
                changed = status.changed() => changed.map_err(|_| InitialiseError::Stopping)?,
                changed = applied.changed() => changed.map_err(|_| InitialiseError::Stopping)?,
            }
        }
    }

    fn form_command(&self, cluster_id: ClusterId) -> Command {
        let highest_founder =
            self.status().members.voters.keys().next_back().copied().unwrap_or_else(|| self.node_id());
        Command::Form { cluster_id, highest_founder }
    }

    /// Gives out a node id that no node has had.
    ///
    /// # Errors
    ///
    /// As [`propose`](Self::propose); after an unknown outcome an id may be lost, which does no harm.
    pub async fn allocate_node(&self) -> Result<NodeId, ProposeError> {
        match self.propose(Command::AllocateNode).await?.response {
            Response::NodeAllocated { id } => Ok(id),
            _ => Err(ProposeError::Unknown(UnknownOutcome::Discarded)),
        }
    }

    /// Adds a member that receives the log and does not vote, or changes where one is reached. Resolves when committed;
    /// see [`wait_caught_up`](Self::wait_caught_up).
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn add_learner(&self, id: NodeId, member: Member) -> Result<(), MembershipError> {
        let voter = self.status().members.voters.get(&id).cloned();
        if let Some(voter) = voter {
            let same = voter == member;
            return if same { Ok(()) } else { Err(MembershipError::Refused(format!("node {id} is a voter already"))) };
        }
        self.raft().add_learner(id, member, false).await.map(drop).map_err(membership_error)
    }

    /// Waits until a member holds nearly everything this leader has.
    ///
    /// # Errors
    ///
    /// The deadline passed, or the node is stopping.
    pub async fn wait_caught_up(&self, id: NodeId, deadline: Instant) -> Result<(), WaitError> {
        self.wait_status(deadline, |status| {
            let matched = status.followers.get(&id).and_then(|follower| follower.matched);
            matched.is_some_and(|matched| matched + super::CAUGHT_UP_ENTRIES >= status.last_log.unwrap_or_default())
        })
        .await
    }

    /// Makes a learner a voter. Resolves when committed.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn promote(&self, id: NodeId) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddVoterIds([id].into()), true).await
    }

    /// Removes a member, voter or not, for good: its id is never used again. Resolves when committed.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn remove(&self, id: NodeId) -> Result<(), MembershipError> {
        let members = self.status().members;
        if members.voters.contains_key(&id) {
            if members.voters.len() == 1 {
                return Err(MembershipError::Refused(format!("node {id} is the last voter")));
            }
            self.change(ChangeMembers::RemoveVoters([id].into()), false).await
        } else {
            self.change(ChangeMembers::RemoveNodes([id].into()), false).await
        }
    }

    /// Hands leadership to another voter. Resolves when this node has seen another leader.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`]. After an unknown outcome this node may still lead, or nobody for the moment.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), MembershipError> {
        let status = self.status();
        if !status.is_leader() {
            return Err(NotLeader { leader: status.leader_member() }.into());
        }
        if to == status.node_id {
            return Ok(());
        }
        if !status.members.voters.contains_key(&to) {
            return Err(MembershipError::Refused(format!("node {to} is no voter")));
        }
        self.raft().trigger().transfer_leader(to).await.map_err(|_| MembershipError::Stopping)?;
        let deadline = Instant::now() + self.config().election_timeout_max * 2;
        let moved = |status: &Status| status.leader.is_some_and(|leader| leader != status.node_id);
        match self.wait_status(deadline, moved).await {
            Ok(()) => Ok(()),
            Err(WaitError::Deadline) => Err(MembershipError::Unknown(UnknownOutcome::Deadline)),
            Err(WaitError::Stopping) => Err(MembershipError::Unknown(UnknownOutcome::Stopped)),
        }
    }

    /// Finishes a change of voters that a former leader left half done.
    ///
    /// # Errors
    ///
    /// See [`MembershipError`].
    pub async fn finish_change(&self) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddVoterIds([].into()), true).await
    }

    /// Changes the members in a task of its own: a change of voters has two steps, and a caller that goes away in
    /// between must not leave it half done.
    async fn change(&self, change: ChangeMembers<NodeId, Member>, retain: bool) -> Result<(), MembershipError> {
        let raft = self.raft().clone();
        let change = async move { raft.change_membership(change, retain).await.map(drop).map_err(membership_error) };
        self.tracked(change).await.unwrap_or(Err(MembershipError::Unknown(UnknownOutcome::Stopped)))
    }

    /// Waits until the published status is as wanted.
    pub(super) async fn wait_status(
        &self,
        deadline: Instant,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<(), WaitError> {
        let mut status = self.watch();
        let seen = status.wait_for(|status| wanted(status) || status.role == Role::Stopped);
        match tokio::time::timeout_at(deadline, seen).await {
            Ok(Ok(status)) if status.role == Role::Stopped => Err(WaitError::Stopping),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopping),
            Err(_) => Err(WaitError::Deadline),
        }
    }
}

fn membership_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => MembershipError::NotLeader(not_leader(to)),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            MembershipError::Unknown(UnknownOutcome::Discarded)
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
            MembershipError::InProgress
        }
        RaftError::APIError(error) => MembershipError::Refused(error.to_string()),
        // The entry may have been written before the failure.
        RaftError::Fatal(_) => MembershipError::Unknown(UnknownOutcome::Stopped),
    }
}
