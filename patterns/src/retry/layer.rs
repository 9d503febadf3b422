//! The layer.

use std::fmt;
use std::time::Duration;

use tower_layer::Layer;

use super::config::RetryConfig;
use super::handle::{RetryBudget, RetryHandle};
use super::service::Retry;
use crate::error::InvalidConfig;
use crate::sync::Arc;

/// Puts a [`Retry`] around a service. All services made by one layer and its clones share budget and statistics.
#[derive(Clone)]
pub struct RetryLayer<P> {
    handle: RetryHandle,
    policy: P,
}

impl<P> RetryLayer<P> {
    /// A layer with a [`RetryBudget`] of its own, at its defaults.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the field that is out of bounds.
    pub fn new(config: RetryConfig, policy: P) -> Result<Self, InvalidConfig> {
        Ok(Self::of(RetryHandle::new(config)?, policy))
    }

    pub(super) fn of(handle: RetryHandle, policy: P) -> Self {
        Self { handle, policy }
    }

    /// Takes `budget`, which others may use too, in place of one of its own. Statistics start anew: take handles afterwards.
    #[must_use]
    pub fn budget(self, budget: RetryBudget) -> Self {
        Self { handle: RetryHandle::of(self.handle.core().with_budget(budget)), ..self }
    }

    /// Takes the delays from `delays` in place of [`RetryConfig::backoff`]. It is asked for a sequence of its own by every
    /// call, at its first failure, and boxes it; when the sequence ends the call gives up with
    /// [`Stop::Exhausted`](crate::Stop::Exhausted). Every other limit holds as before: attempts, elapsed time, deadline and
    /// budget; a server's hint is never undercut. Statistics start anew: take handles afterwards.
    ///
    /// The policies of other crates come as such sequences; see [`adapters`](crate::adapters).
    ///
    /// # Example
    /// ```
    /// use std::time::Duration;
    /// use seawall::{BoxError, GaveUp, RetryConfig, RetryErrors, RetryLayer, Stop, find};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// // At once, then after 100 ms, then no more.
    /// let delays = || [0, 100].map(Duration::from_millis).into_iter();
    /// let config = RetryConfig::new("peer").max_attempts(9);
    /// let retry = RetryLayer::new(config, RetryErrors::all_idempotent())?.delays(delays);
    /// let broken = retry.layer(service_fn(|()| async { Err::<(), BoxError>("reset".into()) }));
    ///
    /// let error = broken.oneshot(()).await.unwrap_err();
    /// let gave_up = find::<GaveUp>(&*error).unwrap();
    /// assert_eq!((gave_up.stop, gave_up.attempts), (Stop::Exhausted, 3));
    /// # Ok::<_, BoxError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn delays<D, I>(self, delays: D) -> Self
    where
        D: Fn() -> I + Send + Sync + 'static,
        I: Iterator<Item = Duration> + Send + Sync + 'static,
    {
        Self { handle: self.handle.delays(delays), ..self }
    }

    /// Watches and changes every service made by this layer.
    pub fn handle(&self) -> RetryHandle {
        self.handle.clone()
    }
}

impl<P> fmt::Debug for RetryLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<S, P: Clone> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Retry<S, P> {
        Retry::new(inner, self.policy.clone(), Arc::clone(self.handle.core()))
    }
}
