//! Limits a caller to a steady rate while it allows short bursts.
//!
//! **When.** A peer tolerates `rate` on average and `burst` at once. To bound how many calls run at once, see a
//! [semaphore](crate::semaphore); for "at most so many in any hour", a [sliding window](crate::sliding_window).
//! **What.** A bucket of `burst` tokens fills at `rate`. A call takes one, or as many as its request costs, or is told exactly
//! when to return; or it waits in line, first come, first served.
//! **How.** The Generic Cell Rate Algorithm (ITU-T I.371, annex A) in whole numbers: one word that says when the bucket is
//! full again, taken from by one compare-exchange, and no task that refills. At 200 a second, burst 50, a token is 5 ms.
//!
//! ```
//! use seawall::token_bucket::{Rate, TokenBucketConfig, TokenBucketLayer};
//! use seawall::{Reason, Rejected};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let layer = TokenBucketLayer::new(TokenBucketConfig::new("search", Rate::per_second(200), 2))?;
//! let mut search = layer.layer(service_fn(|word: &'static str| async move { Ok::<_, std::io::Error>(word) }));
//!
//! assert_eq!(search.ready().await?.call("dam").await?, "dam");
//! assert_eq!(search.ready().await?.call("dike").await?, "dike");
//! let error = search.ready().await?.call("weir").await.unwrap_err();
//! let refused = Rejected::find(&*error).unwrap();
//! assert_eq!(refused.reason, Reason::Limited);
//! assert_eq!(refused.retry_after.unwrap().as_millis(), 5);
//!
//! tokio::time::sleep(refused.retry_after.unwrap()).await;
//! assert_eq!(search.ready().await?.call("weir").await?, "weir");
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! ```text
//!        now                          now + burst · period
//!   ──────┼────────────────┼────────────────┼──────► time
//!         │◄─── spent ────►│◄── available ─►│
//!                         TAT: full again.  A call moves it right by its cost; time brings `now` after it.
//! ```
//!
//! **The bound.** All calls admitted from one at `a` to one at `b` take at most `burst + rate · (b − a)` tokens, and less
//! than one tick's worth more (`rate` · 2 ns) where `per / tokens` of the [`Rate`] is no whole number of nanoseconds. That
//! rounding never adds up: three a second stay three a second. In its first period a full bucket lets `burst` and what the
//! rate gives pass; for at most N in *any* window, see the [sliding window](crate::sliding_window). For calls that waited,
//! `a` and `b` are when their tokens were there; they go later by what their timers are late (tokio's: up to 1 ms and the
//! load of the runtime), and a late timer costs no tokens. Across an [update](TokenBucketHandle::update) the bound is the
//! burst at `a`, what later ones added, and what each rate gives in its time.
//!
//! | setting | default | why |
//! |---|---|---|
//! | `rate`, `burst` | none | only the caller knows what the peer stands |
//! | `max_waiting` | 0 | [`DEFAULT_MAX_WAITING`] |
//! | `max_wait` | 1 s | [`DEFAULT_MAX_WAIT`] |
//! | `waiting` | in the call | [`Waiting::InCall`](crate::Waiting) |
//!
//! | refused as | when | comes back |
//! |---|---|---|
//! | `limited` | too few tokens, and nobody may wait | after exactly `retry_after`, if nobody else comes before |
//! | `queue_full` · `max_wait` · `deadline` | as many wait as may · the turn would come too late | `retry_after`: when the turn would have come |
//! | `never` | it costs more than the bucket holds | never |
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason` as above |
//! | `seawall_in_flight` | calls under way |
//! | `seawall_rate_limit_available` | tokens in the bucket; moves with calls, at most every 100 ms |
//! | `seawall_queue_depth`, `seawall_queue_wait_seconds` | calls in line, and how long they were |
//!
//! **Cost.** An admitted call: no allocation, one reading of the clock (shared by the stack), one compare-exchange besides
//! its counters. A call that waits takes a lock and a timer, and allocates once for both; a refusal, its error.
//!
//! **Do not** make one bucket per connection or request: state lives in the layer, and a limit that is made anew limits
//! nothing. Do not set a large `burst` to be generous: it is what a peer gets at once after every pause. Do not let calls
//! wait where their callers would rather be told; a waiting call that is not polled holds up those behind it.
//! **When a peer answers that it is overloaded**, [`drain`](TokenBucketHandle::drain) the bucket: its next call comes one
//! period later.
//! **In a stack.** Inside the retry, to limit what is sent; outside, what callers ask for. A call that ends in readiness mode
//! without having been made gives its token back, if nobody has taken one since; otherwise it is spent.

mod config;

mod gcra;

mod bucket;

mod handle;
mod room;

mod layer;
mod service;

mod future;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub(crate) use self::gcra::{Setting, Shortage, Tat};
pub use self::{
    config::*,
    future::{Acquire, Permit, ResponseFuture},
    handle::{TokenBucketHandle, TokenBucketStats},
    layer::TokenBucketLayer,
    service::TokenBucket,
};

/// The name in metrics and refusals.
const PATTERN: &str = "token_bucket";
