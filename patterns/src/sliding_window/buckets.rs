//! K + 1 buckets: how much was admitted in each K-th of a window, for the running one and the K before it.
//!
//! ```text
//!   window, K = 4                 ├───────────────┤ now
//!   buckets, K + 1 = 5      │ 3 │ 0 │ 5 │ 1 │ 2   ┊ │     used: 11
//!                             ▲ leaves when the running one ends
//! ```
//!
//! K buckets alone are the ring that many limiters keep, and it admits up to twice its limit: what came at the very end of
//! a bucket is forgotten with it when the window has hardly begun. With one bucket more, a unit weighs until K whole
//! buckets have gone by after its own, which is a window or more, and a K-th of the window more at most.

use super::config::Setting;

/// Counts of the running bucket and of the K before it.
#[derive(Debug, Clone)]
pub struct Buckets {
    /// What was admitted in each bucket: the running one is at `head`, the oldest is the one after it.
    ring: Box<[u32]>,
    head: u32,
    /// The sum over the ring.
    used: u32,
    /// Where the running bucket ends, in nanoseconds. Buckets lie on a grid from zero.
    ends: u64,
}

impl Buckets {
    /// Buckets in which nothing was admitted.
    pub fn new(setting: &Setting) -> Self {
        Self { ring: vec![0; setting.buckets as usize + 1].into(), head: 0, used: 0, ends: 0 }
    }

    /// When `cost`, from 1 to the limit, fits: `now` if it does so now.
    #[inline]
    pub fn fits_at(&mut self, setting: &Setting, cost: u32, now: u64) -> u64 {
        self.slide(setting, now);
        match (self.used + cost).checked_sub(setting.limit) {
            None | Some(0) => now,
            Some(over) => self.leaves_at(setting, over),
        }
    }

    /// Admits `cost` at `now`.
    #[inline]
    pub fn take(&mut self, setting: &Setting, cost: u32, now: u64) {
        self.slide(setting, now);
        self.ring[self.head as usize] += cost;
        self.used += cost;
    }

    /// How much of the limit still weighs at `now`.
    pub fn used(&mut self, setting: &Setting, now: u64) -> u32 {
        self.slide(setting, now);
        self.used
    }

    /// Whether nothing weighs any more at `now`, and this cannot be told from a new one. Does not look into the ring, so it
    /// may be a bucket late to say so.
    #[inline]
    pub fn is_new(&self, setting: &Setting, now: u64) -> bool {
        self.used == 0 || now >= self.ends + u64::from(setting.buckets) * setting.bucket_nanos
    }

    /// Goes over to buckets of another length. What was counted counts from the end of its bucket on, so that it never
    /// leaves early: late, at most, by what the bucket was long.
    pub fn update(&mut self, former: &Setting, setting: &Setting, now: u64) {
        if former.bucket_nanos == setting.bucket_nanos {
            return;
        }
        self.slide(former, now);
        let mut next = Self::new(setting);
        for (age, amount) in (0..u64::from(former.buckets) + 1).rev().zip(self.oldest_first()) {
            if amount > 0 {
                let end = (self.ends - 1).saturating_sub(age * former.bucket_nanos);
                next.take(setting, amount, end.min(now));
            }
        }
        *self = next;
    }

    /// When `amount` or more of what is counted has left.
    #[cold]
    fn leaves_at(&self, setting: &Setting, amount: u32) -> u64 {
        let mut left = 0;
        let mut at = self.ends;
        for counted in self.oldest_first() {
            left += counted;
            if left >= amount {
                break;
            }
            at += setting.bucket_nanos;
        }
        at
    }

    fn oldest_first(&self) -> impl Iterator<Item = u32> {
        let (newer, older) = self.ring.split_at(self.head as usize + 1);
        older.iter().chain(newer).copied()
    }

    #[inline]
    fn slide(&mut self, setting: &Setting, now: u64) {
        if now >= self.ends {
            self.turn(setting.bucket_nanos, now);
        }
    }

    /// The running bucket has ended: each that went by since leaves the ring.
    #[cold]
    fn turn(&mut self, bucket: u64, now: u64) {
        let ends = (now / bucket + 1) * bucket;
        let steps = (ends - self.ends) / bucket;
        self.ends = ends;
        if steps >= self.ring.len() as u64 {
            self.ring.fill(0);
            self.used = 0;
            return;
        }
        for _ in 0..steps {
            self.head = if self.head as usize + 1 == self.ring.len() { 0 } else { self.head + 1 };
            self.used -= std::mem::take(&mut self.ring[self.head as usize]);
        }
    }
}
