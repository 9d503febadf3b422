//! Resilience patterns for Rust services as tower layers.
//!
//! | trouble | pattern |
//! |---|---|
//! | a peer fails or is slow, and every call to it makes things worse | [`circuit_breaker`] |
//! | a call failed by chance and may succeed if repeated | [`retry`](mod@retry) |
//! | one slow peer holds all our tasks, and calls to the others fail with it | [`bulkhead`] |
//! | more calls at once than what is behind them can bear | [`semaphore`] |
//! | a peer takes so many calls a second, and a few at once | [`token_bucket`] |
//! | at most so many calls in any hour | [`sliding_window`] |
//! | one client must not use up what is there for all | [`keyed`] |
//! | a call takes longer than its answer is worth | [`timeout`] |
//! | whoever called us has stopped waiting | [`Deadline`] |
//! | one request needs no retry, or a timeout of its own | [`Overrides`] |
//!
//! Every pattern is a layer for tower and, without tower, a plain value with the same state. State lives in the layer: the
//! services it makes, and their clones, share it. A thread keeps the state of the layer of each kind that it called last,
//! for its next call: so it may live on for a while when the layer and its services are gone.
//!
//! # Stacking order
//!
//! Outermost first: the deadline of the whole call, then retries, then the breaker (so that it sees attempts), then limits on
//! concurrency, then the timeout of one attempt, then the transport.
//!
//! # Errors
//!
//! A layer that may refuse has the error type [`BoxError`]. A refusal is [`Rejected`]: the inner service was never called.
//! A timer that fired later is [`Elapsed`]: the outcome is unknown. Both are found in any chain of sources by [`find`].
//!
//! # Features
//!
//! `metrics` and `tracing` are on by default; `serde`, `http`, `backoff`, `backon`, `governor` and `test-util` are off. The
//! README says what each adds and why.

pub mod adapters;
pub mod admission;
pub mod bulkhead;
pub mod circuit_breaker;
mod clock;
mod counts;
pub mod deadline;
mod error;
#[cfg(feature = "http")]
pub mod http;
pub mod keyed;
mod lent;
mod mode;
pub mod overrides;
pub mod retry;
pub mod rng;
pub mod semaphore;
pub mod sliding_window;
mod striped;
mod sync;
mod telemetry;
pub mod timeout;
pub mod token_bucket;
#[allow(dead_code, reason = "each limit takes what it needs")]
mod waiters;

pub use bulkhead::{Bulkhead, BulkheadConfig, BulkheadHandle, BulkheadLayer, BulkheadStats};
pub use circuit_breaker::{CircuitBreaker, CircuitBreakerConfig, CircuitBreakerHandle, CircuitBreakerLayer};
pub use deadline::Deadline;
pub use error::{BoxError, Elapsed, InvalidConfig, Limit, Reason, Rejected, find};
pub use keyed::{Keyed, KeyedConfig, KeyedHandle, KeyedLayer, KeyedStats};
pub use mode::{Mode, Waiting};
pub use overrides::Overrides;
pub use retry::{
    Attempt, Backoff, Decision, GaveUp, Growth, Jitter, Permanent, Retry, RetryBudget, RetryBudgetConfig,
    RetryBudgetStats, RetryConfig, RetryErrors, RetryHandle, RetryLayer, RetryPolicy, RetryReport, RetryReservation,
    RetryStats, Stop, StopCounts, Transient, retry,
};
pub use semaphore::{Semaphore, SemaphoreConfig, SemaphoreHandle, SemaphoreLayer, SemaphoreStats};
pub use sliding_window::{
    SlidingWindow, SlidingWindowConfig, SlidingWindowHandle, SlidingWindowLayer, SlidingWindowStats,
};
pub use timeout::{Timeout, TimeoutConfig, TimeoutHandle, TimeoutLayer, TimeoutScope, TimeoutStats};
pub use token_bucket::{TokenBucket, TokenBucketConfig, TokenBucketHandle, TokenBucketLayer, TokenBucketStats};

/// The README's code runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

/// So does the guide's.
#[cfg(doctest)]
#[doc = include_str!("../ADDING_A_PATTERN.md")]
mod adding_a_pattern {}
