//! What a limit must offer to be kept for each key.

use std::time::Duration;

use crate::sliding_window::{self, Counted, nanos};
use crate::token_bucket::{self, Shortage, Tat};

/// The state of one limit: a plain value. What all keys have in common, the setting, is kept by the caller.
pub trait Limit: Sized {
    /// Limit and time, checked.
    type Setting: Copy + std::fmt::Debug;

    /// The state of a key that nobody has heard of.
    fn new(setting: &Self::Setting) -> Self;

    /// When `cost` fits: at `now` or earlier if it does so now; `None` if it never does. Calls come in the order of time.
    fn fits_at(&mut self, setting: &Self::Setting, cost: u32, now: Duration) -> Option<Duration>;

    /// Takes `cost`, which fits.
    fn take(&mut self, setting: &Self::Setting, cost: u32, now: Duration);

    /// Whether this cannot be told from a new one, now or later. It may be a little late to say so.
    fn is_new(&self, setting: &Self::Setting, now: Duration) -> bool;

    /// What a call may cost at `now`.
    fn available(&mut self, setting: &Self::Setting, now: Duration) -> u32;

    /// Goes over from the setting `former`; what was taken stays taken.
    fn update(&mut self, former: &Self::Setting, setting: &Self::Setting, now: Duration);
}

impl Limit for Counted {
    type Setting = sliding_window::Setting;

    fn new(setting: &sliding_window::Setting) -> Self {
        Self::new(setting)
    }

    #[inline]
    fn fits_at(&mut self, setting: &sliding_window::Setting, cost: u32, now: Duration) -> Option<Duration> {
        (cost <= setting.limit).then(|| Duration::from_nanos(self.fits_at(setting, cost, nanos(now))))
    }

    #[inline]
    fn take(&mut self, setting: &sliding_window::Setting, cost: u32, now: Duration) {
        self.take(setting, cost, nanos(now));
    }

    #[inline]
    fn is_new(&self, setting: &sliding_window::Setting, now: Duration) -> bool {
        self.is_new(setting, nanos(now))
    }

    fn available(&mut self, setting: &sliding_window::Setting, now: Duration) -> u32 {
        // After a limit was lowered more may be counted than it is now.
        setting.limit.saturating_sub(self.used(setting, nanos(now)))
    }

    fn update(&mut self, former: &sliding_window::Setting, setting: &sliding_window::Setting, now: Duration) {
        self.update(former, setting, nanos(now));
    }
}

impl Limit for Tat {
    type Setting = token_bucket::Setting;

    fn new(_: &token_bucket::Setting) -> Self {
        Self::default()
    }

    #[inline]
    fn fits_at(&mut self, setting: &token_bucket::Setting, cost: u32, now: Duration) -> Option<Duration> {
        match Tat::take(*self, setting, now, cost) {
            Ok(_) => Some(now),
            Err(Shortage::Until(at)) => Some(at),
            Err(Shortage::Never) => None,
        }
    }

    #[inline]
    fn take(&mut self, setting: &token_bucket::Setting, cost: u32, now: Duration) {
        // It fits, so there is no other case.
        if let Ok(after) = Tat::take(*self, setting, now, cost) {
            *self = after;
        }
    }

    #[inline]
    fn is_new(&self, setting: &token_bucket::Setting, now: Duration) -> bool {
        Tat::is_new(*self, setting, now)
    }

    fn available(&mut self, setting: &token_bucket::Setting, now: Duration) -> u32 {
        Tat::available(*self, setting, now)
    }

    fn update(&mut self, former: &token_bucket::Setting, setting: &token_bucket::Setting, now: Duration) {
        *self = self.carried(former, setting, now);
    }
}
