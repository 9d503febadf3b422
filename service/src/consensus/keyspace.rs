//! The replicated state as a plain value: the same entries applied in the same order give the same keyspace.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::consensus::pages::PagedMap;
use crate::consensus::{ClusterId, Command, Key, LogIndex, Precondition, Response, Revision};
use crate::peer::NodeId;

/// One key's value and its history in two numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// The revision that created the key, since it was last absent.
    pub create_revision: Revision,
    /// The revision that wrote it last; its entity tag.
    pub mod_revision: Revision,
}

/// All keys, and the counter that orders their changes. Copying it copies no keys.
#[derive(Debug, Clone, Default)]
pub struct Keyspace {
    entries: PagedMap<Entry>,
    revision: Revision,
    bytes: u64,
    applied: Option<LogIndex>,
    cluster_id: Option<ClusterId>,
    highest_node: NodeId,
}

/// Everything in a keyspace but its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) revision: Revision,
    pub(super) applied: Option<LogIndex>,
    pub(super) cluster_id: Option<ClusterId>,
    pub(super) highest_node: NodeId,
    pub(super) len: u64,
}

impl Keyspace {
    /// The entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The keys that begin with `prefix` and are greater than `after`, in order.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Entry)> + use<'a> {
        let from = after.map_or(prefix, |after| after.max(prefix));
        self.entries
            .range_from(from)
            .skip_while(move |(key, _)| after == Some(key.as_str()))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }

    /// The revision of the last change; 0 before the first.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and values, without what it costs to hold them.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The last log entry that was applied.
    pub const fn applied(&self) -> Option<LogIndex> {
        self.applied
    }

    /// The identity of the cluster, once it has formed.
    pub const fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// The highest node id that was given out, or that a founder has.
    pub const fn highest_node(&self) -> NodeId {
        self.highest_node
    }

    /// Applies the entry at `index`. Entries come in order, each once.
    pub(super) fn apply(&mut self, index: LogIndex, command: Option<Command>) -> Response {
        self.applied = Some(index);
        match command {
            None => Response::Nothing,
            Some(Command::Put { key, value, precondition }) => self.put(key, value, &precondition),
            Some(Command::Delete { key, precondition }) => self.delete(&key, &precondition),
            Some(Command::Form { cluster_id, highest_founder }) => {
                self.highest_node = self.highest_node.max(highest_founder);
                Response::Formed { cluster_id: *self.cluster_id.get_or_insert(cluster_id) }
            }
            Some(Command::AllocateNode) => {
                // The log position is unique for all time; the founders chose their ids themselves, so stay above.
                let id = index.max(self.highest_node.saturating_add(1));
                self.highest_node = id;
                Response::NodeAllocated { id }
            }
        }
    }

    fn put(&mut self, key: Key, value: Bytes, precondition: &Precondition) -> Response {
        let old = self.entries.get(key.as_str());
        let current = old.map(|entry| entry.mod_revision);
        if !precondition.holds(current) {
            return Response::ConditionFailed { current };
        }
        let freed = old.map_or(0, |entry| entry_bytes(&key, entry));
        let revision = self.revision + 1;
        let create_revision = old.map_or(revision, |entry| entry.create_revision);
        let entry = Entry { value, create_revision, mod_revision: revision };
        self.bytes = self.bytes - freed + entry_bytes(&key, &entry);
        self.entries.insert(key, entry);
        self.revision = revision;
        Response::Written { revision }
    }

    fn delete(&mut self, key: &Key, precondition: &Precondition) -> Response {
        let current = self.entries.get(key.as_str()).map(|entry| entry.mod_revision);
        if !precondition.holds(current) {
            return Response::ConditionFailed { current };
        }
        let removed = self.entries.remove(key.as_str());
        if let Some(entry) = &removed {
            self.bytes -= entry_bytes(key, entry);
            self.revision += 1;
        }
        Response::Deleted { revision: self.revision, existed: removed.is_some() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn summary(&self) -> Summary {
        let Self { revision, applied, cluster_id, highest_node, .. } = *self;
        Summary { revision, applied, cluster_id, highest_node, len: self.len() as u64 }
    }

    /// An empty keyspace with this summary, to be filled by [`restore_entry`](Self::restore_entry).
    pub(super) fn restore(summary: Summary) -> Self {
        let Summary { revision, applied, cluster_id, highest_node, len: _ } = summary;
        Self { revision, applied, cluster_id, highest_node, ..Self::default() }
    }

    pub(super) fn restore_entry(&mut self, key: Key, entry: Entry) {
        self.bytes += entry_bytes(&key, &entry);
        self.entries.insert(key, entry);
    }
}

fn entry_bytes(key: &Key, entry: &Entry) -> u64 {
    (key.len() + entry.value.len()) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn put(key: &str, value: &'static str, precondition: Precondition) -> Option<Command> {
        Some(Command::Put { key: Key::new(key).unwrap(), value: value.into(), precondition })
    }

    fn delete(key: &str, precondition: Precondition) -> Option<Command> {
        Some(Command::Delete { key: Key::new(key).unwrap(), precondition })
    }

    #[test]
    fn a_write_moves_the_revision_and_a_refusal_does_not() {
        let mut keyspace = Keyspace::default();
        assert_eq!(keyspace.apply(1, put("a", "1", Precondition::Absent)), Response::Written { revision: 1 });
        assert_eq!(keyspace.apply(2, put("b", "1", Precondition::default())), Response::Written { revision: 2 });
        assert_eq!(
            keyspace.apply(3, put("a", "2", Precondition::Absent)),
            Response::ConditionFailed { current: Some(1) }
        );
        assert_eq!(keyspace.apply(4, put("c", "1", Precondition::Exists)), Response::ConditionFailed { current: None });
        assert_eq!(
            keyspace.apply(5, put("a", "3", Precondition::RevisionIs(vec![1]))),
            Response::Written { revision: 3 }
        );
        let entry = keyspace.get("a").unwrap();
        assert_eq!((entry.create_revision, entry.mod_revision, &entry.value[..]), (1, 3, &b"3"[..]));
        assert_eq!((keyspace.revision(), keyspace.applied(), keyspace.bytes()), (3, Some(5), 4));
    }

    #[test]
    fn deleting_an_absent_key_does_not_move_the_revision() {
        let mut keyspace = Keyspace::default();
        keyspace.apply(1, put("a", "1", Precondition::default()));
        assert_eq!(
            keyspace.apply(2, delete("x", Precondition::default())),
            Response::Deleted { revision: 1, existed: false }
        );
        assert_eq!(
            keyspace.apply(3, delete("a", Precondition::RevisionIs(vec![9]))),
            Response::ConditionFailed { current: Some(1) }
        );
        assert_eq!(
            keyspace.apply(4, delete("a", Precondition::Exists)),
            Response::Deleted { revision: 2, existed: true }
        );
        assert_eq!((keyspace.len(), keyspace.bytes(), keyspace.revision()), (0, 0, 2));
        keyspace.apply(5, put("a", "1", Precondition::default()));
        assert_eq!(keyspace.get("a").unwrap().create_revision, 3, "a key created again has a new history");
    }

    #[test]
    fn node_ids_are_never_given_twice() {
        let mut keyspace = Keyspace::default();
        let form = Command::Form { cluster_id: ClusterId::new(1), highest_founder: 40 };
        assert_eq!(keyspace.apply(2, Some(form)), Response::Formed { cluster_id: ClusterId::new(1) });
        let allocate = |keyspace: &mut Keyspace, index| keyspace.apply(index, Some(Command::AllocateNode));
        assert_eq!(allocate(&mut keyspace, 3), Response::NodeAllocated { id: 41 });
        assert_eq!(allocate(&mut keyspace, 41), Response::NodeAllocated { id: 42 });
        assert_eq!(allocate(&mut keyspace, 90), Response::NodeAllocated { id: 90 });
        let again = Command::Form { cluster_id: ClusterId::new(2), highest_founder: 5 };
        assert_eq!(keyspace.apply(91, Some(again)), Response::Formed { cluster_id: ClusterId::new(1) });
    }

    #[test]
    fn a_range_is_a_prefix_after_a_key() {
        let mut keyspace = Keyspace::default();
        for (index, key) in ["a", "b/", "b/1", "b/2", "b/3", "c"].into_iter().enumerate() {
            keyspace.apply(index as u64, put(key, "", Precondition::default()));
        }
        let keys = |prefix, after| keyspace.range(prefix, after).map(|(key, _)| key.to_string()).collect::<Vec<_>>();
        assert_eq!(keys("b/", None), ["b/", "b/1", "b/2", "b/3"]);
        assert_eq!(keys("b/", Some("b/1")), ["b/2", "b/3"]);
        assert_eq!(keys("b/", Some("b/10")), ["b/2", "b/3"]);
        assert_eq!(keys("b/", Some("a")), ["b/", "b/1", "b/2", "b/3"]);
        assert_eq!(keys("", Some("b/3")), ["c"]);
        assert_eq!(keys("b/", Some("c")), Vec::<String>::new());
        assert_eq!(keys("", None).len(), 6);
    }

    /// The naive model: one map, one counter, spelled out.
    #[derive(Default)]
    struct Model {
        map: BTreeMap<String, (Vec<u8>, u64, u64)>,
        revision: u64,
    }

    impl Model {
        fn apply(&mut self, command: &Command) -> Response {
            let (key, precondition) = match command {
                Command::Put { key, precondition, .. } | Command::Delete { key, precondition } => (key, precondition),
                _ => return Response::Nothing,
            };
            let current = self.map.get(key.as_str()).map(|entry| entry.2);
            let holds = match (precondition, current) {
                (Precondition::Unconditional, _) => true,
                (Precondition::Exists, current) => current.is_some(),
                (Precondition::Absent, current) => current.is_none(),
                (Precondition::RevisionIs(list), Some(current)) => list.contains(&current),
                (Precondition::RevisionIs(_), None) => false,
                (Precondition::RevisionIsNot(list), Some(current)) => !list.contains(&current),
                (Precondition::RevisionIsNot(_), None) => true,
            };
            if !holds {
                return Response::ConditionFailed { current };
            }
            match command {
                Command::Put { key, value, .. } => {
                    self.revision += 1;
                    let created = self.map.get(key.as_str()).map_or(self.revision, |entry| entry.1);
                    self.map.insert(key.to_string(), (value.to_vec(), created, self.revision));
                    Response::Written { revision: self.revision }
                }
                _ => {
                    let existed = self.map.remove(key.as_str()).is_some();
                    self.revision += u64::from(existed);
                    Response::Deleted { revision: self.revision, existed }
                }
            }
        }
    }

    pub(crate) fn commands() -> impl Strategy<Value = Command> {
        let revisions = || prop::collection::vec(0..30u64, 0..4);
        let precondition = prop_oneof![
            3 => Just(Precondition::Unconditional),
            1 => Just(Precondition::Exists),
            1 => Just(Precondition::Absent),
            1 => revisions().prop_map(Precondition::RevisionIs),
            1 => revisions().prop_map(Precondition::RevisionIsNot),
        ];
        let value = prop::collection::vec(any::<u8>(), 0..20);
        ("[a-d]{1,2}", value, precondition, any::<bool>()).prop_map(|(key, value, precondition, put)| {
            let key = Key::new(&key).unwrap();
            if put {
                Command::Put { key, value: value.into(), precondition }
            } else {
                Command::Delete { key, precondition }
            }
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_naive_model(commands in prop::collection::vec(commands(), 1..200)) {
            let mut keyspace = Keyspace::default();
            let mut model = Model::default();
            for (index, command) in commands.into_iter().enumerate() {
                let expected = model.apply(&command);
                prop_assert_eq!(keyspace.apply(index as u64, Some(command)), expected);
            }
            prop_assert_eq!(keyspace.revision(), model.revision);
            let entries: Vec<_> = keyspace
                .iter()
                .map(|(key, entry)| {
                    (key.to_string(), (entry.value.to_vec(), entry.create_revision, entry.mod_revision))
                })
                .collect();
            prop_assert_eq!(entries, model.map.clone().into_iter().collect::<Vec<_>>());
            let bytes: usize = model.map.iter().map(|(key, entry)| key.len() + entry.0.len()).sum();
            prop_assert_eq!(keyspace.bytes(), bytes as u64);
        }
    }
}
