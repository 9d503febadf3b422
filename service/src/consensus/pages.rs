//! An ordered map whose copy costs one pointer per page, not one per key.
//!
//! **When.** A snapshot needs the whole keyspace as it was at one moment, while writes go on.
//! **What.** Sorted pages of at most [`PAGE`] entries, each behind an `Arc`. A copy shares all of them; a write to a
//! shared page copies that page first.
//! **How.** A two-level B+ tree without the balancing: an ordered map from each page's lower bound to the page. A page
//! that overflows is split in the middle, an empty one is dropped. The first page's bound is the empty text, which
//! sorts below every key, so every key has a page as soon as there is one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::consensus::Key;

/// Entries in a page: a write just after a copy moves at most this many, a copy of a million keys about 8,000 pointers.
const PAGE: usize = 256;

/// An ordered map from keys to `V`.
#[derive(Debug, Clone)]
pub(super) struct PagedMap<V> {
    pages: BTreeMap<Arc<str>, Arc<Vec<(Key, V)>>>,
    len: usize,
}

impl<V: Clone> PagedMap<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &str) -> Option<&V> {
        let (_, page) = self.pages.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        let at = position(page, key).ok()?;
        page.get(at).map(|(_, value)| value)
    }

    /// Sets the value of `key` and returns the one it had.
    pub(super) fn insert(&mut self, key: Key, value: V) -> Option<V> {
        let bounds = (Bound::Unbounded, Bound::Included(key.as_str()));
        let Some((_, page)) = self.pages.range_mut::<str, _>(bounds).next_back() else {
            self.pages.insert("".into(), Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let page = Arc::make_mut(page);
        let at = match position(page, key.as_str()) {
            Ok(at) => return page.get_mut(at).map(|entry| std::mem::replace(&mut entry.1, value)),
            Err(at) => at,
        };
        page.insert(at, (key, value));
        self.len += 1;
        if page.len() > PAGE {
            // Keys that arrive in order leave half-full pages behind; that costs pointers, not entries.
            let upper = page.split_off(PAGE / 2);
            if let Some((first, _)) = upper.first() {
                self.pages.insert(first.as_str().into(), Arc::new(upper));
            }
        }
        None
    }

    /// Removes `key` and returns the value it had.
    pub(super) fn remove(&mut self, key: &str) -> Option<V> {
        let (bound, page) = self.pages.range_mut::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        let at = position(page, key).ok()?;
        let page = Arc::make_mut(page);
        let (_, value) = page.remove(at);
        self.len -= 1;
        if page.is_empty() && !bound.is_empty() {
            let bound = bound.clone();
            self.pages.remove(&*bound);
        }
        Some(value)
    }

    /// The entries whose key is `from` or greater, in order.
    pub(super) fn range_from<'a>(&'a self, from: &str) -> impl Iterator<Item = (&'a Key, &'a V)> + use<'a, V> {
        let head = self.pages.range::<str, _>((Bound::Unbounded, Bound::Included(from))).next_back();
        let start = head.map_or(0, |(_, page)| position(page, from).unwrap_or_else(|at| at));
        let rest = self.pages.range::<str, _>((Bound::Excluded(from), Bound::Unbounded));
        let head = head.into_iter().flat_map(move |(_, page)| page.iter().skip(start));
        head.chain(rest.flat_map(|(_, page)| page.iter())).map(|(key, value)| (key, value))
    }

    /// Every entry, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.pages.values().flat_map(|page| page.iter()).map(|(key, value)| (key, value))
    }
}

impl<V> Default for PagedMap<V> {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), len: 0 }
    }
}

fn position<V>(page: &[(Key, V)], key: &str) -> Result<usize, usize> {
    page.binary_search_by(|(other, _)| other.as_str().cmp(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn a_copy_keeps_what_it_was_made_of() {
        let mut map = PagedMap::default();
        for number in 0..2000 {
            map.insert(key(&format!("{number:05}")), number);
        }
        let copy = map.clone();
        for number in 0..2000 {
            assert_eq!(map.remove(&format!("{number:05}")), Some(number));
        }
        assert_eq!((map.len(), map.iter().count()), (0, 0));
        assert_eq!(copy.len(), 2000);
        assert!(copy.iter().map(|(_, number)| *number).eq(0..2000));
    }

    proptest! {
        #[test]
        fn it_is_an_ordered_map(ops in prop::collection::vec((any::<bool>(), "[a-c]{1,6}", any::<u32>()), 1..2000)) {
            let mut map = PagedMap::default();
            let mut model = BTreeMap::new();
            for (insert, text, value) in ops {
                if insert {
                    prop_assert_eq!(map.insert(key(&text), value), model.insert(key(&text), value));
                } else {
                    prop_assert_eq!(map.remove(&text), model.remove(&*text));
                }
                prop_assert_eq!(map.get(&text), model.get(&*text));
                prop_assert_eq!(map.len(), model.len());
            }
            prop_assert!(map.iter().eq(model.iter()));
            for from in ["", "a", "b", "bb", "cccccc", "d"] {
                let bounds = (Bound::Included(from), Bound::Unbounded);
                prop_assert!(map.range_from(from).eq(model.range::<str, _>(bounds)));
            }
        }
    }
}
