//! Models of the circuit breaker: no interleaving makes it change state twice, admit a probe too many, or lose one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a model reports by panicking, in its helpers too")]

use std::time::Duration;

use loom::thread;
use seawall_loom::circuit_breaker::breaker::Breaker;
use seawall_loom::circuit_breaker::config::{CircuitBreakerConfig, Window};
use seawall_loom::circuit_breaker::state::{Effect, Outcome, Permit, Refusal, State, Stats, Transition};
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

#[test]
fn a_believed_stale_result_would_be_seen() {
    planted(Bug::StaleGeneration, "stale_result_changes_nothing", "a stale result");
}

#[test]
fn a_kept_probe_would_be_seen() {
    planted(Bug::ProbeNotReturned, "dropped_probe_returns_its_slot", "wedged in half-open");
}
