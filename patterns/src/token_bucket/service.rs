//! The service, and what a token bucket decides of a request.

use std::fmt;

use super::bucket::Taken;
use super::future::Place;
use super::handle::TokenBucketHandle;
use super::room::Room;
use crate::admission::{Admit, Cost, Decision, Gate, Limited, OneUnit, Reserved};
use crate::error::Refusal;
use crate::mode::Waiting;
use crate::sync::Arc;

/// A service behind a token bucket; made by [`TokenBucketLayer`](super::TokenBucketLayer). See [`Limited`].
pub type TokenBucket<S, C = OneUnit> = Limited<S, Weighed<C>>;

/// A token bucket that weighs requests.
#[derive(Clone)]
pub struct Weighed<C> {
    pub(super) bucket: TokenBucketHandle,
    pub(super) cost: C,
}

impl<C> Gate for Weighed<C> {
    type Core = Room;
    type Wait = Place;

    #[inline]
    fn core(&self) -> &Arc<Room> {
        &self.bucket.room
    }

    #[inline]
    fn waiting(&self) -> Waiting {
        self.bucket.room.waiting()
    }

    #[inline]
    fn reads_the_clock(&self) -> bool {
        true
    }

    fn reserve(&self) -> Reserved<Room, Place> {
        self.bucket.room.reserve()
    }
}

impl<C: Cost<Req>, Req> Admit<Req> for Weighed<C> {
    #[inline(always)] // as `Bucket::try_take`
    fn try_admit(&self, request: &Req) -> Result<Taken, Refusal> {
        self.bucket.room.try_take(self.cost.cost(request))
    }

    fn admit_later(&self, request: &Req, refusal: Refusal) -> Decision<Room, Place> {
        self.bucket.room.admit_later(self.cost.cost(request), refusal)
    }
}

impl<C> fmt::Debug for Weighed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bucket.fmt(f)
    }
}
