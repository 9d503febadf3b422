//! A rate limiter of the crate `governor` in the place of our own buckets.
//!
//! **When.** A program has its limiters from `governor` already, or shares one with code that does. New code takes a
//! [`token_bucket`](crate::token_bucket) or a [`keyed`](crate::keyed) limit: they let callers wait, change the rate live and
//! count fractions of a nanosecond.
//! **What.** Any `governor::RateLimiter`, with one state or one for each key, decides; the layer, its modes, counts, metrics
//! and refusals are those of a [`token_bucket`](crate::token_bucket) that lets nobody wait.
//! **How.** Each call is one `check_n` or `check_key_n`. `retry_after` comes from governor's `NotUntil`, which is exact. The
//! [`Clock`] is the one of our layers: one reading for a whole stack, and a paused clock of tokio drives it.
//!
//! One for all:
//!
//! ```
//! use governor::{Quota, RateLimiter};
//! use seawall::adapters::governor::{Clock, GovernorConfig, GovernorHandle};
//! use seawall::{Reason, Rejected};
//! use std::num::NonZeroU32;
//! use std::sync::Arc;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let quota = Quota::per_second(NonZeroU32::new(200).unwrap()).allow_burst(NonZeroU32::MIN);
//! let limiter = Arc::new(RateLimiter::direct_with_clock(quota, Clock));
//! let layer = GovernorHandle::direct(GovernorConfig::new("search"), limiter)?.layer();
//! let mut search = layer.layer(service_fn(|word: &'static str| async move { Ok::<_, std::io::Error>(word) }));
//!
//! assert_eq!(search.ready().await?.call("dam").await?, "dam");
//! let error = search.ready().await?.call("dike").await.unwrap_err();
//! let refused = Rejected::find(&*error).unwrap();
//! assert_eq!((refused.pattern, refused.reason), ("token_bucket", Reason::Limited));
//! assert_eq!(refused.retry_after.unwrap().as_millis(), 5);
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! One for each key, without tower:
//!
//! ```
//! use governor::state::keyed::HashMapStateStore;
//! use governor::Quota;
//! use seawall::adapters::governor::{GovernorConfig, GovernorHandle, keyed_limiter};
//! use std::num::NonZeroU32;
//! use std::sync::Arc;
//!
//! let quota = Quota::per_minute(NonZeroU32::MIN);
//! let limiter = keyed_limiter(quota, HashMapStateStore::<u32>::default(), 10_000);
//! let clients = GovernorHandle::keyed(GovernorConfig::new("clients"), Arc::new(limiter))?;
//! assert!(clients.try_acquire(&1).is_ok());
//! assert!(clients.try_acquire(&1).is_err());
//! assert!(clients.try_acquire(&2).is_ok());
//! # Ok::<_, seawall::BoxError>(())
//! ```
//!
//! | setting | default | why |
//! |---|---|---|
//! | `max_cost` | [`DEFAULT_MAX_COST`] | who wants costs knows the burst |
//! | `mode` | [`Mode::Enforce`](crate::Mode) | a layer that was added should act |
//!
//! | refused as | when | comes back |
//! |---|---|---|
//! | `limited` | the quota says not now | after `retry_after`, if nobody else comes before |
//! | `never` | it costs more than `max_cost`, or than the quota holds | never |
//! | `too_many_keys` | a new key, and no place for it | when keys were forgotten |
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason` as above |
//! | `seawall_in_flight` | calls under way |
//! | `seawall_rate_limit_keys` | with keys: those stored; moves with calls, up to four times a second |
//!
//! **Bound on keys.** governor stores every key that it is asked about until somebody calls `retain_recent`, which looks at
//! them all. A limiter for keys therefore has its store in [`Bounded`]: at most `max_keys` keys are accounted for, and a
//! newcomer beyond is refused; who is known stays known. When a newcomer finds no place, the layer calls `retain_recent` and
//! asks once more, unless it did so within the last second and the store has not doubled since. Between two such looks
//! newcomers are refused although a key may have become idle. A key is forgotten one period after its bucket was full
//! again. governor stores a refused newcomer too, with nothing on its account, until the next look: there are at most twice
//! `max_keys` entries, and as many more as calls run at once.
//!
//! **Exactness.** governor rounds the period of a quota down to whole nanoseconds: 3 a second are one in 333,333,333 ns. With
//! another clock than ours `retry_after` is shorter by the time between its decision and the reading after it.
//!
//! **Cost.** An admitted call allocates nothing but the entry of a new key, which is cloned. Its state is one
//! compare-exchange, and with keys a lock of governor's store besides. The call that looks for idle keys looks at all of
//! them, while other newcomers without a place wait for it.
//!
//! **Do not** set `max_cost` above the burst: governor multiplies it by the period in 64 bits, which overflows for a cost of
//! millions at a token in hours. Do not share the store of a [`Bounded`] limiter with another.
//! **In a stack.** As a [`token_bucket`](crate::token_bucket); for each client, as [`keyed`](crate::keyed).

mod clock;
mod config;

mod limiter;
mod store;

mod handle;

mod layer;
mod service;

#[cfg(test)]
mod tests;

pub use self::{
    clock::Clock,
    config::{DEFAULT_MAX_COST, GovernorConfig},
    handle::{GovernorHandle, GovernorStats},
    layer::GovernorLayer,
    limiter::{Direct, DirectLimiter, Keyed, KeyedLimiter, keyed_limiter},
    service::{Governor, KeyOf, OneForAll, Permit, ResponseFuture},
    store::Bounded,
};

/// The name in metrics and refusals: of the pattern whose place a limiter takes.
const PATTERN: &str = "token_bucket";
