//! The layer.

use super::config::SemaphoreConfig;
use super::handle::SemaphoreHandle;
use super::service::Weighed;
use crate::admission::{LimitLayer, OneUnit};
use crate::error::InvalidConfig;
use crate::mode::Waiting;

/// Puts one semaphore in front of every service it wraps. See [`LimitLayer`].
pub type SemaphoreLayer<C = OneUnit> = LimitLayer<Weighed<C>>;

impl LimitLayer<Weighed<OneUnit>> {
    /// A layer with a semaphore of its own.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: SemaphoreConfig) -> Result<Self, InvalidConfig> {
        SemaphoreHandle::new(config).map(Self::from)
    }
}

impl From<SemaphoreHandle> for LimitLayer<Weighed<OneUnit>> {
    fn from(semaphore: SemaphoreHandle) -> Self {
        Self::of(Weighed { semaphore, cost: OneUnit })
    }
}

impl<C> LimitLayer<Weighed<C>> {
    /// Sets how many permits a request takes: a [`Cost`](crate::admission::Cost), such as a closure
    /// `Fn(&Request) -> u32`. Default: one each.
    ///
    /// # Errors
    /// `waiting`, where callers wait in readiness: there one permit is reserved before the request is known.
    pub fn cost<D>(self, cost: D) -> Result<SemaphoreLayer<D>, InvalidConfig> {
        let semaphore = self.gate.semaphore;
        match semaphore.room.waiting() {
            Waiting::InReadiness => {
                Err(InvalidConfig::new("waiting", Waiting::InReadiness, "in the call where requests have a cost"))
            }
            Waiting::InCall => Ok(LimitLayer::of(Weighed { semaphore, cost })),
        }
    }

    /// The semaphore itself.
    pub fn handle(&self) -> SemaphoreHandle {
        self.gate.semaphore.clone()
    }
}
