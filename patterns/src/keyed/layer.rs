//! The layer.

use std::hash::Hash;

use super::config::KeyedConfig;
use super::handle::KeyedHandle;
use super::service::ByKey;
use crate::admission::{LimitLayer, OneUnit};
use crate::error::InvalidConfig;

/// Puts a limit for each key in front of every service it wraps. See [`LimitLayer`].
pub type KeyedLayer<K, F, C = OneUnit> = LimitLayer<ByKey<K, F, C>>;

impl<K: Hash + Eq, F> LimitLayer<ByKey<K, F, OneUnit>> {
    /// A layer with limits of its own. `key` says whose a request is; it runs for each call, so a key that allocates makes
    /// each call allocate: an address, a number or an `Arc<str>` does not.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new<Req>(config: KeyedConfig, key: F) -> Result<Self, InvalidConfig>
    where
        F: Fn(&Req) -> K,
    {
        KeyedHandle::new(config).map(|keyed| Self::of_handle(keyed, key))
    }

    pub(super) fn of_handle(keyed: KeyedHandle<K>, key: F) -> Self {
        Self::of(ByKey { keyed, key, cost: OneUnit })
    }
}

impl<K, F, C> LimitLayer<ByKey<K, F, C>> {
    /// Sets what a request costs: a [`Cost`](crate::admission::Cost), such as a closure `Fn(&Request) -> u32`. Default:
    /// one each.
    #[must_use]
    pub fn cost<D>(self, cost: D) -> KeyedLayer<K, F, D> {
        LimitLayer::of(ByKey { keyed: self.gate.keyed, key: self.gate.key, cost })
    }

    /// The limits themselves.
    pub fn handle(&self) -> KeyedHandle<K> {
        self.gate.keyed.clone()
    }
}
