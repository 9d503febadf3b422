//! Where the layers read the time. Cores never do: they take `now`.
//!
//! Time is a [`Duration`] since an origin that the whole process shares, read from tokio's clock, so that a paused test
//! clock drives every pattern. One reading serves a whole stack: the outermost layer [enters](enter) and the layers below
//! it, called while the guard lives, get the same instant for free.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// How far before the first reading the origin lies. A runtime with a paused clock starts at the instant of its own
/// creation, which may be earlier than the first reading in this process; a day ahead of every test keeps `now` from
/// sticking at zero until such a clock has caught up.
const HEAD_START: Duration = Duration::from_secs(24 * 60 * 60);

thread_local! {
    static SHARED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// The time since the process-wide origin: the reading shared by the stack being called, else a fresh one.
#[inline]
pub fn now() -> Duration {
    SHARED.get().unwrap_or_else(read)
}

/// As [`now`], as an instant of tokio.
pub fn instant() -> Instant {
    to_instant(now())
}

/// The time since the process-wide origin, read anew: for the end of an attempt.
pub fn read() -> Duration {
    since_origin(Instant::now())
}

/// How long after the origin `at` lies; zero if it lies before.
pub fn since_origin(at: Instant) -> Duration {
    at.into_std().saturating_duration_since(origin())
}

/// A time or a length of time in nanoseconds, for arithmetic in one word: 584 years of them.
#[inline]
pub fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

/// The instant that lies `at` after the origin, for a timer.
pub fn to_instant(at: Duration) -> Instant {
    let origin = Instant::from_std(origin());
    origin.checked_add(at).unwrap_or_else(far_future)
}

/// An instant no process lives to see, for sums that would overflow: 30 years, as in tokio.
pub fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(30 * 365 * 24 * 60 * 60)
}

/// Shares one reading with everything this thread calls until the guard is dropped.
#[inline]
pub fn enter() -> Entered {
    match SHARED.get() {
        Some(at) => Entered { at, outermost: false },
        None => {
            let at = read();
            SHARED.set(Some(at));
            Entered { at, outermost: true }
        }
    }
}

/// A reading of the clock that the layers below share; see [`enter`].
#[derive(Debug)]
#[must_use = "the reading is shared only while this lives"]
pub struct Entered {
    at: Duration,
    outermost: bool,
}

impl Entered {
    /// The reading, since the origin.
    #[inline]
    pub fn now(&self) -> Duration {
        self.at
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        if self.outermost {
            SHARED.set(None);
        }
    }
}

#[inline]
fn origin() -> std::time::Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        #[allow(clippy::disallowed_methods, reason = "the origin must not depend on which runtime asks first")]
        let first = std::time::Instant::now();
        first.checked_sub(HEAD_START).unwrap_or(first)
    })
}

/// Whether a reading is shared here, so that [`now`] stands still while the clock goes on; not for a paused clock.
#[cfg(test)]
pub fn stands_still() -> bool {
    let before = now();
    (0..1_000_000).any(|_| read() > before) && now() == before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_drives_now() {
        let before = now();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(now() - before, Duration::from_secs(5));
        assert_eq!(to_instant(now()), Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn layers_below_share_the_outermost_reading() {
        let outer = enter();
        tokio::time::advance(Duration::from_secs(1)).await;
        let inner = enter();
        assert_eq!(inner.now(), outer.now());
        assert_eq!(now(), outer.now());
        assert_eq!(read() - outer.now(), Duration::from_secs(1));
        drop(inner);
        assert_eq!(now(), outer.now(), "the outermost guard ends the sharing");
        let shared = outer.now();
        drop(outer);
        assert_eq!(now() - shared, Duration::from_secs(1));
    }

    #[test]
    fn a_runtime_older_than_the_first_reading_does_not_start_at_zero() {
        let older = Instant::now();
        let _ = origin();
        assert!(since_origin(older) > Duration::ZERO);
    }
}
