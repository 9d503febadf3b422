//! A rate limit for each client, tenant or address.
//!
//! **When.** One client must not use up what is there for all. To limit all calls alike, see a
//! [`token_bucket`](crate::token_bucket) or a [`sliding_window`](crate::sliding_window).
//! **What.** Each key has a limit of its own, a token bucket or a sliding window, and all together may have another of the
//! same kind: a call takes from both or from neither. A key is stored with its first call and forgotten when it is as
//! good as new; there are at most `max_keys`, and a newcomer that finds no place is refused as `too_many_keys`.
//! **How.** A hash table in 16 locked parts. No task runs: each call looks at one other key, and one that brings a new key
//! at a few more, and forgets those that owe nothing. A key that still owes is never forgotten, so a flood of new keys
//! buys nobody a fresh limit. Hashes are SipHash with a secret of each instance, so that nobody can craft keys that fall
//! together.
//!
//! ```
//! use seawall::keyed::{KeyedConfig, KeyedLayer, Quota};
//! use seawall::token_bucket::Rate;
//! use seawall::{Reason, Rejected};
//! use std::net::IpAddr;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! struct Request { from: IpAddr }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let quota = Quota::token_bucket(Rate::per_second(10), 1);
//! let layer = KeyedLayer::new(KeyedConfig::new("clients", quota), |request: &Request| request.from)?;
//! let mut api = layer.layer(service_fn(|_: Request| async { Ok::<_, std::io::Error>("hello") }));
//!
//! let (ann, ben) = ([192, 0, 2, 1], [192, 0, 2, 2]);
//! assert_eq!(api.ready().await?.call(Request { from: ann.into() }).await?, "hello");
//! let error = api.ready().await?.call(Request { from: ann.into() }).await.unwrap_err();
//! assert_eq!(Rejected::find(&*error).unwrap().reason, Reason::Limited);
//! assert_eq!(api.ready().await?.call(Request { from: ben.into() }).await?, "hello");
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! ```text
//! key ─► its part ─► known ──────► its limit and the global one ─► both admit ─► both are taken
//!        (locked)      │ new          └─► limited · limited_globally · never
//!                      └─► a place among max_keys? ─ none ─► forget those that owe nothing, ask again
//!                                                             └─► too_many_keys
//! ```
//!
//! **Bounds.** Each key's limit keeps the bound of its kind, and so does the global one. `retry_after` is the first instant
//! at which both admit the call, if nobody comes before. A stream of keys that come once each settles at about a third
//! more stored keys than have something to account for. A newcomer is refused although a key might go if none of those
//! it looked at could: 4 of its own part, and 4 of every part.
//!
//! Defaults and their reasons: [`KeyedConfig`].
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason`: `limited`, `limited_globally`, `never`, `too_many_keys` |
//! | `seawall_in_flight` | calls under way |
//! | `seawall_rate_limit_keys` | keys stored; moves with calls, up to four times a second |
//!
//! No metric has the key as a label: there would be one series for each client.
//!
//! **Memory.** With keys of 8 bytes, 36 bytes for each with a bucket and 112 with a window of ten buckets, as
//! `cargo test -p seawall --test memory -- --nocapture` prints them; up to twice as much right after a part of the table
//! has doubled. It stays flat however many keys come.
//!
//! **Cost.** A call of a known key: no allocation, one hash, one lock of a sixteenth of the keys, and one more with a
//! global limit, which all calls share. A new key is stored, which allocates now and then, and with a window its ring; one
//! part of the table at a time doubles when it is full, and never shrinks. A refusal allocates its error.
//!
//! **Do not** take what the client sends unchecked for a key: who can choose keys at will can fill the table, and then
//! newcomers are refused; take what was authenticated, or the address, and give floods a `global` limit. Do not set
//! `max_keys` below the clients of one window, or of the time in which a bucket fills.
//! **In a stack.** Outermost on a server, right below the deadline: what is refused should cost nothing else.

mod config;

mod limit;
mod table;

mod keys;

mod handle;

mod layer;
mod service;

#[cfg(test)]
mod tests;

pub use self::{
    config::{DEFAULT_MAX_KEYS, KeyedConfig, MAX_KEYS, MAX_LOG_PER_KEY, Quota},
    handle::{KeyedHandle, KeyedStats},
    layer::KeyedLayer,
    service::{Keyed, Permit, ResponseFuture},
};

/// The name in metrics and refusals.
const PATTERN: &str = "keyed";
