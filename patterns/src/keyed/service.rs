//! The service, and what the limits decide of a request.

use std::fmt;
use std::hash::Hash;

use super::handle::{KeyedHandle, Room};
use crate::admission::{self, Admit, Cost, Gate, Limited, NoWait, OneUnit};
use crate::error::Refusal;
use crate::sync::Arc;

/// A service behind a limit for each key; made by [`KeyedLayer`](super::KeyedLayer). See [`Limited`].
pub type Keyed<S, K, F, C = OneUnit> = Limited<S, ByKey<K, F, C>>;
/// One counted call; see [`admission::Permit`].
pub type Permit<K> = admission::Permit<Room<K>>;
/// A call through the layer; see [`admission::ResponseFuture`].
pub type ResponseFuture<S, K, F, C, Req> = admission::ResponseFuture<S, ByKey<K, F, C>, Req>;

/// Limits that know whose a request is and what it costs.
pub struct ByKey<K, F, C> {
    pub(super) keyed: KeyedHandle<K>,
    pub(super) key: F,
    pub(super) cost: C,
}

impl<K, F, C> Gate for ByKey<K, F, C> {
    type Core = Room<K>;
    type Wait = NoWait<Room<K>>;

    #[inline]
    fn core(&self) -> &Arc<Room<K>> {
        &self.keyed.room
    }

    #[inline]
    fn reads_the_clock(&self) -> bool {
        true
    }
}

impl<K, F, C, Req> Admit<Req> for ByKey<K, F, C>
where
    K: Hash + Eq,
    F: Fn(&Req) -> K,
    C: Cost<Req>,
{
    #[inline]
    fn try_admit(&self, request: &Req) -> Result<(), Refusal> {
        self.keyed.room.try_take((self.key)(request), self.cost.cost(request))
    }
}

impl<K, F: Clone, C: Clone> Clone for ByKey<K, F, C> {
    fn clone(&self) -> Self {
        Self { keyed: self.keyed.clone(), key: self.key.clone(), cost: self.cost.clone() }
    }
}

impl<K, F, C> fmt::Debug for ByKey<K, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keyed.fmt(f)
    }
}
