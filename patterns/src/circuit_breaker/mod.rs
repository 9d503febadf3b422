//! Stops calling a peer that fails, and finds out gently when it is back.
//!
//! **When.** A peer that is down or drowning makes every caller wait and keeps itself from recovering. A breaker answers at
//! once instead. To try again after single failures, see [`retry`](mod@crate::retry); to bound what a slow peer holds, a
//! [`semaphore`](crate::semaphore); to cut off a single call, [`timeout`](crate::timeout).
//! **What.** While *closed*, calls flow and their outcomes are counted over a sliding window. Too many failures, too many slow
//! calls or too many failures in a row *open* it: calls are refused with the time that remains. After the open time a few
//! probes run (*half-open*); enough successes close it, and failures open it for longer.
//! **How.** M. Nygard, *Release It!* (2007), with what practice added: a window that really slides, probes that cannot be
//! lost, results that count only for the state that admitted them, neutral outcomes for calls that say nothing about the
//! peer, exponential open times with full jitter. One mutex around a pure machine, and beside it a word that says what needs
//! neither: to admit while calls flow, to book a success, to refuse until a time that is known. No task runs.
//!
//! ```
//! use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, State, Window};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let config = CircuitBreakerConfig::new("peer/2").window(Window::Calls(10)).minimum_calls(5).failure_rate(0.5);
//! let layer = CircuitBreakerLayer::new(config)?;
//! let breaker = layer.handle();
//! let mut peer = layer.layer(service_fn(|up: bool| async move {
//!     if up { Ok("pong") } else { Err(std::io::Error::other("connection refused")) }
//! }));
//!
//! assert_eq!(peer.ready().await?.call(true).await?, "pong");
//! for _ in 0..4 {
//!     assert!(peer.ready().await?.call(false).await.is_err());
//! }
//! assert_eq!(breaker.state(), State::Open);
//! let refused = peer.ready().await?.call(true).await.unwrap_err();
//! assert_eq!(seawall::Rejected::find(&*refused).unwrap().reason, seawall::Reason::Open);
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! As a plain value it is a [`CircuitBreakerHandle`].
//!
//! ```text
//!                failure rate · slow rate · failures in a row
//! ┌────────┐ ─────────────────────────────────────────────────► ┌──────┐
//! │ closed │                                                    │ open │ ◄───────────────┐
//! └────────┘ ◄──────────────┐                                   └──────┘                 │
//!                           │                                      │ its time is over,   │ too many probes fail,
//!            enough probes  │             ┌───────────┐            │ and a call came     │ are slow, or never answer
//!            succeed        └──────────── │ half-open │ ◄──────────┘                     │
//!                                         └───────────┘ ─────────────────────────────────┘
//! by hand, from any state, until told otherwise: forced open · forced closed · disabled · observing; `reset` ─► closed
//! ```
//!
//! A reset also forgets the window and the results of calls that are under way, and is told as a transition even where the
//! breaker was closed.
//!
//! | setting | default | why |
//! |---|---|---|
//! | `window` | the last 10 s | [`DEFAULT_WINDOW`] |
//! | `minimum_calls` | 20 | [`DEFAULT_MINIMUM_CALLS`] |
//! | `failure_rate` | 0.5 | [`DEFAULT_FAILURE_RATE`] |
//! | `slow_after`, `slow_rate` | off, 0.5 | [`DEFAULT_SLOW_RATE`] |
//! | `consecutive_failures` | 10 | [`DEFAULT_CONSECUTIVE_FAILURES`] |
//! | `open_for`, `open_max`, `open_factor`, `jitter` | 5 s, 60 s, 2, full | [`DEFAULT_OPEN_FOR`], [`DEFAULT_OPEN_MAX`], [`DEFAULT_OPEN_FACTOR`], [`DEFAULT_JITTER`] |
//! | `retry_after_max` | 5 min | [`DEFAULT_RETRY_AFTER_MAX`] |
//! | `stable_after` | 30 s | [`DEFAULT_STABLE_AFTER`] |
//! | `probes`, `probe_success_rate`, `probe_timeout` | 3, 0.6, 10 s | [`DEFAULT_PROBES`], [`DEFAULT_PROBE_SUCCESS_RATE`], [`DEFAULT_PROBE_TIMEOUT`] |
//! | `on_open`, `cancel` | refuse, neutral | [`OnOpen::Refuse`], [`CancelPolicy::Neutral`] |
//! | `mode` | enforce | [`Mode`](crate::Mode) |
//! | `durations` | off | [`CircuitBreakerConfig::durations`] |
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason`: `open`, `probing`, `forced_open` |
//! | `seawall_in_flight` | calls under way |
//! | `seawall_call_duration_seconds` | how long admitted calls took, if `durations` is set |
//! | `seawall_circuit_breaker_state` | by `state`: 1 for the one it is in |
//! | `seawall_circuit_breaker_transitions_total` | `from`, `to` and `cause` |
//!
//! **Cost.** A call to a healthy peer takes no lock and allocates nothing: two looks at the word, two counters, and a
//! reference to the breaker, which its thread keeps for the next call. The clock is read only where the configuration needs it: once for a window over
//! time, once more for slow calls, `durations` or [`CancelPolicy::FailureAfter`]. A failure takes the lock, and so does a
//! success that may trip the breaker, is slow, or is the first in a tenth of a window over time. While the breaker is open, a
//! refusal takes no lock either; it reads the clock and allocates its error.
//!
//! **Do not** share one breaker between peers: the worst of them closes the door to all. Do not count what is the caller's own
//! fault, such as a "not found": bad requests would cut off the good ones. Do not put retries inside: the breaker would see
//! one call where the peer saw three. Do not take it for a timeout: a peer that never answers never fails, unless something
//! below cuts the call off, or something above does and [`CancelPolicy::FailureAfter`] is set.
//!
//! **In a stack.** Inside the retry, so that it sees attempts; outside the attempt's timeout, so that it sees that one as a
//! failure. With the only timeout outside of it, set [`CancelPolicy::FailureAfter`].
//! Under a balancer use [`OnOpen::NotReady`]: a breaker that refuses at once looks like the fastest endpoint.

mod config;

mod state;
mod window;

mod machine;
mod shortcut;

mod breaker;
mod handle;
mod layer;
mod service;

mod future;
mod policy;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use self::{
    config::*,
    future::ResponseFuture,
    handle::{Admission, CircuitBreakerHandle},
    layer::CircuitBreakerLayer,
    policy::{AtOnce, ByError, Classify, Conclude, NeverRefuse, NoExemption},
    service::CircuitBreaker,
    state::{Cause, Outcome, State, Stats, Transition},
    window::Counts,
};

/// The name in metrics and refusals.
const PATTERN: &str = "circuit_breaker";
