//! The service, and what a limiter is asked of a request.

use std::fmt;

use super::handle::{GovernorHandle, Room};
use super::limiter::Limiter;
use crate::admission::{self, Admit, Cost, Gate, Limited, NoWait, OneUnit};
use crate::error::Refusal;
use crate::sync::Arc;

/// A service behind a limiter of governor; made by [`GovernorLayer`](super::GovernorLayer). See [`Limited`].
pub type Governor<S, L, F, C = OneUnit> = Limited<S, Governed<L, F, C>>;
/// One counted call; see [`admission::Permit`].
pub type Permit<L> = admission::Permit<Room<L>>;
/// A call through the layer; see [`admission::ResponseFuture`].
pub type ResponseFuture<S, L, F, C, Req> = admission::ResponseFuture<S, Governed<L, F, C>, Req>;

/// Whose a request is; a closure `Fn(&Request) -> K` is one.
pub trait KeyOf<Req, K> {
    /// The key of `request`.
    fn key(&self, request: &Req) -> K;
}

impl<Req, K, F: Fn(&Req) -> K> KeyOf<Req, K> for F {
    #[inline]
    fn key(&self, request: &Req) -> K {
        self(request)
    }
}

/// All requests share one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OneForAll;

impl<Req> KeyOf<Req, ()> for OneForAll {
    #[inline]
    fn key(&self, _: &Req) {}
}

/// A limiter that knows whose a request is and what it costs.
pub struct Governed<L, F, C> {
    pub(super) governor: GovernorHandle<L>,
    pub(super) key: F,
    pub(super) cost: C,
}

impl<L, F, C> Gate for Governed<L, F, C> {
    type Core = Room<L>;
    type Wait = NoWait<Room<L>>;

    #[inline]
    fn core(&self) -> &Arc<Room<L>> {
        &self.governor.room
    }

    #[inline]
    fn reads_the_clock(&self) -> bool {
        true
    }
}

impl<L, F, C, Req> Admit<Req> for Governed<L, F, C>
where
    L: Limiter,
    F: KeyOf<Req, L::Key>,
    C: Cost<Req>,
{
    #[inline]
    fn try_admit(&self, request: &Req) -> Result<(), Refusal> {
        self.governor.room.try_take(&self.key.key(request), self.cost.cost(request))
    }
}

impl<L, F: Clone, C: Clone> Clone for Governed<L, F, C> {
    fn clone(&self) -> Self {
        Self { governor: self.governor.clone(), key: self.key.clone(), cost: self.cost.clone() }
    }
}

impl<L, F, C> fmt::Debug for Governed<L, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.governor.fmt(f)
    }
}
