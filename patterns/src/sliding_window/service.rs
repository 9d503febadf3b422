//! The service, and what a window decides of a request.

use std::fmt;

use super::handle::{Room, SlidingWindowHandle};
use crate::admission::{self, Admit, Cost, Decision, Gate, Limited, NoWait, OneUnit, Reserved};
use crate::mode::Waiting;

/// A service behind a sliding window; made by [`SlidingWindowLayer`](super::SlidingWindowLayer). See [`Limited`].
pub type SlidingWindow<S, C = OneUnit> = Limited<S, Weighed<C>>;
/// One counted call; see [`admission::Permit`].
pub type Permit = admission::Permit<Room>;
/// A call through the layer; see [`admission::ResponseFuture`].
pub type ResponseFuture<S, C, Req> = admission::ResponseFuture<S, Weighed<C>, Req>;

/// A window that weighs requests.
#[derive(Clone)]
pub struct Weighed<C> {
    pub(super) window: SlidingWindowHandle,
    pub(super) cost: C,
}

impl<C> Gate for Weighed<C> {
    type Core = Room;
    type Wait = NoWait<Room>;

    #[inline]
    fn waiting(&self) -> Waiting {
        Waiting::InCall
    }

    #[inline]
    fn reads_the_clock(&self) -> bool {
        true
    }

    fn reserve(&self) -> Reserved<Room, NoWait<Room>> {
        Reserved::Undecided
    }
}

impl<C: Cost<Req>, Req> Admit<Req> for Weighed<C> {
    #[inline]
    fn admit(&self, request: &Req) -> Decision<Room, NoWait<Room>> {
        self.window.room.try_acquire(self.cost.cost(request)).into()
    }
}

impl<C> fmt::Debug for Weighed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window.fmt(f)
    }
}
