//! The layer.

use super::config::BulkheadConfig;
use super::handle::BulkheadHandle;
use super::policy::Whole;
use super::service::{By, Divided};
use crate::admission::LimitLayer;
use crate::error::InvalidConfig;
use crate::mode::Waiting;

/// Puts one bulkhead in front of every service it wraps. See [`LimitLayer`].
pub type BulkheadLayer<P = Whole> = LimitLayer<Divided<P>>;

impl LimitLayer<Divided<Whole>> {
    /// A layer with a bulkhead of its own.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: BulkheadConfig) -> Result<Self, InvalidConfig> {
        BulkheadHandle::new(config).map(Self::from)
    }
}

impl From<BulkheadHandle> for LimitLayer<Divided<Whole>> {
    fn from(bulkhead: BulkheadHandle) -> Self {
        Self::of(Divided { bulkhead, by: Whole })
    }
}

impl<P> LimitLayer<Divided<P>> {
    /// Sets which partition a request belongs to: a [`PartitionBy`](super::PartitionBy), such as a closure
    /// `Fn(&Request) -> &'static str`. Default: all to the one that the layer was made for, else to none.
    ///
    /// # Errors
    /// `waiting`, where callers wait in readiness: there the room is taken before the request is known.
    pub fn partition<Q>(self, by: Q) -> Result<BulkheadLayer<By<Q>>, InvalidConfig> {
        let bulkhead = self.gate.bulkhead;
        match bulkhead.room.waiting() {
            Waiting::InReadiness => {
                Err(InvalidConfig::new("waiting", Waiting::InReadiness, "in the call where there are partitions"))
            }
            Waiting::InCall => Ok(LimitLayer::of(Divided { bulkhead, by: By(by) })),
        }
    }

    /// The bulkhead itself.
    pub fn handle(&self) -> BulkheadHandle {
        self.gate.bulkhead.clone()
    }
}
