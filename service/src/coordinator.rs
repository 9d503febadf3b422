//! Takes a client's request at any node and brings it to the leader, keeping the three outcomes of a write apart.
//!
//! A write is proposed here if this node leads, else sent on over one hop. A forwarded request that finds no leader is
//! answered `NotLeader` and is not sent further. What certainly was not proposed is tried again, at the next leader or
//! after a pause, for a while; what may have been proposed is not, and its outcome is unknown. A linearizable
//! read asks the leader for its read index, waits until this node has applied it and is answered here.
//!
//! Overload is not tried again: it was waited for in the queue of the limit that refused, and whoever came back from here
//! would be a queue behind that queue, without a bound or an order. The client hears at once when to come back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use seawall::Deadline;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use crate::clock::Clock;
use crate::consensus::{
    Command, Consensus, Keyspace, Member, NotLeader, ProposeError, ReadError, Response, Status, WriteOutcome,
};
use crate::peer::{Lane, MessageKind, NodeId, PeerError, PeerRequest, PeerResponse, Peers, RemoteCode, RemoteError};
use crate::topology::{JoinAnswer, JoinRequest, admit};

/// What a request gets that states no deadline. Two elections and a retry fit.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// Kept back from the deadline, so that the answer "unknown" still reaches a client that waits until then.
pub(crate) const ANSWER_MARGIN: Duration = Duration::from_millis(20);

/// How long this node looks for a leader. An election takes half of it; a node that finds none for longer is cut off, and
/// its clients should hear so while they have time to ask another node.
const LEADER_WITHIN: Duration = Duration::from_millis(2500);

/// How long a request waits for another leader before it tries the same one again.
const PAUSE: Duration = Duration::from_millis(100);

/// Brings requests to the leader. Cheap to clone.
#[derive(Clone)]
pub struct Coordinator {
    consensus: Consensus,
    peers: Arc<dyn Peers>,
    clock: Clock,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoordinatorError {
    /// A write that did not happen and never will.
    #[error("the write was not applied: {reason}")]
    NotApplied {
        /// Why.
        reason: String,
        /// When to come back, where that is known.
        retry_after: Option<Duration>,
    },
    /// A write that may have happened, or may yet.
    #[error("the write may or may not have been applied: {reason}")]
    Unknown {
        /// Why nobody knows.
        reason: String,
    },
    /// A read that could not be served.
    #[error("the read could not be served: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
        /// When to come back, where that is known.
        retry_after: Option<Duration>,
    },
    /// A request that makes no sense in the cluster as it is; asking again changes nothing.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The request must not be forwarded, and this node does not lead.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, as far as this node knows.
        leader: Option<Member>,
    },
}

/// A request sent on to the leader.
#[derive(Debug, Serialize, Deserialize)]
enum Forward {
    Write { command: Command, request_id: String },
    Join(JoinRequest),
}

/// The leader's answer.
#[derive(Debug, Serialize, Deserialize)]
enum Forwarded {
    Done(Response),
    NotLeader(NotLeader),
    /// It is not done and never will be; another try may fare better.
    NotApplied(NotDone),
    /// It is not done and never will be: too much is under way, and another try would add to it.
    Overloaded(NotDone),
    Refused(String),
    Unknown(String),
    Join(JoinAnswer),
}

/// Why a request was not done.
#[derive(Debug, Serialize, Deserialize)]
struct NotDone {
    reason: String,
    /// When to come back, where that is known.
    retry_after: Option<Duration>,
}

/// Where a request may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// At the leader, wherever it is.
    Allowed,
    /// Only here.
    Refused,
}

impl Coordinator {
    /// A coordinator over this node's consensus and its clients of other nodes.
    pub fn new(consensus: Consensus, peers: Arc<dyn Peers>, clock: Clock) -> Self {
        Self { consensus, peers, clock }
    }

    /// Applies `command` through the log.
    ///
    /// Ends by the ambient [`Deadline`] (by [`DEFAULT_DEADLINE`] without one). Dropping it leaves the outcome unknown.
    ///
    /// # Errors
    /// [`CoordinatorError::NotApplied`] only when that is certain, [`CoordinatorError::Unknown`] in every other case.
    pub async fn write(
        &self,
        command: Command,
        request_id: &str,
        forwarding: Forwarding,
    ) -> Result<Response, CoordinatorError> {
        let deadline = self.deadline();
        let request = Forward::Write { command, request_id: request_id.to_owned() };
        match self.bring_to_leader(request, deadline, forwarding).await? {
            Forwarded::Done(response) => Ok(response),
            other => Err(other.into_error()),
        }
    }

    /// Makes a node a member, step by step: the caller asks again until the answer says that it is one.
    ///
    /// # Errors
    /// As for a write.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinAnswer, CoordinatorError> {
        match self.bring_to_leader(Forward::Join(request), self.deadline(), Forwarding::Allowed).await? {
            Forwarded::Join(answer) => Ok(answer),
            other => Err(other.into_error()),
        }
    }

    /// Reads a state that holds every write acknowledged before the call began.
    ///
    /// # Errors
    /// [`CoordinatorError::Unavailable`] when no quorum confirmed that before the ambient deadline.
    pub async fn read_linearizable<T>(
        &self,
        forwarding: Forwarding,
        read: impl FnOnce(&Keyspace) -> T,
    ) -> Result<T, CoordinatorError> {
        let deadline = self.deadline();
        if forwarding == Forwarding::Refused {
            self.must_lead()?;
        }
        let give_up = deadline.min(self.clock.now() + LEADER_WITHIN);
        loop {
            let tried = self.consensus.status();
            match self.consensus.linearize(deadline).await {
                Ok(()) => return Ok(self.consensus.read(read)),
                Err(error @ (ReadError::Deadline | ReadError::Stopping | ReadError::TooBusy)) => {
                    return Err(unavailable(&error));
                }
                // Reads are safe to repeat; a new read index is asked for each time.
                Err(error) => {
                    if !self.pause(&tried, give_up).await {
                        return Err(unavailable(&error));
                    }
                }
            }
        }
    }

    /// Reads this node's state as it is.
    pub fn read_stale<T>(&self, read: impl FnOnce(&Keyspace) -> T) -> T {
        self.consensus.read(read)
    }

    /// Answers a request that another node sent on. It goes no further from here.
    pub(crate) async fn answer_forwarded(&self, from: NodeId, body: &Bytes) -> Result<PeerResponse, RemoteError> {
        let request: Forward = postcard::from_bytes(body)
            .map_err(|error| RemoteError::new(RemoteCode::BadMessage, format!("a forwarded request: {error}")))?;
        tracing::debug!(peer = from, message_type = "forward", action = "receive", request_id = request.id());
        let answer = self.serve_here(&request, self.deadline()).await;
        let body = postcard::to_stdvec(&answer)
            .map_err(|error| RemoteError::new(RemoteCode::Internal, format!("a forwarded answer: {error}")))?;
        Ok(PeerResponse { body: body.into() })
    }

    /// Tries at the leader of the moment until somebody takes the request or the deadline is near. What was not proposed
    /// is tried again, at the next leader or after a pause; anything else is the answer.
    async fn bring_to_leader(
        &self,
        request: Forward,
        deadline: Instant,
        forwarding: Forwarding,
    ) -> Result<Forwarded, CoordinatorError> {
        if forwarding == Forwarding::Refused {
            self.must_lead()?;
        }
        let give_up = deadline.min(self.clock.now() + LEADER_WITHIN);
        let mut answer = Forwarded::NotLeader(NotLeader { leader: None });
        loop {
            let tried = self.consensus.status();
            if let Some((leader, member)) = tried.leader_member() {
                answer = if leader == self.consensus.node_id() {
                    self.serve_here(&request, deadline).await
                } else {
                    self.send_on(leader, &member, &request, deadline).await
                };
            }
            let again = match answer {
                Forwarded::NotLeader(_) | Forwarded::NotApplied(_) => self.pause(&tried, give_up).await,
                // Whoever leads by now may have room.
                Forwarded::Overloaded(_) => {
                    self.clock.now() < give_up && has_another_leader(&self.consensus.status(), &tried)
                }
                _ => false,
            };
            if !again {
                return Ok(answer);
            }
        }
    }

    /// Waits for another leader than when it was `tried`, or a moment; `false` when the deadline comes first.
    async fn pause(&self, tried: &Status, deadline: Instant) -> bool {
        let mut changes = self.consensus.watch();
        let changed = changes.wait_for(|now| has_another_leader(now, tried));
        let pause = async {
            // Either is reason enough; that consensus has stopped shows at the next try.
            let _ = self.clock.timeout(PAUSE, changed).await;
        };
        let left = deadline.saturating_duration_since(self.clock.now());
        self.clock.timeout(left, pause).await.is_some()
    }

    async fn serve_here(&self, request: &Forward, deadline: Instant) -> Forwarded {
        match request {
            Forward::Write { command, .. } => match self.consensus.propose_by(command.clone(), deadline).await {
                Ok(applied) => Forwarded::Done(applied.response),
                Err(ProposeError::NotLeader(error)) => Forwarded::NotLeader(error),
                Err(error @ ProposeError::TooBusy) => Forwarded::Overloaded(NotDone::new(error.to_string())),
                Err(error) => match error.outcome() {
                    WriteOutcome::NotApplied => Forwarded::NotApplied(NotDone::new(error.to_string())),
                    WriteOutcome::Unknown => Forwarded::Unknown(error.to_string()),
                },
            },
            Forward::Join(request) => {
                let left = deadline.saturating_duration_since(self.clock.now());
                match self.clock.timeout(left, admit(&self.consensus, request)).await {
                    Some(Ok(answer)) => Forwarded::Join(answer),
                    Some(Err(error)) => error.into(),
                    None => Forwarded::Unknown("the deadline passed".to_owned()),
                }
            }
        }
    }

    async fn send_on(&self, leader: NodeId, member: &Member, request: &Forward, deadline: Instant) -> Forwarded {
        let body = match postcard::to_stdvec(request) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                return Forwarded::NotApplied(NotDone::new(format!("the request cannot be encoded: {error}")));
            }
        };
        tracing::debug!(peer = leader, message_type = "forward", action = "send", request_id = request.id());
        let mut client = self.peers.client(leader, &member.peer_addr, Lane::Data);
        let send = async { client.ready().await?.call(PeerRequest { kind: MessageKind::Forward, body }).await };
        match Deadline::at(deadline).scope(send).await {
            Ok(answer) => postcard::from_bytes(&answer.body)
                .unwrap_or_else(|error| Forwarded::Unknown(format!("the leader's answer cannot be read: {error}"))),
            Err(error) => Forwarded::unanswered(leader, &error),
        }
    }

    fn must_lead(&self) -> Result<(), CoordinatorError> {
        let status = self.consensus.status();
        if status.is_leader() {
            return Ok(());
        }
        Err(CoordinatorError::NotLeader { leader: status.leader_member().map(|(_, member)| member) })
    }

    /// When to have an answer ready.
    fn deadline(&self) -> Instant {
        let left = Deadline::remaining().unwrap_or(DEFAULT_DEADLINE);
        self.clock.now() + left.saturating_sub(ANSWER_MARGIN)
    }
}

impl Forward {
    fn id(&self) -> &str {
        match self {
            Self::Write { request_id, .. } => request_id,
            Self::Join(_) => "",
        }
    }
}

impl Forwarded {
    /// What is certain about a request that went to `leader` and came back with `error`.
    fn unanswered(leader: NodeId, error: &PeerError) -> Self {
        let reason = format!("node {leader}: {}", chain(error));
        if !error.never_sent() {
            return Self::Unknown(reason);
        }
        let not_done = NotDone { reason, retry_after: error.retry_after() };
        if error.is_overload() { Self::Overloaded(not_done) } else { Self::NotApplied(not_done) }
    }

    /// The error of a request that was not answered with what it asked for.
    fn into_error(self) -> CoordinatorError {
        match self {
            Self::NotLeader(_) => not_applied("no leader took it before the deadline"),
            Self::NotApplied(NotDone { reason, retry_after }) | Self::Overloaded(NotDone { reason, retry_after }) => {
                CoordinatorError::NotApplied { reason, retry_after }
            }
            Self::Refused(reason) => CoordinatorError::Refused { reason },
            Self::Unknown(reason) => CoordinatorError::Unknown { reason },
            Self::Done(_) | Self::Join(_) => {
                CoordinatorError::Unknown { reason: "an answer to something else".to_owned() }
            }
        }
    }
}

impl NotDone {
    fn new(reason: String) -> Self {
        Self { reason, retry_after: None }
    }
}

impl From<crate::consensus::MembershipError> for Forwarded {
    fn from(error: crate::consensus::MembershipError) -> Self {
        use crate::consensus::MembershipError as E;
        match error {
            E::NotLeader(error) => Self::NotLeader(error),
            E::Unknown(_) => Self::Unknown(error.to_string()),
            E::Refused(reason) => Self::Refused(reason),
            E::InProgress | E::Stopping => Self::NotApplied(NotDone::new(error.to_string())),
        }
    }
}

fn not_applied(reason: impl Into<String>) -> CoordinatorError {
    CoordinatorError::NotApplied { reason: reason.into(), retry_after: None }
}

fn unavailable(error: &ReadError) -> CoordinatorError {
    let retry_after = if let ReadError::Leader(error) = error { error.retry_after() } else { None };
    CoordinatorError::Unavailable { reason: chain(error), retry_after }
}

/// Whether somebody leads, and not as when `tried` was seen.
fn has_another_leader(now: &Status, tried: &Status) -> bool {
    now.leader.is_some() && (now.leader, now.term) != (tried.leader, tried.term)
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use seawall::{Reason, Rejected};

    use super::*;

    const LATER: Duration = Duration::from_millis(1500);

    fn refused(reason: Reason) -> PeerError {
        PeerError::Refused(Rejected::new("pattern", "peer/2/data", reason).retry_after(LATER))
    }

    #[test]
    fn a_refusal_keeps_its_hint_and_only_the_breakers_is_tried_again() {
        for reason in [Reason::Open, Reason::Probing] {
            let answer = Forwarded::unanswered(2, &refused(reason));
            assert!(matches!(answer, Forwarded::NotApplied(_)), "{reason}: {answer:?}");
            assert!(not_applied_after(answer.into_error()) == Some(LATER), "{reason}");
        }
        for reason in [Reason::Full, Reason::QueueFull, Reason::MaxWait, Reason::Limited] {
            let answer = Forwarded::unanswered(2, &refused(reason));
            assert!(matches!(answer, Forwarded::Overloaded(_)), "{reason}: {answer:?}");
            assert!(not_applied_after(answer.into_error()) == Some(LATER), "{reason}");
        }
    }

    #[test]
    fn what_may_have_left_is_unknown() {
        let answer = Forwarded::unanswered(2, &PeerError::Broken("reset".into()));
        assert!(matches!(answer.into_error(), CoordinatorError::Unknown { .. }));
    }

    #[test]
    fn a_read_that_was_refused_keeps_the_hint() {
        let error = unavailable(&ReadError::Leader(Arc::new(refused(Reason::Open))));
        assert!(matches!(error, CoordinatorError::Unavailable { retry_after: Some(LATER), .. }), "{error:?}");
        let error = unavailable(&ReadError::TooBusy);
        assert!(matches!(error, CoordinatorError::Unavailable { retry_after: None, .. }), "{error:?}");
    }

    fn not_applied_after(error: CoordinatorError) -> Option<Duration> {
        match error {
            CoordinatorError::NotApplied { retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        }
    }
}
