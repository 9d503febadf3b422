//! The breaker as a plain value: a [shortcut](Shortcut) beside a lock around the [machine](Machine). It reads no clock and
//! draws nothing: it asks for `now` and for a draw only when something configured needs them.

use std::time::Duration;

use super::config::CircuitBreakerConfig;
use super::machine::Machine;
use super::shortcut::{Reading, Shortcut, Word};
use super::state::{Effect, Gate, Kind, Outcome, Override, Permit, Refusal, State, Stats};
use crate::counts::{Counts, Ended};
use crate::error::InvalidConfig;
use crate::striped::Striped;
use crate::sync::Mutex;

/// A circuit breaker as a plain value.
#[derive(Debug)]
pub struct Breaker {
    /// Answers for the machine as long as nothing changes.
    shortcut: Shortcut,
    /// Guards configuration, state and window, which change together. Held for a few dozen instructions, and for the successes
    /// that wait in the shortcut.
    machine: Mutex<Machine>,
    calls: Counts,
    refused: Striped<1>,
}

impl Breaker {
    /// A closed breaker with an empty window.
    ///
    /// # Errors
    /// As [`CircuitBreakerConfig::check`].
    pub fn new(config: CircuitBreakerConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let machine = Machine::new(config);
        let shortcut = Shortcut::default();
        shortcut.publish(shortcut.take(), machine.notice());
        Ok(Self { shortcut, machine: Mutex::new(machine), calls: Counts::default(), refused: Striped::default() })
    }

    /// Asks for one call; `exempt` calls are never refused. `now` is asked at most once, and not by a closed breaker
    /// that need not know when a call began; `draw`, from 0 to 1, only when probes that timed out open the breaker.
    #[inline]
    pub fn admit(
        &self,
        exempt: bool,
        now: impl FnOnce() -> Duration,
        draw: impl FnOnce() -> f64,
    ) -> (Result<Permit, Refusal>, Effect) {
        let mut now = Reading::new(now);
        match self.shortcut.admit(&mut now) {
            Ok(permit) => {
                self.calls.start();
                (Ok(permit), Effect::default())
            }
            Err(word) => self.decide(word, exempt, &mut now, draw),
        }
    }

    /// [`admit`](Self::admit) where that is not a matter of course.
    #[inline(never)]
    fn decide(
        &self,
        word: Word,
        exempt: bool,
        now: &mut Reading<impl FnOnce() -> Duration>,
        draw: impl FnOnce() -> f64,
    ) -> (Result<Permit, Refusal>, Effect) {
        let refusal = if exempt { None } else { self.shortcut.refuse(word, now) };
        let (answer, effect) = match refusal {
            Some(refusal) => (Err(refusal), Effect::default()),
            None => self.with(|machine| machine.admit(exempt, now, draw)),
        };
        match answer {
            Ok(_) => self.calls.start(),
            Err(_) => self.refused.add(0),
        }
        (answer, effect)
    }

    /// Hands in the outcome of a call; answers what it counted as, which is never [`Outcome::Cancelled`]. `now` is asked
    /// at most once and only if the window, the slow-call check, a probe or a change of state needs it; `draw`, from 0
    /// to 1, only when the breaker opens.
    #[inline]
    pub fn report(
        &self,
        permit: Permit,
        outcome: Outcome,
        now: impl FnOnce() -> Duration,
        draw: impl FnOnce() -> f64,
    ) -> (Outcome, Effect) {
        let mut now = Reading::new(now);
        if outcome == Outcome::Success && self.shortcut.succeed(&permit, &mut now) {
            self.calls.end(Ended::Ok);
            return (outcome, Effect::default());
        }
        self.account(permit, outcome, &mut now, draw)
    }

    /// [`report`](Self::report) where that is not a matter of course.
    #[inline(never)]
    fn account(
        &self,
        permit: Permit,
        outcome: Outcome,
        now: &mut Reading<impl FnOnce() -> Duration>,
        draw: impl FnOnce() -> f64,
    ) -> (Outcome, Effect) {
        let (outcome, effect) = if permit.kind() == Kind::Passenger && outcome != Outcome::Cancelled {
            (outcome, Effect::default())
        } else {
            self.with(|machine| machine.report(permit, outcome, now, draw))
        };
        self.calls.end(outcome.ended());
        (outcome, effect)
    }

    /// Asks for readiness: while closed nothing is reserved, while half-open one probe is. `now` is asked at most once, and
    /// not by a closed breaker.
    #[inline]
    pub fn reserve(&self, now: impl FnOnce() -> Duration, draw: impl FnOnce() -> f64) -> (Gate, Effect) {
        if self.shortcut.is_ready() {
            return (Gate::Pass, Effect::default());
        }
        let now = now();
        self.with(|machine| machine.reserve(now, draw))
    }

    /// Whether a reservation is still good: not expired, and the breaker in the state that granted it.
    pub fn holds(&self, permit: &Permit, now: Duration) -> bool {
        self.with(|machine| machine.holds(permit, now))
    }

    /// Turns a reservation into a call that starts now; `None` if it is no longer good.
    pub fn claim(&self, permit: Permit, now: Duration) -> Option<Permit> {
        let permit = self.with(|machine| machine.claim(permit, now))?;
        self.calls.start();
        Some(permit)
    }

    /// Gives a reservation back unspent.
    pub fn release(&self, permit: Permit) -> Effect {
        self.with(|machine| machine.release(permit))
    }

    /// The state now. An open breaker whose time is over stays open until the next call asks.
    pub fn state(&self) -> State {
        self.with(|machine| machine.state())
    }

    /// All counts, read together. A call that is admitted or ends meanwhile may be in some of them and not yet in others, but
    /// `admitted = succeeded + failed + neutral + in_flight` holds.
    pub fn stats(&self) -> Stats {
        self.with(|machine| machine.stats(self.calls.read(), self.refused.sum(0)))
    }

    /// The configuration in force.
    pub fn config(&self) -> CircuitBreakerConfig {
        self.with(|machine| machine.config())
    }

    /// Swaps the configuration and keeps the state: an open breaker stays open until its time, the window starts empty
    /// only if its size changed.
    ///
    /// # Errors
    /// As [`CircuitBreakerConfig::check`], and where a field that cannot change live would.
    pub fn update(&self, config: CircuitBreakerConfig, now: Duration) -> Result<Effect, InvalidConfig> {
        self.with(|machine| machine.update(config, now))
    }

    /// Sets an override that sticks, or ends it with `None`, which also closes the breaker and empties its window.
    pub fn force(&self, to: Option<Override>, now: Duration) -> Effect {
        self.with(|machine| machine.force(to, now))
    }

    fn with<R>(&self, work: impl FnOnce(&mut Machine) -> R) -> R {
        let mut machine = self.machine.lock();
        // Should `work` panic, no word is published, and everybody takes the lock until the next one has.
        let taken = self.shortcut.take();
        machine.succeeded(taken.successes());
        let result = work(&mut machine);
        self.shortcut.publish(taken, machine.notice());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{CancelPolicy, OnOpen, Window};
    use super::super::state::{Cause, Transition};
    use super::super::window::Counts;
    use super::*;
    use crate::error::Reason;
    use crate::mode::Mode;

    const SECOND: Duration = Duration::from_secs(1);
    const ZERO: Duration = Duration::ZERO;

    /// Opens at once for exactly the ceiling: 10 s, 20 s, 40 s, 40 s.
    fn config() -> CircuitBreakerConfig {
        CircuitBreakerConfig::new("peer")
            .window(Window::Calls(10))
            .minimum_calls(4)
            .failure_rate(0.5)
            .consecutive_failures(None)
            .jitter(0.0)
            .open_for(10 * SECOND)
            .open_max(40 * SECOND)
            .probes(1)
            .probe_timeout(5 * SECOND)
    }

    fn breaker(config: CircuitBreakerConfig) -> Breaker {
        Breaker::new(config).unwrap()
    }

    fn admit(breaker: &Breaker, now: Duration) -> Result<Permit, Refusal> {
        breaker.admit(false, || now, || 0.0).0
    }

    fn report(breaker: &Breaker, permit: Permit, outcome: Outcome, now: Duration) -> Option<Box<Transition>> {
        breaker.report(permit, outcome, || now, || 0.0).1.transition
    }

    fn call(breaker: &Breaker, outcome: Outcome, now: Duration) -> Option<Box<Transition>> {
        let permit = admit(breaker, now).unwrap();
        report(breaker, permit, outcome, now)
    }

    /// A breaker that opened at 0 and whose open time ends at 10 s.
    fn opened(config: CircuitBreakerConfig) -> Breaker {
        let breaker = breaker(config);
        for _ in 0..4 {
            call(&breaker, Outcome::Failure, Duration::ZERO);
        }
        assert_eq!(breaker.state(), State::Open);
        breaker
    }

    #[test]
    fn opens_at_the_failure_rate_after_the_minimum_of_calls() {
        let breaker = breaker(config());
        for _ in 0..2 {
            assert_eq!(call(&breaker, Outcome::Success, SECOND), None);
        }
        assert_eq!(call(&breaker, Outcome::Failure, SECOND), None, "three calls are below the minimum");
        let opened = call(&breaker, Outcome::Failure, SECOND).unwrap();
        assert_eq!((opened.from, opened.to, opened.cause), (State::Closed, State::Open, Cause::FailureRate));
        assert_eq!((opened.counts.calls, opened.counts.failed, opened.generation), (4, 2, 1));
        assert_eq!(opened.open_for, Some(10 * SECOND));
    }

    #[test]
    fn a_long_healthy_history_does_not_mask_an_outage() {
        for window in [Window::Calls(10), Window::Time(10 * SECOND)] {
            let breaker = breaker(config().window(window));
            let hour = 3_600;
            for second in 0..hour {
                call(&breaker, Outcome::Success, second * SECOND);
            }
            let failures = (hour..).position(|second| call(&breaker, Outcome::Failure, second * SECOND).is_some());
            assert_eq!(failures, Some(4), "the fifth failure makes half of the last ten");
        }
    }

    #[test]
    fn open_breaker_tells_the_exact_remaining_time() {
        let breaker = opened(config());
        let refused = Refusal { reason: Reason::Open, retry_after: Some(7 * SECOND) };
        assert_eq!(admit(&breaker, 3 * SECOND).unwrap_err(), refused);
    }

    #[test]
    fn a_late_reading_of_the_clock_does_not_go_back_behind_the_end_of_the_open_time() {
        // The word beside the lock still refused before 10 s when the machine had seen 11 s.
        let breaker = breaker(config().slow_calls(60 * SECOND, 1.0));
        let before = admit(&breaker, ZERO).unwrap();
        (0..4).for_each(|_| _ = call(&breaker, Outcome::Failure, ZERO));
        assert_eq!(admit(&breaker, 9 * SECOND).unwrap_err().retry_after, Some(SECOND));
        assert_eq!(report(&breaker, before, Outcome::Neutral, 11 * SECOND), None);
        assert!(admit(&breaker, 9 * SECOND).is_ok(), "the probe");
        assert_eq!(breaker.state(), State::HalfOpen);
    }

    #[test]
    fn a_late_reading_of_the_clock_counts_in_the_bucket_of_the_latest_one() {
        // The word beside the lock still took successes for the first bucket when the machine had seen the end of it.
        let breaker = breaker(config().window(Window::Time(10 * SECOND)));
        call(&breaker, Outcome::Success, ZERO);
        call(&breaker, Outcome::Neutral, 10 * SECOND);
        call(&breaker, Outcome::Success, SECOND / 2);
        call(&breaker, Outcome::Failure, 10 * SECOND);
        let window = breaker.stats().window;
        assert_eq!((window.calls, window.failed), (2, 1), "what came after 10 s were seen stays for ten buckets");
    }

    #[test]
    fn open_breaker_admits_one_probe() {
        let breaker = opened(config());
        let (probe, effect) = breaker.admit(false, || 10 * SECOND, || 0.0);
        assert!(probe.is_ok());
        assert_eq!(
            effect.transition.map(|change| (change.to, change.cause)),
            Some((State::HalfOpen, Cause::OpenTimeOver))
        );
        assert_eq!(admit(&breaker, 10 * SECOND).unwrap_err().reason, Reason::Probing);
    }

    #[test]
    fn enough_successful_probes_close() {
        let breaker = opened(config().probes(3).probe_success_rate(0.6));
        let probes: Vec<_> = (0..3).map(|_| admit(&breaker, 10 * SECOND).unwrap()).collect();
        assert!(admit(&breaker, 10 * SECOND).is_err());
        assert_eq!(report(&breaker, probes[0], Outcome::Failure, 11 * SECOND), None);
        assert_eq!(report(&breaker, probes[1], Outcome::Success, 11 * SECOND), None);
        let closed = report(&breaker, probes[2], Outcome::Success, 11 * SECOND).unwrap();
        assert_eq!((closed.to, closed.cause, closed.counts.calls), (State::Closed, Cause::ProbesSucceeded, 3));
        assert_eq!(breaker.stats().window, Counts::default(), "the outage is forgotten");
    }

    #[test]
    fn failed_probes_open_for_longer_up_to_the_cap_and_a_stable_close_starts_again() {
        let breaker = opened(config());
        let mut now = 10 * SECOND;
        for seconds in [20, 40, 40] {
            let opened = call(&breaker, Outcome::Failure, now).unwrap();
            assert_eq!((opened.cause, opened.open_for), (Cause::ProbesFailed, Some(seconds * SECOND)));
            now += seconds * SECOND;
        }
        let trip = |now| (0..4).filter_map(|_| call(&breaker, Outcome::Failure, now)).last().and_then(|t| t.open_for);
        call(&breaker, Outcome::Success, now);
        now += 29 * SECOND;
        assert_eq!(trip(now), Some(40 * SECOND), "one second short of stable");
        now += 40 * SECOND;
        call(&breaker, Outcome::Success, now);
        assert_eq!(trip(now + 30 * SECOND), Some(10 * SECOND));
    }

    #[test]
    fn the_cap_keeps_its_jitter() {
        let breaker = breaker(config().jitter(1.0).consecutive_failures(1));
        let mut open_times = [0.0, 0.0, 0.0, 0.0, 0.5, 0.75].iter().zip(0..).map(|(draw, round)| {
            let now = round * 40 * SECOND;
            let permit = admit(&breaker, now).unwrap();
            breaker.report(permit, Outcome::Failure, || now, || *draw).1.transition.unwrap().open_for.unwrap()
        });
        assert!(open_times.by_ref().take(4).eq([10, 20, 40, 40].map(|seconds| seconds * SECOND)));
        assert!(open_times.eq([20 * SECOND, 10 * SECOND]));
    }

    #[test]
    fn retry_after_lengthens_the_open_time_within_its_bound() {
        let open_for = |hint: Duration| {
            let breaker = breaker(config().consecutive_failures(1).retry_after_max(60 * SECOND));
            call(&breaker, Outcome::Overload { retry_after: Some(hint) }, SECOND).unwrap().open_for
        };
        assert_eq!(open_for(SECOND), Some(10 * SECOND));
        assert_eq!(open_for(30 * SECOND), Some(30 * SECOND));
        assert_eq!(open_for(Duration::MAX), Some(60 * SECOND));
    }

    #[test]
    fn slow_calls_open_and_a_slow_probe_does_not_close() {
        let breaker = breaker(config().slow_calls(SECOND, 1.0));
        let slow_call = |start: Duration, lasts: Duration| {
            let permit = admit(&breaker, start).unwrap();
            report(&breaker, permit, Outcome::Success, start + lasts)
        };
        for start in 0..9 {
            assert_eq!(slow_call(start * SECOND, SECOND), None, "exactly the limit is not slow");
        }
        for start in 5..14 {
            assert_eq!(slow_call(start * 2 * SECOND, 2 * SECOND), None);
        }
        let opened = slow_call(28 * SECOND, 2 * SECOND).unwrap();
        assert_eq!((opened.cause, opened.counts.slow, opened.counts.failed), (Cause::SlowRate, 10, 0));
        assert_eq!(slow_call(40 * SECOND, 2 * SECOND).unwrap().cause, Cause::ProbesFailed);
    }

    #[test]
    fn failures_in_a_row_open_before_any_rate() {
        let breaker = breaker(config().minimum_calls(10).consecutive_failures(3));
        for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure, Outcome::Failure] {
            assert_eq!(call(&breaker, outcome, SECOND), None);
        }
        assert_eq!(call(&breaker, Outcome::Neutral, SECOND), None, "a neutral call neither counts nor interrupts");
        let opened = call(&breaker, Outcome::Failure, SECOND).unwrap();
        assert_eq!((opened.cause, opened.consecutive_failures), (Cause::ConsecutiveFailures, 3));
    }

    #[test]
    fn every_outcome_of_many_threads_is_in_the_window_once() {
        // Nothing trips it, so that successes past the lock and failures under it meet all the time.
        const EACH: u32 = 4_000;
        let quiet = |window| config().minimum_calls(1).failure_rate(None).window(window);
        for window in [Window::Calls(100_000), Window::Time(10 * SECOND)] {
            let breaker = breaker(quiet(window));
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let breaker = &breaker;
                    scope.spawn(move || {
                        for number in 0..EACH {
                            let fails = number % 40 == thread * 10;
                            let outcome = if fails { Outcome::Failure } else { Outcome::Success };
                            assert_eq!(call(breaker, outcome, SECOND), None);
                        }
                    });
                }
                for _ in 0..100 {
                    let stats = breaker.stats();
                    assert_eq!(stats.admitted, stats.succeeded + stats.failed + stats.neutral + stats.in_flight);
                }
            });
            let (calls, failed) = (u64::from(4 * EACH), u64::from(EACH / 10));
            let stats = breaker.stats();
            assert_eq!((stats.window.calls, stats.window.failed), (calls, failed));
            assert_eq!((stats.succeeded, stats.failed, stats.in_flight), (calls - failed, failed, 0));
        }
    }

    #[test]
    fn stale_result_is_ignored() {
        let breaker = breaker(config());
        let old: Vec<_> = (0..3).map(|_| admit(&breaker, Duration::ZERO).unwrap()).collect();
        for _ in 0..4 {
            call(&breaker, Outcome::Failure, Duration::ZERO);
        }
        let probe = admit(&breaker, 10 * SECOND).unwrap();
        // A success from before the trip is no probe, nor is a failure.
        assert_eq!(report(&breaker, old[0], Outcome::Success, 10 * SECOND), None);
        assert_eq!(report(&breaker, old[1], Outcome::Failure, 10 * SECOND), None);
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(admit(&breaker, 10 * SECOND).is_err(), "and it returns nobody's slot");
        report(&breaker, probe, Outcome::Success, 10 * SECOND);
        report(&breaker, old[2], Outcome::Failure, 10 * SECOND);
        let stats = breaker.stats();
        assert_eq!((stats.state, stats.window.failed, stats.stale), (State::Closed, 0, 3));
        assert_eq!((stats.admitted, stats.succeeded, stats.failed, stats.in_flight), (8, 2, 6, 0));
    }

    #[test]
    fn dropped_probe_returns_its_slot() {
        let breaker = opened(config());
        for _ in 0..100 {
            assert_eq!(call(&breaker, Outcome::Cancelled, 10 * SECOND), None);
        }
        assert_eq!(call(&breaker, Outcome::Success, 10 * SECOND).unwrap().to, State::Closed);
    }

    #[test]
    fn probe_that_never_answers_has_failed_after_its_timeout() {
        let breaker = opened(config());
        let lost = admit(&breaker, 10 * SECOND).unwrap();
        assert_eq!(admit(&breaker, 14 * SECOND).unwrap_err().reason, Reason::Probing);
        let refused = admit(&breaker, 15 * SECOND).unwrap_err();
        assert_eq!(refused, Refusal { reason: Reason::Open, retry_after: Some(20 * SECOND) });
        assert_eq!(report(&breaker, lost, Outcome::Success, 16 * SECOND), None, "too late to count");
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn probe_dropped_after_its_timeout_has_failed() {
        let breaker = opened(config());
        let probe = admit(&breaker, 10 * SECOND).unwrap();
        assert_eq!(report(&breaker, probe, Outcome::Cancelled, 15 * SECOND).unwrap().cause, Cause::ProbesFailed);
    }

    #[test]
    fn cancelled_call_counts_only_after_the_configured_time() {
        let breaker = breaker(config().consecutive_failures(1).cancel(CancelPolicy::FailureAfter(SECOND)));
        let (early, late) = (admit(&breaker, SECOND).unwrap(), admit(&breaker, SECOND).unwrap());
        assert_eq!(report(&breaker, early, Outcome::Cancelled, SECOND * 3 / 2), None);
        assert_eq!(report(&breaker, late, Outcome::Cancelled, 2 * SECOND).unwrap().to, State::Open);
    }

    #[test]
    fn overrides_stick_until_reset() {
        let breaker = breaker(config());
        let forced = breaker.force(Some(Override::Open), ZERO).transition.unwrap();
        assert_eq!((forced.to, forced.cause), (State::ForcedOpen, Cause::ByHand));
        let refused = Refusal { reason: Reason::ForcedOpen, retry_after: None };
        assert_eq!(admit(&breaker, 1_000_000 * SECOND).unwrap_err(), refused);
        for (to, state) in [(Override::Closed, State::ForcedClosed), (Override::Disabled, State::Disabled)] {
            assert_eq!(breaker.force(Some(to), ZERO).transition.unwrap().to, state);
            for _ in 0..20 {
                assert_eq!(call(&breaker, Outcome::Failure, SECOND), None);
            }
        }
        assert_eq!(breaker.force(None, ZERO).transition.unwrap().to, State::Closed);
    }

    #[test]
    fn a_reset_ignores_what_was_under_way() {
        // A closed breaker kept its generation, so that the results of calls from before a reset filled the new window.
        for breaker in [breaker(config()), breaker(config().slow_calls(SECOND, 0.5))] {
            let before: Vec<_> = (0..8).map(|_| admit(&breaker, ZERO).unwrap()).collect();
            call(&breaker, Outcome::Failure, ZERO);
            let reset = breaker.force(None, SECOND).transition.unwrap();
            assert_eq!((reset.from, reset.to, reset.cause), (State::Closed, State::Closed, Cause::ByHand));
            for (late, outcome) in before.into_iter().zip([Outcome::Success, Outcome::Failure].into_iter().cycle()) {
                assert_eq!(report(&breaker, late, outcome, SECOND), None);
            }
            let stats = breaker.stats();
            assert_eq!((stats.window, stats.consecutive_failures), (Counts::default(), 0));
            assert_eq!((stats.stale, stats.succeeded, stats.failed), (8, 4, 5));
        }
    }

    #[test]
    fn a_result_from_before_an_override_does_not_touch_it() {
        let breaker = opened(config());
        let probe = admit(&breaker, 10 * SECOND).unwrap();
        let _ = breaker.force(Some(Override::Open), ZERO);
        assert_eq!(report(&breaker, probe, Outcome::Success, 10 * SECOND), None);
        assert_eq!(breaker.state(), State::ForcedOpen);
    }

    #[test]
    fn observing_decides_and_refuses_nothing() {
        let breaker = opened(config());
        assert!(breaker.force(Some(Override::Observe), ZERO).transition.is_none());
        call(&breaker, Outcome::Failure, SECOND);
        let stats = breaker.stats();
        assert_eq!((stats.state, stats.mode, stats.would_refuse, stats.refused), (State::Open, Mode::Observe, 1, 0));
        assert_eq!(call(&breaker, Outcome::Success, 10 * SECOND).unwrap().to, State::Closed);
    }

    #[test]
    fn exempt_call_passes_and_can_close_the_breaker() {
        let breaker = opened(config());
        let exempt = |now: Duration| breaker.admit(true, || now, || 0.0).0.unwrap();
        assert_eq!(report(&breaker, exempt(SECOND), Outcome::Success, SECOND), None, "open: a passenger");
        let probe = exempt(10 * SECOND);
        assert_eq!(report(&breaker, exempt(10 * SECOND), Outcome::Failure, 10 * SECOND), None, "no slot: a passenger");
        assert_eq!(report(&breaker, probe, Outcome::Success, 10 * SECOND).unwrap().to, State::Closed);
        assert_eq!(breaker.stats().refused, 0);
    }

    #[test]
    fn update_keeps_the_state_and_the_open_time() {
        let breaker = opened(config());
        assert!(breaker.update(config().open_for(SECOND), ZERO).unwrap().transition.is_none());
        assert_eq!(admit(&breaker, 9 * SECOND).unwrap_err().retry_after, Some(SECOND));
        assert_eq!(breaker.update(config().probes(0), ZERO).unwrap_err().field, "probes");
        assert_eq!(breaker.update(config().on_open(OnOpen::NotReady), ZERO).unwrap_err().field, "on_open");
        let disabled = breaker.update(config().mode(Mode::Disabled), ZERO).unwrap().transition.unwrap();
        assert_eq!((disabled.to, disabled.cause), (State::Disabled, Cause::Updated));
        assert_eq!(breaker.update(config(), ZERO).unwrap().transition.unwrap().to, State::Closed);
    }

    #[test]
    fn fewer_probes_than_are_done_decide_at_once() {
        let breaker = opened(config().probes(5).probe_success_rate(1.0));
        call(&breaker, Outcome::Success, 10 * SECOND);
        let _ = breaker.update(config().probes(1), ZERO).unwrap();
        let (permit, effect) = breaker.admit(false, || 10 * SECOND, || 0.0);
        assert!(permit.is_ok());
        assert_eq!(effect.transition.unwrap().to, State::Closed);
    }

    #[test]
    fn reserved_probe_that_is_not_called_expires_neutral() {
        let breaker = opened(config());
        let reserve = |now: Duration| breaker.reserve(|| now, || 0.0).0;
        assert!(matches!(reserve(SECOND), Gate::Wait(Some(until)) if until == 10 * SECOND));
        let Gate::Reserved(first) = reserve(10 * SECOND) else { panic!("a free probe") };
        assert!(matches!(reserve(11 * SECOND), Gate::Wait(Some(until)) if until == 15 * SECOND));
        let Gate::Reserved(second) = reserve(15 * SECOND) else { panic!("the slot passed on") };
        assert!(breaker.claim(first, 15 * SECOND).is_none());
        assert!(!breaker.release(first).wake);
        let call = breaker.claim(second, 16 * SECOND).unwrap();
        assert_eq!(report(&breaker, call, Outcome::Success, 17 * SECOND).unwrap().to, State::Closed);
    }

    #[test]
    fn time_that_goes_back_is_clamped() {
        let breaker = opened(config());
        assert!(admit(&breaker, 10 * SECOND).is_ok());
        assert_eq!(admit(&breaker, SECOND).unwrap_err().reason, Reason::Probing);
    }

    #[test]
    fn a_closed_breaker_over_calls_reads_no_clock() {
        let breaker = breaker(config());
        let clock = || -> Duration { panic!("nothing configured needs the time") };
        for outcome in [Outcome::Success, Outcome::Failure, Outcome::Neutral, Outcome::Cancelled] {
            let permit = breaker.admit(false, clock, || 0.0).0.unwrap();
            let _ = breaker.report(permit, outcome, clock, || 0.0);
        }
        assert!(matches!(breaker.reserve(clock, || 0.0).0, Gate::Pass));
    }

    #[test]
    fn the_clock_is_read_only_for_what_is_configured() {
        let cancel = CancelPolicy::FailureAfter(SECOND);
        for (config, admissions, successes) in [
            (config(), 0, 0),
            (config().window(Window::Time(SECOND)), 0, 1),
            (config().slow_calls(SECOND, 1.0), 1, 1),
            (config().cancel(cancel), 1, 0),
            (config().cancel(cancel).window(Window::Time(SECOND)), 1, 1),
        ] {
            let breaker = breaker(config);
            let readings = std::cell::Cell::new(0);
            let clock = || {
                readings.set(readings.get() + 1);
                SECOND
            };
            // More than wait in the word beside the lock: some of them take it.
            for _ in 0..2_000 {
                readings.set(0);
                let permit = breaker.admit(false, clock, || 0.0).0.unwrap();
                assert_eq!(readings.replace(0), admissions);
                let _ = breaker.report(permit, Outcome::Success, clock, || 0.0);
                assert_eq!(readings.get(), successes);
            }
            assert_eq!(breaker.stats().succeeded, 2_000);
        }
    }

    #[test]
    fn a_reading_from_before_others_is_refused_all_the_same() {
        let breaker = opened(config());
        for now in [9 * SECOND, 3 * SECOND, ZERO] {
            let refused = admit(&breaker, now).unwrap_err();
            assert_eq!((refused.reason, refused.retry_after), (Reason::Open, Some(10 * SECOND - now)));
        }
        assert!(admit(&breaker, 10 * SECOND).is_ok());
        assert_eq!(admit(&breaker, 3 * SECOND).unwrap_err().reason, Reason::Probing);
    }

    #[test]
    fn disabled_breaker_counts_and_decides_nothing() {
        let breaker = breaker(config().mode(Mode::Disabled).consecutive_failures(1));
        for outcome in [Outcome::Failure, Outcome::Success, Outcome::Neutral, Outcome::Cancelled] {
            assert_eq!(call(&breaker, outcome, SECOND), None);
        }
        let stats = breaker.stats();
        assert_eq!((stats.succeeded, stats.failed, stats.neutral, stats.in_flight), (1, 1, 2, 0));
        assert_eq!((stats.state, stats.window, stats.stale), (State::Disabled, Counts::default(), 0));
    }
}
