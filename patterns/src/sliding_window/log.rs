//! The exact log: the instants of the last `limit` units that were admitted, in a ring.
//!
//! There is nothing to expire. A call of cost n fits if, of the last `limit` units, the n oldest have left the window,
//! which the n-th oldest alone tells, since the ring is in the order of time; the call then takes their places. So a call of
//! cost 1 is one comparison and one store, whatever the limit and however long nobody came.

use super::config::{MAX_WINDOW, Setting};

/// What is added to every instant that is kept: a place that was never taken says 0, which has left every window that can
/// be set by the time the clock starts.
const SHIFT: u64 = MAX_WINDOW.as_nanos() as u64;

/// The instants of the units that were admitted last.
#[derive(Debug, Clone)]
pub struct Log {
    /// Shifted instants in nanoseconds, the oldest at `head`. As many as the largest limit so far: what a smaller one has
    /// no use for must not be forgotten if the limit grows again.
    ring: Box<[u64]>,
    head: usize,
}

impl Log {
    /// A log in which nothing was admitted.
    pub fn new(setting: &Setting) -> Self {
        Self { ring: vec![0; setting.limit as usize].into(), head: 0 }
    }

    /// When `cost`, from 1 to the limit, fits: an instant up to `now` if it does so now.
    #[inline]
    pub fn fits_at(&self, setting: &Setting, cost: u32) -> u64 {
        let beyond_the_limit = self.ring.len() - setting.limit as usize;
        let place = self.head + beyond_the_limit + cost as usize - 1;
        let oldest = self.ring[if place < self.ring.len() { place } else { place - self.ring.len() }];
        (oldest + setting.window_nanos).saturating_sub(SHIFT)
    }

    /// Admits `cost` at `now`, which lies not before the newest instant that is kept.
    #[inline]
    pub fn take(&mut self, cost: u32, now: u64) {
        for _ in 0..cost {
            self.ring[self.head] = now + SHIFT;
            self.head = if self.head + 1 == self.ring.len() { 0 } else { self.head + 1 };
        }
    }

    /// Whether nothing weighs any more at `now`, and this cannot be told from a new one.
    #[inline]
    pub fn is_new(&self, setting: &Setting, now: u64) -> bool {
        let newest = if self.head == 0 { self.ring.last() } else { self.ring.get(self.head - 1) };
        newest.is_none_or(|newest| newest + setting.window_nanos <= now + SHIFT)
    }

    /// How much of the limit is within the window that ends at `now`.
    pub fn used(&self, setting: &Setting, now: u64) -> u32 {
        let weighs = |at: &u64| at + setting.window_nanos > now + SHIFT;
        let (newer, older) = self.ring.split_at(self.head);
        // In order from the head on: what has left stands before what weighs, in each of the two parts.
        let left = older.partition_point(|at| !weighs(at)) + newer.partition_point(|at| !weighs(at));
        (self.ring.len() - left) as u32
    }

    /// Makes room for a larger limit.
    pub fn grow(&mut self, setting: &Setting) {
        let more = (setting.limit as usize).saturating_sub(self.ring.len());
        if more > 0 {
            let (newer, older) = self.ring.split_at(self.head);
            // Places that were never taken are older than all others.
            self.ring = [&vec![0; more], older, newer].concat().into();
            self.head = 0;
        }
    }
}
