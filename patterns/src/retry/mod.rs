//! Tries again what may work at the next attempt, and not too much.
//!
//! **When.** Single calls fail for reasons that pass: a lost connection, a leader that moves, a server that restarts. Where a
//! peer is down for longer, a [circuit breaker](crate::circuit_breaker) belongs inside of the retries, which do not repeat its
//! refusals.
//! **What.** A [policy](RetryPolicy) judges each result. Another attempt waits for its backoff with jitter, for the server's
//! hint, and for the service to be ready; it is left out when attempts, time, the caller's deadline or the budget do not allow
//! it, and then at once: nobody waits for an attempt that will not come.
//! **How.** A [`RetryBudget`] holds all retries together to a share of the calls, in every window. It may be shared by layers.
//! The request is copied where the policy permits it; a call that needs no retry allocates nothing beyond that copy. The first
//! attempt runs on the readied service, further ones on a clone of it that is polled ready anew.
//!
//! A response that the policy wants to improve is kept until the next attempt is sent, and returned if none is.
//! Dropping the future ends the call as neutral and refunds a retry that was granted and not sent.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use seawall::{BoxError, RetryConfig, RetryErrors, RetryLayer, Transient};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let retry = RetryLayer::new(RetryConfig::new("peer"), RetryErrors::all_idempotent())?;
//! let mut peer = ServiceBuilder::new().layer(retry.clone()).service(service_fn(|key: &'static str| async move {
//!     match CALLS.fetch_add(1, Ordering::Relaxed) {
//!         0 => Err(BoxError::from(Transient::new("connection reset"))),
//!         _ => Ok(key),
//!     }
//! }));
//!
//! let (answer, report) = peer.ready().await?.call("key").reported().await;
//! assert_eq!(answer?, "key");
//! assert_eq!(report.attempts, 2);
//! assert_eq!(retry.handle().stats().retries, 1);
//! # Ok::<_, BoxError>(())
//! # }).unwrap();
//! ```
//!
//! ```text
//!            ┌─ accepted ──────────────────────────────────────────► the result
//! ┌─► attempt┼─ not worth another: `policy` ───────────────────────► the error, in `GaveUp` after a retry
//! │          └─ worth another ─► does it fit? ─ no ────────────────► `GaveUp`: `attempts` · `elapsed` · `deadline`
//! │                                   │                                        · `budget` · `exhausted`
//! │                                   └─ yes ─► delay ─► ready? ─ no ─► `GaveUp`: `not_ready` · `elapsed` · `deadline`
//! └───────────────────────────────────────────────────────┘ yes
//! ```
//!
//! | setting | default | why |
//! |---|---|---|
//! | `max_attempts` | 3 | [`DEFAULT_MAX_ATTEMPTS`] |
//! | `max_elapsed` | 30 s | [`DEFAULT_MAX_ELAPSED`] |
//! | `max_ready_wait` | 1 s | [`DEFAULT_MAX_READY_WAIT`] |
//! | `backoff` | exponential from 50 ms to 5 s, full jitter | [`DEFAULT_BASE`], [`DEFAULT_FACTOR`], [`DEFAULT_CAP`], [`Jitter::Full`] |
//! | `durations` | off | [`RetryConfig::durations`] |
//! | the budget's `ratio`, `floor_per_second`, `window` | 0.2, 1, 10 s | [`DEFAULT_BUDGET_RATIO`], [`DEFAULT_BUDGET_FLOOR_PER_SECOND`], [`DEFAULT_BUDGET_WINDOW`] |
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; one call counts once, whatever its attempts |
//! | `seawall_in_flight` | calls under way, those between two attempts among them |
//! | `seawall_call_duration_seconds` | how long calls took with all their attempts and waits, if `durations` is set |
//! | `seawall_retry_attempts_total` | retries by `attempt`, from 2; `10+` from the tenth |
//! | `seawall_retry_gave_up_total` | calls that would have been tried again, by `stop` as above |
//! | `seawall_retry_budget_balance` | what is left of the budget |
//!
//! **Cost.** A call that needs no retry takes one reading of the clock, which the layers below share, and no lock. It
//! allocates what the copies of its request, of the service and of the policy allocate, and where the policy copies no request,
//! what a copy of the policy does. A call
//! whose first attempt fails allocates once for all of its retries: the timer and what the budget has granted.
//!
//! **Do not** retry at several levels of a call: three of three attempts each are 27 at the bottom. Do not retry what may not
//! be applied twice, unless it certainly was not sent. Do not widen the budget to get through an outage: it is what keeps the
//! outage from growing.
//!
//! **In a stack.** Inside the timeout of the whole call, outside of the circuit breaker and of the timeout of one attempt. One
//! request goes without retries in the scope of [`Overrides`](crate::Overrides).

mod config;

mod backoff;
mod budget;

mod handle;
mod layer;
mod service;

mod future;
mod policy;
#[cfg(test)]
mod tests;

pub use self::{
    backoff::{Backoff, DEFAULT_BASE, DEFAULT_CAP, DEFAULT_FACTOR, Growth, Jitter, Stop},
    budget::RetryBudgetStats,
    config::*,
    future::{Reported, ResponseFuture, RetryReport},
    handle::{RetryBudget, RetryHandle, RetryReservation, RetryStats, StopCounts, retry},
    layer::RetryLayer,
    policy::{Attempt, Decision, GaveUp, Permanent, RetryErrors, RetryPolicy, TIMEOUT_COST, Transient},
    service::{Operation, OperationFuture, Retry},
};
