//! openraft's type parameters, chosen once.

use crate::consensus::state_machine::StateMachine;
use crate::consensus::{Command, Member, Response};
use crate::peer::NodeId;

openraft::declare_raft_types!(
    /// One leader per term, as in the Raft paper, so a log id is a term and an index.
    pub(super) TypeConfig:
        D = Command,
        R = Response,
        NodeId = NodeId,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>,
);

pub(super) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(super) type Vote = openraft::impls::Vote<openraft::impls::leader_id_std::LeaderId<u64, NodeId>>;
pub(super) type CommittedLeaderId = openraft::vote::leader_id_std::CommittedLeaderId<u64>;
pub(super) type LogId = openraft::LogId<CommittedLeaderId>;
pub(super) type Payload = openraft::EntryPayload<Command, NodeId, Member>;
pub(super) type LogEntry = openraft::Entry<CommittedLeaderId, Payload>;
pub(super) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Member>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, Member>;
pub(super) type Snapshot = openraft::Snapshot<CommittedLeaderId, NodeId, Member, crate::storage::SnapshotFile>;
pub(super) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;
