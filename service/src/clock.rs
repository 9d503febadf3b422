//! Time as a value: every wait of the service has a name and goes through a [`Clock`].
//!
//! **Why.** A cluster under test must be able to stop time and to move it. Nothing else in the service reads a clock
//! or sleeps, so replacing the [`TimeSource`] (or pausing tokio's) replaces time for the whole node.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Where time comes from.
pub trait TimeSource: Send + Sync + 'static {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// Wall time in milliseconds since the Unix epoch; it may step. For display and ids, never for measuring.
    fn wall_ms(&self) -> u64;
    /// Resolves at `at`.
    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The machine's clock, through tokio's timer (which a test can pause).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTime;

impl TimeSource for SystemTime {
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the one reader of wall time")]
    fn wall_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep_until(at))
    }
}

/// A handle on a [`TimeSource`]; cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(SystemTime)
    }

    /// Another source, for a test.
    pub fn new(source: impl TimeSource) -> Self {
        Self(Arc::new(source))
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// Wall time in milliseconds since the Unix epoch, for display and ids.
    pub fn wall_ms(&self) -> u64 {
        self.0.wall_ms()
    }

    /// Resolves after `wait`. Dropping it cancels it.
    pub fn sleep(&self, wait: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.sleep_until(self.now() + wait)
    }

    /// Gives `future` at most `limit`; `None` when the time ran out and `future` was dropped.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(limit) => None,
        }
    }

    /// An empty set of named timers on this clock.
    pub fn timers<Name: Ord + Clone>(&self) -> Timers<Name> {
        Timers { clock: self.clone(), due: BTreeMap::new() }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Named timers: setting a name again replaces its timer, and any can be cancelled.
///
/// One task owns a set and waits on [`Timers::fired`]; there is no timer behind its back.
#[derive(Debug)]
pub struct Timers<Name> {
    clock: Clock,
    due: BTreeMap<Name, Instant>,
}

impl<Name: Ord + Clone> Timers<Name> {
    /// Lets `name` fire once, after `wait`. An earlier timer of that name is replaced.
    pub fn set(&mut self, name: Name, wait: Duration) {
        let at = self.clock.now() + wait;
        self.due.insert(name, at);
    }

    /// Cancels the timer `name`; `false` when there was none.
    pub fn cancel(&mut self, name: &Name) -> bool {
        self.due.remove(name).is_some()
    }

    /// Waits for the next timer, removes it and returns its name. Without timers it never resolves.
    ///
    /// Dropping the future loses nothing: a timer is removed only when it is returned.
    pub async fn fired(&mut self) -> Name {
        let Some((name, at)) = self.due.iter().min_by_key(|(_, at)| **at).map(|(name, at)| (name.clone(), *at)) else {
            return std::future::pending().await;
        };
        self.clock.0.sleep_until(at).await;
        self.due.remove(&name);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn timers_fire_in_order_are_replaced_and_cancelled() {
        let clock = Clock::system();
        let mut timers = clock.timers();
        timers.set("late", Duration::from_secs(3));
        timers.set("early", Duration::from_secs(1));
        timers.set("never", Duration::from_secs(2));
        timers.set("early", Duration::from_secs(4)); // replaced: now the last
        assert!(timers.cancel(&"never"));
        assert!(!timers.cancel(&"never"));

        let start = clock.now();
        assert_eq!(timers.fired().await, "late");
        assert_eq!(clock.now() - start, Duration::from_secs(3));
        assert_eq!(timers.fired().await, "early");
        assert_eq!(clock.now() - start, Duration::from_secs(4));
        assert!(clock.timeout(Duration::from_secs(60), timers.fired()).await.is_none(), "an empty set never fires");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_loses_no_timer() {
        let clock = Clock::system();
        let mut timers = clock.timers();
        timers.set("tick", Duration::from_secs(2));
        assert!(clock.timeout(Duration::from_secs(1), timers.fired()).await.is_none());
        assert_eq!(timers.fired().await, "tick");
    }
}
