//! Models of the limits for each key: no interleaving gives a key two limits, forgets what it owes, stores a key too many,
//! or takes one limit without the other.
//!
//! The locks guard each shard and the global limit; the count of keys is an atomic beside them. What the models prove is
//! that the two together act as one: a place is never counted twice or lost, and forgetting changes no answer.

#![allow(clippy::unwrap_used, reason = "a model reports by panicking, in its helpers too")]

use std::time::Duration;

use loom::thread;
use seawall_loom::error::Reason;
use seawall_loom::keyed::keys::Keys;
use seawall_loom::sliding_window::{Algorithm, Counted, Setting};
use seawall_loom::sync::{Arc, Bug};
use seawall_loom::{Threads, check, planted};

const WINDOW: Duration = Duration::from_secs(2);

const SEED: [u64; 2] = [1, 2];

type Windows = Keys<u32, Counted>;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1000 + seconds)
}

fn setting(limit: u32) -> Setting {
    Setting::new(limit, WINDOW, Algorithm::Log).unwrap()
}

fn keys(limit: u32, global: Option<u32>, max_keys: usize, shards: usize) -> Arc<Windows> {
    Arc::new(Windows::new(setting(limit), global.map(setting), max_keys, shards, SEED))
}

/// A call of `key`: `None` if it was admitted.
fn call(keys: &Arc<Windows>, key: u32, now: Duration) -> impl FnOnce() -> Option<Reason> + use<> {
    let keys = Arc::clone(keys);
    move || keys.try_take(key, 1, now).err().map(|refusal| refusal.reason)
}

/// Once all debt has gone, calls that take nothing forget every key, and every place is free.
fn quiescent(keys: &Arc<Windows>, limit: u32) {
    for key in 0..20 {
        assert_eq!(keys.try_take(key, 0, at(100)), Ok(()));
    }
    assert_eq!(keys.stats().keys, 0, "a place was lost");
    assert_eq!(keys.available(&1, at(100)), limit);
}

#[test]
fn calls_of_a_new_key_share_one_limit() {
    check("K1 calls of a new key share one limit", Threads::Three, 20, || {
        let keys = keys(2, None, 3, 1);
        let others = [thread::spawn(call(&keys, 1, at(0))), thread::spawn(call(&keys, 1, at(0)))];
        let mine = call(&keys, 1, at(0))();
        let answers = others.into_iter().map(|thread| thread.join().unwrap()).chain([mine]);
        assert_eq!(answers.filter(Option::is_none).count(), 2, "the key had two limits");
        assert_eq!(keys.stats().keys, 1);
        quiescent(&keys, 2);
    });
}

#[test]
fn what_a_key_owes_is_not_forgotten() {
    check("K2 what a key owes is not forgotten", Threads::Three, 20, || {
        let keys = keys(1, None, 3, 1);
        assert_eq!(call(&keys, 1, at(0))(), None);
        // Two newcomers look for entries to forget, one of them while the key still owes.
        let others = [thread::spawn(call(&keys, 2, at(1))), thread::spawn(call(&keys, 3, at(1)))];
        let again = call(&keys, 1, at(1))();
        assert_eq!(again, Some(Reason::Limited), "debt was forgotten");
        assert!(others.into_iter().all(|thread| thread.join().unwrap().is_none()));
        assert_eq!(keys.stats().evicted, 0, "debt was forgotten");
        quiescent(&keys, 1);
    });
}

#[test]
fn a_key_that_is_forgotten_beside_its_call_has_one_limit() {
    check("K2 a key that is forgotten beside its call has one limit", Threads::Three, 20, || {
        let keys = keys(1, None, 3, 1);
        assert_eq!(call(&keys, 1, at(0))(), None);
        // The debt is gone: the newcomer may forget the key before, between or after its calls.
        let newcomer = thread::spawn(call(&keys, 2, at(2)));
        let other = thread::spawn(call(&keys, 1, at(2)));
        let mine = call(&keys, 1, at(2))();
        let admitted = [mine, other.join().unwrap()].iter().filter(|answer| answer.is_none()).count();
        assert_eq!(admitted, 1, "the key had two limits, or none");
        assert_eq!(newcomer.join().unwrap(), None);
        assert_eq!(keys.stats().keys, 2);
        quiescent(&keys, 1);
    });
}

#[test]
fn newcomers_that_make_room_store_no_key_too_many() {
    for (shards, seed) in [(1, SEED), (2, [0, 2])] {
        check(&format!("K3 newcomers that make room store no key too many, {shards}"), Threads::Three, 20, move || {
            // Of two shards, the first key is in one and the newcomers are in the other.
            let keys = Arc::new(Windows::new(setting(1), None, 1, shards, seed));
            assert_eq!(call(&keys, 1, at(0))(), None);
            let others = [thread::spawn(call(&keys, 2, at(2))), thread::spawn(call(&keys, 3, at(2)))];
            let stored = keys.stats().keys;
            assert!(stored <= 1, "{stored} keys in one place");
            let answers = others.map(|thread| thread.join().unwrap());
            assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 1, "one place takes one: {answers:?}");
            assert!(answers.contains(&Some(Reason::TooManyKeys)));
            assert_eq!(keys.stats().keys, 1);
            quiescent(&keys, 1);
        });
    }
}

#[test]
fn both_limits_are_taken_or_neither() {
    check("K4 both limits are taken or neither", Threads::Three, 20, || {
        let keys = keys(2, Some(3), 3, 2);
        let two = |key| {
            let keys = Arc::clone(&keys);
            move || keys.try_take(key, 2, at(0)).is_ok()
        };
        let others = [thread::spawn(two(1)), thread::spawn(two(2))];
        let free = keys.available(&3, at(0));
        assert!([2, 1].contains(&free), "no order explains {free}");
        let admitted = others.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count();
        assert_eq!(admitted, 1, "two and two are more than three");
        assert_eq!(keys.available(&3, at(0)), 1, "the refused call took of the global limit");
        assert_eq!(keys.stats().keys, 1, "the refused call left its key");
        quiescent(&keys, 2);
    });
}

#[test]
fn a_forgotten_debt_would_be_seen() {
    planted(Bug::EvictWithDebt, "what_a_key_owes_is_not_forgotten", "debt was forgotten");
}
