//! Limits of how many calls pass in a time, of all together and of each key.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use seawall::keyed::{KeyedConfig, KeyedLayer, Quota};
use seawall::sliding_window::{self, Algorithm, SlidingWindowConfig, SlidingWindowLayer};
use seawall::token_bucket::{Rate, TokenBucketConfig, TokenBucketLayer};
use tower::{Layer, Service};

use super::{CALLS, Case, NEVER, WINDOW_TIME, answered, is_answer, is_refused, with};
use crate::BoxError;
use crate::drive::{Checks, Echo, KeyChecks, Request};

/// Keys that are known before the first call.
const KEYS: u64 = 100_000;
/// As fast as a bucket fills, and as much as it may hold: no call waits for a token.
const FAST: Rate = Rate::per_second(1_000_000_000);
/// More than any key is called in a measurement.
const BURST: u32 = 100;

/// Every key once, in an order that says nothing of where it lies.
pub(super) fn shuffled_keys() -> Arc<[u64]> {
    let mut keys: Vec<u64> = (0..KEYS).collect();
    keys.shuffle(&mut StdRng::seed_from_u64(1));
    keys.into()
}

/// governor's limits, which take no request.
pub(super) fn governors(keys: &Arc<[u64]>) -> [Case; 2] {
    let keys = Arc::clone(keys);
    [
        Case::new("governor", "check".to_owned(), CALLS, || {
            let rate = governor::Quota::per_second(NonZeroU32::MAX);
            Ok(Checks(Arc::new(governor::RateLimiter::direct(rate))))
        }),
        Case::new("governor", "check_key".to_owned(), KEYS, move || {
            let burst = NonZeroU32::new(BURST).ok_or("a burst of none")?;
            let quota = governor::Quota::with_period(NEVER).ok_or("a period of none")?.allow_burst(burst);
            let limiter = governor::RateLimiter::keyed(quota);
            for key in 0..KEYS {
                limiter.check_key(&key).map_err(|_| "governor refused a first call")?;
            }
            Ok(KeyChecks { limiter: Arc::new(limiter), keys: Arc::clone(&keys) })
        })
        .of_keys(KEYS),
    ]
}

/// Ours.
pub(super) fn cases<R: Request>(cases: &mut Vec<Case>, keys: &Arc<[u64]>) {
    cases.extend([
        answered::<R, _>("seawall", "token_bucket", || {
            Ok(TokenBucketLayer::new(TokenBucketConfig::new("bench", FAST, FAST.tokens))?.layer(Echo))
        }),
        with::<R, _, _>("seawall", "token_bucket limited", CALLS, is_refused, || {
            let layer = TokenBucketLayer::new(TokenBucketConfig::new("bench", Rate::every(NEVER), 1))?;
            drop(layer.handle().try_acquire()?);
            Ok(layer.layer(Echo))
        }),
        answered::<R, _>("seawall", "sliding_window", || {
            let config = SlidingWindowConfig::new("bench", sliding_window::MAX_LIMIT, WINDOW_TIME);
            Ok(SlidingWindowLayer::new(config)?.layer(Echo))
        }),
        // A million calls take longer than the window, so that none is refused; the log holds those of the last millisecond.
        answered::<R, _>("seawall", "sliding_window log", || {
            let config = SlidingWindowConfig::new("bench", 1_000_000, Duration::from_millis(1));
            Ok(SlidingWindowLayer::new(config.algorithm(Algorithm::Log))?.layer(Echo))
        }),
        with::<R, _, _>("seawall", "sliding_window limited", CALLS, is_refused, || {
            let layer = SlidingWindowLayer::new(SlidingWindowConfig::new("bench", 1, NEVER))?;
            drop(layer.handle().try_acquire()?);
            Ok(layer.layer(Echo))
        }),
    ]);

    let window = |limit| Quota::sliding_window(limit, NEVER);
    // No key is as good as new, and forgotten, before the measurement ends.
    let bucket = Quota::token_bucket(Rate::every(NEVER), BURST);
    let [buckets, windows, limited] = [(); 3].map(|()| Arc::clone(keys));
    cases.extend([
        with::<R, _, _>("seawall", "keyed token_bucket", KEYS, is_answer, move || keyed(bucket, &buckets))
            .of_keys(KEYS),
        with::<R, _, _>("seawall", "keyed sliding_window", KEYS, is_answer, move || keyed(window(BURST), &windows))
            .of_keys(KEYS),
        with::<R, _, _>("seawall", "keyed limited", KEYS, is_refused, move || keyed(window(1), &limited)),
    ]);
}

/// A limit for each key, after one call of each.
fn keyed<R: Request>(
    quota: Quota,
    keys: &Arc<[u64]>,
) -> Result<impl Service<R, Response = u64, Error = BoxError, Future: Send> + Clone + Send + use<R>, BoxError> {
    let keys = Arc::clone(keys);
    let config = KeyedConfig::new("bench", quota).max_keys(KEYS as u32);
    let layer = KeyedLayer::new(config, move |request: &R| keys[request.number() as usize % keys.len()])?;
    for key in 0..KEYS {
        drop(layer.handle().try_acquire(key)?);
    }
    Ok(layer.layer(Echo))
}
