//! What consensus takes and gives, in our own words: nothing here names the library that does the work.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::peer::NodeId;

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;

/// The largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// Counts the changes of the keyspace; a key's entity tag is the revision that wrote it last.
pub type Revision = u64;

/// A position in the replicated log.
pub type LogIndex = u64;

/// What one log entry asks the keyspace to do.
///
/// The variants are written to the log by position: append new ones, never reorder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Command {
    /// Write a value.
    Put {
        /// The key to write.
        key: Key,
        /// The value, in a buffer of its own exact size.
        value: Bytes,
        /// What must hold for the write to happen.
        precondition: Precondition,
    },
    /// Remove a key.
    Delete {
        /// The key to remove.
        key: Key,
        /// What must hold for the removal to happen.
        precondition: Precondition,
    },
    /// Give the cluster its identity; the first entry after the first election.
    Form {
        /// The identity, drawn by the node that formed the cluster.
        cluster_id: ClusterId,
        /// The largest id among the founders; ids given out later are greater.
        highest_founder: NodeId,
    },
    /// Give out a node id that no node has had.
    AllocateNode,
}

/// What must hold of a key, at the moment its entry is applied, for a write to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// Nothing: the write always happens.
    #[default]
    Unconditional,
    /// The key exists (`If-Match: *`).
    Exists,
    /// The key does not exist (`If-None-Match: *`).
    Absent,
    /// The key exists and its last revision is one of these (`If-Match`).
    RevisionIs(Vec<Revision>),
    /// The key does not exist, or its last revision is none of these (`If-None-Match`).
    RevisionIsNot(Vec<Revision>),
}

/// What applying one entry gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// The entry does not speak to the keyspace (a new leader's first entry, a change of members).
    Nothing,
    /// The value was written, and this is now the revision of the key and of the keyspace.
    Written {
        /// The revision of the write.
        revision: Revision,
    },
    /// The key is gone.
    Deleted {
        /// The revision of the keyspace; moved only if the key existed.
        revision: Revision,
        /// Whether there was something to remove.
        existed: bool,
    },
    /// The precondition did not hold; nothing changed.
    ConditionFailed {
        /// The key's last revision, or `None` if there is no such key.
        current: Option<Revision>,
    },
    /// The cluster has this identity; if it had one already, that one.
    Formed {
        /// The identity that counts.
        cluster_id: ClusterId,
    },
    /// A node id that no node has had.
    NodeAllocated {
        /// The id.
        id: NodeId,
    },
}

/// A command that was committed and applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Where in the log.
    pub log_index: LogIndex,
    /// What it gave.
    pub response: Response,
}

/// A state applied up to here answers a read as if the read had happened after it was asked.
///
/// Holds only for reads that began before it was requested: ask again for each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndex {
    /// The log position that must be applied before the read.
    pub index: LogIndex,
}

/// A key: 1 to [`MAX_KEY_BYTES`] bytes of UTF-8 without control characters. Cloning copies no bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Why some text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Nothing at all.
    #[error("the key is empty; it needs at least one character")]
    Empty,
    /// More than [`MAX_KEY_BYTES`].
    #[error("the key has {bytes} bytes; at most {MAX_KEY_BYTES} are allowed")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// A control character.
    #[error("the key has a control character at byte {at}; they are not allowed")]
    Control {
        /// Its byte position.
        at: usize,
    },
}

/// Where a member of the cluster is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Where other nodes reach it, as `host:port`.
    pub peer_addr: String,
    /// Where clients reach it, as `host:port`.
    pub api_addr: String,
}

/// Identifies a cluster for all time; drawn at random when it is formed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClusterId(u128);

/// What a node is to the consensus group right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives the log and does not vote. A node that is no member yet is one too.
    #[default]
    Learner,
    /// Votes and follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Takes proposals.
    Leader,
    /// Takes part no more; see [`Status::failure`].
    Stopped,
}

/// What this node knows of the group at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// This node.
    pub node_id: NodeId,
    /// What it is to the group.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The last entry in its log.
    pub last_log: Option<LogIndex>,
    /// The last entry it knows to be committed.
    pub committed: Option<LogIndex>,
    /// The last entry in its state.
    pub applied: Option<LogIndex>,
    /// The last entry in its newest snapshot.
    pub snapshot: Option<LogIndex>,
    /// The last entry removed from its log.
    pub purged: Option<LogIndex>,
    /// The members as its log has them, whether committed yet or not.
    pub members: Members,
    /// Per other member, how far it is; empty unless this node leads.
    pub followers: BTreeMap<NodeId, FollowerProgress>,
    /// When a quorum last acknowledged this leader.
    pub quorum_acked: Option<Instant>,
    /// Why the node stopped on its own, as one line.
    pub failure: Option<Arc<str>>,
}

/// The members of the group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that vote.
    pub voters: BTreeMap<NodeId, Member>,
    /// Those that only receive the log.
    pub learners: BTreeMap<NodeId, Member>,
    /// Whether a change of voters is half done, so that two sets of voters must agree.
    pub joint: bool,
    /// The log entry that says so.
    pub log_index: Option<LogIndex>,
}

/// How far one member follows its leader.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FollowerProgress {
    /// The last entry it is known to hold.
    pub matched: Option<LogIndex>,
    /// When it last acknowledged anything.
    pub last_ack: Option<Instant>,
}

impl Command {
    /// About how many bytes the command holds, for bounds.
    pub fn size_bytes(&self) -> usize {
        const FIXED: usize = 64;
        FIXED
            + match self {
                Self::Put { key, value, precondition } => key.len() + value.len() + precondition.size_bytes(),
                Self::Delete { key, precondition } => key.len() + precondition.size_bytes(),
                Self::Form { .. } | Self::AllocateNode => 0,
            }
    }

    /// The name in metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Delete { .. } => "delete",
            Self::Form { .. } => "form",
            Self::AllocateNode => "allocate_node",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value, .. } => write!(f, "put {key} ({} bytes)", value.len()),
            Self::Delete { key, .. } => write!(f, "delete {key}"),
            Self::Form { cluster_id, .. } => write!(f, "form {cluster_id}"),
            Self::AllocateNode => f.write_str("allocate a node id"),
        }
    }
}

impl Precondition {
    /// Whether it holds of a key whose last revision is `current`.
    pub fn holds(&self, current: Option<Revision>) -> bool {
        match self {
            Self::Unconditional => true,
            Self::Exists => current.is_some(),
            Self::Absent => current.is_none(),
            Self::RevisionIs(revisions) => current.is_some_and(|revision| revisions.contains(&revision)),
            Self::RevisionIsNot(revisions) => current.is_none_or(|revision| !revisions.contains(&revision)),
        }
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Unconditional | Self::Exists | Self::Absent => 0,
            Self::RevisionIs(revisions) | Self::RevisionIsNot(revisions) => size_of_val(revisions.as_slice()),
        }
    }
}

impl Key {
    /// Checks `text` and makes it a key.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, InvalidKey> {
        if text.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(InvalidKey::TooLong { bytes: text.len() });
        }
        if let Some((at, _)) = text.char_indices().find(|(_, char)| char.is_control()) {
            return Err(InvalidKey::Control { at });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a key is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
                Key::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

impl Member {
    /// A member reached at these addresses.
    pub fn new(peer_addr: impl Into<String>, api_addr: impl Into<String>) -> Self {
        Self { peer_addr: peer_addr.into(), api_addr: api_addr.into() }
    }
}

impl ClusterId {
    /// The identity of this number.
    pub const fn new(id: u128) -> Self {
        Self(id)
    }

    /// As a number.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cluster id is 32 hexadecimal digits")]
pub struct InvalidClusterId;

impl FromStr for ClusterId {
    type Err = InvalidClusterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits {
            return Err(InvalidClusterId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| InvalidClusterId)
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Learner, Self::Follower, Self::Candidate, Self::Leader, Self::Stopped];

    /// The name in metrics, logs and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Status {
    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// The leader and where it is reached, if both are known.
    pub fn leader_member(&self) -> Option<(NodeId, Member)> {
        let id = self.leader?;
        Some((id, self.members.get(id)?.clone()))
    }
}

impl Members {
    /// The member of that id, voter or learner.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.voters.get(&id).or_else(|| self.learners.get(&id))
    }

    /// All members, voters first.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.voters.iter().chain(&self.learners).map(|(id, member)| (*id, member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_1024_bytes_without_control_characters() {
        assert_eq!(Key::new("a/ü").map(|key| key.to_string()), Ok("a/ü".to_owned()));
        assert!(Key::new(&"k".repeat(MAX_KEY_BYTES)).is_ok());
        assert_eq!(Key::new(""), Err(InvalidKey::Empty));
        assert_eq!(Key::new(&"k".repeat(1025)), Err(InvalidKey::TooLong { bytes: 1025 }));
        assert_eq!(Key::new("a\nb"), Err(InvalidKey::Control { at: 1 }));
    }

    #[test]
    fn a_decoded_key_obeys_the_same_rules() {
        let bytes = postcard::to_stdvec("a\nb").unwrap();
        assert!(postcard::from_bytes::<Key>(&bytes).is_err());
    }

    #[test]
    fn preconditions_hold_as_http_says() {
        use Precondition as P;
        let table = [
            (P::Unconditional, true, true, true),
            (P::Exists, false, true, true),
            (P::Absent, true, false, false),
            (P::RevisionIs(vec![4, 7]), false, true, false),
            (P::RevisionIs(vec![]), false, false, false),
            (P::RevisionIsNot(vec![4, 7]), true, false, true),
            (P::RevisionIsNot(vec![]), true, true, true),
        ];
        for (precondition, absent, at_7, at_8) in table {
            assert_eq!(precondition.holds(None), absent, "{precondition:?} on an absent key");
            assert_eq!(precondition.holds(Some(7)), at_7, "{precondition:?} at 7");
            assert_eq!(precondition.holds(Some(8)), at_8, "{precondition:?} at 8");
        }
    }

    #[test]
    fn a_cluster_id_reads_back_what_it_prints() {
        let id = ClusterId::new(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("+0000000000000000000000000000abc".parse::<ClusterId>(), Err(InvalidClusterId));
    }
}
