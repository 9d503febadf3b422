//! The layer.

use super::config::SlidingWindowConfig;
use super::handle::SlidingWindowHandle;
use super::service::Weighed;
use crate::admission::{LimitLayer, OneUnit};
use crate::error::InvalidConfig;

/// Puts one sliding window in front of every service it wraps. See [`LimitLayer`].
pub type SlidingWindowLayer<C = OneUnit> = LimitLayer<Weighed<C>>;

impl LimitLayer<Weighed<OneUnit>> {
    /// A layer with a window of its own.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: SlidingWindowConfig) -> Result<Self, InvalidConfig> {
        SlidingWindowHandle::new(config).map(Self::from)
    }
}

impl From<SlidingWindowHandle> for LimitLayer<Weighed<OneUnit>> {
    fn from(window: SlidingWindowHandle) -> Self {
        Self::of(Weighed { window, cost: OneUnit })
    }
}

impl<C> LimitLayer<Weighed<C>> {
    /// Sets what a request costs: a [`Cost`](crate::admission::Cost), such as a closure `Fn(&Request) -> u32`. Default:
    /// one each.
    #[must_use]
    pub fn cost<D>(self, cost: D) -> SlidingWindowLayer<D> {
        LimitLayer::of(Weighed { window: self.gate.window, cost })
    }

    /// The window itself.
    pub fn handle(&self) -> SlidingWindowHandle {
        self.gate.window.clone()
    }
}
