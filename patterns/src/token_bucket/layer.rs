//! The layer.

use super::config::TokenBucketConfig;
use super::handle::TokenBucketHandle;
use super::service::Weighed;
use crate::admission::{LimitLayer, OneUnit};
use crate::error::InvalidConfig;
use crate::mode::Waiting;

/// Puts one token bucket in front of every service it wraps. See [`LimitLayer`].
pub type TokenBucketLayer<C = OneUnit> = LimitLayer<Weighed<C>>;

impl LimitLayer<Weighed<OneUnit>> {
    /// A layer with a full bucket of its own.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: TokenBucketConfig) -> Result<Self, InvalidConfig> {
        TokenBucketHandle::new(config).map(Self::from)
    }
}

impl From<TokenBucketHandle> for LimitLayer<Weighed<OneUnit>> {
    fn from(bucket: TokenBucketHandle) -> Self {
        Self::of(Weighed { bucket, cost: OneUnit })
    }
}

impl<C> LimitLayer<Weighed<C>> {
    /// Sets how many tokens a request takes: a [`Cost`](crate::admission::Cost), such as a closure
    /// `Fn(&Request) -> u32`. Default: one each.
    ///
    /// # Errors
    /// `waiting`, where callers wait in readiness: there one token is reserved before the request is known.
    pub fn cost<D>(self, cost: D) -> Result<TokenBucketLayer<D>, InvalidConfig> {
        let bucket = self.gate.bucket;
        match bucket.room.waiting() {
            Waiting::InReadiness => {
                Err(InvalidConfig::new("waiting", Waiting::InReadiness, "in the call where requests have a cost"))
            }
            Waiting::InCall => Ok(LimitLayer::of(Weighed { bucket, cost })),
        }
    }

    /// The bucket itself.
    pub fn handle(&self) -> TokenBucketHandle {
        self.gate.bucket.clone()
    }
}
