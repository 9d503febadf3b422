//! The limits of all keys: found by hash, made when they are needed, forgotten when they are as good as new.
//!
//! Keys are spread over shards, each behind a lock. A key's state is made when a call of it is first admitted and forgotten
//! when it cannot be told from a new one any more, so that forgetting changes no answer. Each call looks at one entry of
//! its shard for that, and one that brings a new key at a few more: no task runs, and the work of a call is bounded.
//!
//! **Bound on keys.** A place is taken from the one count of all shards before a key is stored. Where there is none, the
//! call first looks through a few entries of each other shard, one lock after the other, and then asks again, once. If
//! still nothing has become free, the *newcomer* is refused: whoever is known keeps what is counted against him. Debt is
//! never forgotten, or one could buy a fresh limit with a flood of keys.
//!
//! **Never two states of one key.** Lookup, sweep, decision and insertion happen under one hold of the lock of the key's
//! shard. Between the two times a newcomer asks the lock is free, and another call may bring the same key; the second time
//! finds it.
//!
//! **Together or not at all.** The global limit has a lock of its own, taken under that of the shard and never the other
//! way round. Both limits are asked, and only if both admit, both are taken, with both locks held.
//!
//! **Time** is clamped to the largest instant seen: by the shard, for its keys, and by the global limit, for itself. A key
//! that was forgotten was as good as new at an instant that its shard has seen, so no stale call can tell.

use std::hash::{BuildHasher, DefaultHasher, Hash};
use std::time::Duration;

use super::limit::Limit;
use super::table::Table;
use crate::error::{Reason, Refusal};
use crate::sync::{AtomicU64, AtomicUsize, Bug, Mutex, MutexGuard, Ordering, bug};

/// How many entries a newcomer looks at before it is stored: with four of them, a stream of keys that each come once
/// settles at a third more entries than there are keys with debt.
const SWEEP: usize = 4;

/// The limits of all keys, and one over all of them.
#[derive(Debug)]
pub struct Keys<K, L: Limit> {
    shards: Box<[Mutex<Shard<K, L>>]>,
    /// Taken under the lock of a shard.
    global: Option<Mutex<Global<L>>>,
    hasher: Seeded,
    /// Keys stored, in all shards.
    keys: AtomicUsize,
    max_keys: AtomicUsize,
    evicted: AtomicU64,
    refused_for_space: AtomicU64,
}

/// What is kept of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStats {
    /// Keys stored.
    pub keys: usize,
    /// Keys forgotten since the start.
    pub evicted: u64,
    /// Newcomers refused since the start because there was no place for them.
    pub refused_for_space: u64,
}

#[derive(Debug)]
struct Shard<K, L: Limit> {
    setting: L::Setting,
    table: Table<K, L>,
    latest: Duration,
}

#[derive(Debug)]
struct Global<L: Limit> {
    setting: L::Setting,
    limit: L,
    latest: Duration,
}

impl<K: Hash + Eq, L: Limit> Keys<K, L> {
    /// No keys, and room for `max_keys`. The hashes depend on `seed`, so that nobody who does not know it can make keys
    /// that fall together.
    pub fn new(
        setting: L::Setting,
        global: Option<L::Setting>,
        max_keys: usize,
        shards: usize,
        seed: [u64; 2],
    ) -> Self {
        let shard = |_| Mutex::new(Shard { setting, table: Table::default(), latest: Duration::ZERO });
        let all = |setting| Mutex::new(Global { setting, limit: L::new(&setting), latest: Duration::ZERO });
        Self {
            shards: (0..shards.max(1)).map(shard).collect(),
            global: global.map(all),
            hasher: Seeded::new(seed),
            keys: AtomicUsize::new(0),
            max_keys: AtomicUsize::new(max_keys),
            evicted: AtomicU64::new(0),
            refused_for_space: AtomicU64::new(0),
        }
    }

    /// Admits a call of `key` that costs `cost`, by its own limit and the global one, or by neither.
    ///
    /// # Errors
    /// [`Reason::Limited`] by the limit of the key and [`Reason::LimitedGlobally`] by the global one alone, each with the
    /// time after which both admit it if nobody comes before; [`Reason::Never`]; [`Reason::TooManyKeys`].
    pub fn try_take(&self, key: K, cost: u32, now: Duration) -> Result<(), Refusal> {
        let hash = self.hasher.hash_one(&key);
        match self.decide(hash, key, cost, now) {
            Decision::Answer(answer) => answer,
            Decision::NoPlace(key) => self.decide_again(hash, key, cost, now),
        }
    }

    /// What a call of `key` may cost now, by its own limit and the global one.
    pub fn available(&self, key: &K, now: Duration) -> u32 {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).lock();
        let Shard { setting, table, latest } = &mut *shard;
        *latest = now.max(*latest);
        let own = match table.get(hash as u32, key) {
            Some(limit) => limit.available(setting, *latest),
            None => L::new(setting).available(setting, *latest),
        };
        self.global(now).map_or(own, |mut global| global.available().min(own))
    }

    /// Changes the settings, shard after shard, and keeps what was taken. Fewer keys than there are is a bound for
    /// newcomers only.
    pub fn update(&self, setting: L::Setting, global: Option<L::Setting>, max_keys: usize, now: Duration) {
        // ORDERING: Relaxed, a bound of its own that nothing is derived from.
        self.max_keys.store(max_keys, Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = shard.lock();
            let shard = &mut *shard;
            shard.latest = now.max(shard.latest);
            let former = std::mem::replace(&mut shard.setting, setting);
            shard.table.values().for_each(|limit| limit.update(&former, &setting, shard.latest));
        }
        if let (Some(mut all), Some(setting)) = (self.global(now), global) {
            let all = &mut *all;
            let former = std::mem::replace(&mut all.setting, setting);
            all.limit.update(&former, &setting, all.latest);
        }
    }

    #[inline]
    fn decide(&self, hash: u64, key: K, cost: u32, now: Duration) -> Decision<K> {
        let mut shard = self.shard(hash).lock();
        let Shard { setting, table, latest } = &mut *shard;
        *latest = now.max(*latest);
        self.sweep(table, 1, setting, *latest);
        let mut newcomer = None;
        let own = match table.get(hash as u32, &key) {
            Some(known) => known,
            None => newcomer.insert(L::new(setting)),
        };
        let mut global = self.global(now);
        let both = (own.fits_at(setting, cost, *latest), global.as_mut().map(|global| global.fits_at(cost)));
        if let Some(refusal) = refusal(both.0, *latest, both.1, now) {
            return Decision::Answer(Err(refusal));
        }
        own.take(setting, cost, *latest);
        // A cost of nothing leaves nothing to remember.
        if let Some(own) = newcomer.filter(|_| cost > 0) {
            self.sweep(table, SWEEP - 1, setting, *latest);
            if !self.reserve() {
                return Decision::NoPlace(key);
            }
            table.insert(hash as u32, key, own);
        }
        if let Some(global) = &mut global {
            global.take(cost);
        }
        Decision::Answer(Ok(()))
    }

    /// Makes room and asks once more.
    #[cold]
    fn decide_again(&self, hash: u64, key: K, cost: u32, now: Duration) -> Result<(), Refusal> {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { setting, table, latest } = &mut *shard;
            *latest = now.max(*latest);
            if self.sweep(table, SWEEP, setting, *latest) > 0 {
                break;
            }
        }
        match self.decide(hash, key, cost, now) {
            Decision::Answer(answer) => answer,
            Decision::NoPlace(_) => {
                // ORDERING: Relaxed, a count that nothing is derived from.
                self.refused_for_space.fetch_add(1, Ordering::Relaxed);
                Err(Reason::TooManyKeys.into())
            }
        }
    }

    /// Takes one of the places.
    fn reserve(&self) -> bool {
        // ORDERING: Relaxed, the bound is a value of its own; see `update`.
        let max_keys = self.max_keys.load(Ordering::Relaxed);
        let one_more = |keys| (keys < max_keys).then_some(keys + 1);
        // ORDERING: Relaxed, the word is the whole state, and what is stored is guarded by the lock of a shard.
        self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Forgets those of the next `steps` entries that are as good as new, and says how many.
    #[inline]
    fn sweep(&self, table: &mut Table<K, L>, steps: usize, setting: &L::Setting, now: Duration) -> usize {
        let evicted = table.sweep(steps, |limit| bug(Bug::EvictWithDebt) || limit.is_new(setting, now));
        if evicted > 0 {
            // ORDERING: Relaxed, as in `reserve`.
            self.keys.fetch_sub(evicted, Ordering::Relaxed);
            // ORDERING: Relaxed, a count that nothing is derived from.
            self.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        }
        evicted
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Mutex<Shard<K, L>> {
        // The table takes the lower half of the hash.
        &self.shards[(hash >> 32) as usize % self.shards.len()]
    }

    #[inline]
    fn global(&self, now: Duration) -> Option<MutexGuard<'_, Global<L>>> {
        let mut global = self.global.as_ref()?.lock();
        global.latest = now.max(global.latest);
        Some(global)
    }
}

impl<K, L: Limit> Keys<K, L> {
    /// What is kept of the keys.
    pub fn stats(&self) -> KeyStats {
        KeyStats {
            // ORDERING: Relaxed (all three), each a count of its own that nothing is derived from.
            keys: self.keys.load(Ordering::Relaxed),
            // ORDERING: as above.
            evicted: self.evicted.load(Ordering::Relaxed),
            // ORDERING: as above.
            refused_for_space: self.refused_for_space.load(Ordering::Relaxed),
        }
    }
}

enum Decision<K> {
    Answer(Result<(), Refusal>),
    /// A new key, admitted by its limit, for which there is no place. Nothing was taken.
    NoPlace(K),
}

impl<L: Limit> Global<L> {
    fn fits_at(&mut self, cost: u32) -> (Option<Duration>, Duration) {
        (self.limit.fits_at(&self.setting, cost, self.latest), self.latest)
    }

    fn take(&mut self, cost: u32) {
        self.limit.take(&self.setting, cost, self.latest);
    }

    fn available(&mut self) -> u32 {
        self.limit.available(&self.setting, self.latest)
    }
}

/// What the two limits say together to a caller whose clock shows `now`. Each comes with the instant that it has seen: what
/// fits by then is no reason to wait.
#[inline]
fn refusal(
    own: Option<Duration>,
    seen: Duration,
    global: Option<(Option<Duration>, Duration)>,
    now: Duration,
) -> Option<Refusal> {
    let (all, all_seen) = global.unwrap_or((Some(Duration::ZERO), Duration::ZERO));
    let (Some(own), Some(all)) = (own, all) else { return Some(Reason::Never.into()) };
    let own_until = Some(own).filter(|own| *own > seen);
    let all_until = Some(all).filter(|all| *all > all_seen);
    let until = own_until.max(all_until)?;
    let reason = if own_until.is_some() { Reason::Limited } else { Reason::LimitedGlobally };
    Some(Refusal { reason, retry_after: Some(until.saturating_sub(now)) })
}

/// SipHash (J.-P. Aumasson, D. J. Bernstein, 2012), as the standard library has it, begun with a secret.
#[derive(Debug, Clone)]
struct Seeded(DefaultHasher);

impl Seeded {
    fn new(seed: [u64; 2]) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        Self(hasher)
    }
}

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    #[inline]
    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::sliding_window::{Algorithm, Counted, Setting};
    use crate::token_bucket::{self, Rate, Tat};

    const WINDOW: Duration = Duration::from_secs(1);
    const NANO: Duration = Duration::from_nanos(1);

    type Windows = Keys<u32, Counted>;

    fn setting(limit: u32) -> Setting {
        Setting::new(limit, WINDOW, Algorithm::Log).unwrap()
    }

    fn keys(limit: u32, max_keys: usize) -> Windows {
        Keys::new(setting(limit), None, max_keys, 4, [1, 2])
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(100_000 + millis)
    }

    fn reason(answer: Result<(), Refusal>) -> Option<Reason> {
        answer.err().map(|refusal| refusal.reason)
    }

    #[test]
    fn each_key_has_a_limit_of_its_own() {
        let keys = keys(2, 10);
        for key in [1, 2] {
            assert_eq!(keys.available(&key, at(0)), 2);
            assert_eq!(keys.try_take(key, 2, at(0)), Ok(()));
            let refusal = keys.try_take(key, 1, at(400)).unwrap_err();
            assert_eq!(refusal, Refusal { reason: Reason::Limited, retry_after: Some(at(1000) - at(400)) });
        }
        assert_eq!(reason(keys.try_take(3, 3, at(0))), Some(Reason::Never));
        assert_eq!(keys.stats(), KeyStats { keys: 2, evicted: 0, refused_for_space: 0 });
    }

    #[test]
    fn what_takes_nothing_is_not_stored() {
        let keys = keys(2, 10);
        assert_eq!(keys.try_take(1, 0, at(0)), Ok(()));
        assert_eq!(reason(keys.try_take(2, 3, at(0))), Some(Reason::Never));
        assert_eq!(keys.available(&3, at(0)), 2);
        assert_eq!(keys.stats().keys, 0);
    }

    #[test]
    fn a_newcomer_never_displaces_debt() {
        let keys = keys(2, 3);
        for key in 0..3 {
            assert_eq!(keys.try_take(key, 1, at(0)), Ok(()));
        }
        assert_eq!(reason(keys.try_take(3, 1, at(1000) - NANO)), Some(Reason::TooManyKeys));
        assert_eq!(keys.stats(), KeyStats { keys: 3, evicted: 0, refused_for_space: 1 });
        for key in 0..3 {
            assert_eq!(keys.available(&key, at(1000) - NANO), 1, "who is known stays known");
        }
        assert_eq!(keys.try_take(3, 1, at(1000)), Ok(()), "who came first is as good as new");
        assert!(keys.stats().keys <= 3);
        assert!(keys.stats().evicted > 0);
    }

    #[test]
    fn a_key_that_was_forgotten_is_not_told_from_a_new_one_by_a_stale_call() {
        let keys = keys(1, 1);
        assert_eq!(keys.try_take(1, 1, at(0)), Ok(()));
        // Every shard's clock, and the forgetting of the one key.
        for key in 0..40 {
            assert_eq!(keys.available(&key, at(1000)), 1);
            let _ = keys.try_take(key, 1, at(2000));
        }
        let held: Vec<_> = (0..40).filter(|key| keys.available(key, at(2000)) == 0).collect();
        assert_eq!(held.len(), 1);
        let answer = keys.try_take(held[0], 1, at(500)).unwrap_err();
        assert_eq!(answer.retry_after, Some(at(3000) - at(500)), "it was served at 2 s");
    }

    #[test]
    fn a_stream_of_keys_that_come_once_is_forgotten_as_it_goes() {
        let keys = keys(5, 10_000);
        let mut most = 0;
        // A thousand a second, each with debt for a second.
        for key in 0..10_000 {
            assert_eq!(keys.try_take(key, 1, at(u64::from(key))), Ok(()));
            most = most.max(keys.stats().keys);
        }
        assert!((1000..1500).contains(&most), "a third more than those with debt: {most}");
        let KeyStats { keys, evicted, .. } = keys.stats();
        assert_eq!(keys as u64 + evicted, 10_000);
    }

    #[test]
    fn idle_keys_are_forgotten_by_the_calls_of_others() {
        let keys = keys(1_000_000, 1000);
        for key in 0..1000 {
            assert_eq!(keys.try_take(key, 1, at(0)), Ok(()));
        }
        for call in 0..1000 {
            assert_eq!(keys.try_take(call % 20, 1, at(5000)), Ok(()));
        }
        assert!(keys.stats().keys < 100, "{:?}", keys.stats());
    }

    #[test]
    fn the_global_limit_and_that_of_the_key_are_taken_together() {
        let keys = Windows::new(setting(2), Some(setting(3)), 10, 4, [1, 2]);
        assert_eq!(keys.try_take(1, 2, at(0)), Ok(()));
        assert_eq!(reason(keys.try_take(1, 1, at(100))), Some(Reason::Limited));
        assert_eq!(keys.available(&2, at(100)), 1, "the refused call took nothing of all");
        let refusal = keys.try_take(2, 2, at(100)).unwrap_err();
        let until = Some(at(1000) - at(100));
        assert_eq!(refusal, Refusal { reason: Reason::LimitedGlobally, retry_after: until });
        assert_eq!(keys.stats().keys, 1, "and nothing of the key");
        assert_eq!(keys.try_take(2, 1, at(100)), Ok(()));
        // Both say no; both say yes when the later one does.
        assert_eq!(keys.try_take(1, 2, at(200)).unwrap_err().retry_after, Some(at(1000) - at(200)));
        assert_eq!(keys.try_take(2, 2, at(200)).unwrap_err().retry_after, Some(at(1100) - at(200)));
        assert_eq!(reason(keys.try_take(3, 4, at(200))), Some(Reason::Never));
    }

    #[test]
    fn a_newcomer_without_a_place_takes_nothing_of_the_global_limit() {
        let keys = Windows::new(setting(2), Some(setting(3)), 1, 4, [1, 2]);
        assert_eq!(keys.try_take(1, 1, at(0)), Ok(()));
        assert_eq!(reason(keys.try_take(2, 1, at(0))), Some(Reason::TooManyKeys));
        assert_eq!(keys.try_take(1, 1, at(0)), Ok(()));
        keys.update(setting(2), Some(setting(3)), 2, at(0));
        assert_eq!(keys.available(&2, at(0)), 1, "two of three are taken");
    }

    #[test]
    fn an_update_keeps_what_every_key_has_taken() {
        let keys = Windows::new(setting(4), Some(setting(100)), 10, 4, [1, 2]);
        for key in 0..4 {
            assert_eq!(keys.try_take(key, key, at(0)), Ok(()));
        }
        keys.update(setting(2), Some(setting(7)), 3, at(0));
        assert_eq!([0, 1, 2, 3].map(|key| keys.available(&key, at(0))), [1, 1, 0, 0]);
        keys.update(setting(6), Some(setting(100)), 3, at(0));
        assert_eq!([0, 1, 2, 3].map(|key| keys.available(&key, at(0))), [6, 5, 4, 3]);
        assert_eq!(reason(keys.try_take(9, 1, at(0))), Some(Reason::TooManyKeys));
    }

    fn any_windows() -> impl Strategy<Value = (Setting, Option<Setting>)> {
        let algorithm = prop_oneof![Just(Algorithm::Log), (1..5_u32).prop_map(Algorithm::Buckets)];
        (algorithm, 1..6_u32, prop::option::of(1..20_u32)).prop_map(|(algorithm, own, global)| {
            let setting = |limit| Setting::new(limit, WINDOW, algorithm).unwrap();
            (setting(own), global.map(setting))
        })
    }

    fn any_buckets() -> impl Strategy<Value = (token_bucket::Setting, Option<token_bucket::Setting>)> {
        let quota = || (1..20_u32, 1..6_u32);
        (quota(), prop::option::of(quota())).prop_map(|(own, global)| {
            let setting = |(rate, burst)| token_bucket::Setting::new(Rate::per_second(rate), burst);
            (setting(own), global.map(setting))
        })
    }

    /// Keys, costs and steps of time.
    fn any_script() -> impl Strategy<Value = Vec<(u32, u32, u64)>> {
        prop::collection::vec((0..12_u32, 0..5_u32, 0..400_000_000_u64), 1..300)
    }

    /// Every answer to `script` is that of one limit for each key that is never forgotten, and one for all.
    fn agrees<L: Limit>(
        (setting, global): (L::Setting, Option<L::Setting>),
        script: Vec<(u32, u32, u64)>,
    ) -> Result<(), TestCaseError> {
        let keys = Keys::<_, L>::new(setting, global, 12, 4, [3, 4]);
        let mut each: BTreeMap<u32, L> = BTreeMap::new();
        let mut all = global.map(|global| (L::new(&global), global));
        let mut now = at(0);
        for (key, cost, step) in script {
            now += Duration::from_nanos(step);
            let own = each.entry(key).or_insert_with(|| L::new(&setting));
            let own_at = own.fits_at(&setting, cost, now);
            let all_at = all.as_mut().map_or(Some(now), |(all, global)| all.fits_at(global, cost, now));
            let expected = match (own_at, all_at) {
                (Some(own), Some(all)) if own.max(all) <= now => Ok(()),
                (Some(own), Some(all)) => Err(Some(own.max(all) - now)),
                _ => Err(None),
            };
            let free = own.available(&setting, now);
            let free = all.as_mut().map_or(free, |(all, global)| all.available(global, now).min(free));
            prop_assert_eq!(keys.available(&key, now), free);
            prop_assert_eq!(keys.try_take(key, cost, now).map_err(|refusal| refusal.retry_after), expected);
            if expected.is_ok() {
                own.take(&setting, cost, now);
                if let Some((all, global)) = &mut all {
                    all.take(global, cost, now);
                }
            }
            let KeyStats { keys, refused_for_space, .. } = keys.stats();
            prop_assert!(keys <= 12 && refused_for_space == 0);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_answer_is_that_of_one_window_for_each_key(limits in any_windows(), script in any_script()) {
            agrees::<Counted>(limits, script)?;
        }

        #[test]
        fn every_answer_is_that_of_one_bucket_for_each_key(limits in any_buckets(), script in any_script()) {
            agrees::<Tat>(limits, script)?;
        }
    }
}
