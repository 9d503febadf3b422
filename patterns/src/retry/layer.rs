//! The layer.

use std::fmt;

use tower_layer::Layer;

use super::config::RetryConfig;
use super::handle::{RetryBudget, RetryHandle, Shared};
use super::service::Retry;
use crate::error::InvalidConfig;
use crate::sync::Arc;

/// Puts a [`Retry`] around a service. All services made by one layer and its clones share budget and statistics.
pub struct RetryLayer<P> {
    handle: RetryHandle,
    shared: Arc<Shared<P>>,
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
        let core = Arc::clone(handle.core());
        Self { handle, shared: Arc::new(Shared { core, policy: Arc::new(policy) }) }
    }

    /// Takes `budget`, which others may use too, in place of one of its own. Statistics start anew: take handles afterwards.
    #[must_use]
    pub fn budget(self, budget: RetryBudget) -> Self {
        let core = self.handle.core().with_budget(budget);
        let policy = Arc::clone(&self.shared.policy);
        Self { handle: RetryHandle::of(Arc::clone(&core)), shared: Arc::new(Shared { core, policy }) }
    }

    /// Watches and changes every service made by this layer.
    pub fn handle(&self) -> RetryHandle {
        self.handle.clone()
    }
}

impl<P> Clone for RetryLayer<P> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<P> fmt::Debug for RetryLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<S, P> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Retry<S, P> {
        Retry::new(inner, Arc::clone(&self.shared))
    }
}
