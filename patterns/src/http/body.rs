//! A response body that carries a guard to its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use ::http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::admission::{Core, Permit};
use crate::circuit_breaker::{Admission, Outcome};

/// What lives as long as a response body, such as a permit or the admission of a breaker.
///
/// # Example
/// ```
/// use seawall::http::{BodyEnd, BodyGuard};
///
/// struct Logged(&'static str);
///
/// impl BodyGuard for Logged {
///     fn end(self, end: BodyEnd) {
///         eprintln!("{}: {end:?}", self.0);
///     }
/// }
/// ```
pub trait BodyGuard: Sized {
    /// The body has come to its end. Called once at most, and not for a body that is dropped before: then the guard is
    /// dropped. Default: the guard is dropped in every case, which is right for a permit.
    fn end(self, _: BodyEnd) {}
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BodyEnd {
    /// Its last frame was read.
    Complete,
    /// It gave an error, or panicked.
    Failed,
}

/// Whatever gives back by being dropped what it holds.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use axum::body::Body;
/// use http_body_util::BodyExt;
/// use seawall::http::{GuardedBody, Held};
/// use tokio::sync::Semaphore;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let downloads = Arc::new(Semaphore::new(1));
/// let permit = downloads.clone().acquire_owned().await?;
/// let body = GuardedBody::new(Body::from("the whole file"), Held(permit));
/// assert_eq!(downloads.available_permits(), 0);
/// body.collect().await?;
/// assert_eq!(downloads.available_permits(), 1);
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Held<T>(pub T);

impl<T> BodyGuard for Held<T> {}

/// A complete body is a success, a broken one a failure; one that is dropped before its end counts as
/// [`CancelPolicy`](crate::circuit_breaker::CancelPolicy) says.
impl BodyGuard for Admission {
    fn end(self, end: BodyEnd) {
        self.finish(match end {
            BodyEnd::Complete => Outcome::Success,
            BodyEnd::Failed => Outcome::Failure,
        });
    }
}

/// A complete body is a success, a broken one a failure; one that is dropped before its end is neutral.
impl<C: Core> BodyGuard for Permit<C> {
    fn end(self, end: BodyEnd) {
        match end {
            BodyEnd::Complete => self.succeeded(),
            BodyEnd::Failed => self.failed(),
        }
    }
}

pin_project! {
    /// A body with a guard that lives to its end. Frames, trailers and size pass as they are.
    ///
    /// The end is the first of: the body says that it is over, nothing is left of its exact size, its trailers, an error. So
    /// the guard goes as soon as the last byte was read, though a server then drops the body without asking it for more; and
    /// at once where the body is empty.
    ///
    /// # Example
    /// ```
    /// use axum::{body::Body, http::Response};
    /// use http_body_util::BodyExt;
    /// use seawall::{BoxError, SemaphoreConfig, SemaphoreHandle, http::GuardedBody, semaphore::Permit};
    ///
    /// // At most 8 downloads at once, each to its last byte.
    /// async fn download(downloads: &SemaphoreHandle) -> Result<Response<GuardedBody<Body, Permit>>, BoxError> {
    ///     let permit = downloads.acquire().await?;
    ///     Ok(Response::new(GuardedBody::new(Body::from("a film"), permit)))
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let downloads = SemaphoreHandle::new(SemaphoreConfig::new("downloads", 8))?;
    /// let response = download(&downloads).await?;
    /// assert_eq!(downloads.available(), 7);
    /// response.into_body().collect().await?;
    /// assert_eq!(downloads.available(), 8);
    /// assert_eq!(downloads.stats().calls.ok, 1);
    /// # Ok::<_, BoxError>(())
    /// # }).unwrap();
    /// ```
    #[derive(Debug)]
    pub struct GuardedBody<B, G> {
        #[pin]
        body: B,
        guard: Option<G>,
    }
}

impl<B, G> GuardedBody<B, G> {
    /// `body` without a guard, for a response that needs none: an error, or a call that has been judged already.
    pub const fn unguarded(body: B) -> Self {
        Self { body, guard: None }
    }

    /// The body itself.
    pub const fn get_ref(&self) -> &B {
        &self.body
    }

    /// Whether the guard is still there.
    pub const fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }
}

/// Unguarded.
impl<B: Default, G> Default for GuardedBody<B, G> {
    fn default() -> Self {
        Self::unguarded(B::default())
    }
}

impl<B: Body, G: BodyGuard> GuardedBody<B, G> {
    /// `body` with `guard`, which ends here if the body is empty.
    pub fn new(body: B, guard: G) -> Self {
        if is_over(&body) {
            guard.end(BodyEnd::Complete);
            return Self::unguarded(body);
        }
        Self { body, guard: Some(guard) }
    }
}

impl<B: Body, G: BodyGuard> Body for GuardedBody<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let mut polled = Polled { guard: this.guard, end: Some(BodyEnd::Failed) };
        let frame = this.body.as_mut().poll_frame(cx);
        polled.end = match &frame {
            Poll::Pending => None,
            Poll::Ready(None) => Some(BodyEnd::Complete),
            Poll::Ready(Some(Err(_))) => Some(BodyEnd::Failed),
            Poll::Ready(Some(Ok(frame))) => (frame.is_trailers() || is_over(&*this.body)).then_some(BodyEnd::Complete),
        };
        drop(polled);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ends the guard with what the poll has shown; left by a panic, with a failure.
struct Polled<'a, G: BodyGuard> {
    guard: &'a mut Option<G>,
    end: Option<BodyEnd>,
}

impl<G: BodyGuard> Drop for Polled<'_, G> {
    fn drop(&mut self) {
        if let Some(end) = self.end
            && let Some(guard) = self.guard.take()
        {
            guard.end(end);
        }
    }
}

fn is_over<B: Body>(body: &B) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}
