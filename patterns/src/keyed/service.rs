//! The service, and what the limits decide of a request.

use std::fmt;
use std::hash::Hash;

use super::handle::{KeyedHandle, Room};
use crate::admission::{self, Admit, Cost, Decision, Gate, Limited, NoWait, OneUnit, Reserved};
use crate::mode::Waiting;

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
    fn waiting(&self) -> Waiting {
        Waiting::InCall
    }

    #[inline]
    fn reads_the_clock(&self) -> bool {
        true
    }

    fn reserve(&self) -> Reserved<Room<K>, NoWait<Room<K>>> {
        Reserved::Undecided
    }
}

impl<K, F, C, Req> Admit<Req> for ByKey<K, F, C>
where
    K: Hash + Eq,
    F: Fn(&Req) -> K,
    C: Cost<Req>,
{
    #[inline]
    fn admit(&self, request: &Req) -> Decision<Room<K>, NoWait<Room<K>>> {
        self.keyed.room.try_acquire((self.key)(request), self.cost.cost(request)).into()
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
