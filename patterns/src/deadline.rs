//! The time by which whoever called us stops waiting, known to every layer without a bound on the request type.
//!
//! A deadline is *ambient*: [`Deadline::scope`] sets it around each poll of a future, and the deadline layers around the
//! inner `call` and each poll of its response, never around `poll_ready`. Nested scopes keep the tighter one.
//! A spawned task and tower's `Buffer` start without it: wrap what they run in `Deadline::scope`.
//! Between processes it travels as what is left of it, in milliseconds, because clocks of two machines do not agree.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::clock;

thread_local! {
    /// [`NONE`] outside of every scope. One word, so that a scope costs a load, a comparison and two stores.
    static CURRENT: Cell<Deadline> = const { Cell::new(NONE) };
}

/// Later than every deadline that can be set: what a scope keeps as the tighter one is the smaller of two words.
const NONE: Deadline = Deadline(u64::MAX);

/// An instant after which nobody waits for the answer any more.
///
/// # Example
/// ```
/// use seawall::Deadline;
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let left = Deadline::after(Duration::from_millis(500))
///     .scope(async { Deadline::remaining() })
///     .await;
/// assert!(left.unwrap() <= Duration::from_millis(500));
/// assert_eq!(Deadline::remaining(), None);
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(
    /// Nanoseconds since the origin of [`clock`].
    u64,
);

impl Deadline {
    /// The deadline at `instant`.
    pub fn at(instant: Instant) -> Self {
        Self::of(clock::since_origin(instant))
    }

    /// The deadline `wait` from now. A wait beyond the range of the clock is taken as 30 years.
    pub fn after(wait: Duration) -> Self {
        Self::of(clock::now().saturating_add(wait))
    }

    /// The deadline so long after the origin of the clock.
    fn of(at: Duration) -> Self {
        match Self(clock::nanos(at)) {
            NONE => Self::at(clock::far_future()),
            deadline => deadline,
        }
    }

    /// The deadline that lies so many nanoseconds after the origin of the clock; `u64::MAX` is none at all.
    #[inline]
    pub(crate) const fn at_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The nanoseconds from the origin of the clock to this deadline.
    #[inline]
    pub(crate) const fn nanos(self) -> u64 {
        self.0
    }

    /// The deadline that arrived as `millis` of remaining time; see [`as_millis`](Self::as_millis).
    pub fn from_millis(millis: u64) -> Self {
        Self::after(Duration::from_millis(millis))
    }

    /// What is left, in whole milliseconds rounded down: for a header to the next process, which then never waits
    /// longer than we do. 0 once the deadline has passed.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.time_left().as_millis()).unwrap_or(u64::MAX)
    }

    /// The deadline of the scope that is being polled, if any.
    #[inline]
    pub fn current() -> Option<Self> {
        Some(CURRENT.get()).filter(|current| *current != NONE)
    }

    /// What is left until the [current](Self::current) deadline: zero once it has passed, `None` where there is none.
    pub fn remaining() -> Option<Duration> {
        Self::current().map(Self::time_left)
    }

    /// What is left until this deadline; zero once it has passed.
    pub fn time_left(self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(clock::nanos(clock::now())))
    }

    /// Whether the deadline has passed.
    pub fn has_passed(self) -> bool {
        self.time_left().is_zero()
    }

    /// The instant itself.
    pub fn instant(self) -> Instant {
        clock::to_instant(Duration::from_nanos(self.0))
    }

    /// Runs `future` under this deadline or the ambient one of each poll, whichever is tighter.
    ///
    /// The scope informs; it cuts nothing off. Dropping it drops `future`.
    pub const fn scope<F>(self, future: F) -> Scope<F> {
        Scope { deadline: self, future }
    }

    /// As [`scope`](Self::scope), for a plain function such as `Service::call`.
    #[inline]
    pub fn enter<R>(self, f: impl FnOnce() -> R) -> R {
        let _restore = self.set();
        f()
    }

    /// Makes it the current deadline, if it is the tighter one, until what this gives is dropped.
    #[inline]
    pub(crate) fn set(self) -> Restore {
        let restore = Restore(CURRENT.get());
        CURRENT.set(restore.0.min(self));
        restore
    }
}

/// Runs `f` without a deadline: readiness belongs to the service, whichever call happens to ask for it.
pub(crate) fn suspended<R>(f: impl FnOnce() -> R) -> R {
    let _restore = Restore(CURRENT.replace(NONE));
    f()
}

/// Puts the former deadline back, also when the scope unwinds.
#[must_use = "the deadline is put back when this is dropped"]
pub(crate) struct Restore(Deadline);

impl Drop for Restore {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

pin_project! {
    /// A future that runs under a deadline; made by [`Deadline::scope`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        deadline: Deadline,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.deadline.enter(|| this.future.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn nested_scopes_keep_the_tighter_deadline() {
        Deadline::after(SECOND)
            .scope(async {
                let inner = Deadline::after(5 * SECOND).scope(async { Deadline::remaining() }).await;
                assert_eq!(inner, Some(SECOND), "a looser inner deadline changes nothing");
                let inner = Deadline::after(SECOND / 2).scope(async { Deadline::remaining() }).await;
                assert_eq!(inner, Some(SECOND / 2));
                assert_eq!(Deadline::remaining(), Some(SECOND));
            })
            .await;
        assert_eq!(Deadline::current(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_scope_covers_every_poll_and_nothing_between() {
        let mut scoped = Box::pin(Deadline::after(SECOND).scope(async {
            assert!(Deadline::current().is_some());
            tokio::task::yield_now().await;
            Deadline::remaining()
        }));
        let pending = std::future::poll_fn(|cx| Poll::Ready(scoped.as_mut().poll(cx).is_pending())).await;
        assert!(pending);
        assert_eq!(Deadline::current(), None);
        tokio::time::advance(SECOND / 4).await;
        assert_eq!(scoped.await, Some(SECOND * 3 / 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_passed_deadline_has_nothing_left() {
        let deadline = Deadline::from_millis(10);
        assert_eq!(deadline.as_millis(), 10);
        tokio::time::advance(SECOND).await;
        assert!(deadline.has_passed());
        assert_eq!(deadline.as_millis(), 0);
        assert!(Deadline::after(Duration::MAX).time_left() > 86_400 * SECOND);
    }

    #[test]
    fn unwinding_restores_the_outer_deadline() {
        let outcome = std::panic::catch_unwind(|| Deadline::after(SECOND).enter(|| panic!("inner")));
        assert!(outcome.is_err());
        assert_eq!(Deadline::current(), None);
    }
}
