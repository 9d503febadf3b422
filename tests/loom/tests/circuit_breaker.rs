//! Models of the circuit breaker: no interleaving makes it change state twice, admit a probe too many, or lose one; and
//! what is done without its lock is what the machine behind it would have done.
//!
//! A keyed breaker does not exist yet: B11 shows of two breakers what it will have to show of two keys.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a model reports by panicking, in its helpers too")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use loom::thread;
use seawall_loom::circuit_breaker::breaker::Breaker;
use seawall_loom::circuit_breaker::config::{CircuitBreakerConfig, Window};
use seawall_loom::circuit_breaker::state::{
    Cause, Effect, Outcome, Override, Permit, Refusal, State, Stats, Transition,
};
use seawall_loom::circuit_breaker::window::Counts;
use seawall_loom::error::Reason;
use seawall_loom::mode::Mode;
use seawall_loom::sync::{Arc, Bug};
use seawall_loom::{Threads, check, planted};

const ZERO: Duration = Duration::ZERO;
/// The end of the first open time.
const LATER: Duration = Duration::from_secs(10);

/// Trips at two failures in a row; opens for 10 s.
fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("model")
        .window(Window::Calls(2))
        .minimum_calls(2)
        .failure_rate(None)
        .consecutive_failures(2)
        .open_for(LATER)
        .jitter(0.0)
        .probes(1)
}

fn breaker(config: CircuitBreakerConfig) -> Arc<Breaker> {
    Arc::new(Breaker::new(config).unwrap())
}

fn admit(breaker: &Breaker, now: Duration) -> (Result<Permit, Refusal>, Option<Box<Transition>>) {
    let (answer, Effect { transition, .. }) = breaker.admit(false, || now, || 0.0);
    (answer, transition)
}

fn report(breaker: &Breaker, permit: Permit, outcome: Outcome, now: Duration) -> Option<Box<Transition>> {
    breaker.report(permit, outcome, || now, || 0.0).1.transition
}

/// One call that is admitted and answered at once.
fn call(breaker: &Breaker, outcome: Outcome, now: Duration) -> Option<Box<Transition>> {
    let (permit, first) = admit(breaker, now);
    let second = report(breaker, permit.unwrap(), outcome, now);
    second.or(first)
}

/// A breaker that opened at zero.
fn opened(config: CircuitBreakerConfig) -> Arc<Breaker> {
    let breaker = breaker(config);
    call(&breaker, Outcome::Failure, ZERO);
    call(&breaker, Outcome::Failure, ZERO);
    assert_eq!(breaker.state(), State::Open);
    breaker
}

/// Nothing is under way and every admitted call has an outcome.
fn quiescent(breaker: &Breaker) -> Stats {
    let stats = breaker.stats();
    assert_eq!(stats.in_flight, 0, "a permit was lost");
    assert_eq!(stats.admitted, stats.succeeded + stats.failed + stats.neutral);
    stats
}

#[test]
fn two_failures_that_cross_the_threshold_open_once() {
    check("B1 two failures that cross the threshold open once", Threads::Three, 20, || {
        let breaker = breaker(config());
        let fail = |breaker: Arc<Breaker>| {
            let permit = admit(&breaker, ZERO).0.unwrap();
            move || report(&breaker, permit, Outcome::Failure, ZERO)
        };
        let [first, second, third] = [(); 3].map(|()| fail(breaker.clone()));
        let others = [thread::spawn(first), thread::spawn(second)];
        let mine = third();
        let opened: Vec<_> = others.into_iter().map(|thread| thread.join().unwrap()).chain([mine]).flatten().collect();
        assert_eq!(opened.len(), 1, "one change of state is told once");
        assert_eq!((opened[0].to, opened[0].generation), (State::Open, 1));
        assert_eq!(quiescent(&breaker).generation, 1);
    });
}

#[test]
fn the_end_of_the_open_time_admits_exactly_the_probes() {
    for (probes, at_least) in [(1, 20), (2, 20)] {
        check(&format!("B2 {probes} of three become probes"), Threads::Three, at_least, move || {
            let breaker = opened(config().probes(probes).probe_success_rate(1.0));
            let probe = |breaker: Arc<Breaker>| move || admit(&breaker, LATER);
            let others = [thread::spawn(probe(breaker.clone())), thread::spawn(probe(breaker.clone()))];
            let mine = probe(breaker.clone())();
            let answers: Vec<_> = others.into_iter().map(|thread| thread.join().unwrap()).chain([mine]).collect();
            let changes = answers.iter().filter(|(_, change)| change.is_some()).count();
            assert_eq!(changes, 1, "Open → HalfOpen is told once");
            let admitted: Vec<_> = answers.into_iter().filter_map(|(answer, _)| answer.ok()).collect();
            assert_eq!(admitted.len(), probes as usize);
            for permit in admitted {
                report(&breaker, permit, Outcome::Success, LATER);
            }
            assert_eq!(quiescent(&breaker).state, State::Closed);
        });
    }
}

#[test]
fn a_success_beside_a_failure_decides_once() {
    check("B3 a success beside a failure decides once", Threads::Two, 2, || {
        let breaker = opened(config().probes(2).probe_success_rate(1.0));
        let (first, second) = (admit(&breaker, LATER).0.unwrap(), admit(&breaker, LATER).0.unwrap());
        let good = {
            let breaker = breaker.clone();
            thread::spawn(move || report(&breaker, first, Outcome::Success, LATER))
        };
        let bad = report(&breaker, second, Outcome::Failure, LATER);
        let changes = [good.join().unwrap(), bad];
        assert_eq!(changes.iter().flatten().count(), 1);
        let stats = quiescent(&breaker);
        assert_eq!((stats.state, stats.generation), (State::Open, 3));
    });
}

#[test]
fn stale_result_changes_nothing() {
    check("B4 stale result changes nothing", Threads::Three, 20, || {
        let breaker = breaker(config().consecutive_failures(1));
        let stale = admit(&breaker, ZERO).0.unwrap();
        let later_stale = admit(&breaker, ZERO).0.unwrap();
        call(&breaker, Outcome::Failure, ZERO);
        let late = |breaker: Arc<Breaker>, permit| move || report(&breaker, permit, Outcome::Failure, LATER);
        let threads = [thread::spawn(late(breaker.clone(), stale)), thread::spawn(late(breaker.clone(), later_stale))];
        let closed = call(&breaker, Outcome::Success, LATER);
        assert_eq!(closed.map(|change| change.to), Some(State::Closed), "the probe closes it");
        for thread in threads {
            assert_eq!(thread.join().unwrap(), None, "a stale result changed the state");
        }
        let stats = quiescent(&breaker);
        assert_eq!(
            (stats.state, stats.window.failed, stats.stale),
            (State::Closed, 0, 2),
            "a stale result was counted"
        );
    });
}

#[test]
fn dropped_probe_returns_its_slot() {
    check("B5 dropped probe returns its slot", Threads::Three, 20, || {
        let breaker = opened(config());
        let dropped = |breaker: Arc<Breaker>| {
            move || {
                if let Ok(permit) = admit(&breaker, LATER).0 {
                    assert_eq!(report(&breaker, permit, Outcome::Cancelled, LATER), None);
                }
            }
        };
        let threads = [thread::spawn(dropped(breaker.clone())), thread::spawn(dropped(breaker.clone()))];
        for thread in threads {
            thread.join().unwrap();
        }
        quiescent(&breaker);
        let next = admit(&breaker, LATER).0;
        assert!(next.is_ok(), "wedged in half-open: {next:?}");
        report(&breaker, next.unwrap(), Outcome::Success, LATER);
        assert_eq!(quiescent(&breaker).state, State::Closed);
    });
}

/// Runs `model` in every interleaving, and asserts that it ended in each of `outcomes` and in nothing else.
fn check_outcomes<T: PartialEq + std::fmt::Debug + Send + Sync + 'static>(
    name: &str,
    threads: Threads,
    at_least: u64,
    outcomes: impl IntoIterator<Item = T>,
    model: impl Fn() -> T + Send + Sync + 'static,
) {
    // Outside of loom's sight: it gathers over all interleavings.
    let seen: Vec<_> =
        outcomes.into_iter().map(|outcome| (outcome, std::sync::atomic::AtomicBool::new(false))).collect();
    let seen = std::sync::Arc::new(seen);
    let found = std::sync::Arc::clone(&seen);
    check(name, threads, at_least, move || {
        let outcome = model();
        let expected = found.iter().find(|(expected, _)| *expected == outcome);
        // ORDERING: Relaxed, read after all interleavings.
        expected
            .unwrap_or_else(|| panic!("no order of the steps ends in {outcome:?}"))
            .1
            .store(true, Ordering::Relaxed);
    });
    // ORDERING: Relaxed, as above.
    let missing: Vec<_> = seen.iter().filter(|(_, seen)| !seen.load(Ordering::Relaxed)).collect();
    assert!(missing.is_empty(), "{name}: no interleaving ended in {missing:?}");
}

#[test]
fn a_reset_forgets_what_was_under_way() {
    check("B6 reset beside a result and a call", Threads::Three, 50, || {
        let breaker = breaker(config());
        let old = admit(&breaker, ZERO).0.unwrap();
        let reset = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.force(None, ZERO).transition)
        };
        let late = {
            let breaker = breaker.clone();
            thread::spawn(move || report(&breaker, old, Outcome::Failure, ZERO))
        };
        assert_eq!(call(&breaker, Outcome::Success, ZERO), None);
        assert_eq!(reset.join().unwrap().map(|change| change.to), Some(State::Closed));
        assert_eq!(late.join().unwrap(), None);
        let stats = quiescent(&breaker);
        assert_eq!((stats.state, stats.generation, stats.consecutive_failures), (State::Closed, 1, 0));
        assert!(stats.window.calls <= 1 && stats.window.failed == 0, "a result from before the reset counts after it");
    });
}

#[test]
fn forced_open_stays_whatever_a_probe_says() {
    check("B7 forced open beside a successful probe", Threads::Two, 2, || {
        let breaker = opened(config());
        let probe = admit(&breaker, LATER).0.unwrap();
        let forced = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.force(Some(Override::Open), LATER).transition)
        };
        let closed = report(&breaker, probe, Outcome::Success, LATER);
        let forced = forced.join().unwrap().unwrap();
        assert_eq!((forced.to, forced.from == State::Closed), (State::ForcedOpen, closed.is_some()));
        assert_eq!(quiescent(&breaker).state, State::ForcedOpen);
        assert_eq!(admit(&breaker, LATER).0.unwrap_err().reason, Reason::ForcedOpen);
    });
}

#[test]
fn changes_of_state_form_a_path() {
    check("B8 changes of state form a path", Threads::Three, 50, || {
        let breaker = breaker(config().consecutive_failures(1));
        let failing = admit(&breaker, ZERO).0.unwrap();
        let trips = {
            let breaker = breaker.clone();
            thread::spawn(move || vec![report(&breaker, failing, Outcome::Failure, ZERO)])
        };
        let resets = {
            let breaker = breaker.clone();
            thread::spawn(move || vec![breaker.force(None, ZERO).transition])
        };
        let (permit, probing) = admit(&breaker, LATER);
        let reported = permit.ok().and_then(|permit| report(&breaker, permit, Outcome::Success, LATER));
        let told = [trips.join().unwrap(), resets.join().unwrap(), vec![probing, reported]].concat();
        let mut told: Vec<_> = told.into_iter().flatten().collect();
        told.sort_by_key(|change| change.generation);
        let mut state = State::Closed;
        for (change, number) in told.iter().zip(1..) {
            assert_eq!((change.generation, change.from), (number, state), "a gap in {told:?}");
            state = change.to;
        }
        let stats = quiescent(&breaker);
        assert_eq!((stats.generation, stats.state), (told.len() as u64, state), "a change was not told");
    });
}

#[test]
fn every_attempt_is_counted_once() {
    check("B9 admitted and refused are all attempts", Threads::Three, 50, || {
        let breaker = breaker(config().consecutive_failures(1));
        let failing = admit(&breaker, ZERO).0.unwrap();
        let trips = {
            let breaker = breaker.clone();
            thread::spawn(move || report(&breaker, failing, Outcome::Failure, ZERO))
        };
        let attempts = {
            let breaker = breaker.clone();
            thread::spawn(move || {
                admit(&breaker, ZERO).0.map(|permit| report(&breaker, permit, Outcome::Success, ZERO))
            })
        };
        let stats = breaker.stats();
        assert_eq!(stats.admitted, stats.succeeded + stats.failed + stats.neutral + stats.in_flight);
        assert!(stats.window.calls <= 2 && stats.generation == u64::from(stats.state == State::Open), "{stats:?}");
        assert!(trips.join().unwrap().is_some());
        let refused = attempts.join().unwrap().is_err();
        let stats = quiescent(&breaker);
        assert_eq!((stats.admitted + stats.refused, stats.refused), (2, u64::from(refused)));
    });
}

#[test]
fn two_thresholds_that_are_crossed_together_open_once() {
    check("B10 two thresholds crossed together open once", Threads::Two, 2, || {
        let config = config().failure_rate(0.5).consecutive_failures(None).slow_calls(LATER / 2, 0.5);
        let breaker = breaker(config);
        let (first, second) = (admit(&breaker, ZERO).0.unwrap(), admit(&breaker, ZERO).0.unwrap());
        let failed = {
            let breaker = breaker.clone();
            thread::spawn(move || report(&breaker, first, Outcome::Failure, ZERO))
        };
        let slow = report(&breaker, second, Outcome::Success, LATER);
        let opened: Vec<_> = [failed.join().unwrap(), slow].into_iter().flatten().collect();
        assert_eq!(opened.len(), 1);
        assert_eq!((opened[0].cause, opened[0].counts.calls), (Cause::FailureRate, 2), "the surer sign is told");
        assert_eq!(quiescent(&breaker).generation, 1);
    });
}

#[test]
fn two_breakers_of_one_configuration_share_nothing() {
    check("B11 two breakers share nothing", Threads::Two, 20, || {
        let [bad, good] = [(); 2].map(|()| breaker(config()));
        let answers = || {
            let (bad, good) = (bad.clone(), good.clone());
            let (failing, fine) = (admit(&bad, ZERO).0.unwrap(), admit(&good, ZERO).0.unwrap());
            move || (report(&bad, failing, Outcome::Failure, ZERO), report(&good, fine, Outcome::Success, ZERO))
        };
        let [first, second] = [answers(), answers()];
        let other = thread::spawn(first);
        let mine = second();
        let other = other.join().unwrap();
        assert!(other.0.is_some() ^ mine.0.is_some(), "the bad one opened once");
        assert_eq!((other.1, mine.1), (None, None));
        let (bad, good) = (quiescent(&bad), quiescent(&good));
        assert_eq!((bad.state, bad.generation, bad.stale), (State::Open, 1, 0));
        assert_eq!((good.state, good.generation), (State::Closed, 0));
        assert_eq!(good.window, counts(2, 0), "the results of one moved the other");
    });
}

fn counts(calls: u64, failed: u64) -> Counts {
    let mut counts = Counts::default();
    (counts.calls, counts.failed) = (calls, failed);
    counts
}

#[test]
fn success_beside_failures_that_cross_the_threshold() {
    // Without the lock, before, between or after the failures: nothing is lost and nothing counted twice.
    let outcomes =
        [(State::Open, 0, Some(counts(3, 2)), 2), (State::Closed, 0, None, 1), (State::Open, 1, Some(counts(2, 2)), 2)];
    check_outcomes("B12 success beside failures that cross the threshold", Threads::Two, 10, outcomes, || {
        let breaker = breaker(config().window(Window::Calls(4)));
        let [good, first, second] = [(); 3].map(|()| admit(&breaker, ZERO).0.unwrap());
        let success = {
            let breaker = breaker.clone();
            thread::spawn(move || report(&breaker, good, Outcome::Success, ZERO))
        };
        assert_eq!(report(&breaker, first, Outcome::Failure, ZERO), None);
        let opened = report(&breaker, second, Outcome::Failure, ZERO);
        assert_eq!(success.join().unwrap(), None);
        let stats = quiescent(&breaker);
        if opened.is_none() {
            assert_eq!(stats.window, counts(3, 2), "a success was lost");
        }
        (stats.state, stats.stale, opened.map(|change| change.counts), stats.consecutive_failures)
    });
}

/// A breaker whose window holds nothing but successes, as the word beside the lock says.
fn quiet(config: CircuitBreakerConfig) -> Arc<Breaker> {
    let breaker = breaker(config);
    for _ in 0..2 {
        call(&breaker, Outcome::Success, ZERO);
    }
    assert_eq!(breaker.stats().window, counts(2, 0));
    breaker
}

#[test]
fn success_beside_a_reset_is_not_counted_after_it() {
    check_outcomes("B13 success beside a reset", Threads::Two, 5, [0, 1], || {
        let breaker = quiet(config());
        let old = admit(&breaker, ZERO).0.unwrap();
        let reset = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.force(None, ZERO).transition)
        };
        assert_eq!(report(&breaker, old, Outcome::Success, ZERO), None);
        assert!(reset.join().unwrap().is_some());
        let stats = quiescent(&breaker);
        assert_eq!(stats.window, Counts::default(), "a success from before the reset counts after it");
        stats.stale
    });
}

#[test]
fn nobody_is_admitted_after_the_opening_was_seen() {
    check_outcomes("B14 admission beside the opening", Threads::Three, 50, [0, 1, 2], || {
        let breaker = quiet(config().consecutive_failures(1));
        let failing = admit(&breaker, ZERO).0.unwrap();
        let trips = {
            let breaker = breaker.clone();
            thread::spawn(move || report(&breaker, failing, Outcome::Failure, ZERO))
        };
        let watches = {
            let breaker = breaker.clone();
            thread::spawn(move || (breaker.state() == State::Open).then(|| admit(&breaker, ZERO).0))
        };
        let mine: Vec<_> = (0..2).map(|_| admit(&breaker, ZERO).0).collect();
        assert!(mine[0].is_ok() || mine[1].is_err(), "admitted after a refusal");
        assert!(trips.join().unwrap().is_some());
        if let Some(answer) = watches.join().unwrap() {
            assert_eq!(answer.unwrap_err().retry_after, Some(LATER), "admitted after the opening was seen");
        }
        let admitted: Vec<_> = mine.into_iter().flatten().collect();
        let late = admitted.len();
        for permit in admitted {
            assert_eq!(report(&breaker, permit, Outcome::Success, ZERO), None, "a stale success changes nothing");
        }
        assert_eq!(quiescent(&breaker).stale, late as u64);
        late
    });
}

#[test]
fn a_success_is_judged_and_counted_under_one_configuration() {
    // It ran for 3 s. Before the update that is slow, and trips; after it is not, and is the first call in a new window.
    let outcomes = [(State::Open, 0), (State::Closed, 1)];
    check_outcomes("B15 success beside an update", Threads::Two, 5, outcomes, || {
        let second = Duration::from_secs(1);
        let breaker = quiet(config().slow_calls(second, 0.5));
        let permit = admit(&breaker, ZERO).0.unwrap();
        let update = {
            let breaker = breaker.clone();
            let config = config().slow_calls(5 * second, 0.5).window(Window::Calls(3));
            thread::spawn(move || breaker.update(config, 3 * second).unwrap().transition)
        };
        report(&breaker, permit, Outcome::Success, 3 * second);
        assert_eq!(update.join().unwrap(), None);
        let stats = quiescent(&breaker);
        (stats.state, stats.window.calls)
    });
}

#[test]
fn successes_of_a_window_by_time_are_all_counted() {
    check("B16 successes in two buckets of a window by time", Threads::Two, 20, || {
        let breaker = breaker(config().window(Window::Time(LATER)));
        let [first, second, third] = [(); 3].map(|()| admit(&breaker, ZERO).0.unwrap());
        let bucket = LATER / 10;
        report(&breaker, first, Outcome::Success, ZERO);
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || report(&breaker, second, Outcome::Success, ZERO))
        };
        assert_eq!(report(&breaker, third, Outcome::Success, bucket), None);
        assert_eq!(other.join().unwrap(), None);
        assert_eq!(quiescent(&breaker).window, counts(3, 0), "a success was lost");
        // Ten buckets later the second bucket is forgotten too, and with it every one of them.
        call(&breaker, Outcome::Success, LATER + bucket);
        assert_eq!(quiescent(&breaker).window, counts(1, 0), "a success was counted in a later bucket");
    });
}

#[test]
fn a_refusal_tells_the_time_of_the_state_that_refuses() {
    // The reset publishes another end in the same place: that of a bucket, which for a window over calls never comes.
    let outcomes = [Some((Reason::Open, Some(LATER))), None];
    check_outcomes("B17 refusal beside a reset", Threads::Two, 10, outcomes, || {
        let breaker = opened(config());
        let reset = {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.force(None, ZERO).transition)
        };
        let answer = admit(&breaker, ZERO).0;
        assert!(reset.join().unwrap().is_some());
        let refused = match answer {
            Ok(permit) => {
                assert_eq!(report(&breaker, permit, Outcome::Success, ZERO), None);
                None
            }
            Err(refusal) => Some((refusal.reason, refusal.retry_after)),
        };
        let stats = quiescent(&breaker);
        assert_eq!((stats.state, stats.admitted + stats.refused), (State::Closed, 3));
        refused
    });
}

/// A success that ran for 3 s: slow where calls of a second are, and not where those of 5 s are.
const RAN: Duration = Duration::from_secs(3);

/// Nothing trips it in the models below.
fn patient(slow_after: u64) -> CircuitBreakerConfig {
    let config = config().window(Window::Calls(4)).minimum_calls(1).consecutive_failures(9);
    config.slow_calls(Duration::from_secs(slow_after), 1.0)
}

#[test]
fn a_success_is_left_in_the_word_it_was_judged_by() {
    // The failure is slow. Before the update the success is not, and the failure comes after it; else both are slow.
    let outcomes = [(1, 1), (2, 1), (2, 0)];
    check_outcomes("B18 success beside a stricter update and a failure", Threads::Two, 20, outcomes, || {
        let breaker = breaker(patient(5));
        call(&breaker, Outcome::Success, ZERO);
        breaker.stats(); // takes what waits in the word, which then says the same three times but for its version
        let [good, bad] = [(); 2].map(|()| admit(&breaker, ZERO).0.unwrap());
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || {
                assert!(breaker.update(patient(1), ZERO).unwrap().transition.is_none());
                report(&breaker, bad, Outcome::Failure, RAN)
            })
        };
        assert_eq!(report(&breaker, good, Outcome::Success, RAN), None);
        assert_eq!(other.join().unwrap(), None);
        let stats = quiescent(&breaker);
        assert_eq!((stats.window.calls, stats.window.failed), (3, 1));
        (stats.window.slow, stats.consecutive_failures)
    });
}

#[test]
fn a_success_is_judged_by_what_belongs_to_the_state_that_admitted_it() {
    // Switched off it is a passenger; admitted before that it is stale, or counted and forgotten; after it, it is slow.
    let outcomes = [(0, 0), (1, 1)];
    check_outcomes("B19 success beside off and on again", Threads::Two, 20, outcomes, || {
        let breaker = breaker(patient(5));
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || {
                for config in [patient(5).mode(Mode::Disabled), patient(1)] {
                    assert!(breaker.update(config, ZERO).unwrap().transition.is_some());
                }
            })
        };
        let permit = admit(&breaker, ZERO).0.unwrap();
        let opened = report(&breaker, permit, Outcome::Success, RAN);
        other.join().unwrap();
        let stats = quiescent(&breaker);
        match opened {
            Some(opened) => (opened.counts.calls, opened.counts.slow),
            None => (stats.window.calls, stats.window.slow),
        }
    });
}

#[test]
fn a_believed_stale_result_would_be_seen() {
    planted(Bug::StaleGeneration, "stale_result_changes_nothing", "a stale result");
}

#[test]
fn a_kept_probe_would_be_seen() {
    planted(Bug::ProbeNotReturned, "dropped_probe_returns_its_slot", "wedged in half-open");
}

#[test]
fn a_stale_success_that_is_believed_without_the_lock_would_be_seen() {
    planted(Bug::StaleSuccess, "success_beside_a_reset_is_not_counted_after_it", "a success from before the reset");
}

#[test]
fn a_word_that_is_not_taken_away_would_be_seen() {
    planted(Bug::WordNotTaken, "success_beside_failures_that_cross_the_threshold", "no order of the steps");
}

#[test]
fn a_word_that_is_not_read_again_would_be_seen() {
    planted(Bug::WordNotReadAgain, "a_success_is_judged_and_counted_under_one_configuration", "no order of the steps");
}

#[test]
fn an_end_of_another_state_would_be_seen() {
    planted(Bug::WordNotReadAgain, "a_refusal_tells_the_time_of_the_state_that_refuses", "no order of the steps");
}

#[test]
fn a_word_that_comes_back_as_it_was_would_be_seen() {
    planted(Bug::WordNotNumbered, "a_success_is_left_in_the_word_it_was_judged_by", "no order of the steps");
}

#[test]
fn a_word_without_what_belongs_to_it_would_be_seen() {
    let model = "a_success_is_judged_by_what_belongs_to_the_state_that_admitted_it";
    planted(Bug::WordNotAcquired, model, "no order of the steps");
}
