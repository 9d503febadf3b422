//! The arithmetic: the Generic Cell Rate Algorithm (ITU-T I.371, annex A; the virtual scheduling form) on whole numbers.
//!
//! A bucket remembers one instant, the *theoretical arrival time* (TAT): when it will be full again. Taking `n` tokens at
//! `now` moves it to `max(TAT, now) + n · period`, and is allowed if that lies at most `burst · period` after `now`.
//!
//! # Ticks
//! A third of a second is no whole number of nanoseconds; rounded, three tokens a second would drift. So the TAT counts
//! *ticks*, of which a token takes a whole number: the nanoseconds of its period, rounded down. If the period is whole, a
//! tick is a nanosecond. If not, a tick is a little longer (less than two), so that a token takes its period exactly, and
//! `now` is rounded down to the tick, afresh at each call: the error is less than one tick, whatever came before.
//!
//! Hence, for all admitted calls from the one at `a` to the one at `b`, the tokens are at most
//! **`burst + rate · (b − a)`** where the period is a whole number of nanoseconds, and less than one tick's worth more
//! (`rate` · 2 ns at most) where it is not. Proof: each moves the TAT by at least its tokens; the first finds it at `a` or
//! later, the last leaves it at most a burst after `b`.

use std::time::Duration;

use super::config::Rate;
use crate::sync::{Bug, bug};

/// The last tick that `now` can stand for: 146 years. Later, nothing is added: a bucket fails closed. A TAT lies at most one
/// burst, of 30 days, beyond: no sum here overflows, and the topmost bit of a word stays free.
const LAST_TICK: u64 = 1 << 62;

/// A rate and a burst as the arithmetic needs them. Checked by [`check_rate`](super::config::check_rate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// So many ticks pass…
    pub(super) ticks: u64,
    /// …in so many nanoseconds; both are 1 where the period is whole.
    pub(super) nanos: u64,
    /// The tick at the beginning of time.
    pub(super) origin: u64,
    /// Ticks that a token takes: the period.
    pub(super) period: u64,
    /// Ticks that all tokens of a full bucket take: the burst.
    pub(super) burst: u64,
}

/// The theoretical arrival time in ticks of one [`Setting`]. The smallest is that of a full bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tat(pub(super) u64);

/// Why tokens cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// Not now; at this time, if nobody takes any before. Refused a nanosecond earlier.
    Until(Duration),
    /// More tokens than the bucket holds.
    Never,
}

impl Setting {
    /// In force from the beginning of time.
    pub fn new(rate: Rate, burst: u32) -> Self {
        let (tokens, per) = (u64::from(rate.tokens), nanos(rate.per));
        let period = per / tokens;
        let common = gcd(tokens * period, per);
        let (ticks, nanos) = (tokens * period / common, per / common);
        Self { ticks, nanos, origin: 0, period, burst: u64::from(burst) * period }
    }

    /// The same rate and burst, counting so that `now` is `tick` or more.
    #[must_use]
    pub fn counting_from(self, now: Duration, tick: u64) -> Self {
        let plain = Self { origin: 0, ..self };
        Self { origin: tick.saturating_sub(plain.tick(now)), ..self }
    }

    /// The tick at `now`, rounded down.
    #[inline]
    pub fn tick(&self, now: Duration) -> u64 {
        let now = nanos(now);
        let passed = if self.ticks == self.nanos { now } else { scale_down(now, self.ticks, self.nanos) };
        passed.saturating_add(self.origin).min(LAST_TICK)
    }

    /// Whether the bucket holds so many tokens.
    #[inline]
    pub fn fits(&self, cost: u32) -> bool {
        u64::from(cost).saturating_mul(self.period) <= self.burst
    }

    /// Why so many tokens, which would move the TAT to `next`, are not to be had.
    #[cold]
    fn shortage(&self, cost: u32, next: u64) -> Shortage {
        if self.fits(cost) { Shortage::Until(self.time(next - self.burst)) } else { Shortage::Never }
    }

    /// The first time that is `tick` or later.
    pub fn time(&self, tick: u64) -> Duration {
        let passed = tick.saturating_sub(self.origin);
        Duration::from_nanos(if self.ticks == self.nanos { passed } else { scale_up(passed, self.nanos, self.ticks) })
    }
}

impl Tat {
    /// The TAT after `cost` tokens were taken at `now`.
    ///
    /// # Errors
    /// [`Shortage`]; then nothing was taken.
    #[inline]
    pub fn take(self, setting: &Setting, now: Duration, cost: u32) -> Result<Self, Shortage> {
        let now = setting.tick(now);
        self.take_since(setting, now, now, cost)
    }

    /// As [`take`](Self::take) at the tick `now`, by a call that has been waiting since the tick `since`: the bucket is
    /// charged as if the call had gone as soon as it could.
    #[inline]
    pub(super) fn take_since(self, setting: &Setting, since: u64, now: u64, cost: u32) -> Result<Self, Shortage> {
        let tokens = u64::from(cost).saturating_mul(setting.period);
        let next = self.0.max(since).saturating_add(tokens);
        if next > now + setting.burst {
            return Err(setting.shortage(cost, next));
        }
        Ok(Self(if bug(Bug::TatNotMaxed) { since + tokens } else { next }))
    }

    /// When `cost` more tokens, in turn after `ahead` others, can be taken. At most a burst each.
    pub fn due(self, setting: &Setting, ahead: u64, cost: u32) -> Duration {
        let tokens = ahead.saturating_add(cost.into());
        let full = self.0.saturating_add(tokens.saturating_mul(setting.period));
        setting.time(full.saturating_sub(setting.burst))
    }

    /// The tokens that can be taken at `now`.
    pub fn available(self, setting: &Setting, now: Duration) -> u32 {
        let owed = self.0.saturating_sub(setting.tick(now));
        let tokens = setting.burst.saturating_sub(owed) / setting.period;
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Whether the bucket is full: from now on it cannot be told from a new one.
    pub fn is_new(self, setting: &Setting, now: Duration) -> bool {
        self.0 <= setting.tick(now)
    }

    /// The TAT of an emptied bucket.
    #[must_use]
    pub fn drained(self, setting: &Setting, now: Duration) -> Self {
        Self(self.0.max(setting.tick(now) + setting.burst))
    }

    /// `now`, or the latest time that somebody has seen for certain: each call leaves the TAT within a burst of its time.
    pub fn seen(self, setting: &Setting, now: Duration) -> Duration {
        now.max(setting.time(self.0.saturating_sub(setting.burst)))
    }

    /// The TAT under `next`, which takes over from `setting`: as many tokens are spent as before, rounded up to the tick,
    /// but no more than the new burst.
    #[must_use]
    pub fn carried(self, setting: &Setting, next: &Setting, now: Duration) -> Self {
        let now = self.seen(setting, now);
        Self(next.tick(now) + self.owed(setting, next, now))
    }

    /// The ticks of `next` from `now`, which was [seen](Self::seen), to the [carried](Self::carried) TAT.
    pub(super) fn owed(self, setting: &Setting, next: &Setting, now: Duration) -> u64 {
        let owed = self.0.saturating_sub(setting.tick(now));
        scale_up(owed, next.period, setting.period).min(next.burst)
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

/// `value · by / of`, rounded down; `by ≤ of`.
fn scale_down(value: u64, by: u64, of: u64) -> u64 {
    (u128::from(value) * u128::from(by) / u128::from(of)) as u64
}

/// `value · by / of`, rounded up.
fn scale_up(value: u64, by: u64, of: u64) -> u64 {
    let scaled = (u128::from(value) * u128::from(by)).div_ceil(u128::from(of));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
