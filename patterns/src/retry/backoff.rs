//! How long to wait before the next attempt: growth, jitter and cap as plain arithmetic on a given random draw.
//!
//! A delay is drawn from a range, and the cap bounds the *range* and never the draw: clipping draws at the cap would send
//! everybody who is at the cap back at the same instant, which is what jitter is there to prevent. A range is scaled as
//! one number of nanoseconds, so a base of exactly one second spreads as well as one of 999 ms.
//!
//! Sources: full, equal and decorrelated jitter from Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
//! Blog, 2015.

use std::fmt;
use std::time::Duration;

use crate::error::InvalidConfig;

/// The delay before the first retry: about one round trip within a region, so that one lost packet costs little.
pub const DEFAULT_BASE: Duration = Duration::from_millis(50);
/// Each delay is twice the one before: three retries span one order of magnitude, ten span three.
pub const DEFAULT_FACTOR: f64 = 2.0;
/// No delay is longer: callers of an interactive service have rarely more than a few seconds to give.
pub const DEFAULT_CAP: Duration = Duration::from_secs(5);

/// How long to wait before each retry.
///
/// The default is exponential from 50 ms, doubling, at most 5 s, with full jitter.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use seawall::{Backoff, Jitter};
///
/// let backoff = Backoff::exponential(Duration::from_millis(100)).cap(Duration::from_secs(1)).jitter(Jitter::Equal);
/// assert_eq!(backoff.range(0, None), (Duration::from_millis(50), Duration::from_millis(100)));
/// assert_eq!(backoff.range(2, None), (Duration::from_millis(200), Duration::from_millis(400)));
/// assert_eq!(backoff.range(99, None), (Duration::from_millis(500), Duration::from_secs(1)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Backoff {
    /// How the delay grows from retry to retry. Default: [`Growth::Exponential`] with factor [`DEFAULT_FACTOR`].
    pub growth: Growth,
    /// The delay of the first retry, before jitter. Default: [`DEFAULT_BASE`].
    pub base: Duration,
    /// No delay is longer, jitter included. Default: [`DEFAULT_CAP`].
    pub cap: Duration,
    /// How the delay is spread. Default: [`Jitter::Full`].
    pub jitter: Jitter,
}

/// How the delay grows from retry to retry.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Growth {
    /// `base` every time.
    Constant,
    /// `base`, `2 · base`, `3 · base` …
    Linear,
    /// `base`, `base · factor`, `base · factor²` …
    Exponential {
        /// At least 1.
        factor: f64,
    },
    /// A draw between `base` and three times the delay before. The draw is its jitter: [`Backoff::jitter`] is not applied.
    Decorrelated,
}

/// How a delay is spread, so that callers who failed together do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Jitter {
    /// The delay as it is. For tests, and for callers known to be alone.
    None,
    /// Anything from nothing to the delay. The default: it spreads a crowd best (Brooker, see the module).
    #[default]
    Full,
    /// Half of the delay to all of it: never an immediate retry.
    Equal,
    /// The delay, more or less this share of it (0 to 1). Near the cap the range moves down as a whole to stay below.
    Fraction(f64),
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(DEFAULT_BASE)
    }
}

impl Backoff {
    /// `delay` before every retry.
    pub const fn constant(delay: Duration) -> Self {
        Self::new(Growth::Constant, delay)
    }

    /// `step`, then twice, then three times `step` …
    pub const fn linear(step: Duration) -> Self {
        Self::new(Growth::Linear, step)
    }

    /// `base`, then twice, then four times `base` …
    pub const fn exponential(base: Duration) -> Self {
        Self::new(Growth::Exponential { factor: DEFAULT_FACTOR }, base)
    }

    /// Each delay a draw between `base` and three times the delay before.
    pub const fn decorrelated(base: Duration) -> Self {
        Self::new(Growth::Decorrelated, base)
    }

    const fn new(growth: Growth, base: Duration) -> Self {
        // A base above the default cap raises the cap with it: `constant(10 s)` means ten seconds.
        let cap = if base.as_nanos() > DEFAULT_CAP.as_nanos() { base } else { DEFAULT_CAP };
        Self { growth, base, cap, jitter: Jitter::Full }
    }

    /// No delay is longer than `cap`.
    #[must_use]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Spreads the delays.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Each delay is `factor` times the one before.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.growth = Growth::Exponential { factor };
        self
    }

    pub(crate) fn check(&self) -> Result<(), InvalidConfig> {
        if self.base > self.cap {
            return Err(InvalidConfig::new("backoff.base", self.base, "at most `backoff.cap`"));
        }
        if let Growth::Exponential { factor } = self.growth
            && !(factor.is_finite() && factor >= 1.0)
        {
            return Err(InvalidConfig::new("backoff.growth.factor", factor, "a number from 1 up"));
        }
        if let Jitter::Fraction(fraction) = self.jitter
            && !(0.0..=1.0).contains(&fraction)
        {
            return Err(InvalidConfig::new("backoff.jitter.fraction", fraction, "from 0 to 1"));
        }
        Ok(())
    }

    /// The shortest and the longest delay before retry number `retry` (the first is 0), when the delay before was
    /// `previous` (only [`Growth::Decorrelated`] looks at it).
    pub fn range(&self, retry: u32, previous: Option<Duration>) -> (Duration, Duration) {
        let (low, high) = self.range_nanos(retry, previous);
        (Duration::from_nanos(low), Duration::from_nanos(high))
    }

    /// The delay before retry number `retry`, where `draw` is uniform from 0 to below 1.
    pub(crate) fn delay(&self, retry: u32, previous: Option<Duration>, draw: f64) -> Duration {
        let (low, high) = self.range_nanos(retry, previous);
        // One more than the distance, so that the upper end is drawn as often as any other value; the bound holds where the
        // product is rounded up, which takes a range of months.
        let offset = ((high - low) as f64 + 1.0) * draw;
        Duration::from_nanos(low + (offset as u64).min(high - low))
    }

    fn range_nanos(&self, retry: u32, previous: Option<Duration>) -> (u64, u64) {
        let (base, cap) = (nanos(self.base), nanos(self.cap));
        let grown = match self.growth {
            Growth::Constant => base,
            Growth::Linear => base.saturating_mul(u64::from(retry).saturating_add(1)),
            // A base of zero stays zero; the product below would be 0 · ∞ for a late retry.
            Growth::Exponential { .. } if base == 0 => 0,
            // The cast saturates, so an overflow to infinity lands on the cap.
            Growth::Exponential { factor } => {
                (base as f64 * factor.powi(i32::try_from(retry).unwrap_or(i32::MAX))) as u64
            }
            Growth::Decorrelated => {
                let high = previous.map_or(base, nanos).saturating_mul(3).min(cap);
                return (base.min(high), high);
            }
        };
        let delay = grown.min(cap);
        match self.jitter {
            Jitter::None => (delay, delay),
            Jitter::Full => (0, delay),
            Jitter::Equal => (delay / 2, delay),
            Jitter::Fraction(fraction) => {
                // The middle is lowered where the upper end would pass the cap: the range keeps its relative width.
                let middle = (delay as f64).min(cap as f64 / (1.0 + fraction));
                let high = ((middle * (1.0 + fraction)) as u64).min(cap);
                (((middle * (1.0 - fraction)) as u64).min(high), high)
            }
        }
    }
}

/// Why a call was not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// `max_attempts` were made.
    Attempts,
    /// The next attempt would have started after `max_elapsed`.
    Elapsed,
    /// The next attempt would have started after the deadline of the caller.
    Deadline,
    /// The retry budget was empty.
    Budget,
    /// The service did not become ready for another attempt in time, or failed to.
    NotReady,
    /// The policy took the failure for one that another attempt would not change, or must not follow.
    Policy,
    /// The [delays](crate::RetryLayer::delays) that took the place of the backoff came to their end.
    Exhausted,
}

impl Stop {
    /// The word in metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Elapsed => "elapsed",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::NotReady => "not_ready",
            Self::Policy => "policy",
            Self::Exhausted => "exhausted",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far one call has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Attempts that were sent, the first included.
    pub(crate) attempts: u32,
    previous: Option<Duration>,
}

/// What one retry must fit into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_attempts: u32,
    /// Until `max_elapsed` is used up.
    pub(crate) elapsed_left: Duration,
    /// Until the deadline, where there is one.
    pub(crate) deadline_left: Option<Duration>,
}

impl Progress {
    /// The first attempt is under way.
    pub(crate) const fn first() -> Self {
        Self { attempts: 1, previous: None }
    }

    /// How long to wait before the next attempt, or why there is none.
    ///
    /// A server's `hint` is never undercut. The backoff's delay comes on top, since all who were turned away together
    /// got the same hint; where only the hint itself still fits, it is taken as it is.
    ///
    /// A wait that ends exactly at a limit does not fit: the attempt after it would have no time left.
    pub(crate) fn next(
        &mut self,
        backoff: &Backoff,
        bounds: Bounds,
        hint: Option<Duration>,
        draw: f64,
    ) -> Result<Duration, Stop> {
        let (retry, previous) = (self.attempts - 1, self.previous);
        self.next_of(&mut std::iter::once_with(|| backoff.delay(retry, previous, draw)), bounds, hint)
    }

    /// As [`next`](Self::next), with the next of `delays` for the backoff's.
    pub(crate) fn next_of(
        &mut self,
        delays: &mut dyn Iterator<Item = Duration>,
        bounds: Bounds,
        hint: Option<Duration>,
    ) -> Result<Duration, Stop> {
        if self.attempts >= bounds.max_attempts {
            return Err(Stop::Attempts);
        }
        let delay = delays.next().ok_or(Stop::Exhausted)?;
        let left = bounds.deadline_left.map_or(bounds.elapsed_left, |left| left.min(bounds.elapsed_left));
        let hint = hint.unwrap_or_default();
        let wait = match hint.saturating_add(delay) {
            both if both < left => both,
            _ if !hint.is_zero() && hint < left => hint,
            shortest if shortest >= bounds.elapsed_left => return Err(Stop::Elapsed),
            _ => return Err(Stop::Deadline),
        };
        self.previous = Some(delay);
        Ok(wait)
    }

    /// The next attempt is under way.
    pub(crate) fn sent(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }
}

#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const SECOND: Duration = Duration::from_secs(1);
    /// Draws that land on the lower end, the middle and the upper end.
    const LOW: f64 = 0.0;
    const MIDDLE: f64 = 0.5;
    const HIGH: f64 = 1.0 - f64::EPSILON / 2.0;

    fn plain(backoff: Backoff) -> Vec<u64> {
        let backoff = backoff.jitter(Jitter::None);
        (0..6).map(|retry| backoff.delay(retry, None, MIDDLE).as_millis() as u64).collect()
    }

    /// Uniform draws without a random source: the Weyl sequence of the golden ratio.
    fn draws(n: u32) -> impl Iterator<Item = f64> {
        (1..=n).map(|i| (f64::from(i) * 0.618_033_988_749_894_9).fract())
    }

    #[test]
    fn constant_linear_and_exponential_grow_as_they_are_called() {
        assert_eq!(plain(Backoff::constant(ms(100))), [100, 100, 100, 100, 100, 100]);
        assert_eq!(plain(Backoff::linear(ms(100))), [100, 200, 300, 400, 500, 600]);
        assert_eq!(plain(Backoff::exponential(ms(100)).cap(ms(1000))), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(plain(Backoff::exponential(ms(100)).factor(1.5)), [100, 150, 225, 337, 506, 759]);
    }

    #[test]
    fn decorrelated_draws_between_the_base_and_three_times_the_delay_before() {
        let backoff = Backoff::decorrelated(ms(100)).cap(ms(1000));
        assert_eq!(backoff.range(0, None), (ms(100), ms(300)));
        assert_eq!(backoff.range(1, Some(ms(200))), (ms(100), ms(600)));
        assert_eq!(backoff.range(7, Some(ms(1000))), (ms(100), ms(1000)), "the cap bounds the range, not the draw");
    }

    #[test]
    fn each_jitter_covers_its_range_and_no_more() {
        let backoff = |jitter| Backoff::constant(ms(400)).jitter(jitter);
        let range = |jitter| (backoff(jitter).delay(0, None, LOW), backoff(jitter).delay(0, None, HIGH));
        assert_eq!(range(Jitter::None), (ms(400), ms(400)));
        assert_eq!(range(Jitter::Full), (ms(0), ms(400)));
        assert_eq!(range(Jitter::Equal), (ms(200), ms(400)));
        assert_eq!(range(Jitter::Fraction(0.25)), (ms(300), ms(500)));
    }

    #[test]
    fn a_base_of_exactly_one_second_jitters() {
        // Scaling the seconds and the nanoseconds of a duration apart truncates the seconds: every draw would be 0 or 1 s.
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::Fraction(0.5)] {
            let backoff = Backoff::constant(SECOND).jitter(jitter);
            let distinct: std::collections::BTreeSet<_> = draws(100).map(|draw| backoff.delay(0, None, draw)).collect();
            assert_eq!(distinct.len(), 100, "{jitter:?}");
            assert!(distinct.iter().all(|delay| delay.subsec_nanos() != 0), "{jitter:?}");
        }
    }

    #[test]
    fn the_cap_keeps_its_jitter() {
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::Fraction(0.2)] {
            let backoff = Backoff::exponential(ms(100)).cap(SECOND).jitter(jitter);
            let (low, high) = backoff.range(40, None);
            assert!(high <= SECOND && high >= ms(999), "{jitter:?} reaches the cap: {high:?}");
            assert!(high - low >= ms(300), "{jitter:?} still spreads: {low:?} to {high:?}");
            let at_the_cap = draws(1000).filter(|&draw| backoff.delay(40, None, draw) >= ms(999)).count();
            assert!(at_the_cap <= 10, "{jitter:?}: {at_the_cap} of 1000 draws sit at the cap");
        }
    }

    #[test]
    fn full_jitter_is_uniform() {
        let backoff = Backoff::constant(SECOND);
        let mut bins = [0_u32; 20];
        let mut sum = Duration::ZERO;
        for draw in draws(100_000) {
            let delay = backoff.delay(0, None, draw);
            bins[(delay.as_millis() / 50).min(19) as usize] += 1;
            sum += delay;
        }
        assert!((ms(495)..=ms(505)).contains(&(sum / 100_000)), "the mean is half the delay");
        let chi_squared: f64 = bins.iter().map(|&n| (f64::from(n) - 5000.0).powi(2) / 5000.0).sum();
        assert!(chi_squared < 43.8, "19 degrees of freedom at 0.1 %: {chi_squared}");
    }

    #[test]
    fn a_late_retry_neither_overflows_nor_passes_the_cap() {
        for backoff in [
            Backoff::constant(ms(1)),
            Backoff::linear(ms(1)),
            Backoff::exponential(ms(1)),
            Backoff::decorrelated(ms(1)),
        ] {
            assert!(backoff.delay(u32::MAX, Some(Duration::MAX), HIGH) <= DEFAULT_CAP);
        }
        assert_eq!(Backoff::exponential(Duration::ZERO).delay(u32::MAX, None, HIGH), Duration::ZERO);
    }

    #[test]
    fn bad_values_are_refused_with_their_field() {
        let field = |backoff: Backoff| backoff.check().unwrap_err().field;
        assert_eq!(field(Backoff::constant(SECOND).cap(ms(1))), "backoff.base");
        assert_eq!(field(Backoff::default().factor(0.5)), "backoff.growth.factor");
        assert_eq!(field(Backoff::default().factor(f64::NAN)), "backoff.growth.factor");
        assert_eq!(field(Backoff::default().jitter(Jitter::Fraction(1.1))), "backoff.jitter.fraction");
        assert_eq!(Backoff::default().check(), Ok(()));
        assert_eq!(Backoff::constant(Duration::from_secs(10)).check(), Ok(()), "a long base raises the default cap");
    }

    fn bounds(max_attempts: u32, elapsed_left: Duration, deadline_left: Option<Duration>) -> Bounds {
        Bounds { max_attempts, elapsed_left, deadline_left }
    }

    #[test]
    fn three_attempts_are_two_retries() {
        let mut progress = Progress::first();
        let backoff = Backoff::constant(ms(10)).jitter(Jitter::None);
        for _ in 0..2 {
            assert_eq!(progress.next(&backoff, bounds(3, SECOND, None), None, LOW), Ok(ms(10)));
            progress.sent();
        }
        assert_eq!(progress.next(&backoff, bounds(3, SECOND, None), None, LOW), Err(Stop::Attempts));
    }

    #[test]
    fn a_wait_that_does_not_fit_stops_at_once_and_says_which_limit() {
        let backoff = Backoff::constant(ms(100)).jitter(Jitter::None);
        let next = |elapsed, deadline| Progress::first().next(&backoff, bounds(9, elapsed, deadline), None, LOW);
        assert_eq!(next(ms(101), Some(ms(101))), Ok(ms(100)));
        assert_eq!(next(ms(100), None), Err(Stop::Elapsed), "it would start with no time left");
        assert_eq!(next(SECOND, Some(ms(100))), Err(Stop::Deadline));
        assert_eq!(next(Duration::ZERO, Some(Duration::ZERO)), Err(Stop::Elapsed));
    }

    #[test]
    fn a_servers_hint_is_kept_and_spread_and_clamped_to_what_is_left() {
        let backoff = Backoff::constant(ms(100)).jitter(Jitter::None);
        let next = |left, hint| Progress::first().next(&backoff, bounds(9, left, None), Some(hint), LOW);
        assert_eq!(next(SECOND, ms(500)), Ok(ms(600)), "the delay spreads those who got the same hint");
        assert_eq!(next(ms(550), ms(500)), Ok(ms(500)), "the delay is dropped where only the hint fits");
        assert_eq!(next(ms(500), ms(500)), Err(Stop::Elapsed));
        assert_eq!(next(SECOND, Duration::MAX), Err(Stop::Elapsed));
    }

    #[test]
    fn delays_from_elsewhere_end_by_themselves_and_keep_every_limit() {
        let mut progress = Progress::first();
        let mut delays = [ms(70), ms(30)].into_iter();
        assert_eq!(progress.next_of(&mut delays, bounds(9, SECOND, None), None), Ok(ms(70)));
        progress.sent();
        assert_eq!(progress.next_of(&mut delays, bounds(9, SECOND, None), Some(ms(500))), Ok(ms(530)));
        progress.sent();
        assert_eq!(progress.next_of(&mut delays, bounds(9, SECOND, None), None), Err(Stop::Exhausted));

        let next = |bounds| Progress::first().next_of(&mut std::iter::repeat(ms(100)), bounds, None);
        assert_eq!(next(bounds(1, SECOND, None)), Err(Stop::Attempts));
        assert_eq!(next(bounds(9, ms(100), None)), Err(Stop::Elapsed));
        assert_eq!(next(bounds(9, SECOND, Some(ms(100)))), Err(Stop::Deadline));
    }

    fn any_backoff() -> impl Strategy<Value = Backoff> {
        let growth = prop_oneof![
            Just(Growth::Constant),
            Just(Growth::Linear),
            (1.0..10.0).prop_map(|factor| Growth::Exponential { factor }),
            Just(Growth::Decorrelated),
        ];
        let jitter = prop_oneof![
            Just(Jitter::None),
            Just(Jitter::Full),
            Just(Jitter::Equal),
            (0.0..=1.0).prop_map(Jitter::Fraction)
        ];
        let everyday =
            prop_oneof![Just(ms(50)), Just(SECOND), Just(Duration::from_secs(2)), (0..10_000_u64).prop_map(ms)];
        (growth, jitter, everyday, 0..10_000_u64).prop_map(|(growth, jitter, base, above)| Backoff {
            growth,
            base,
            cap: base + ms(above),
            jitter,
        })
    }

    proptest! {
        #[test]
        fn every_delay_is_in_its_range_and_never_above_the_cap(
            backoff in any_backoff(), retry: u32, previous in 0..20_000_u64, draw in 0.0..1.0_f64,
        ) {
            prop_assert_eq!(backoff.check(), Ok(()));
            let previous = Some(ms(previous));
            let (low, high) = backoff.range(retry, previous);
            let delay = backoff.delay(retry, previous, draw);
            prop_assert!(low <= delay && delay <= high && high <= backoff.cap);
            prop_assert_eq!(backoff.delay(retry, previous, LOW), low);
            prop_assert_eq!(backoff.delay(retry, previous, HIGH), high);
        }

        /// Runs a whole call on made-up time: attempts take `work`, waits take what `next` says.
        #[test]
        fn the_waits_of_a_call_stay_within_every_limit(
            backoff in any_backoff(),
            max_attempts in 1..12_u32,
            max_elapsed in 0..20_000_u64,
            deadline in prop::option::of(0..20_000_u64),
            steps in prop::collection::vec((0..2_000_u64, prop::option::of(0..5_000_u64), 0.0..1.0_f64), 12),
        ) {
            let (max_elapsed, deadline) = (ms(max_elapsed), deadline.map(ms));
            let mut progress = Progress::first();
            let mut now = Duration::ZERO;
            for (work, hint, draw) in steps {
                now += ms(work);
                let bounds = Bounds {
                    max_attempts,
                    elapsed_left: max_elapsed.saturating_sub(now),
                    deadline_left: deadline.map(|deadline| deadline.saturating_sub(now)),
                };
                let Ok(wait) = progress.next(&backoff, bounds, hint.map(ms), draw) else { break };
                prop_assert!(wait >= hint.map_or(Duration::ZERO, ms), "a hint is never undercut");
                prop_assert!(wait <= hint.map_or(Duration::ZERO, ms) + backoff.cap);
                now += wait;
                progress.sent();
                prop_assert!(now < max_elapsed && deadline.is_none_or(|deadline| now < deadline));
            }
            prop_assert!(progress.attempts <= max_attempts);
        }
    }
}
