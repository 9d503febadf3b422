//! The two windows: exact counts of calls, failures and slow calls over the last calls or the last time.

use std::time::Duration;

use super::config::Window;

/// Time is counted in so many buckets; the oldest is forgotten whole.
const BUCKETS: usize = 10;

const FAILED: u8 = 1;
const SLOW: u8 = 2;

/// How many calls a window holds, and how many of them were bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Calls with an outcome, good or bad.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that took longer than allowed, failed or not.
    pub slow: u64,
}

impl Counts {
    fn add(&mut self, failed: bool, slow: bool) {
        self.calls += 1;
        self.failed += u64::from(failed);
        self.slow += u64::from(slow);
    }

    fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }
}

/// A window over past calls.
#[derive(Debug)]
pub enum Record {
    /// The last calls.
    Calls(CallWindow),
    /// The last time; boxed because it is four times as large.
    Time(Box<TimeWindow>),
}

impl Record {
    /// An empty window of the configured kind.
    pub fn new(window: Window) -> Self {
        match window {
            Window::Calls(calls) => Self::Calls(CallWindow::new(calls as usize)),
            Window::Time(time) => Self::Time(Box::new(TimeWindow::new(time))),
        }
    }

    /// Whether [`push`](Self::push) needs the time.
    pub fn by_time(&self) -> bool {
        matches!(self, Self::Time(_))
    }

    /// Adds a call that ended at `now` and forgets what has left the window.
    pub fn push(&mut self, now: Duration, failed: bool, slow: bool) -> Counts {
        match self {
            Self::Calls(window) => window.push(failed, slow),
            Self::Time(window) => window.push(now, failed, slow),
        }
    }

    /// Adds calls that were good and ended in the newest bucket.
    pub fn push_good(&mut self, calls: u64) {
        match self {
            Self::Calls(window) => window.push_good(calls),
            Self::Time(window) => window.push_good(calls),
        }
    }

    /// Whether one more good call would leave the window as it is.
    pub fn is_full_of_good(&self) -> bool {
        match self {
            Self::Calls(CallWindow { capacity, counts, .. }) => {
                *counts == Counts { calls: *capacity as u64, ..Counts::default() }
            }
            Self::Time(_) => false,
        }
    }

    /// When the newest bucket of a window by time ends.
    pub fn until(&self) -> Option<Duration> {
        match self {
            Self::Calls(_) => None,
            Self::Time(window) => Some(window.until()),
        }
    }

    /// What the window held when it was last pushed to.
    pub fn counts(&self) -> Counts {
        match self {
            Self::Calls(window) => window.counts,
            Self::Time(window) => window.counts,
        }
    }
}

/// The last N calls: a ring with one byte a call. Pushing is O(1).
#[derive(Debug)]
pub struct CallWindow {
    ring: Vec<u8>,
    capacity: usize,
    /// The next place to write: the oldest call once the ring is full.
    next: usize,
    counts: Counts,
}

impl CallWindow {
    fn new(capacity: usize) -> Self {
        Self { ring: Vec::with_capacity(capacity), capacity, next: 0, counts: Counts::default() }
    }

    fn push(&mut self, failed: bool, slow: bool) -> Counts {
        let call = if failed { FAILED } else { 0 } | if slow { SLOW } else { 0 };
        if self.ring.len() < self.capacity {
            self.ring.push(call);
        } else if let Some(place) = self.ring.get_mut(self.next) {
            let oldest = std::mem::replace(place, call);
            self.counts.subtract(Counts {
                calls: 1,
                failed: u64::from(oldest & FAILED != 0),
                slow: u64::from(oldest & SLOW != 0),
            });
        }
        self.next = if self.next + 1 == self.capacity { 0 } else { self.next + 1 };
        self.counts.add(failed, slow);
        self.counts
    }

    fn push_good(&mut self, calls: u64) {
        // More than the window holds would come to the same.
        for _ in 0..calls.min(self.capacity as u64) {
            self.push(false, false);
        }
    }
}

/// The last T: ten buckets of T/10, each exact. Pushing is O(1), and O(10) after a pause.
#[derive(Debug)]
pub struct TimeWindow {
    width_nanos: u64,
    /// The number of the newest bucket since the origin of time.
    newest: u64,
    buckets: [Counts; BUCKETS],
    counts: Counts,
}

impl TimeWindow {
    fn new(time: Duration) -> Self {
        let width_nanos = (nanos(time) / BUCKETS as u64).max(1);
        Self { width_nanos, newest: 0, buckets: Default::default(), counts: Counts::default() }
    }

    fn push(&mut self, now: Duration, failed: bool, slow: bool) -> Counts {
        let bucket = nanos(now) / self.width_nanos;
        if bucket > self.newest {
            let passed = (bucket - self.newest).min(BUCKETS as u64);
            for expired in (bucket + 1 - passed)..=bucket {
                let forgotten = std::mem::take(self.bucket(expired));
                self.counts.subtract(forgotten);
            }
            self.newest = bucket;
        }
        let newest = self.newest;
        self.bucket(newest).add(failed, slow);
        self.counts.add(failed, slow);
        self.counts
    }

    fn push_good(&mut self, calls: u64) {
        let newest = self.newest;
        self.bucket(newest).calls += calls;
        self.counts.calls += calls;
    }

    fn until(&self) -> Duration {
        Duration::from_nanos(self.width_nanos.saturating_mul(self.newest + 1))
    }

    fn bucket(&mut self, number: u64) -> &mut Counts {
        &mut self.buckets[(number % BUCKETS as u64) as usize]
    }
}

/// 584 years fit, so the conversion loses nothing that happens.
pub(super) fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn last_10_holds_10_after_a_long_healthy_history() {
        let mut window = Record::new(Window::Calls(10));
        for _ in 0..1_000_000 {
            window.push(Duration::ZERO, false, false);
        }
        for failed in 1..=10 {
            assert_eq!(window.push(Duration::ZERO, true, false), Counts { calls: 10, failed, slow: 0 });
        }
    }

    #[test]
    fn a_time_window_forgets_bucket_by_bucket() {
        let mut window = Record::new(Window::Time(10 * SECOND));
        for second in 0..10 {
            window.push(second * SECOND, true, true);
        }
        assert_eq!(window.counts(), Counts { calls: 10, failed: 10, slow: 10 });
        assert_eq!(window.push(12 * SECOND, false, false), Counts { calls: 8, failed: 7, slow: 7 });
        assert_eq!(window.push(1_000 * SECOND, true, false), Counts { calls: 1, failed: 1, slow: 0 });
    }

    proptest! {
        #[test]
        fn the_ring_counts_what_a_list_of_the_last_n_counts(
            capacity in 1_u32..20,
            calls in prop::collection::vec(any::<(bool, bool)>(), 0..100),
        ) {
            let mut window = Record::new(Window::Calls(capacity));
            for end in 0..calls.len() {
                let (failed, slow) = calls[end];
                let counts = window.push(Duration::ZERO, failed, slow);
                let last = &calls[(end + 1).saturating_sub(capacity as usize)..=end];
                prop_assert_eq!(counts.calls, last.len() as u64);
                prop_assert_eq!(counts.failed, last.iter().filter(|call| call.0).count() as u64);
                prop_assert_eq!(counts.slow, last.iter().filter(|call| call.1).count() as u64);
            }
        }

        #[test]
        fn the_buckets_hold_at_least_nine_tenths_and_at_most_the_whole_time(
            steps in prop::collection::vec((0_u64..4_000, any::<bool>()), 1..100),
        ) {
            let mut window = Record::new(Window::Time(10 * SECOND));
            let mut log: Vec<(Duration, bool)> = Vec::new();
            let mut now = Duration::ZERO;
            for (step, failed) in steps {
                now += Duration::from_millis(step);
                log.push((now, failed));
                let counts = window.push(now, failed, false);
                let within = |time| log.iter().filter(|call| now - call.0 < time && call.1).count() as u64;
                prop_assert!(within(9 * SECOND) <= counts.failed && counts.failed <= within(10 * SECOND));
            }
        }
    }
}
