//! Delays from a policy of the crate `backoff`.
//!
//! That crate is unmaintained (RUSTSEC-2025-0012): the feature is for programs that have its policies already. New code sets a
//! [`Backoff`](crate::Backoff) in the [`RetryConfig`](crate::RetryConfig).

use std::time::Duration;

use ::backoff::backoff::Backoff;

/// Each call gets a copy of `policy`, reset; for [`RetryLayer::delays`](crate::RetryLayer::delays).
///
/// A policy that cannot be cloned is made anew by a function: `retry.delays(|| Delays::new(MyPolicy::new()))`.
///
/// A limit of the policy on elapsed time starts at the first failure of the call and goes by the system's clock, which a
/// paused test clock does not stop. [`RetryConfig::max_elapsed`](crate::RetryConfig::max_elapsed) holds besides, counts from
/// the start of the call and goes by tokio's clock.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use seawall::{RetryConfig, RetryErrors, RetryLayer, adapters};
///
/// let policy = backoff::ExponentialBackoffBuilder::new().with_initial_interval(Duration::from_millis(20)).build();
/// let retry = RetryLayer::new(RetryConfig::new("peer"), RetryErrors::all_idempotent())?
///     .delays(adapters::backoff::delays(policy));
/// # let _ = retry;
/// # Ok::<_, seawall::InvalidConfig>(())
/// ```
pub fn delays<B>(policy: B) -> impl Fn() -> Delays<B> + Send + Sync + 'static
where
    B: Backoff + Clone + Send + Sync + 'static,
{
    move || Delays::new(policy.clone())
}

/// What is left of a policy, delay by delay; made by [`delays`] for each call.
#[derive(Debug, Clone)]
pub struct Delays<B>(B);

impl<B: Backoff> Delays<B> {
    /// The delays of `policy` from its beginning.
    pub fn new(mut policy: B) -> Self {
        policy.reset();
        Self(policy)
    }
}

impl<B: Backoff> Iterator for Delays<B> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next_backoff()
    }
}
