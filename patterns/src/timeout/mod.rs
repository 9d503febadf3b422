//! Bounds how long a call may take.
//!
//! **When.** A call may hang, and its caller has better to do than to hang with it. One layer inside the retries bounds
//! [each attempt](TimeoutConfig::attempt), another outside of them bounds the [whole call](TimeoutConfig::total).
//! **What.** A call that has not ended within the limit, or within the ambient [`Deadline`](crate::Deadline) where that is
//! tighter, is dropped and ends with [`Elapsed`](crate::Elapsed), which says whose limit it was. What is below sees the
//! limit as its ambient deadline. A call whose deadline has passed already is refused and not made.
//! **How.** The inner future is polled first, so a result that is there wins over the timer; only when it is pending for the
//! first time is a timer made. The time starts at `call`: waiting in `poll_ready` is not counted.
//!
//! ```
//! use std::time::Duration;
//! use seawall::{BoxError, Elapsed, Limit, TimeoutConfig, TimeoutLayer, find};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let timeout = TimeoutLayer::new(TimeoutConfig::attempt("peer", Duration::from_millis(100)))?;
//! let mut peer = ServiceBuilder::new().layer(timeout.clone()).service(service_fn(|wait_millis: u64| async move {
//!     tokio::time::sleep(Duration::from_millis(wait_millis)).await;
//!     Ok::<_, BoxError>("answer")
//! }));
//!
//! assert_eq!(peer.ready().await?.call(50).await?, "answer");
//! let error = peer.ready().await?.call(5000).await.unwrap_err();
//! assert_eq!(find::<Elapsed>(&*error).unwrap().limit, Limit::Attempt);
//! assert_eq!(timeout.handle().stats().elapsed, 1);
//! # Ok::<_, BoxError>(())
//! # }).unwrap();
//! ```
//!
//! ```text
//! call ─┬─ the deadline has passed ─► `Rejected`: `deadline`, the inner service was not called
//!       └─ runs ─┬─ answers ────────► the result, also if the limit passes in the same instant
//!                ├─ limit ──────────► `Elapsed`: `attempt` or `total`, a failure
//!                └─ deadline ───────► `Elapsed`: `ambient`, neutral: the caller had less time than we allow
//! ```
//!
//! | setting | default | why |
//! |---|---|---|
//! | `limit` | none | how long an answer is worth waiting for is known to the caller only |
//! | `scope` | none | the error says whose limit it was |
//! | `mode` | enforce | [`Mode`](crate::Mode) |
//! | `durations` | off | [`TimeoutConfig::durations`] |
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason`: `deadline` |
//! | `seawall_in_flight` | calls under way |
//! | `seawall_call_duration_seconds` | how long admitted calls took, if `durations` is set |
//!
//! **Cost.** No allocation. A call that is answered at its first poll takes one reading of the clock, which the layers below
//! share, and no timer.
//!
//! **Do not** take [`Elapsed`](crate::Elapsed) for "it was not done": the outcome is unknown. Do not set one limit around the
//! retries only: the first attempt would use it up. Do not rely on it to stop work that is not a future: dropping ends no
//! thread.
//!
//! **In a stack.** `total` outermost, `attempt` innermost, inside of the circuit breaker, which takes it for a failure. One
//! request has another limit in the scope of [`Overrides`](crate::Overrides).

mod config;
mod handle;
mod layer;
mod service;

mod future;
#[cfg(test)]
mod tests;

pub use self::{
    config::*,
    future::ResponseFuture,
    handle::{TimeoutHandle, TimeoutStats},
    layer::TimeoutLayer,
    service::Timeout,
};
