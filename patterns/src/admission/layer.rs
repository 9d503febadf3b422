//! The layer.

use tower_layer::Layer;

use super::admit::Gate;
use super::service::Limited;

/// Puts one limit in front of every service it wraps: the services, their clones and the layer's clones share it.
#[derive(Debug, Clone)]
pub struct LimitLayer<A> {
    pub(crate) gate: A,
}

impl<A> LimitLayer<A> {
    pub(crate) fn of(gate: A) -> Self {
        Self { gate }
    }
}

impl<S, A: Gate + Clone> Layer<S> for LimitLayer<A> {
    type Service = Limited<S, A>;

    fn layer(&self, inner: S) -> Limited<S, A> {
        Limited::new(inner, self.gate.clone())
    }
}
