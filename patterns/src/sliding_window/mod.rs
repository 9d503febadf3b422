//! Admits at most so many calls in any window of time.
//!
//! **When.** A promise of the form "100 in an hour, whichever hour you look at": a quota that somebody was sold, or that a
//! peer enforces. To smooth traffic and allow bursts, see a token bucket, which lets up to its burst and its rate pass in
//! one window; to limit each client by itself, see [`keyed`](crate::keyed).
//! **What.** A call is admitted if, with it, the calls admitted in the window that ends now cost no more than `limit`;
//! otherwise it is refused with the exact time after which it fits. It may cost more than one, and one that costs more than
//! `limit` is refused as never. A window is half-open: what was admitted at `t` weighs in `[t, t + window)`.
//! **How.** Either the instants of the last `limit` units ([`Algorithm::Log`]), or counts in K + 1 buckets
//! ([`Algorithm::Buckets`]), which is one more than the window has.
//!
//! ```
//! use seawall::{Reason, Rejected, SlidingWindowConfig, SlidingWindowLayer};
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let layer = SlidingWindowLayer::new(SlidingWindowConfig::new("mail", 2, Duration::from_secs(1)))?;
//! let mut mail = layer.layer(service_fn(|to: &'static str| async move { Ok::<_, std::io::Error>(to) }));
//!
//! assert_eq!(mail.ready().await?.call("ann").await?, "ann");
//! assert_eq!(mail.ready().await?.call("ben").await?, "ben");
//! let error = mail.ready().await?.call("cid").await.unwrap_err();
//! let refused = Rejected::find(&*error).unwrap();
//! assert_eq!(refused.reason, Reason::Limited);
//!
//! tokio::time::sleep(refused.retry_after.unwrap()).await;
//! assert_eq!(mail.ready().await?.call("cid").await?, "cid");
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! ```text
//!                 ├───────────── window ─────────────┤ now
//!   log         × │  ×          ×  ×             ×   ┊         the limit-th newest has left: one fits
//!   buckets   │ 1 │     1     │    2      │     1    ┊│        leaves when the running bucket ends
//! ```
//!
//! | bound | log | K buckets |
//! |---|---|---|
//! | admitted in any window, wherever it begins | ≤ `limit` | ≤ `limit` |
//! | a call that fits is admitted | at once | at most `window`/K later, and K ns for rounding |
//! | a demand that never lets up gets | the whole rate | K/(K + 1) of it; up to there, a steady one is admitted whole |
//! | memory | 8 bytes × `limit` | 4 bytes × (K + 1) |
//! | work of a call | one comparison, cost writes | one comparison and two additions; K steps when a bucket ends |
//!
//! All of it in the time of the window, which is clamped to the largest instant seen. A fixed window or a ring of K buckets
//! admits up to twice its limit around an edge, and so does the weighted count of two buckets; they are not offered.
//!
//! Defaults and their reasons: [`SlidingWindowConfig`].
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason`: `limited`, `never` |
//! | `seawall_in_flight` | calls under way |
//! | `seawall_rate_limit_available` | how much would be admitted; moves with calls, up to 16 times in a window |
//!
//! **Cost.** An admitted call: no allocation, one reading of the clock (shared by the stack), one lock for a few
//! instructions. A refusal allocates its error.
//!
//! **Do not** use it to protect a service from load: a call that hangs leaves the window all the same. Limit concurrency
//! with a [`semaphore`](crate::semaphore). Do not retry a refusal before its `retry_after`: until then it cannot fit.
//! **In a stack.** Outside the retry, it counts what callers ask for; inside, what is sent, which is what a peer's quota
//! counts.

mod config;

mod buckets;
mod log;

mod window;

mod handle;

mod layer;
mod service;

#[cfg(test)]
mod tests;

pub use self::{
    config::{
        Algorithm, DEFAULT_ALGORITHM, MAX_BUCKETS, MAX_LIMIT, MAX_LOG_LIMIT, MAX_WINDOW, MIN_WINDOW,
        SlidingWindowConfig,
    },
    handle::{SlidingWindowHandle, SlidingWindowStats},
    layer::SlidingWindowLayer,
    service::{Permit, ResponseFuture, SlidingWindow},
};
pub(crate) use self::{
    config::{Setting, nanos},
    window::Counted,
};

/// The name in metrics and refusals.
const PATTERN: &str = "sliding_window";
