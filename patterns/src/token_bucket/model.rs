//! Properties of the bucket: against the algorithm in exact fractions, and against its bound.

use std::num::NonZeroU32;
use std::time::Duration;

use ::governor::clock::{Clock, FakeRelativeClock};
use ::governor::{Quota, RateLimiter};
use proptest::prelude::*;

use super::bucket::{Bucket, Joined, Taken};
use super::config::{MAX_PER, Rate, check_rate};
use super::gcra::{Setting, Shortage};

/// The start of every script: late enough to go back from, and no multiple of anything.
const START: u64 = 1_000_000_007;

/// One step of a script.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Takes so many tokens.
    Take(u32),
    /// Goes on by so many periods and nanoseconds, or back.
    Pass(i64, i64),
    /// Goes to the time that the last refusal named, or a nanosecond beside it.
    Meet(i64),
    /// Gives back one of the grants so far, counted from the last.
    Refund(usize),
    Drain,
    Update(Rate, u32),
}

fn any_rate() -> impl Strategy<Value = Rate> {
    let second = Duration::from_secs(1);
    prop_oneof![
        // Whole periods.
        prop::sample::select(vec![1, 10, 1000, 1_000_000, 1_000_000_000]).prop_map(Rate::per_second),
        // The worst fractions: nearly two nanoseconds; a third; a prime.
        prop::sample::select(vec![(500_000_001, second), (3, second), (999_983, second), (2, Duration::from_nanos(3))])
            .prop_map(|(tokens, per)| Rate::new(tokens, per)),
        (1..=1000_u32, 1000..=10_000_000_u64).prop_map(|(tokens, per)| Rate::new(tokens, Duration::from_nanos(per))),
    ]
}

fn any_burst() -> impl Strategy<Value = u32> {
    prop_oneof![1..=3_u32, 1..=50_u32]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..=4_u32).prop_map(Step::Take),
        2 => (1..=60_u32).prop_map(Step::Take),
        3 => (-1..=1_i64).prop_map(Step::Meet),
        4 => (0..=3_i64, -1..=1_i64).prop_map(|(periods, nanos)| Step::Pass(periods, nanos)),
        1 => (-5..=0_i64, -3..=0_i64).prop_map(|(periods, nanos)| Step::Pass(periods, nanos)),
        1 => Just(Step::Pass(1_000_000_000, 0)),
        1 => (0..4_usize).prop_map(Step::Refund),
        1 => Just(Step::Drain),
    ]
}

fn any_change() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => any_step(),
        1 => (any_rate(), any_burst()).prop_map(|(rate, burst)| Step::Update(rate, burst)),
    ]
}

/// A script as it runs: the bucket, the clock, and what was granted.
struct Run {
    bucket: Bucket,
    rate: Rate,
    burst: u32,
    now: u64,
    meet: u64,
    /// Grants that may still be refunded, with their number.
    held: Vec<(usize, Taken)>,
    granted: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Nothing,
    Took(u32, Result<(), Shortage>),
    /// Which grant, and whether it was undone.
    Refunded(usize, bool),
    Drained,
    Updated,
}

impl Run {
    fn new(rate: Rate, burst: u32) -> Self {
        assert_eq!(check_rate(rate, burst), Ok(()));
        let bucket = Bucket::new(Setting::new(rate, burst), 0);
        Self { bucket, rate, burst, now: START, meet: START, held: Vec::new(), granted: 0 }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    fn step(&mut self, step: Step) -> Did {
        match step {
            Step::Take(cost) => {
                let taken = self.bucket.try_take(cost, self.now());
                if let Err(Shortage::Until(at)) = taken {
                    self.meet = at.as_nanos() as u64;
                }
                let result = taken.map(|taken| {
                    self.held.push((self.granted, taken));
                    self.granted += 1;
                });
                return Did::Took(cost, result);
            }
            Step::Pass(periods, nanos) => {
                let period = self.rate.per.as_nanos() as i64 / i64::from(self.rate.tokens);
                self.now = self.now.saturating_add_signed((periods * period + nanos).clamp(-900_000_000, 1 << 50));
            }
            Step::Meet(beside) => self.now = self.meet.saturating_add_signed(beside),
            Step::Refund(back) if back < self.held.len() => {
                let (grant, taken) = self.held.remove(self.held.len() - 1 - back);
                return Did::Refunded(grant, self.bucket.refund(taken, self.now()));
            }
            Step::Refund(_) => {}
            Step::Drain => {
                self.bucket.drain(self.now());
                return Did::Drained;
            }
            Step::Update(rate, burst) => {
                (self.rate, self.burst) = (rate, burst);
                let woken = self.bucket.update(Setting::new(rate, burst), Some(0), self.now());
                assert!(woken.is_empty());
                return Did::Updated;
            }
        }
        Did::Nothing
    }
}

/// The algorithm in exact fractions: its unit of time is the `tokens`-th part of a nanosecond, of which a token takes `per`.
#[derive(Debug)]
struct Exact {
    tokens: i128,
    per: i128,
    burst: i128,
    tat: i128,
}

impl Exact {
    fn new(rate: Rate, burst: u32) -> Self {
        Self { tokens: rate.tokens.into(), per: rate.per.as_nanos() as i128, burst: burst.into(), tat: 0 }
    }

    /// How far the call is from being refused; refused if negative.
    fn margin(&self, cost: u32, now: u64) -> i128 {
        let now = i128::from(now) * self.tokens;
        now + self.burst * self.per - (self.tat.max(now) + i128::from(cost) * self.per)
    }

    /// How long until the bucket is full.
    fn owed(&self, now: u64) -> i128 {
        self.tat - i128::from(now) * self.tokens
    }

    fn take(&mut self, cost: u32, now: u64) {
        self.tat = self.tat.max(i128::from(now) * self.tokens) + i128::from(cost) * self.per;
    }

    /// Whether a difference is less than a tick, or none where the period is whole.
    fn within_a_tick(&self, difference: i128) -> bool {
        let whole = self.per % self.tokens == 0;
        difference == 0 || !whole && difference.abs() * (self.per / self.tokens) < self.per
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The same decisions as in exact fractions; where the period is no whole number of nanoseconds, except within one tick
    /// of the boundary, however long the script.
    #[test]
    fn every_decision_is_that_of_exact_fractions(
        rate in any_rate(),
        burst in any_burst(),
        script in prop::collection::vec(any_step(), 1..200),
    ) {
        let mut run = Run::new(rate, burst);
        let mut exact = Exact::new(rate, burst);
        let mut grants: Vec<(i128, i128, usize)> = Vec::new();
        let mut drained = 0;
        for step in script {
            match run.step(step) {
                Did::Took(cost, result) if cost > burst => prop_assert_eq!(result, Err(Shortage::Never)),
                Did::Took(cost, result) => {
                    let margin = exact.margin(cost, run.now);
                    let same = result.is_ok() == (margin >= 0);
                    prop_assert!(same || exact.within_a_tick(margin), "{result:?} at {margin} of {exact:?}");
                    if result.is_ok() {
                        let before = exact.tat;
                        exact.take(cost, run.now);
                        grants.push((before, exact.tat, drained));
                    } else if let Err(Shortage::Until(at)) = result {
                        let at = at.as_nanos() as u64;
                        prop_assert!(at > run.now);
                        let (late, early) = (exact.margin(cost, at), exact.margin(cost, at - 1));
                        prop_assert!(late >= 0 || exact.within_a_tick(late), "told to come back too early");
                        prop_assert!(early < 0 || exact.within_a_tick(early), "told to come back too late");
                    }
                }
                Did::Refunded(grant, refunded) => {
                    let (before, after, drains) = grants[grant];
                    let untouched = exact.within_a_tick(exact.tat - after);
                    // What a drain finds within a tick of empty may already have been empty.
                    prop_assert!(refunded == untouched || untouched && drains < drained);
                    if refunded {
                        exact.tat = before;
                    }
                }
                Did::Drained => {
                    drained += 1;
                    exact.tat = exact.tat.max(i128::from(run.now) * exact.tokens + exact.burst * exact.per);
                }
                Did::Nothing | Did::Updated => {}
            }
            let left = (exact.margin(0, run.now)).max(0) / exact.per;
            let told = i128::from(run.bucket.available(run.now()));
            prop_assert!((left - told).abs() <= i128::from(exact.per % exact.tokens != 0));
            prop_assert!(run.bucket.tat().is_new(&Setting::new(rate, burst), run.now()) == (exact.owed(run.now) <= 0)
                || exact.within_a_tick(exact.owed(run.now)));
        }
    }

    /// All calls admitted from the one at `a` to the one at `b`, of any two: no more than the burst and what the rate gives
    /// in between, and one tick's worth where the period is not whole. Across changes of the setting it is the first burst,
    /// what the later ones added to it, and what each rate gives in its time.
    #[test]
    fn no_two_calls_have_more_than_the_bound_between_them(
        rate in any_rate(),
        burst in any_burst(),
        script in prop::collection::vec(any_change(), 1..200),
    ) {
        let mut run = Run::new(rate, burst);
        // Time, tokens, and the settings in force: an index into `settings`.
        let mut admitted: Vec<(u64, u32, usize)> = Vec::new();
        let mut grants = Vec::new();
        let mut settings = vec![(rate, burst, 0)];
        let mut latest = START;
        for step in script {
            // An update is made by one who reads the clock; only calls are stale.
            if matches!(step, Step::Update(..)) {
                run.now = latest;
            }
            match run.step(step) {
                Did::Took(cost, Ok(())) => {
                    grants.push(admitted.len());
                    admitted.push((run.now, cost, settings.len() - 1));
                }
                Did::Refunded(grant, true) => admitted[grants[grant]].1 = 0,
                Did::Updated => settings.push((run.rate, run.burst, run.now)),
                _ => {}
            }
            latest = latest.max(run.now);
        }
        admitted.retain(|(_, cost, _)| *cost > 0);
        for (first, &(from, _, before)) in admitted.iter().enumerate() {
            let mut tokens = 0;
            for &(to, cost, after) in &admitted[first..] {
                tokens += cost;
                let bound = bound(&settings[before..=after], from, to);
                prop_assert!(f64::from(tokens) <= bound + 1e-6, "{tokens} from {from} to {to}, at most {bound}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// The crate `governor` decides the same and names the same instants, where a token takes a whole number of nanoseconds.
    /// Other periods it rounds down, and so gives 3 a second one nanosecond too early, each time again: no oracle for what
    /// is exact here. Time only goes on: it takes a late reader's time as it is.
    #[test]
    fn every_decision_is_that_of_governor(
        period in prop_oneof![1..10_u64, 1..10_000_000_u64],
        burst in any_burst(),
        script in prop::collection::vec((1..=60_u32, prop::option::of((0..4_u64, 0..3_u64))), 1..200),
    ) {
        let whole = Duration::from_nanos(period);
        let bucket = Bucket::new(Setting::new(Rate::every(whole), burst), 0);
        let clock = FakeRelativeClock::default();
        let quota = Quota::with_period(whole).unwrap().allow_burst(NonZeroU32::new(burst).unwrap());
        let governor = RateLimiter::direct_with_clock(quota, clock.clone());
        let mut now = Duration::from_nanos(START);
        let mut meet = now;
        for (cost, pass) in script {
            // By periods and a bit; or to the instant that the last refusal named.
            let step = match pass {
                Some((periods, nanos)) => Duration::from_nanos(periods * period + nanos),
                None => meet.saturating_sub(now),
            };
            now += step;
            clock.advance(step);
            let cost = if cost > burst + 1 { 1 + cost % burst } else { cost };
            let expected = match governor.check_n(NonZeroU32::new(cost).unwrap()) {
                Ok(Ok(())) => Ok(()),
                Ok(Err(until)) => Err(Shortage::Until(now + until.wait_time_from(clock.now()))),
                Err(_) => Err(Shortage::Never),
            };
            let answer = bucket.try_take(cost, now).map(drop);
            prop_assert_eq!(answer, expected);
            if let Err(Shortage::Until(at)) = answer {
                meet = at;
            }
        }
    }
}

/// The bound over settings that follow each other, for calls at `from` under the first and at `to` under the last.
fn bound(settings: &[(Rate, u32, u64)], from: u64, to: u64) -> f64 {
    let mut bound = f64::from(settings[0].1);
    bound += settings.windows(2).map(|pair| f64::from(pair[1].1.saturating_sub(pair[0].1))).sum::<f64>();
    for (i, (rate, _, since)) in settings.iter().enumerate() {
        let start = if i == 0 { from } else { *since };
        let end = settings.get(i + 1).map_or(to, |(_, _, next)| *next);
        let per_nano = f64::from(rate.tokens) / rate.per.as_nanos() as f64;
        let whole = rate.per.as_nanos() % u128::from(rate.tokens) == 0;
        let tick = if whole { 0.0 } else { 1.0 / (rate.per.as_nanos() / u128::from(rate.tokens)) as f64 };
        bound += (end as f64 - start as f64) * per_nano + tick;
    }
    bound
}

#[test]
fn at_the_ends_of_every_range_nothing_overflows_and_nothing_passes_for_free() {
    let nano = Duration::from_nanos(1);
    let month = MAX_PER;
    let settings = [
        (Rate::new(1, nano), 1),
        (Rate::per_second(1_000_000_000), u32::MAX),
        (Rate::new(500_000_001, Duration::from_secs(1)), u32::MAX),
        (Rate::every(month), 1),
        (Rate::new(u32::MAX, month), u32::MAX),
        (Rate::new(u32::MAX - 1, month - nano), u32::MAX - 1),
    ];
    let times = [0, 1, 1 << 61, (1 << 62) - 1, 1 << 62, u64::MAX].map(Duration::from_nanos);
    for (rate, burst) in settings {
        check_rate(rate, burst).unwrap();
        for now in times.into_iter().chain([Duration::MAX]) {
            let bucket = Bucket::new(Setting::new(rate, burst), 3);
            let mut admitted = 0_u64;
            for cost in [1, burst, burst - 1, 1, u32::MAX] {
                admitted += bucket.try_take(cost, now).map_or(0, |_| u64::from(cost));
            }
            // Within a tick, which is a token at most.
            assert!((u64::from(burst)..=u64::from(burst) + 1).contains(&admitted), "{admitted} of {burst} at {now:?}");
            for cost in [1, burst, burst] {
                assert!(matches!(bucket.join(cost, now, |_| Ok::<_, ()>(())), Ok(Joined::Waits(_))));
            }
            for (rate, burst) in settings {
                let _woken = bucket.update(Setting::new(rate, burst), Some(3), now);
                bucket.drain(now);
                assert_eq!(bucket.available(now), 0);
            }
        }
    }
}
