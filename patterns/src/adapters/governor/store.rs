//! A store of governor's that accounts for a bounded number of keys.

use std::cell::Cell;
use std::hash::Hash;
use std::time::Duration;

use ::governor::nanos::Nanos;
use ::governor::state::StateStore;
use ::governor::state::keyed::ShrinkableKeyedStateStore;

use crate::sync::{AtomicUsize, Ordering};

/// Keeps a store of keys from growing without a bound: `Bounded<HashMapStateStore<K>>`, or one over governor's
/// `DashMapStateStore`.
///
/// A new key takes one of `max_keys` places with its first call. Where there is none, the limiter is shown an account that
/// is overdrawn for centuries, so that it refuses and stores nothing on it; the layer tells such a refusal from others.
/// Places come back with [`RateLimiter::retain_recent`](::governor::RateLimiter::retain_recent), which the layer calls.
///
/// Used without the layer it bounds the keys as well, if somebody calls `retain_recent` now and then.
#[derive(Debug)]
pub struct Bounded<S> {
    store: S,
    max_keys: usize,
    /// Places that are taken.
    keys: AtomicUsize,
    /// Newcomers without a place since the last sweep; the store may have an entry for each.
    turned_away: AtomicUsize,
}

/// When an account without a place is in order again: 438 years after the start. With a burst of up to a century no
/// sum of governor's overflows.
const NO_PLACE: u64 = 3 << 62;
/// A refusal for so long, 146 years, is that of an account without a place.
const CENTURIES: Duration = Duration::from_nanos(1 << 62);

impl<S> Bounded<S> {
    /// Accounts for up to `max_keys` keys in `store`, which is empty. 0 is taken as 1.
    pub fn new(store: S, max_keys: usize) -> Self {
        Self { store, max_keys: max_keys.max(1), keys: AtomicUsize::new(0), turned_away: AtomicUsize::new(0) }
    }

    /// Whether a refusal with this wait was for want of a place.
    pub(super) fn is_no_place(wait: Duration) -> bool {
        wait >= CENTURIES
    }

    fn take_place(&self) -> bool {
        let one_more = |keys| (keys < self.max_keys).then_some(keys + 1);
        // ORDERING: Relaxed, the word is a count of its own; what is stored is guarded by the store.
        self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    #[cold]
    fn give_place_back(&self) {
        // A sweep may have counted anew meanwhile.
        let one_less = |keys: usize| keys.checked_sub(1);
        // ORDERING: Relaxed, as in `take_place`.
        let _ = self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }
}

impl<S: StateStore> StateStore for Bounded<S> {
    type Key = S::Key;

    fn measure_and_replace<T, F, E>(&self, key: &S::Key, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // The store asks again if another call of the key came between, which has then taken the place for both.
        let (holds_place, is_new) = (Cell::new(false), Cell::new(false));
        let result = self.store.measure_and_replace(key, |tat| {
            is_new.set(tat.is_none());
            if tat.is_none() && !holds_place.get() {
                holds_place.set(self.take_place());
            }
            f(if tat.is_some() || holds_place.get() { tat } else { Some(Nanos::from(NO_PLACE)) })
        });
        if holds_place.get() && (!is_new.get() || result.is_err()) {
            self.give_place_back();
        }
        if is_new.get() && result.is_err() {
            // ORDERING: Relaxed, as in `take_place`.
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl<K, S> ShrinkableKeyedStateStore<K> for Bounded<S>
where
    K: Hash + Eq + Clone,
    S: ShrinkableKeyedStateStore<K>,
{
    /// Forgets idle keys and those without a place. Calls that are decided meanwhile may take a place each beyond the bound.
    fn retain_recent(&self, drop_below: Nanos) {
        self.store.retain_recent(drop_below);
        // ORDERING: Relaxed (both), as in `take_place`.
        self.turned_away.store(0, Ordering::Relaxed);
        // ORDERING: as above.
        self.keys.store(self.store.len(), Ordering::Relaxed);
    }

    fn shrink_to_fit(&self) {
        self.store.shrink_to_fit();
    }

    /// How many entries there are at most: keys that are accounted for, and those that were turned away since the last
    /// sweep. It takes no lock.
    fn len(&self) -> usize {
        // ORDERING: Relaxed (both), counts that are read alone.
        let keys = self.keys.load(Ordering::Relaxed);
        // ORDERING: as above.
        keys + self.turned_away.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}
