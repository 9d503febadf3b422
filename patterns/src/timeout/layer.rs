//! The layer.

use tower_layer::Layer;

use super::config::TimeoutConfig;
use super::handle::TimeoutHandle;
use super::service::Timeout;
use crate::error::InvalidConfig;

/// Puts a [`Timeout`] around a service. All services made by one layer and its clones share limit and statistics.
#[derive(Debug, Clone)]
pub struct TimeoutLayer {
    handle: TimeoutHandle,
}

impl TimeoutLayer {
    /// A layer with a limit of its own.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the field that is out of bounds.
    pub fn new(config: TimeoutConfig) -> Result<Self, InvalidConfig> {
        TimeoutHandle::new(config).map(|handle| Self { handle })
    }

    pub(super) fn of(handle: TimeoutHandle) -> Self {
        Self { handle }
    }

    /// Watches and changes every service made by this layer.
    pub fn handle(&self) -> TimeoutHandle {
        self.handle.clone()
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout::new(inner, self.handle.clone())
    }
}
