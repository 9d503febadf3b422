//! A hash table that can be walked a few entries at a time.
//!
//! The map of the standard library cannot be left in the middle of a walk and taken up again at the next call, which is
//! what forgetting a few idle keys with each call needs. Here entries lie one after the other, each with the place of the
//! next one of its chain; to remove one moves the last into the gap. A key is stored once.

/// No place: the end of a chain.
const NONE: u32 = u32::MAX;

/// Keys and their values, walked by a hand.
#[derive(Debug)]
pub struct Table<K, V> {
    /// Where the chain of each group of hashes begins; a power of two of them, no fewer than entries.
    heads: Vec<u32>,
    entries: Vec<Entry<K, V>>,
    /// The entry to look at next.
    hand: usize,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    hash: u32,
    next: u32,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { heads: vec![NONE; 4], entries: Vec::new(), hand: 0 }
    }
}

impl<K: Eq, V> Table<K, V> {
    /// The value of `key`.
    #[inline]
    pub fn get(&mut self, hash: u32, key: &K) -> Option<&mut V> {
        let mut at = self.heads[self.head(hash)];
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.hash == hash && entry.key == *key {
                return Some(&mut self.entries[at as usize].value);
            }
            at = entry.next;
        }
        None
    }

    /// Adds a key that is not in the table. Now and then the table doubles, which touches every entry.
    pub fn insert(&mut self, hash: u32, key: K, value: V) {
        if self.entries.len() == self.heads.len() {
            self.grow();
        }
        let head = self.head(hash);
        let place = self.entries.len() as u32;
        self.entries.push(Entry { key, value, hash, next: self.heads[head] });
        self.heads[head] = place;
    }

    /// Looks at the next `steps` entries and removes those that are idle; says how many.
    pub fn sweep(&mut self, steps: usize, mut idle: impl FnMut(&mut V) -> bool) -> usize {
        let before = self.entries.len();
        for _ in 0..steps.min(before) {
            // Not past the end: each step removes one entry at most.
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            if idle(&mut self.entries[self.hand].value) {
                self.remove(self.hand);
            } else {
                self.hand += 1;
            }
        }
        before - self.entries.len()
    }

    /// Every value, to be changed.
    pub fn values(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|entry| &mut entry.value)
    }

    fn remove(&mut self, place: usize) {
        let next = self.entries[place].next;
        self.relink(self.entries[place].hash, place, next);
        // Dropped at the end: a key that panics then leaves every chain whole.
        let _removed = self.entries.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            self.relink(moved.hash, self.entries.len(), place as u32);
        }
    }

    /// Makes the link that leads to the place `from` lead to `to`.
    fn relink(&mut self, hash: u32, from: usize, to: u32) {
        let head = self.head(hash);
        let mut at = self.heads[head] as usize;
        if at == from {
            self.heads[head] = to;
            return;
        }
        while self.entries[at].next as usize != from {
            at = self.entries[at].next as usize;
        }
        self.entries[at].next = to;
    }

    #[cold]
    fn grow(&mut self) {
        self.heads = vec![NONE; 2 * self.heads.len()];
        for place in 0..self.entries.len() {
            let head = self.head(self.entries[place].hash);
            self.entries[place].next = self.heads[head];
            self.heads[head] = place as u32;
        }
    }

    #[inline]
    fn head(&self, hash: u32) -> usize {
        hash as usize & (self.heads.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sweep_looks_at_each_entry_in_its_turn() {
        let mut table = Table::default();
        for key in 0..5 {
            table.insert(0, key, key);
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            table.sweep(3, |value| {
                seen.push(*value);
                false
            });
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
        assert_eq!(table.sweep(100, |_| true), 5, "each once, and no more than there are");
        assert_eq!(table.sweep(100, |_| true), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_answers_as_a_map_does(
            script in prop::collection::vec((0..40_u32, any::<bool>()), 1..300), spread in 1..50_u32,
        ) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            for (turn, (key, sweep)) in script.into_iter().enumerate() {
                // Many keys of one hash, and many hashes of one chain.
                let hash = key % spread * 8;
                let known = table.get(hash, &key).copied();
                prop_assert_eq!(known, map.get(&key).copied());
                if known.is_none() {
                    table.insert(hash, key, turn);
                    map.insert(key, turn);
                }
                if sweep {
                    let before = map.len();
                    let removed = table.sweep(7, |value| *value % 3 == 0);
                    map.retain(|key, value| {
                        let kept = table.get(key % spread * 8, key).is_some();
                        assert!(kept || *value % 3 == 0, "removed one that is not idle");
                        kept
                    });
                    prop_assert_eq!(before - map.len(), removed);
                    prop_assert_eq!(table.values().count(), map.len());
                }
            }
        }
    }
}
