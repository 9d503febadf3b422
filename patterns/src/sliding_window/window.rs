//! The sliding window: what was admitted of late, and whether one more call fits.

use std::time::Duration;

use super::buckets::Buckets;
use super::config::{Setting, nanos};
use super::log::Log;
use crate::error::{Reason, Refusal};
use crate::sync::{Bug, Mutex, bug};

/// A sliding window behind one lock.
///
/// Time is clamped to the largest instant seen: a caller that read the clock earlier than one that was served before it is
/// served at the later instant, and the bound holds in that time.
#[derive(Debug)]
pub struct Window {
    /// Guards the setting and everything counted; held for a few instructions, never across a wait.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    setting: Setting,
    counted: Counted,
    /// The largest instant seen.
    latest: u64,
}

/// What was admitted of late, kept by one of the two algorithms. The setting is the caller's to keep: many share one.
#[derive(Debug, Clone)]
pub enum Counted {
    /// The instant of each unit.
    Log(Log),
    /// Amounts in buckets.
    Buckets(Buckets),
}

impl Window {
    /// A window in which nothing was admitted.
    pub fn new(setting: Setting) -> Self {
        Self { state: Mutex::new(State { setting, counted: Counted::new(&setting), latest: 0 }) }
    }

    /// Admits a call of `cost` at `now`, whole or not at all. A cost of 0 always fits and takes nothing.
    ///
    /// # Errors
    /// How long after `now` it fits, if nobody comes before; or that it never will.
    #[inline]
    pub fn try_take(&self, cost: u32, now: Duration) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        let State { setting, counted, latest } = &mut *state;
        let seen = clamp(latest, now);
        if cost > setting.limit {
            return Err(Reason::Never.into());
        }
        let at = counted.fits_at(setting, cost, seen);
        if at > seen {
            let retry_after = Duration::from_nanos(at).saturating_sub(now);
            return Err(Refusal { reason: Reason::Limited, retry_after: Some(retry_after) });
        }
        if bug(Bug::WindowCheckThenAct) {
            drop(state);
            state = self.state.lock();
        }
        let State { setting, counted, .. } = &mut *state;
        counted.take(setting, cost, seen);
        Ok(())
    }

    /// What may be admitted at `now`.
    pub fn available(&self, now: Duration) -> u32 {
        let mut state = self.state.lock();
        let State { setting, counted, latest } = &mut *state;
        let now = clamp(latest, now);
        // After a limit was lowered more may be counted than it is now.
        setting.limit.saturating_sub(counted.used(setting, now))
    }

    /// The setting in force.
    pub fn setting(&self) -> Setting {
        self.state.lock().setting
    }

    /// Changes limit and window together and keeps what is counted; the algorithm stays.
    ///
    /// A longer window weighs again what is still remembered: with the log as many units as the largest limit so far, with
    /// buckets what their old window held.
    pub fn update(&self, setting: Setting, now: Duration) {
        let mut state = self.state.lock();
        let now = clamp(&mut state.latest, now);
        let former = std::mem::replace(&mut state.setting, setting);
        state.counted.update(&former, &setting, now);
    }
}

impl Counted {
    /// Nothing was admitted.
    pub fn new(setting: &Setting) -> Self {
        match setting.buckets {
            0 => Self::Log(Log::new(setting)),
            _ => Self::Buckets(Buckets::new(setting)),
        }
    }

    /// When `cost`, up to the limit, fits: an instant up to `now` if it does so now. `now` never runs backwards.
    #[inline]
    pub fn fits_at(&mut self, setting: &Setting, cost: u32, now: u64) -> u64 {
        match self {
            _ if cost == 0 => now,
            Self::Log(log) => log.fits_at(setting, cost),
            Self::Buckets(buckets) => buckets.fits_at(setting, cost, now),
        }
    }

    /// Admits `cost` at `now`, at which it [fits](Self::fits_at).
    #[inline]
    pub fn take(&mut self, setting: &Setting, cost: u32, now: u64) {
        match self {
            Self::Log(log) => log.take(cost, now),
            Self::Buckets(buckets) => buckets.take(setting, cost, now),
        }
    }

    /// Whether this cannot be told from a new one, at `now` or later. With buckets it may be one of them late to say so.
    #[inline]
    pub fn is_new(&self, setting: &Setting, now: u64) -> bool {
        match self {
            Self::Log(log) => log.is_new(setting, now),
            Self::Buckets(buckets) => buckets.is_new(setting, now),
        }
    }

    /// How much of the limit weighs at `now`.
    pub fn used(&mut self, setting: &Setting, now: u64) -> u32 {
        match self {
            Self::Log(log) => log.used(setting, now),
            Self::Buckets(buckets) => buckets.used(setting, now),
        }
    }

    /// Goes over to another setting of the same algorithm and number of buckets.
    pub fn update(&mut self, former: &Setting, setting: &Setting, now: u64) {
        match self {
            Self::Log(log) => log.grow(setting),
            Self::Buckets(buckets) => buckets.update(former, setting, now),
        }
    }
}

/// The larger of `now` and the largest instant seen, which it becomes.
#[inline]
fn clamp(latest: &mut u64, now: Duration) -> u64 {
    *latest = nanos(now).max(*latest);
    *latest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::Algorithm;
    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);
    const NANO: Duration = Duration::from_nanos(1);
    const BOTH: [Algorithm; 2] = [Algorithm::Log, Algorithm::Buckets(4)];

    fn setting(limit: u32, algorithm: Algorithm) -> Setting {
        Setting::new(limit, WINDOW, algorithm).unwrap()
    }

    fn window(limit: u32, algorithm: Algorithm) -> Window {
        Window::new(setting(limit, algorithm))
    }

    /// Not at zero, so that a subtraction below the start would show; on the grid of the buckets.
    fn at(millis: u64) -> Duration {
        Duration::from_millis(100_000 + millis)
    }

    fn wait(retry_after: Duration) -> Result<(), Refusal> {
        Err(Refusal { reason: Reason::Limited, retry_after: Some(retry_after) })
    }

    #[test]
    fn the_limit_is_admitted_at_once_and_no_more() {
        for algorithm in BOTH {
            let window = window(3, algorithm);
            assert_eq!(window.available(at(0)), 3);
            for left in [2, 1, 0] {
                assert_eq!(window.try_take(1, at(0)), Ok(()));
                assert_eq!(window.available(at(0)), left);
            }
            assert!(window.try_take(1, at(0)).is_err());
        }
    }

    #[test]
    fn a_call_weighs_for_exactly_one_window_in_the_log() {
        let window = window(1, Algorithm::Log);
        assert_eq!(window.try_take(1, at(0)), Ok(()));
        assert_eq!(window.try_take(1, at(1000) - NANO), wait(NANO));
        assert_eq!(window.available(at(1000) - NANO), 0);
        assert_eq!(window.try_take(1, at(1000)), Ok(()), "the window is half-open");
        assert_eq!(window.try_take(1, at(1000) + NANO), wait(WINDOW - NANO));
    }

    #[test]
    fn a_call_weighs_until_four_whole_buckets_have_gone_by_after_its_own() {
        for (first, leaves) in [(at(0), at(1250)), (at(250) - NANO, at(1250)), (at(250), at(1500))] {
            let window = window(1, Algorithm::Buckets(4));
            assert_eq!(window.try_take(1, first), Ok(()));
            assert_eq!(window.try_take(1, leaves - NANO), wait(NANO));
            assert_eq!(window.try_take(1, leaves), Ok(()));
        }
    }

    #[test]
    fn a_burst_around_the_edge_of_a_window_is_not_admitted_twice() {
        // A fixed window, or a ring of K buckets, lets the second hundred pass.
        for algorithm in BOTH {
            let window = window(100, algorithm);
            assert_eq!(window.try_take(100, at(1000) - NANO), Ok(()));
            assert!(window.try_take(1, at(1000)).is_err());
            assert!(window.try_take(1, at(2000) - NANO - NANO).is_err());
        }
    }

    #[test]
    fn a_call_of_cost_n_is_admitted_whole_or_not_at_all() {
        for algorithm in BOTH {
            let window = window(5, algorithm);
            assert_eq!(window.try_take(3, at(0)), Ok(()));
            assert!(window.try_take(3, at(0)).is_err());
            assert_eq!(window.available(at(0)), 2, "a refusal takes nothing");
            assert_eq!(window.try_take(2, at(0)), Ok(()));
            assert_eq!(window.try_take(0, at(0)), Ok(()), "nothing always fits");
        }
    }

    #[test]
    fn more_than_the_limit_is_never_admitted() {
        for algorithm in BOTH {
            let window = window(5, algorithm);
            for cost in [6, u32::MAX] {
                assert_eq!(window.try_take(cost, at(0)), Err(Reason::Never.into()));
            }
            assert_eq!(window.available(at(0)), 5);
        }
    }

    #[test]
    fn a_stale_now_is_served_at_the_latest_instant() {
        for algorithm in BOTH {
            let window = window(1, algorithm);
            assert_eq!(window.available(at(5000)), 1);
            assert_eq!(window.try_take(1, at(0)), Ok(()));
            let leaves = if algorithm == Algorithm::Log { 6000 } else { 6250 };
            assert_eq!(window.try_take(1, at(4000)), wait(at(leaves) - at(4000)), "after 4 s, not after 5 s");
            assert!(window.try_take(1, at(6000) - NANO).is_err(), "it was admitted at 5 s, not at 0 s");
            assert_eq!(window.try_take(1, at(6250)), Ok(()));
        }
    }

    #[test]
    fn the_ends_of_time_are_survived() {
        for algorithm in BOTH {
            let window = window(2, algorithm);
            assert_eq!(window.try_take(1, Duration::ZERO), Ok(()));
            let leaves = if algorithm == Algorithm::Log { WINDOW } else { Duration::from_millis(1250) };
            assert_eq!(window.try_take(2, WINDOW - NANO), wait(leaves + NANO - WINDOW));
            for _ in 0..4 {
                let _ = window.try_take(1, Duration::MAX);
                let _ = window.available(Duration::MAX);
            }
            assert!(window.try_take(1, Duration::MAX).is_err(), "time does not pass any more");
        }
    }

    #[test]
    fn a_changed_limit_keeps_what_is_counted() {
        for algorithm in BOTH {
            let window = window(4, algorithm);
            assert_eq!(window.try_take(2, at(0)), Ok(()));
            assert_eq!(window.try_take(2, at(500)), Ok(()));
            window.update(setting(6, algorithm), at(500));
            assert_eq!(window.available(at(500)), 2);
            window.update(setting(2, algorithm), at(500));
            assert_eq!(window.available(at(500)), 0);
            assert!(window.try_take(1, at(1250)).is_err(), "two of 500 are the two of the limit");
            assert_eq!(window.try_take(2, at(1750)), Ok(()));
            assert_eq!(window.setting(), setting(2, algorithm));
        }
    }

    #[test]
    fn a_changed_window_keeps_what_is_counted() {
        let long = |algorithm| Setting::new(4, 2 * WINDOW, algorithm).unwrap();
        for (algorithm, first, second) in [(BOTH[0], 2000, 2500), (BOTH[1], 2500, 3000)] {
            let window = window(4, algorithm);
            assert_eq!(window.try_take(3, at(0)), Ok(()));
            assert_eq!(window.try_take(1, at(500)), Ok(()));
            window.update(long(algorithm), at(750));
            assert_eq!(window.try_take(1, at(first) - NANO), wait(NANO));
            assert_eq!(window.available(at(first)), 3);
            assert_eq!(window.try_take(4, at(second)), Ok(()));
        }
    }

    #[test]
    fn a_limit_that_shrinks_and_grows_forgets_nothing() {
        for algorithm in BOTH {
            let window = window(4, algorithm);
            assert_eq!(window.try_take(4, at(0)), Ok(()));
            for limit in [1, 4, 2, 6] {
                window.update(setting(limit, algorithm), at(0));
                assert_eq!(window.available(at(0)), limit.saturating_sub(4));
            }
        }
    }

    /// Every unit that was admitted, with its instant.
    #[derive(Debug, Default)]
    struct Reference(Vec<(u64, u32)>);

    impl Reference {
        fn used(&self, setting: &Setting, now: u64) -> u32 {
            let weighs = |at: u64| match setting.buckets {
                0 => now - at < setting.window_nanos,
                k => now / setting.bucket_nanos - at / setting.bucket_nanos <= u64::from(k),
            };
            self.0.iter().filter(|(at, _)| weighs(*at)).map(|(_, cost)| cost).sum()
        }
    }

    fn any_setting() -> impl Strategy<Value = Setting> {
        let algorithm = prop_oneof![Just(Algorithm::Log), (1..7_u32).prop_map(Algorithm::Buckets)];
        (1..12_u32, algorithm).prop_map(|(limit, algorithm)| setting(limit, algorithm))
    }

    /// Steps of time and costs; steps gather around the parts of a window, and some go backwards.
    fn any_script() -> impl Strategy<Value = Vec<(i64, u32)>> {
        let step = prop_oneof![
            4 => 0..30_000_000_i64,
            2 => prop::sample::select(vec![
                1, 250_000_000, 250_000_001, 999_999_999, 1_000_000_000, 1_000_000_001, 1_250_000_000, 90_000_000_000,
            ]),
            2 => 0..1_500_000_000_i64,
            1 => -1_000_000_000..0_i64,
        ];
        prop::collection::vec((step, 0..5_u32), 1..150)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_decision_is_that_of_a_list_of_all_calls(setting in any_setting(), script in any_script()) {
            let window = Window::new(setting);
            let mut reference = Reference::default();
            let (mut now, mut latest) = (nanos(at(0)), 0);
            for (step, cost) in script {
                now = now.saturating_add_signed(step);
                latest = now.max(latest);
                let used = reference.used(&setting, latest);
                prop_assert_eq!(window.available(Duration::from_nanos(now)), setting.limit - used);
                let fits = cost + used <= setting.limit;
                let answer = window.try_take(cost, Duration::from_nanos(now));
                prop_assert_eq!(answer.is_ok(), fits);
                match answer.map_err(|refusal| refusal.retry_after) {
                    Ok(()) => reference.0.push((latest, cost)),
                    Err(None) => prop_assert!(cost > setting.limit, "never"),
                    Err(Some(after)) => {
                        let at = now + nanos(after);
                        prop_assert!(reference.used(&setting, at - 1) + cost > setting.limit, "a nanosecond too late");
                        prop_assert!(reference.used(&setting, at) + cost <= setting.limit, "too early");
                    }
                }
            }
        }

        #[test]
        fn no_window_of_any_place_holds_more_than_the_limit(setting in any_setting(), script in any_script()) {
            let window = Window::new(setting);
            let mut admitted = Reference::default();
            let (mut now, mut latest) = (nanos(at(0)), 0);
            for (step, cost) in script {
                now = now.saturating_add_signed(step);
                latest = now.max(latest);
                if window.try_take(cost, Duration::from_nanos(now)).is_ok() {
                    admitted.0.push((latest, cost));
                }
            }
            // A window that holds the most begins with a call.
            for (begin, _) in &admitted.0 {
                let within = admitted.0.iter().filter(|(at, _)| (*begin..begin + setting.window_nanos).contains(at));
                prop_assert!(within.map(|(_, cost)| cost).sum::<u32>() <= setting.limit);
            }
        }

        #[test]
        fn buckets_admit_at_most_one_bucket_later_than_the_log(
            limit in 1..12_u32, buckets in 1..7_u32, script in any_script(),
        ) {
            let setting = setting(limit, Algorithm::Buckets(buckets));
            let exact = self::setting(limit, Algorithm::Log);
            let (mut counts, mut log) = (Counted::new(&setting), Counted::new(&exact));
            let mut now = nanos(at(0));
            for (step, cost) in script {
                now += step.unsigned_abs();
                let cost = cost.min(limit);
                let late = counts.fits_at(&setting, cost, now).saturating_sub(log.fits_at(&exact, cost, now).max(now));
                // The buckets of a window may be longer than it by the rounding of each.
                prop_assert!(late <= setting.window_nanos.div_ceil(u64::from(buckets)) + u64::from(buckets));
                if counts.fits_at(&setting, cost, now) <= now {
                    counts.take(&setting, cost, now);
                    log.take(&exact, cost, now);
                }
            }
        }

        #[test]
        fn a_constant_demand_gets_its_share_of_the_rate(
            limit in 1..20_u32, buckets in 1..8_u32, per_window in 1..400_u64,
        ) {
            // Buckets of a second, without rounding, on whose grid the first call lies.
            let length = WINDOW * buckets;
            let window = Window::new(Setting::new(limit, length, Algorithm::Buckets(buckets)).unwrap());
            let (limit, buckets) = (u64::from(limit), u64::from(buckets));
            // Ten times K + 1 windows: as many rings as K times ten.
            let calls = 10 * (buckets + 1) * per_window;
            let admit = |call| window.try_take(1, at(0) + Duration::from_nanos(call * nanos(length) / per_window));
            let admitted = (0..calls).filter(|call| admit(*call).is_ok()).count() as u64;
            // A ring, which is K + 1 buckets, sees at most so many calls, and at least so many in each bucket.
            if (per_window * (buckets + 1)).div_ceil(buckets) <= limit {
                prop_assert_eq!(admitted, calls, "a demand up to K/(K + 1) of the rate is admitted whole");
            } else if per_window / buckets >= limit {
                prop_assert_eq!(admitted, limit * 10 * buckets, "one that never lets up gets as much");
            }
        }

        #[test]
        fn updates_never_admit_more_than_the_largest_limit_in_the_shortest_window(
            algorithm in prop::sample::select(BOTH.to_vec()),
            settings in prop::collection::vec((1..12_u32, 1000..3000_u64), 1..6),
            script in any_script(),
        ) {
            let settings = settings.into_iter().map(|(limit, millis)| {
                Setting::new(limit, Duration::from_millis(millis), algorithm).unwrap()
            });
            let settings: Vec<_> = settings.collect();
            let largest = settings.iter().map(|setting| setting.limit).max().unwrap();
            let shortest = settings.iter().map(|setting| setting.window_nanos).min().unwrap();
            let window = Window::new(settings[0]);
            let mut admitted = Reference::default();
            let mut now = nanos(at(0));
            for (turn, (step, cost)) in script.into_iter().enumerate() {
                now += step.unsigned_abs();
                window.update(settings[turn % settings.len()], Duration::from_nanos(now));
                if window.try_take(cost, Duration::from_nanos(now)).is_ok() {
                    admitted.0.push((now, cost));
                }
            }
            for (begin, _) in &admitted.0 {
                let within = admitted.0.iter().filter(|(at, _)| (*begin..begin + shortest).contains(at));
                prop_assert!(within.map(|(_, cost)| cost).sum::<u32>() <= largest);
            }
        }
    }
}
