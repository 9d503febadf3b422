//! The breaker against a plain sequential model: lists instead of rings, a flat record of every call instead of slots.

use std::time::Duration;

use proptest::prelude::*;

use super::breaker::Breaker;
use super::config::{CircuitBreakerConfig, Window};
use super::state::{Outcome, Override, Permit, State};
use crate::error::Reason;

const WINDOW: usize = 6;
const MINIMUM: usize = 3;
const ROW: usize = 4;
const PROBES: usize = 3;
const NEEDED: usize = 2;
const PROBE_TIMEOUT: u64 = 50;
const OPEN_FOR: u64 = 100;
const OPEN_MAX: u64 = 400;
const STABLE: u64 = 300;

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("model")
        .window(Window::Calls(WINDOW as u32))
        .minimum_calls(MINIMUM as u32)
        .failure_rate(0.5)
        .consecutive_failures(ROW as u32)
        .probes(PROBES as u32)
        .probe_success_rate(0.6)
        .probe_timeout(millis(PROBE_TIMEOUT))
        .open_for(millis(OPEN_FOR))
        .open_max(millis(OPEN_MAX))
        .stable_after(millis(STABLE))
        .jitter(0.0)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A call of the model: the round that admitted it, and what has become of it.
#[derive(Clone, Copy)]
struct Call {
    round: usize,
    started: u64,
    /// Neither finished nor timed out.
    live: bool,
    passenger: bool,
}

struct Model {
    now: u64,
    round: usize,
    state: State,
    until: u64,
    opened: u32,
    closed_at: u64,
    /// Outcomes that count in this round, oldest first: of calls while closed, of probes while half-open.
    good: Vec<bool>,
    calls: Vec<Call>,
}

impl Model {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.round += 1;
        self.good.clear();
        match state {
            State::Open => {
                self.until = self.now + (OPEN_FOR << self.opened.min(10)).min(OPEN_MAX);
                self.opened += 1;
            }
            State::Closed => self.closed_at = self.now,
            _ => {}
        }
    }

    fn judge(&mut self) {
        let bad = self.good.iter().filter(|good| !**good).count();
        match self.state {
            State::HalfOpen if self.good.len() - bad >= NEEDED => self.enter(State::Closed),
            State::HalfOpen if bad > PROBES - NEEDED => self.enter(State::Open),
            State::Closed => {
                let last = &self.good[self.good.len().saturating_sub(WINDOW)..];
                let failed = last.iter().filter(|good| !**good).count();
                let row = self.good.iter().rev().take_while(|good| !**good).count();
                if row >= ROW || (last.len() >= MINIMUM && 2 * failed >= last.len()) {
                    if self.now - self.closed_at >= STABLE {
                        self.opened = 0;
                    }
                    self.enter(State::Open);
                }
            }
            _ => {}
        }
    }

    fn under_way(&mut self) -> impl Iterator<Item = &mut Call> {
        let round = self.round;
        self.calls.iter_mut().filter(move |call| call.round == round && call.live && !call.passenger)
    }

    fn admit(&mut self, exempt: bool) -> Result<(), Reason> {
        if self.state == State::Open && self.now >= self.until {
            self.enter(State::HalfOpen);
        }
        if self.state == State::HalfOpen {
            let now = self.now;
            let late = self.under_way().filter(|call| now - call.started >= PROBE_TIMEOUT);
            let late = late.map(|call| call.live = false).count();
            self.good.extend(std::iter::repeat_n(false, late));
            self.judge();
        }
        let full = self.under_way().count() + self.good.len() >= PROBES;
        let refused = match self.state {
            State::Open => Some(Reason::Open),
            State::HalfOpen if full => Some(Reason::Probing),
            State::ForcedOpen => Some(Reason::ForcedOpen),
            _ => None,
        };
        if let (Some(reason), false) = (refused, exempt) {
            return Err(reason);
        }
        let call = Call { round: self.round, started: self.now, live: true, passenger: refused.is_some() };
        self.calls.push(call);
        Ok(())
    }

    fn finish(&mut self, call: usize, outcome: Outcome) {
        let Call { round, started, live, passenger } = self.calls[call];
        self.calls[call].live = false;
        if round != self.round || !live || passenger {
            return;
        }
        let dropped_late = self.state == State::HalfOpen && self.now - started >= PROBE_TIMEOUT;
        match outcome {
            Outcome::Success => self.good.push(true),
            Outcome::Failure => self.good.push(false),
            Outcome::Cancelled if dropped_late => self.good.push(false),
            _ => return,
        }
        self.judge();
    }

    fn force(&mut self, to: Option<Override>) {
        let state = if to.is_some() { State::ForcedOpen } else { State::Closed };
        if self.state != state || to.is_none() {
            self.enter(state);
        }
        self.opened = 0;
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit { exempt: bool },
    Finish { call: prop::sample::Index, outcome: Outcome },
    Wait(u64),
    ForceOpen,
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        4 => Just(Outcome::Failure),
        1 => Just(Outcome::Neutral),
        1 => Just(Outcome::Cancelled),
    ];
    prop_oneof![
        40 => (0..8).prop_map(|draw| Step::Admit { exempt: draw == 0 }),
        40 => (any::<prop::sample::Index>(), outcome).prop_map(|(call, outcome)| Step::Finish { call, outcome }),
        18 => (0_u64..120).prop_map(Step::Wait),
        1 => Just(Step::ForceOpen),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_breaker_does_what_the_plain_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let breaker = Breaker::new(config()).unwrap();
        let mut model = Model {
            now: 0,
            round: 0,
            state: State::Closed,
            until: 0,
            opened: 0,
            closed_at: 0,
            good: Vec::new(),
            calls: Vec::new(),
        };
        let mut running: Vec<(usize, Permit)> = Vec::new();
        for step in steps {
            let now = millis(model.now);
            match step {
                Step::Admit { exempt } => {
                    let (answer, _) = breaker.admit(exempt, || now, || 0.0);
                    match model.admit(exempt) {
                        Ok(()) => running.push((model.calls.len() - 1, answer.unwrap())),
                        Err(reason) => prop_assert_eq!(answer.unwrap_err().reason, reason),
                    }
                }
                Step::Finish { call, outcome } if !running.is_empty() => {
                    let (call, permit) = running.swap_remove(call.index(running.len()));
                    model.finish(call, outcome);
                    let _ = breaker.report(permit, outcome, || now, || 0.0);
                }
                Step::Finish { .. } => {}
                Step::Wait(time) => model.now += time,
                Step::ForceOpen => {
                    model.force(Some(Override::Open));
                    let _ = breaker.force(Some(Override::Open), now);
                }
                Step::Reset => {
                    model.force(None);
                    let _ = breaker.force(None, now);
                }
            }
            let stats = breaker.stats();
            prop_assert_eq!(stats.state, model.state);
            prop_assert_eq!(stats.in_flight, running.len() as u64);
            prop_assert_eq!(stats.admitted, stats.succeeded + stats.failed + stats.neutral + stats.in_flight);
        }
    }

    #[test]
    fn never_wedged_whatever_is_lost(
        steps in prop::collection::vec((prop::option::of(any::<bool>()), 0_u64..120), 1..60),
    ) {
        let breaker = Breaker::new(config()).unwrap();
        let mut now = Duration::ZERO;
        for (answer, wait) in steps {
            if let (Ok(permit), Some(good)) = (breaker.admit(false, || now, || 0.0).0, answer) {
                let outcome = if good { Outcome::Success } else { Outcome::Failure };
                let _ = breaker.report(permit, outcome, || now, || 0.0);
            } // else the call is lost without a trace
            now += millis(wait);
        }
        let attempts = (0..20).find(|_| {
            now += millis(OPEN_MAX);
            if let Ok(permit) = breaker.admit(false, || now, || 0.0).0 {
                let _ = breaker.report(permit, Outcome::Success, || now, || 0.0);
            }
            breaker.state() == State::Closed
        });
        prop_assert!(attempts.is_some());
    }
}
