//! The clock of the layers, for governor.

use std::time::Duration;

use crate::clock;

/// The clock of our layers: tokio's, and one reading for all that a stack calls.
///
/// # Example
/// ```
/// use governor::{Quota, RateLimiter};
/// use seawall::adapters::governor::Clock;
/// use std::num::NonZeroU32;
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let limiter = RateLimiter::direct_with_clock(Quota::per_second(NonZeroU32::MIN), Clock);
/// assert!(limiter.check().is_ok());
/// assert!(limiter.check().is_err());
/// tokio::time::sleep(Duration::from_secs(1)).await;
/// assert!(limiter.check().is_ok());
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock;

impl ::governor::clock::Clock for Clock {
    /// Since an origin that the whole process shares.
    type Instant = Duration;

    #[inline]
    fn now(&self) -> Duration {
        clock::now()
    }
}
