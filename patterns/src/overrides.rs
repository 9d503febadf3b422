//! What one request does differently from the layers it goes through: no retries, a timeout of its own.
//!
//! Overrides are *ambient*, as a [`Deadline`](crate::Deadline) is: layers read them at `call`, without a bound on the request
//! type. A spawned task and tower's `Buffer` start without them: wrap what they run in [`Overrides::scope`].

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::timeout::TimeoutScope;

thread_local! {
    static CURRENT: Cell<Overrides> = const { Cell::new(Overrides::new()) };
}

/// What the calls within a scope do differently; nothing by default.
///
/// It holds for every layer below, whatever its name: put the scope around one call and not around a whole handler. Scopes
/// nest: an inner one adds to the outer one, and its timeouts take the place of those of the outer one.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use seawall::{BoxError, Overrides, RetryConfig, RetryErrors, RetryLayer, TimeoutConfig, TimeoutLayer};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let mut peer = ServiceBuilder::new()
///     .layer(RetryLayer::new(RetryConfig::new("peer"), RetryErrors::all_idempotent())?)
///     .layer(TimeoutLayer::new(TimeoutConfig::attempt("peer", Duration::from_millis(100)))?)
///     .service(service_fn(|wait_millis: u64| async move {
///         tokio::time::sleep(Duration::from_millis(wait_millis)).await;
///         Ok::<_, BoxError>("report")
///     }));
///
/// // A report takes longer than other requests, and is not worth a second try.
/// let patient = Overrides::new().no_retry().attempt_timeout(Duration::from_secs(10));
/// assert_eq!(patient.scope(async { peer.ready().await?.call(5000).await }).await?, "report");
/// assert!(peer.ready().await?.call(5000).await.is_err());
/// # Ok::<_, BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "overrides hold within their scope only"]
pub struct Overrides {
    no_retry: bool,
    attempt: Option<Duration>,
    total: Option<Duration>,
}

impl Overrides {
    /// Overrides nothing.
    pub const fn new() -> Self {
        Self { no_retry: false, attempt: None, total: None }
    }

    /// [`retry`](mod@crate::retry) makes one attempt and keeps no copy of the request; its result passes as it is.
    pub const fn no_retry(self) -> Self {
        Self { no_retry: true, ..self }
    }

    /// [`timeout`](crate::timeout) gives each attempt `limit`, be it longer or shorter than the configured one. The ambient
    /// deadline holds as before; with a `limit` of zero the call is refused for its [deadline](crate::Reason::Deadline).
    pub const fn attempt_timeout(self, limit: Duration) -> Self {
        Self { attempt: Some(limit), ..self }
    }

    /// [`timeout`](crate::timeout) gives the whole call `limit`; otherwise as [`attempt_timeout`](Self::attempt_timeout).
    pub const fn total_timeout(self, limit: Duration) -> Self {
        Self { total: Some(limit), ..self }
    }

    /// Those of the scope that is being polled; [`new`](Self::new) outside of any.
    #[inline]
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Whether retries are off.
    pub const fn forbids_retries(self) -> bool {
        self.no_retry
    }

    /// The limit that takes the place of the configured one.
    pub const fn timeout(self, scope: TimeoutScope) -> Option<Duration> {
        match scope {
            TimeoutScope::Attempt => self.attempt,
            TimeoutScope::Total => self.total,
        }
    }

    /// Runs `future` with these overrides in every poll. Layers read them at `call`, so the future must make the call, as an
    /// `async` block or tower's `oneshot` does; one that `call` has returned comes too late.
    ///
    /// Dropping the scope drops `future`.
    pub const fn scope<F>(self, future: F) -> Scope<F> {
        Scope { overrides: self, future }
    }

    /// As [`scope`](Self::scope), for a plain function such as `Service::call`. It holds for what `f` calls, and no more for what
    /// is called when the future that `f` returned is polled: the later attempts of a retry, say.
    pub fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        let outer = CURRENT.get();
        let _restore = Restore(outer);
        CURRENT.set(self.over(outer));
        f()
    }

    fn over(self, outer: Self) -> Self {
        Self {
            no_retry: self.no_retry || outer.no_retry,
            attempt: self.attempt.or(outer.attempt),
            total: self.total.or(outer.total),
        }
    }
}

/// Puts the former overrides back, also when the scope unwinds.
struct Restore(Overrides);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

pin_project! {
    /// A future that runs with overrides; made by [`Overrides::scope`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        overrides: Overrides,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.overrides.enter(|| this.future.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};
    use tower::{Layer, Service, ServiceExt, service_fn};

    use super::*;
    use crate::{
        BoxError, Deadline, Elapsed, GaveUp, Limit, Reason, Rejected, RetryConfig, RetryErrors, RetryLayer,
        TimeoutConfig, TimeoutLayer, find,
    };

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_inner_scope_adds_to_the_outer_one() {
        let outer = Overrides::new().no_retry().attempt_timeout(SECOND).total_timeout(SECOND);
        outer.enter(|| {
            Overrides::new().attempt_timeout(2 * SECOND).enter(|| {
                let both = Overrides::current();
                assert!(both.forbids_retries());
                assert_eq!(both.timeout(TimeoutScope::Attempt), Some(2 * SECOND));
                assert_eq!(both.timeout(TimeoutScope::Total), Some(SECOND));
            });
            assert_eq!(Overrides::current(), outer);
        });
        assert_eq!(Overrides::current(), Overrides::new());
    }

    #[test]
    fn unwinding_restores_the_outer_scope() {
        let outcome = std::panic::catch_unwind(|| Overrides::new().no_retry().enter(|| panic!("inner")));
        assert!(outcome.is_err());
        assert_eq!(Overrides::current(), Overrides::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_retries_has_one_attempt_and_its_own_error() {
        let layer = RetryLayer::new(RetryConfig::new("peer"), RetryErrors::all_idempotent()).unwrap();
        let down = layer.layer(service_fn(|()| async { Err::<(), BoxError>("down".into()) }));
        let error = Overrides::new().no_retry().scope(down.clone().oneshot(())).await.unwrap_err();
        assert_eq!(error.to_string(), "down");
        assert_eq!(layer.handle().stats().retries, 0);
        let error = down.oneshot(()).await.unwrap_err();
        assert_eq!(find::<GaveUp>(&*error).unwrap().attempts, 3, "the next request has its retries");
    }

    /// A service that takes 5 s, behind a timeout of 1 s.
    fn slow(config: TimeoutConfig) -> impl Service<(), Response = (), Error = BoxError> + Clone {
        TimeoutLayer::new(config).unwrap().layer(service_fn(|()| async {
            sleep(5 * SECOND).await;
            Ok::<_, BoxError>(())
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_longer_or_less_than_configured() {
        let service = slow(TimeoutConfig::total("peer", SECOND));
        let with = |limit| Overrides::new().total_timeout(limit).scope(service.clone().oneshot(()));
        with(6 * SECOND).await.unwrap();
        let started = Instant::now();
        let error = with(SECOND / 4).await.unwrap_err();
        assert_eq!(find::<Elapsed>(&*error).unwrap().limit, Limit::Total);
        assert_eq!(started.elapsed(), SECOND / 4);
        let refused = with(Duration::ZERO).await.unwrap_err();
        assert_eq!(Rejected::find(&*refused).unwrap().reason, Reason::Deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn each_scope_of_a_timeout_has_its_own_override_and_the_deadline_holds() {
        let service = slow(TimeoutConfig::attempt("peer", SECOND));
        let total = Overrides::new().total_timeout(6 * SECOND).scope(service.clone().oneshot(()));
        assert_eq!(find::<Elapsed>(&*total.await.unwrap_err()).unwrap().after, SECOND);
        let attempt = Overrides::new().attempt_timeout(6 * SECOND).scope(service.oneshot(()));
        let error = Deadline::after(2 * SECOND).scope(attempt).await.unwrap_err();
        assert_eq!(find::<Elapsed>(&*error).unwrap().limit, Limit::Ambient);
    }

    #[tokio::test(start_paused = true)]
    async fn every_attempt_of_a_call_has_the_timeout_of_its_request() {
        let layer = RetryLayer::new(RetryConfig::new("peer").max_attempts(2), RetryErrors::all_idempotent()).unwrap();
        let mut service = layer.layer(slow(TimeoutConfig::attempt("peer", SECOND)));
        let patient = Overrides::new().attempt_timeout(2 * SECOND);
        let error = patient.scope(service.clone().oneshot(())).await.unwrap_err();
        assert_eq!(find::<GaveUp>(&*error).unwrap().attempts, 2);
        assert_eq!(find::<Elapsed>(&*error).unwrap().after, 2 * SECOND, "the second attempt, too");
        let only_called = patient.enter(|| service.call(()));
        let error = only_called.await.unwrap_err();
        assert_eq!(find::<Elapsed>(&*error).unwrap().after, SECOND, "the second attempt is made in a poll");
    }
}
