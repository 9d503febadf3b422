//! The service, and what a window decides of a request.

use std::fmt;

use super::handle::{Room, SlidingWindowHandle};
use crate::admission::{self, Admit, Cost, Gate, Limited, NoWait, OneUnit};
use crate::error::Refusal;
use crate::sync::Arc;

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
    fn core(&self) -> &Arc<Room> {
        &self.window.room
    }

    #[inline]
    fn reads_the_clock(&self) -> bool {
        true
    }
}

impl<C: Cost<Req>, Req> Admit<Req> for Weighed<C> {
    #[inline]
    fn try_admit(&self, request: &Req) -> Result<(), Refusal> {
        self.window.room.try_take(self.cost.cost(request))
    }
}

impl<C> fmt::Debug for Weighed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.window.fmt(f)
    }
}
