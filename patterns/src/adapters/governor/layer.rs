//! The layer.

use super::handle::GovernorHandle;
use super::service::Governed;
use crate::admission::{LimitLayer, OneUnit};

/// Puts a limiter of governor in front of every service it wraps; made by [`GovernorHandle`]. See [`LimitLayer`].
pub type GovernorLayer<L, F, C = OneUnit> = LimitLayer<Governed<L, F, C>>;

impl<L, F> LimitLayer<Governed<L, F, OneUnit>> {
    pub(super) fn of_handle(governor: GovernorHandle<L>, key: F) -> Self {
        Self::of(Governed { governor, key, cost: OneUnit })
    }
}

impl<L, F, C> LimitLayer<Governed<L, F, C>> {
    /// Sets what a request costs: a [`Cost`](crate::admission::Cost), such as a closure `Fn(&Request) -> u32`, up to
    /// [`max_cost`](super::GovernorConfig::max_cost). Default: one each.
    #[must_use]
    pub fn cost<D>(self, cost: D) -> GovernorLayer<L, F, D> {
        LimitLayer::of(Governed { governor: self.gate.governor, key: self.gate.key, cost })
    }

    /// The limit itself.
    pub fn handle(&self) -> GovernorHandle<L> {
        self.gate.governor.clone()
    }
}
