//! The breaker against a plain sequential model: lists instead of rings and words, a flat record of every call instead of
//! slots. The scripts admit, finish and drop calls, reserve probes, let time pass, set and end overrides, change the
//! configuration, and send long runs of successes, so that most of them go past the lock.

use std::time::Duration;

use proptest::prelude::*;

use super::breaker::Breaker;
use super::config::{CancelPolicy, CircuitBreakerConfig, Window};
use super::state::{Cause, Effect, Gate, Outcome, Override, Permit, Refusal, State, Transition};
use super::window::Counts;
use crate::error::Reason;
use crate::mode::Mode;

const OPEN_MAX: u64 = 400;

fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("model")
        .window(Window::Calls(6))
        .minimum_calls(3)
        .failure_rate(0.5)
        .consecutive_failures(4)
        .probes(3)
        .probe_success_rate(0.6)
        .probe_timeout(millis(50))
        .open_for(millis(100))
        .open_max(millis(OPEN_MAX))
        .retry_after_max(millis(250))
        .stable_after(millis(300))
        .jitter(0.0)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Counted,
    Passenger,
    /// Not called yet if `reserved`.
    Probe {
        reserved: bool,
    },
}

/// A call of the model: the round that admitted it, and what has become of it.
#[derive(Clone, Copy)]
struct Call {
    round: u64,
    started: Option<Duration>,
    role: Role,
    /// Neither finished nor timed out.
    live: bool,
}

/// A result in the window.
#[derive(Clone, Copy)]
struct Entry {
    at: Duration,
    failed: bool,
    slow: bool,
}

struct Model {
    now: Duration,
    config: CircuitBreakerConfig,
    forced: Option<Override>,
    /// Closed, open or half-open.
    phase: State,
    round: u64,
    until: Duration,
    opened: u32,
    closed_at: Duration,
    log: Vec<Entry>,
    /// How many entries of the log are failed or slow.
    bad: usize,
    row: u32,
    /// The results of probes in this round.
    probes: Vec<bool>,
    calls: Vec<Call>,
    causes: Vec<Cause>,
    would_refuse: u64,
    stale: u64,
}

impl Model {
    fn new(config: CircuitBreakerConfig) -> Self {
        Self {
            now: Duration::ZERO,
            config,
            forced: None,
            phase: State::Closed,
            round: 0,
            until: Duration::ZERO,
            opened: 0,
            closed_at: Duration::ZERO,
            log: Vec::new(),
            bad: 0,
            row: 0,
            probes: Vec::new(),
            calls: Vec::new(),
            causes: Vec::new(),
            would_refuse: 0,
            stale: 0,
        }
    }

    fn mode(&self) -> Mode {
        match self.forced {
            Some(Override::Observe) => Mode::Observe,
            Some(Override::Disabled) => Mode::Disabled,
            Some(_) => Mode::Enforce,
            None => self.config.mode,
        }
    }

    fn state(&self) -> State {
        match self.forced {
            Some(Override::Open) => State::ForcedOpen,
            Some(Override::Closed) => State::ForcedClosed,
            _ if self.mode() == Mode::Disabled => State::Disabled,
            _ => self.phase,
        }
    }

    fn enter(&mut self, phase: State, cause: Cause) {
        self.phase = phase;
        self.round += 1;
        self.causes.push(cause);
        self.probes.clear();
        if phase == State::Closed {
            self.closed_at = self.now;
            self.empty_window();
            self.row = 0;
        }
    }

    fn empty_window(&mut self) {
        self.log.clear();
        self.bad = 0;
    }

    fn open(&mut self, cause: Cause, hint: Duration) {
        if self.phase == State::Closed && self.now - self.closed_at >= self.config.stable_after {
            self.opened = 0;
        }
        let ceiling = (self.config.open_for * 2_u32.pow(self.opened.min(10))).min(self.config.open_max);
        self.until = self.now + ceiling.max(hint.min(self.config.retry_after_max));
        self.opened += 1;
        self.enter(State::Open, cause);
    }

    /// What the window held when the last result came.
    fn window(&self) -> Counts {
        let first = match self.config.window {
            Window::Calls(calls) => self.log.len().saturating_sub(calls as usize),
            Window::Time(time) => {
                let bucket = |entry: &Entry| (entry.at.as_nanos() / (time / 10).as_nanos()) as i128;
                let newest = self.log.last().map_or(0, bucket);
                self.log.iter().position(|entry| bucket(entry) > newest - 10).unwrap_or(0)
            }
        };
        let held = &self.log[first..];
        Counts {
            calls: held.len() as u64,
            failed: held.iter().filter(|entry| entry.failed).count() as u64,
            slow: held.iter().filter(|entry| entry.slow).count() as u64,
        }
    }

    fn judge_window(&mut self, hint: Duration) {
        if self.bad == 0 {
            return;
        }
        let Counts { calls, failed, slow } = self.window();
        let share = |bad: u64| bad as f64 / calls as f64;
        let enough = calls >= u64::from(self.config.minimum_calls);
        let cause = if self.config.consecutive_failures.is_some_and(|limit| self.row >= limit) {
            Cause::ConsecutiveFailures
        } else if enough && self.config.failure_rate.is_some_and(|rate| share(failed) >= rate) {
            Cause::FailureRate
        } else if enough && self.config.slow_after.is_some() && share(slow) >= self.config.slow_rate {
            Cause::SlowRate
        } else {
            return;
        };
        self.open(cause, hint);
    }

    fn judge_probes(&mut self, hint: Duration) {
        let probes = self.config.probes as usize;
        let needed =
            (1..=probes).find(|count| *count as f64 / probes as f64 >= self.config.probe_success_rate).unwrap();
        let good = self.probes.iter().filter(|good| **good).count();
        if good >= needed {
            self.enter(State::Closed, Cause::ProbesSucceeded);
        } else if self.probes.len() - good > probes - needed {
            self.open(Cause::ProbesFailed, hint);
        }
    }

    fn under_way(&mut self) -> impl Iterator<Item = &mut Call> {
        let round = self.round;
        self.calls
            .iter_mut()
            .filter(move |call| call.round == round && call.live && matches!(call.role, Role::Probe { .. }))
    }

    fn expire_probes(&mut self) {
        let (now, timeout) = (self.now, self.config.probe_timeout);
        let mut failed = 0;
        for call in self.under_way().filter(|call| call.started.is_some_and(|started| now - started >= timeout)) {
            call.live = false;
            failed += usize::from(call.role != Role::Probe { reserved: true });
        }
        self.probes.extend(std::iter::repeat_n(false, failed));
    }

    /// What a call may be now, before exemptions.
    fn decide(&mut self, reserved: bool) -> Result<Role, Refusal> {
        if self.state() == State::Open && self.now >= self.until {
            self.enter(State::HalfOpen, Cause::OpenTimeOver);
        } else if self.state() == State::HalfOpen {
            self.expire_probes();
            self.judge_probes(Duration::ZERO);
        }
        match self.state() {
            State::Closed | State::ForcedClosed => Ok(Role::Counted),
            State::Disabled => Ok(Role::Passenger),
            State::ForcedOpen => Err(Refusal { reason: Reason::ForcedOpen, retry_after: None }),
            State::Open => Err(Refusal { reason: Reason::Open, retry_after: Some(self.until - self.now) }),
            State::HalfOpen if self.under_way().count() + self.probes.len() < self.config.probes as usize => {
                Ok(Role::Probe { reserved })
            }
            State::HalfOpen => Err(Refusal { reason: Reason::Probing, retry_after: None }),
        }
    }

    fn admit(&mut self, exempt: bool) -> Result<usize, Refusal> {
        let timed = self.config.slow_after.is_some()
            || matches!(self.config.cancel, CancelPolicy::FailureAfter(_))
            || matches!(self.state(), State::Open | State::HalfOpen);
        let role = match self.decide(false) {
            Err(_) if exempt => Role::Passenger,
            Err(_) if self.mode() == Mode::Observe => {
                self.would_refuse += 1;
                Role::Passenger
            }
            decision => decision?,
        };
        Ok(self.call(role, timed.then_some(self.now)))
    }

    fn call(&mut self, role: Role, started: Option<Duration>) -> usize {
        self.calls.push(Call { round: self.round, started, role, live: true });
        self.calls.len() - 1
    }

    /// The reservation, where one is made; whether the service may be ready.
    fn reserve(&mut self) -> (Option<usize>, bool) {
        match self.decide(true) {
            Ok(role @ Role::Probe { .. }) => (Some(self.call(role, Some(self.now))), true),
            Ok(_) => (None, true),
            Err(_) => (None, self.mode() == Mode::Observe),
        }
    }

    /// Whether a reservation is still good.
    fn holds(&self, call: usize) -> bool {
        let Call { round, started, live, .. } = self.calls[call];
        let in_time = started.is_some_and(|started| self.now - started < self.config.probe_timeout);
        round == self.round && live && in_time
    }

    fn claim(&mut self, call: usize) {
        self.calls[call].role = Role::Probe { reserved: false };
        self.calls[call].started = Some(self.now);
    }

    /// What `outcome` counted as.
    fn finish(&mut self, call: usize, outcome: Outcome) -> Outcome {
        let Call { round, started, role, live } = self.calls[call];
        self.calls[call].live = false;
        let probing = role == Role::Probe { reserved: false };
        let ran = started.map(|started| self.now - started);
        let ran_for = |limit| ran.is_some_and(|ran| ran >= limit);
        let outcome = match (outcome, self.config.cancel) {
            (Outcome::Cancelled, _) if probing && ran_for(self.config.probe_timeout) => Outcome::Failure,
            (Outcome::Cancelled, CancelPolicy::FailureAfter(limit)) if ran_for(limit) => Outcome::Failure,
            (Outcome::Cancelled, _) => Outcome::Neutral,
            (outcome, _) => outcome,
        };
        if role == Role::Passenger {
            return outcome;
        }
        if round != self.round {
            self.stale += 1;
            return outcome;
        }
        let (good, hint) = match outcome {
            Outcome::Success => (true, Duration::ZERO),
            Outcome::Failure => (false, Duration::ZERO),
            Outcome::Overload { retry_after } => (false, retry_after.unwrap_or_default()),
            Outcome::Neutral | Outcome::Cancelled => {
                if probing && live {
                    // It says nothing, but what others have said may decide since the configuration changed.
                    self.judge_probes(Duration::ZERO);
                }
                return outcome;
            }
        };
        let slow = self.config.slow_after.is_some_and(|limit| ran.is_some_and(|ran| ran > limit));
        if probing {
            if live {
                self.probes.push(good && !slow);
                self.judge_probes(hint);
            }
            return outcome;
        }
        self.log.push(Entry { at: self.now, failed: !good, slow });
        self.bad += usize::from(!good || slow);
        self.row = if good { 0 } else { self.row + 1 };
        if self.state() == State::Closed {
            self.judge_window(hint);
        }
        outcome
    }

    fn update(&mut self, config: CircuitBreakerConfig) {
        let before = self.state();
        if config.window != self.config.window {
            self.empty_window();
        }
        self.config = config;
        if self.state() != before {
            self.enter(State::Closed, Cause::Updated);
        }
    }

    fn force(&mut self, to: Option<Override>) {
        let before = self.state();
        self.forced = to;
        if to.is_none() || self.state() != before {
            self.opened = 0;
            self.enter(State::Closed, Cause::ByHand);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit {
        exempt: bool,
    },
    Finish {
        call: prop::sample::Index,
        outcome: Outcome,
    },
    Reserve,
    Spend {
        reservation: prop::sample::Index,
        call: bool,
    },
    Succeed {
        times: usize,
    },
    Wait(u64),
    /// Compares the statistics; not after every step, because reading them takes along what waits beside the lock.
    Look,
    Force(Option<Override>),
    Update(Box<CircuitBreakerConfig>),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        6 => Just(Outcome::Success),
        6 => Just(Outcome::Failure),
        1 => Just(Outcome::Neutral),
        2 => Just(Outcome::Cancelled),
        1 => prop::option::of((0_u64..400).prop_map(millis)).prop_map(|retry_after| Outcome::Overload { retry_after }),
    ]
}

/// Configurations that the scripts start with and change to.
fn any_config() -> impl Strategy<Value = CircuitBreakerConfig> {
    let window =
        prop_oneof![(3_u32..9).prop_map(Window::Calls), (100_u64..400).prop_map(|ms| Window::Time(millis(ms)))];
    let slow = prop::option::of((1_u64..40).prop_map(millis));
    let cancel = prop_oneof![
        Just(CancelPolicy::Neutral),
        (1_u64..40).prop_map(|limit| CancelPolicy::FailureAfter(millis(limit))),
    ];
    let mode = prop_oneof![8 => Just(Mode::Enforce), 1 => Just(Mode::Observe), 1 => Just(Mode::Disabled)];
    let row = prop::option::of(2_u32..6);
    (window, 1_u32..4, prop::option::of(0.2_f64..1.0), row, slow, cancel, mode, 1_u32..5).prop_map(
        |(window, minimum, rate, row, slow_after, cancel, mode, probes)| CircuitBreakerConfig {
            slow_after,
            ..config()
                .window(window)
                .minimum_calls(minimum)
                .failure_rate(rate)
                .consecutive_failures(row)
                .cancel(cancel)
                .mode(mode)
                .probes(probes)
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let force = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Override::Open)),
        1 => Just(Some(Override::Closed)),
        1 => Just(Some(Override::Disabled)),
        1 => Just(Some(Override::Observe)),
    ];
    // More than a word beside the lock can hold, now and then.
    let times = prop_oneof![60 => 1_usize..12, 1 => 1_000_usize..1_100];
    prop_oneof![
        30 => (0..8).prop_map(|draw| Step::Admit { exempt: draw == 0 }),
        40 => (any::<prop::sample::Index>(), outcome()).prop_map(|(call, outcome)| Step::Finish { call, outcome }),
        5 => Just(Step::Reserve),
        5 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(reservation, call)| Step::Spend { reservation, call }),
        10 => times.prop_map(|times| Step::Succeed { times }),
        20 => (0_u64..120).prop_map(Step::Wait),
        10 => Just(Step::Look),
        2 => force.prop_map(Step::Force),
        2 => any_config().prop_map(|config| Step::Update(Box::new(config))),
    ]
}

/// The breaker, its model, and what is under way in both.
struct Pair {
    breaker: Breaker,
    model: Model,
    running: Vec<(usize, Permit)>,
    reserved: Vec<(usize, Permit)>,
    told: Vec<Transition>,
    ended: [u64; 3],
    refused: u64,
}

impl Pair {
    fn new(config: CircuitBreakerConfig) -> Self {
        Self {
            breaker: Breaker::new(config.clone()).unwrap(),
            model: Model::new(config),
            running: Vec::new(),
            reserved: Vec::new(),
            told: Vec::new(),
            ended: [0; 3],
            refused: 0,
        }
    }

    fn tell(&mut self, effect: Effect) {
        self.told.extend(effect.transition.map(|transition| *transition));
    }

    fn admit(&mut self, exempt: bool) -> Result<(), TestCaseError> {
        let now = self.model.now;
        let (answer, effect) = self.breaker.admit(exempt, || now, || 0.0);
        self.tell(effect);
        match (self.model.admit(exempt), answer) {
            (Ok(call), Ok(permit)) => self.running.push((call, permit)),
            (Err(expected), Err(refusal)) => {
                prop_assert_eq!(refusal, expected);
                self.refused += 1;
            }
            (expected, answer) => prop_assert!(false, "{answer:?} where the model says {expected:?}"),
        }
        Ok(())
    }

    fn finish(&mut self, place: usize, outcome: Outcome) -> Result<(), TestCaseError> {
        let (call, permit) = self.running.swap_remove(place);
        let now = self.model.now;
        let (counted, effect) = self.breaker.report(permit, outcome, || now, || 0.0);
        self.tell(effect);
        prop_assert_eq!(counted, self.model.finish(call, outcome));
        self.ended[match counted {
            Outcome::Success => 0,
            Outcome::Failure | Outcome::Overload { .. } => 1,
            Outcome::Neutral | Outcome::Cancelled => 2,
        }] += 1;
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = self.model.now;
        match step {
            Step::Admit { exempt } => self.admit(exempt)?,
            Step::Finish { call, outcome } if !self.running.is_empty() => {
                self.finish(call.index(self.running.len()), outcome)?;
            }
            Step::Finish { .. } => {}
            Step::Reserve => {
                let (gate, effect) = self.breaker.reserve(|| now, || 0.0);
                self.tell(effect);
                let (call, ready) = self.model.reserve();
                prop_assert_eq!(ready, !matches!(gate, Gate::Wait(_)));
                match (call, gate) {
                    (Some(call), Gate::Reserved(permit)) => self.reserved.push((call, permit)),
                    (None, Gate::Pass | Gate::Wait(_)) => {}
                    (call, gate) => prop_assert!(false, "{gate:?} where the model reserves {call:?}"),
                }
            }
            Step::Spend { reservation, call: calls } if !self.reserved.is_empty() => {
                let (call, permit) = self.reserved.swap_remove(reservation.index(self.reserved.len()));
                let holds = self.model.holds(call);
                prop_assert_eq!(self.breaker.holds(&permit, now), holds);
                if calls {
                    let claimed = self.breaker.claim(permit, now);
                    prop_assert_eq!(claimed.is_some(), holds);
                    if let Some(permit) = claimed {
                        self.model.claim(call);
                        self.running.push((call, permit));
                    }
                } else {
                    let effect = self.breaker.release(permit);
                    self.tell(effect);
                    self.model.calls[call].live = false;
                }
            }
            Step::Spend { .. } => {}
            Step::Succeed { times } => {
                for _ in 0..times {
                    let before = self.running.len();
                    self.admit(false)?;
                    if self.running.len() > before {
                        self.finish(before, Outcome::Success)?;
                    }
                }
            }
            Step::Wait(time) => self.model.now += millis(time),
            Step::Look => self.look()?,
            Step::Force(to) => {
                let effect = self.breaker.force(to, now);
                self.tell(effect);
                self.model.force(to);
            }
            Step::Update(config) => {
                let effect = self.breaker.update((*config).clone(), now).unwrap();
                self.tell(effect);
                self.model.update(*config);
            }
        }
        Ok(())
    }

    fn look(&self) -> Result<(), TestCaseError> {
        let (stats, model) = (self.breaker.stats(), &self.model);
        prop_assert_eq!((stats.state, stats.mode, stats.generation), (model.state(), model.mode(), model.round));
        prop_assert_eq!((stats.window, stats.consecutive_failures), (model.window(), model.row));
        prop_assert_eq!([stats.succeeded, stats.failed, stats.neutral], self.ended);
        prop_assert_eq!(stats.in_flight, self.running.len() as u64);
        prop_assert_eq!(stats.admitted, self.ended.iter().sum::<u64>() + stats.in_flight);
        prop_assert_eq!(
            (stats.refused, stats.would_refuse, stats.stale),
            (self.refused, model.would_refuse, model.stale)
        );
        Ok(())
    }

    /// Every change was told, in order, for the cause that the model knows.
    fn told_everything(&self) -> Result<(), TestCaseError> {
        let mut state = self.told.first().map_or(self.model.state(), |first| first.from);
        for (change, number) in self.told.iter().zip(1..) {
            prop_assert_eq!((change.generation, change.from), (number, state));
            state = change.to;
        }
        let causes: Vec<_> = self.told.iter().map(|change| change.cause).collect();
        prop_assert_eq!(&causes, &self.model.causes);
        prop_assert_eq!(state, self.model.state());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_breaker_does_what_the_plain_model_does(
        start in any_config(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut pair = Pair::new(start);
        for step in steps {
            pair.step(step)?;
        }
        pair.look()?;
        pair.told_everything()?;
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
