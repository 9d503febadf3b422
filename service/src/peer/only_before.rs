//! A layer that stands before some messages only.

use std::task::{Context, Poll};

use futures_util::future::Either;
use seawall::BoxError;
use tower::util::Oneshot;
use tower::{Layer, Service, ServiceExt};

use super::{MessageKind, PeerRequest};

/// Puts `layer` before the messages of one kind; all others pass it by. A limit counts this way what begins, and not what
/// goes on: a cost of 0 would be none, since nothing passes a limit for free.
pub(super) fn only_before<L, S>(kind: MessageKind, layer: L) -> impl Layer<S, Service = OnlyBefore<L::Service, S>>
where
    L: Layer<S>,
    S: Clone,
{
    tower::layer::layer_fn(move |others: S| OnlyBefore { kind, behind: layer.layer(others.clone()), others })
}

/// A service of which one kind of message stands behind a layer; made by [`only_before`].
///
/// Readiness is waited for in the call: only the message says whose.
#[derive(Debug, Clone)]
pub(super) struct OnlyBefore<B, S> {
    kind: MessageKind,
    behind: B,
    others: S,
}

impl<B, S, R> Service<PeerRequest> for OnlyBefore<B, S>
where
    B: Service<PeerRequest, Response = R, Error = BoxError> + Clone,
    S: Service<PeerRequest, Response = R, Error = BoxError> + Clone,
{
    type Response = R;
    type Error = BoxError;
    type Future = Either<Oneshot<B, PeerRequest>, Oneshot<S, PeerRequest>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: PeerRequest) -> Self::Future {
        if message.kind == self.kind {
            Either::Left(self.behind.clone().oneshot(message))
        } else {
            Either::Right(self.others.clone().oneshot(message))
        }
    }
}
