//! What openraft tells of itself, in our words, and as metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{Fatal, ForwardToLeader};
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::raft::{Raft, RaftMetrics, StoredMembership, TypeConfig};
use crate::consensus::state_machine::State;
use crate::consensus::{ConsensusConfig, FollowerProgress, Keyspace, Members, NotLeader, Role, Status};
use crate::telemetry::raft as names;

/// What this node knows right now.
pub(super) fn status(raft: &Raft) -> Status {
    // The borrow blocks openraft's main task, so it ends with the copy.
    let metrics = raft.metrics().borrow_watched().clone();
    from_metrics(&metrics)
}

pub(super) fn not_leader(to: ForwardToLeader<TypeConfig>) -> NotLeader {
    NotLeader { leader: to.leader_id.zip(to.leader_node) }
}

/// Publishes the status: changes of role, term, leader and members at once, progress once per heartbeat.
pub(super) async fn publish(
    raft: Raft,
    state: std::sync::Arc<State>,
    config: ConsensusConfig,
    sender: watch::Sender<Status>,
    stop: CancellationToken,
) {
    let mut server = raft.server_metrics();
    let mut ticks = tokio::time::interval(config.heartbeat_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut leader = None;
    loop {
        let next = status(&raft);
        if next.leader.is_some() && next.leader != leader {
            leader = next.leader;
            metrics::counter!(names::RAFT_LEADER_CHANGES).increment(1);
        }
        export(&next);
        state.read(export_keyspace);
        let stopped = next.role == Role::Stopped;
        if let Some(failure) = next.failure.as_ref().filter(|_| sender.borrow().failure.is_none()) {
            tracing::error!(%failure, "consensus has failed");
        }
        sender.send_if_modified(|current| {
            let modified = *current != next;
            *current = next;
            modified
        });
        if stopped {
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // openraft has ended; its last word is in the metrics.
            changed = server.changed() => if changed.is_err() { ticks.tick().await; },
            _ = ticks.tick() => {}
        }
    }
}

fn from_metrics(metrics: &RaftMetrics) -> Status {
    let (role, failure) = match &metrics.running_state {
        Ok(()) => (role(metrics.state), None),
        Err(Fatal::Stopped) => (Role::Stopped, None),
        Err(fatal) => (Role::Stopped, Some(fatal.to_string().into())),
    };
    let index = |log_id: &Option<super::raft::LogId>| log_id.as_ref().map(|log_id| log_id.index);
    Status {
        node_id: metrics.id,
        role,
        term: metrics.current_term,
        leader: metrics.current_leader,
        last_log: metrics.last_log_index,
        committed: index(&metrics.local_committed),
        applied: index(&metrics.last_applied),
        snapshot: index(&metrics.snapshot),
        purged: index(&metrics.purged),
        members: members(&metrics.membership_config),
        followers: followers(metrics),
        quorum_acked: metrics.last_quorum_acked.map(|at| ago(at.elapsed())),
        failure,
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn members(stored: &StoredMembership) -> Members {
    let membership = stored.membership();
    let voting: std::collections::BTreeSet<_> = membership.voter_ids().collect();
    let (voters, learners): (BTreeMap<_, _>, BTreeMap<_, _>) =
        membership.nodes().map(|(id, member)| (*id, member.clone())).partition(|(id, _)| voting.contains(id));
    let joint = membership.get_joint_config().len() > 1;
    Members { voters, learners, joint, log_index: stored.log_id().as_ref().map(|log_id| log_id.index) }
}

fn followers(metrics: &RaftMetrics) -> BTreeMap<u64, FollowerProgress> {
    let mut followers: BTreeMap<_, FollowerProgress> = BTreeMap::new();
    for (id, matched) in metrics.replication.iter().flatten() {
        followers.entry(*id).or_default().matched = matched.as_ref().map(|log_id| log_id.index);
    }
    for (id, ack) in metrics.heartbeat.iter().flatten() {
        followers.entry(*id).or_default().last_ack = ack.map(|at| ago(at.elapsed()));
    }
    followers.remove(&metrics.id);
    followers
}

/// openraft's instants are tokio's, but it does not hand them out.
fn ago(elapsed: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(elapsed).unwrap_or(now)
}

fn export(status: &Status) {
    for role in Role::ALL {
        let value = f64::from(u8::from(status.role == role));
        metrics::gauge!(names::RAFT_ROLE, "role" => role.name()).set(value);
    }
    // A gauge is a float; indexes are exact up to 2^53, which takes a million entries per second for 285 years.
    let set = |name: &'static str, index: Option<u64>| metrics::gauge!(name).set(index.unwrap_or_default() as f64);
    set(names::RAFT_TERM, Some(status.term));
    set(names::RAFT_LAST_LOG_INDEX, status.last_log);
    set(names::RAFT_COMMIT_INDEX, status.committed);
    set(names::RAFT_APPLIED_INDEX, status.applied);
    set(names::RAFT_SNAPSHOT_INDEX, status.snapshot);
}

fn export_keyspace(keyspace: &Keyspace) {
    metrics::gauge!(names::STRONG_KEYS).set(keyspace.len() as f64);
    metrics::gauge!(names::STRONG_BYTES).set(keyspace.bytes() as f64);
}
