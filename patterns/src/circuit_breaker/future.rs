//! The future of one call.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::handle::Admission;
use super::policy::Conclude;
use crate::error::BoxError;

pin_project! {
    /// The answer of the inner service, or the refusal. Dropping it counts as
    /// [`CancelPolicy`](super::CancelPolicy) says and frees the probe, after the inner future was dropped.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, P> {
        #[pin]
        call: Call<F, P>,
    }
}

pin_project! {
    #[project = CallProjection]
    #[derive(Debug)]
    enum Call<F, P> {
        Refused { error: Option<BoxError> },
        Running { #[pin] future: F, admission: Option<Admission>, policy: P },
        Done,
    }
}

impl<F, P> ResponseFuture<F, P> {
    pub(super) fn running(future: F, admission: Admission, policy: P) -> Self {
        Self { call: Call::Running { future, admission: Some(admission), policy } }
    }

    pub(super) fn refused(error: BoxError) -> Self {
        Self { call: Call::Refused { error: Some(error) } }
    }
}

impl<F, P, Res, Err> Future for ResponseFuture<F, P>
where
    F: Future<Output = Result<Res, Err>>,
    P: Conclude<Res, Err>,
{
    type Output = Result<P::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut call = self.project().call;
        let output = match call.as_mut().project() {
            CallProjection::Refused { error } => match error.take() {
                Some(error) => Err(error),
                None => return Poll::Pending,
            },
            CallProjection::Running { future, admission, policy } => {
                let Some(running) = admission else { return Poll::Pending };
                let result = ready!(running.within(|| future.poll(cx)));
                policy.conclude(result, admission)
            }
            // Polled after completion: as a fused future would.
            CallProjection::Done => return Poll::Pending,
        };
        // The inner future goes now and not when somebody drops this one: with it goes what it holds.
        call.set(Call::Done);
        Poll::Ready(output)
    }
}
