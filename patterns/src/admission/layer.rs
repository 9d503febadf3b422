//! The layer.

use tower_layer::Layer;

use super::admit::Gate;
use super::policy::AtAnswer;
use super::service::Limited;

/// Puts one limit in front of every service it wraps: the services, their clones and the layer's clones share it.
#[derive(Debug, Clone)]
pub struct LimitLayer<A, E = AtAnswer> {
    pub(crate) gate: A,
    end: E,
}

impl<A> LimitLayer<A> {
    pub(crate) fn of(gate: A) -> Self {
        Self { gate, end: AtAnswer }
    }

    /// Sets when a call is over and gives its permit back: an [`End`](super::End). Default: [`AtAnswer`].
    #[must_use]
    pub fn end<E>(self, end: E) -> LimitLayer<A, E> {
        LimitLayer { gate: self.gate, end }
    }
}

impl<S, A: Gate + Clone, E: Clone> Layer<S> for LimitLayer<A, E> {
    type Service = Limited<S, A, E>;

    fn layer(&self, inner: S) -> Limited<S, A, E> {
        Limited::new(inner, self.gate.clone(), self.end.clone())
    }
}
