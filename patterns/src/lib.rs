//! Resilience patterns for Rust services as tower layers.

#[allow(dead_code, reason = "each pattern takes what it needs")]
mod clock;
mod counts;
pub mod deadline;
mod error;
mod mode;
pub mod retry;
pub mod rng;
#[allow(dead_code, reason = "each core takes what it needs")]
mod sync;
mod telemetry;
pub mod timeout;

pub use deadline::Deadline;
pub use error::{BoxError, Elapsed, InvalidConfig, Limit, Reason, Rejected, find};
pub use mode::Mode;
pub use retry::{
    Attempt, Backoff, Decision, GaveUp, Growth, Jitter, Permanent, Retry, RetryBudget, RetryBudgetConfig,
    RetryBudgetStats, RetryConfig, RetryErrors, RetryHandle, RetryLayer, RetryPolicy, RetryReport, RetryReservation,
    RetryStats, Stop, StopCounts, Transient, retry,
};
pub use timeout::{Timeout, TimeoutConfig, TimeoutHandle, TimeoutLayer, TimeoutScope, TimeoutStats};
