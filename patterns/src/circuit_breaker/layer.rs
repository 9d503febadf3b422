//! The layer: the state shared by every service it makes.

use tower_layer::Layer;

use super::config::CircuitBreakerConfig;
use super::handle::CircuitBreakerHandle;
use super::policy::{AtOnce, NoExemption};
use super::service::CircuitBreaker;
use crate::error::InvalidConfig;

/// Puts one circuit breaker in front of every service it wraps: the services, their clones and the layer's clones share
/// it. For one breaker per endpoint make one layer per endpoint.
#[derive(Debug, Clone)]
pub struct CircuitBreakerLayer<P = AtOnce, N = NoExemption> {
    handle: CircuitBreakerHandle,
    policy: P,
    exempt: N,
}

impl CircuitBreakerLayer {
    /// A layer with a closed breaker of its own.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: CircuitBreakerConfig) -> Result<Self, InvalidConfig> {
        CircuitBreakerHandle::new(config).map(Self::from)
    }
}

impl From<CircuitBreakerHandle> for CircuitBreakerLayer {
    fn from(handle: CircuitBreakerHandle) -> Self {
        Self { handle, policy: AtOnce::default(), exempt: NoExemption }
    }
}

impl<P, N> CircuitBreakerLayer<P, N> {
    /// Sets what counts against the peer: a [`Classify`](super::Classify), such as a closure over
    /// `&Result<Response, Error>`. Default [`ByError`](super::ByError).
    #[must_use]
    pub fn classify<Q>(self, policy: Q) -> CircuitBreakerLayer<AtOnce<Q>, N> {
        self.conclude(AtOnce(policy))
    }

    /// Sets when a call is over, besides how it went: a [`Conclude`](super::Conclude) in the place of
    /// [`classify`](Self::classify).
    #[must_use]
    pub fn conclude<Q>(self, policy: Q) -> CircuitBreakerLayer<Q, N> {
        CircuitBreakerLayer { handle: self.handle, policy, exempt: self.exempt }
    }

    /// Requests for which `exempt` is true pass even when the breaker is open, such as heartbeats that keep a cluster
    /// together. Such a call takes a probe when one is free, so that it can close the breaker; otherwise it passes
    /// uncounted, except in [`Stats`](super::Stats). Default: no request is exempt.
    ///
    /// With [`OnOpen::NotReady`](super::OnOpen::NotReady) the service is not ready while open, whatever the request
    /// will be: keep the default [`OnOpen::Refuse`](super::OnOpen::Refuse) where exempt requests must pass.
    #[must_use]
    pub fn never_refuse<M>(self, exempt: M) -> CircuitBreakerLayer<P, M> {
        CircuitBreakerLayer { handle: self.handle, policy: self.policy, exempt }
    }

    /// The breaker itself.
    pub fn handle(&self) -> CircuitBreakerHandle {
        self.handle.clone()
    }
}

impl<S, P: Clone, N: Clone> Layer<S> for CircuitBreakerLayer<P, N> {
    type Service = CircuitBreaker<S, P, N>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.handle.clone(), self.policy.clone(), self.exempt.clone())
    }
}
