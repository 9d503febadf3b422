//! What limits for each key hold of memory while a million clients come and go.

use std::time::Duration;

use allocation_counter::measure;
use seawall::keyed::{KeyedConfig, KeyedHandle, Quota};
use seawall::token_bucket::Rate;
use seawall_benches::BoxError;
use tokio::runtime::Builder;
use tokio::time::advance;

const WINDOW: Duration = Duration::from_secs(1);
/// A part of the table holds some 750 of them, far from where it would double.
const KEYS: u32 = 12_000;
/// More than a million keys together.
const ROUNDS: u64 = 84;

/// Bytes held after the first `KEYS` keys, and after each further such round when those before owe nothing any more.
fn held(quota: Quota) -> Result<Vec<i64>, BoxError> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let keyed = KeyedHandle::new(KeyedConfig::new("clients", quota).max_keys(KEYS))?;
    let mut bytes = 0;
    let rounds = (0..ROUNDS).map(|round| {
        let entered = runtime.enter();
        bytes += measure(|| {
            for key in (0..u64::from(KEYS)).map(|key| round * u64::from(KEYS) + key) {
                assert!(keyed.try_acquire(key).is_ok(), "{key} was refused");
            }
        })
        .bytes_current;
        drop(entered);
        runtime.block_on(advance(2 * WINDOW));
        bytes
    });
    Ok(rounds.collect())
}

#[test]
fn memory_is_flat_after_a_million_distinct_keys() {
    for quota in [Quota::token_bucket(Rate::new(10, WINDOW), 10), Quota::sliding_window(10, WINDOW)] {
        let held = held(quota).unwrap();
        let per_key = held[0] / i64::from(KEYS);
        println!("{quota:?}: {per_key} bytes a key");
        assert!((8..1024).contains(&per_key), "{per_key} bytes a key");
        assert_eq!(held, vec![held[0]; ROUNDS as usize]);
    }
}
