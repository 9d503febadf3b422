//! A call that cannot go at once: it waits for its turn, readies a clone of the inner service, and calls it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::admit::{Core, Gate, Wait};
use super::patience::Patience;
use super::permit::Permit;
use crate::clock;
use crate::deadline;
use crate::error::BoxError;

pin_project! {
    /// Becomes the call of the inner service and its permit. Dropped, it leaves the line, or gives the permit back.
    pub struct Later<S, A: Gate, Req> {
        #[pin]
        stage: Stage<A::Wait, A::Core>,
        // `None` once it was called.
        call: Option<(S, Req)>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<W, C: Core> {
        InLine { #[pin] wait: W },
        // Its turn has come → the clone is polled ready.
        Readying { permit: Option<Permit<C>>, patience: Patience, #[pin] timer: Option<Sleep> },
    }
}

impl<S, A: Gate, Req> Later<S, A, Req> {
    /// Calls `service` with `request` after `wait`.
    pub(super) fn new(wait: A::Wait, service: S, request: Req) -> Self {
        Self { stage: Stage::InLine { wait }, call: Some((service, request)) }
    }
}

impl<S, A, Req> Future for Later<S, A, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    A: Gate,
{
    type Output = Result<(S::Future, Permit<A::Core>), BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let StageProjection::InLine { mut wait } = this.stage.as_mut().project() {
            let granted = ready!(wait.as_mut().poll(cx));
            // Whom only the mode lets through is counted as refused, and must not be so again.
            let patience = if granted.is_ok() { wait.patience() } else { Patience::unbounded() };
            let permit = granted.or_else(|refusal| Permit::refused(wait.core(), refusal))?;
            this.stage.set(Stage::Readying { permit: Some(permit), patience, timer: None });
        }
        let StageProjection::Readying { permit, patience, mut timer } = this.stage.project() else {
            return Poll::Pending;
        };
        let Some((service, _)) = this.call else { return Poll::Pending };
        match Permit::before_call(permit, || deadline::suspended(|| service.poll_ready(cx))) {
            Poll::Ready(ready) => {
                let (Some(permit), Some((mut service, request))) = (permit.take(), this.call.take()) else {
                    return Poll::Pending;
                };
                if let Err(error) = ready {
                    permit.failed_uncalled();
                    return Poll::Ready(Err(error.into()));
                }
                let mut permit = permit.start();
                // One reading of the clock for the layers below, which are called here and not from above.
                let _now = clock::enter();
                let future = permit.within(|| service.call(request));
                Poll::Ready(Ok((future, permit)))
            }
            Poll::Pending => {
                let reason = ready!(patience.poll(timer.as_mut(), cx));
                if let Some(permit) = permit
                    && let Some(rejected) = permit.core().account().refuse(reason.into())
                {
                    return Poll::Ready(Err(rejected.into()));
                }
                // Only observed: it may wait on.
                *patience = Patience::unbounded();
                Poll::Pending
            }
        }
    }
}
