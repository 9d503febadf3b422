//! The service, and what a bulkhead decides of a request.

use std::fmt;

use super::handle::BulkheadHandle;
use super::policy::{PartitionBy, Whole};
use crate::admission::{Admit, Decision, Gate, Limited, Reserved};
use crate::error::Refusal;
use crate::mode::Waiting;
use crate::semaphore::{Place, Room, Units};
use crate::sync::Arc;

/// A service behind a bulkhead; made by [`BulkheadLayer`](super::BulkheadLayer). See [`Limited`].
pub type Bulkhead<S, P = Whole> = Limited<S, Divided<P>>;

/// A bulkhead that knows which partition a request belongs to.
#[derive(Clone)]
pub struct Divided<P> {
    pub(super) bulkhead: BulkheadHandle,
    pub(super) by: P,
}

impl<P> Gate for Divided<P> {
    type Core = Room;
    type Wait = Place;

    #[inline]
    fn core(&self) -> &Arc<Room> {
        &self.bulkhead.room
    }

    #[inline]
    fn waiting(&self) -> Waiting {
        self.bulkhead.room.waiting()
    }

    fn reserve(&self) -> Reserved<Room, Place> {
        self.bulkhead.room.reserve(self.bulkhead.unit)
    }
}

impl<Req> Admit<Req> for Divided<Whole> {
    #[inline]
    fn try_admit(&self, _: &Req) -> Result<Units, Refusal> {
        self.bulkhead.room.try_take(self.bulkhead.unit)
    }

    fn admit_later(&self, _: &Req, refusal: Refusal) -> Decision<Room, Place> {
        self.bulkhead.room.admit_later(self.bulkhead.unit, refusal)
    }
}

impl<Req, P: PartitionBy<Req>> Admit<Req> for Divided<By<P>> {
    fn try_admit(&self, request: &Req) -> Result<Units, Refusal> {
        self.bulkhead.room.try_take(self.bulkhead.unit_of(self.by.0.partition(request)))
    }

    fn admit_later(&self, request: &Req, refusal: Refusal) -> Decision<Room, Place> {
        self.bulkhead.room.admit_later(self.bulkhead.unit_of(self.by.0.partition(request)), refusal)
    }
}

/// A [`PartitionBy`].
#[derive(Debug, Clone, Copy)]
pub struct By<P>(pub(super) P);

impl<P> fmt::Debug for Divided<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bulkhead.fmt(f)
    }
}
