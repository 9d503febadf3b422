//! The service, and what a semaphore decides of a request.

use std::fmt;

use super::future::Place;
use super::handle::SemaphoreHandle;
use super::permits::Units;
use super::room::Room;
use crate::admission::{Admit, Cost, Decision, Gate, Limited, OneUnit, Reserved};
use crate::error::Refusal;
use crate::mode::Waiting;
use crate::sync::Arc;

/// A service behind a semaphore; made by [`SemaphoreLayer`](super::SemaphoreLayer). See [`Limited`].
pub type Semaphore<S, C = OneUnit> = Limited<S, Weighed<C>>;

/// A semaphore that weighs requests.
#[derive(Clone)]
pub struct Weighed<C> {
    pub(super) semaphore: SemaphoreHandle,
    pub(super) cost: C,
}

impl<C> Gate for Weighed<C> {
    type Core = Room;
    type Wait = Place;

    #[inline]
    fn core(&self) -> &Arc<Room> {
        &self.semaphore.room
    }

    #[inline]
    fn waiting(&self) -> Waiting {
        self.semaphore.room.waiting()
    }

    fn reserve(&self) -> Reserved<Room, Place> {
        self.semaphore.room.reserve(Units::ONE)
    }
}

impl<C: Cost<Req>, Req> Admit<Req> for Weighed<C> {
    #[inline]
    fn try_admit(&self, request: &Req) -> Result<Units, Refusal> {
        self.semaphore.room.try_take(Units::of(self.cost.cost(request)))
    }

    fn admit_later(&self, request: &Req, refusal: Refusal) -> Decision<Room, Place> {
        self.semaphore.room.admit_later(Units::of(self.cost.cost(request)), refusal)
    }
}

impl<C> fmt::Debug for Weighed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.semaphore.fmt(f)
    }
}
