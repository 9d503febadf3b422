//! Pings every member and tells who answers.
//!
//! **When.** `/cluster/status` and health need to know who is up and how far it is; a founder needs to know who lives
//! at an address.
//! **What.** A ping every 500 ms ± 10 % per member. Down after three misses in a row, up again after two answers, so
//! that one lost packet changes nothing and a flapping peer stays down.
//! **How.** One task with one named timer per member ([`crate::clock::Timers`]); answers come back through a bounded
//! set of at most one ping under way per member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::clock::Clock;
use crate::consensus::{LogIndex, Member, Revision, Role};
use crate::peer::{Lane, MessageKind, NodeId, PeerError, PeerRequest, Peers};

/// Time between two pings of one member, ± a tenth.
pub const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Spread of the interval, so that nodes started together do not ping together.
const JITTER: f64 = 0.1;
/// Misses in a row after which a member counts as down.
pub const DOWN_AFTER_MISSES: u32 = 3;
/// Answers in a row after which it counts as up again.
pub const UP_AFTER_ANSWERS: u32 = 2;

/// A ping. Who asks was said by the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The cluster that is being formed: a founder that belongs to none keeps it (see `topology/formation.rs`).
    pub adopt: Option<String>,
}

/// The answer: who is there and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The node that answers.
    pub node: NodeId,
    /// Where it is reached.
    pub member: Member,
    /// Its cluster, once it has one.
    pub cluster: Option<String>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The last entry it knows to be committed.
    pub committed: Option<LogIndex>,
    /// The last entry it has applied.
    pub applied: Option<LogIndex>,
    /// The revision of its keyspace.
    pub revision: Revision,
}

/// Decides up or down from answers and misses; a plain value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detector {
    up: bool,
    /// Answers (while down) or misses (while up) in a row.
    streak: u32,
}

impl Detector {
    /// A member that was never heard of is down, and up after its first answer.
    pub const fn new() -> Self {
        Self { up: false, streak: UP_AFTER_ANSWERS - 1 }
    }

    /// Whether it counts as up.
    pub const fn is_up(self) -> bool {
        self.up
    }

    /// It answered; `true` when that changed its state.
    pub fn answered(&mut self) -> bool {
        self.count(true, UP_AFTER_ANSWERS)
    }

    /// It did not answer; `true` when that changed its state.
    pub fn missed(&mut self) -> bool {
        self.count(false, DOWN_AFTER_MISSES)
    }

    fn count(&mut self, answered: bool, needed: u32) -> bool {
        if answered == self.up {
            self.streak = 0;
            return false;
        }
        self.streak += 1;
        if self.streak < needed {
            return false;
        }
        *self = Self { up: answered, streak: 0 };
        true
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

/// What this node knows of another.
#[derive(Debug, Clone)]
pub struct PeerHealth {
    /// Whether it counts as up.
    pub healthy: bool,
    /// When it last answered.
    pub last_answer: Option<Instant>,
    /// How long its last answer took.
    pub round_trip: Option<Duration>,
    /// Its last answer.
    pub pong: Option<Pong>,
}

/// The health of all other members, kept up to date by [`Heartbeats::run`].
#[derive(Clone)]
pub struct Heartbeats {
    local: NodeId,
    peers: Arc<dyn Peers>,
    clock: Clock,
    /// Guards the table; held for a read or one update.
    table: Arc<Mutex<BTreeMap<NodeId, (Detector, PeerHealth)>>>,
}

impl Heartbeats {
    /// Of `local`, through `peers`. Nothing is pinged before [`Heartbeats::run`].
    pub fn new(local: NodeId, peers: Arc<dyn Peers>, clock: Clock) -> Self {
        Self { local, peers, clock, table: Arc::default() }
    }

    /// What is known of `node`.
    pub fn get(&self, node: NodeId) -> Option<PeerHealth> {
        self.table().get(&node).map(|(_, health)| health.clone())
    }

    /// Pings the members that `members` names at each turn, until `stop`.
    pub async fn run(self, members: impl Fn() -> BTreeMap<NodeId, Member>, stop: CancellationToken) {
        let mut timers = self.clock.timers();
        let mut jitter = StdRng::seed_from_u64(self.local);
        let mut under_way = FuturesUnordered::new();
        timers.set(Due::Members, Duration::ZERO);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((node, result)) = under_way.next() => {
                    self.record(node, result);
                    timers.set(Due::Ping(node), PING_INTERVAL.mul_f64(1.0 + JITTER * (2.0 * jitter.random::<f64>() - 1.0)));
                }
                due = timers.fired() => match due {
                    Due::Members => {
                        let members = members();
                        for node in self.keep_only(&members) {
                            timers.set(Due::Ping(node), Duration::ZERO);
                        }
                        timers.set(Due::Members, PING_INTERVAL);
                    }
                    Due::Ping(node) => {
                        if let Some(member) = members().get(&node) {
                            under_way.push(self.ping(node, member.peer_addr.clone()));
                        }
                    }
                },
            }
        }
    }

    /// Forgets who left; returns who is new.
    fn keep_only(&self, members: &BTreeMap<NodeId, Member>) -> Vec<NodeId> {
        let mut table = self.table();
        table.retain(|node, _| members.contains_key(node));
        let new: Vec<_> =
            members.keys().copied().filter(|node| *node != self.local && !table.contains_key(node)).collect();
        for node in &new {
            let unknown = PeerHealth { healthy: false, last_answer: None, round_trip: None, pong: None };
            table.insert(*node, (Detector::new(), unknown));
        }
        new
    }

    async fn ping(&self, node: NodeId, address: String) -> (NodeId, Result<(Pong, Duration), PeerError>) {
        let sent = self.clock.now();
        let answer = self.clock.timeout(PING_INTERVAL, ping(&*self.peers, node, &address, None)).await;
        let result = match answer {
            Some(answer) => answer.map(|pong| (pong, self.clock.now() - sent)),
            None => Err(PeerError::Elapsed(format!("no answer within {PING_INTERVAL:?}").into())),
        };
        (node, result)
    }

    fn record(&self, node: NodeId, result: Result<(Pong, Duration), PeerError>) {
        let mut table = self.table();
        let Some((detector, health)) = table.get_mut(&node) else { return };
        let changed = match result {
            Ok((pong, round_trip)) => {
                health.last_answer = Some(self.clock.now());
                health.round_trip = Some(round_trip);
                health.pong = Some(pong);
                detector.answered()
            }
            Err(_) => detector.missed(),
        };
        health.healthy = detector.is_up();
        if changed {
            tracing::info!(
                peer = node,
                message_type = "ping",
                action = if health.healthy { "up" } else { "down" },
                "peer health changed"
            );
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, (Detector, PeerHealth)>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Look who is a member.
    Members,
    /// Ping one.
    Ping(NodeId),
}

/// Asks the node at `address` who it is and how far it is.
///
/// # Errors
/// As for every message to a peer.
pub async fn ping(peers: &dyn Peers, node: NodeId, address: &str, adopt: Option<String>) -> Result<Pong, PeerError> {
    let body = postcard::to_stdvec(&Ping { adopt }).map_err(|error| PeerError::Broken(error.into()))?;
    let message = PeerRequest { kind: MessageKind::Ping, body: body.into() };
    let mut client = peers.client(node, address, Lane::Control);
    let answer = client.ready().await?.call(message).await?;
    postcard::from_bytes(&answer.body).map_err(|error| PeerError::Broken(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_misses_are_down_and_two_answers_up_again() {
        let mut detector = Detector::new();
        assert!(!detector.is_up(), "never heard of");
        assert!(detector.answered() && detector.is_up(), "the first answer counts");
        assert!(!detector.missed());
        assert!(!detector.missed());
        assert!(!detector.answered(), "an answer in between starts the count anew");
        assert!(!detector.missed());
        assert!(!detector.missed());
        assert!(detector.missed() && !detector.is_up());
        assert!(!detector.answered());
        assert!(!detector.missed(), "a miss in between starts the count anew");
        assert!(!detector.answered());
        assert!(detector.answered() && detector.is_up());
    }
}
