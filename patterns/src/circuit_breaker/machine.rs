//! The states behind the breaker's lock: plain sequential code.

use std::time::Duration;

use super::config::{CancelPolicy, CircuitBreakerConfig};
use super::shortcut::{Notice, Reading, Way};
use super::state::{
    Cause, Effect, Gate, Kind, Outcome, Override, PROBE_NUMBERS, Permit, Refusal, State, Stats, Transition,
};
use super::window::{Counts, Record};
use crate::counts::Tally;
use crate::error::{InvalidConfig, Reason};
use crate::mode::Mode;
use crate::sync::{Bug, bug};

/// The state machine; whoever holds it is alone with it.
#[derive(Debug)]
pub struct Machine {
    config: CircuitBreakerConfig,
    phase: Phase,
    forced: Option<Override>,
    /// One up with every change of state. A result from an older generation changes nothing.
    generation: u64,
    window: Record,
    consecutive_failures: u32,
    /// How often the breaker has opened since it was last stable.
    reopened: u32,
    /// When it was last closed.
    closed_at: Duration,
    next_probe: u32,
    largest_now: Duration,
    would_refuse: u64,
    stale: u64,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open {
        until: Duration,
    },
    /// `probes`, `succeeded` and `failed` together never exceed the configured number, and a verdict falls at the
    /// latest when `probes` is empty and the others reach it: there is always a slot free, a probe under way that will
    /// time out, or a verdict.
    HalfOpen {
        probes: Vec<Probe>,
        succeeded: u32,
        failed: u32,
    },
}

#[derive(Debug)]
struct Probe {
    number: u32,
    since: Duration,
    /// Granted to a service that is ready and has not been called.
    reserved: bool,
}

impl Machine {
    pub(super) fn new(config: CircuitBreakerConfig) -> Self {
        Self {
            window: Record::new(config.window),
            config,
            phase: Phase::Closed,
            forced: None,
            generation: 0,
            consecutive_failures: 0,
            reopened: 0,
            closed_at: Duration::ZERO,
            next_probe: 0,
            largest_now: Duration::ZERO,
            would_refuse: 0,
            stale: 0,
        }
    }

    fn clamp(&mut self, now: Duration) -> Duration {
        self.largest_now = self.largest_now.max(now);
        self.largest_now
    }

    pub(super) fn config(&self) -> CircuitBreakerConfig {
        self.config.clone()
    }

    fn mode(&self) -> Mode {
        match self.forced {
            Some(Override::Observe) => Mode::Observe,
            Some(Override::Disabled) => Mode::Disabled,
            Some(Override::Open | Override::Closed) => Mode::Enforce,
            None => self.config.mode,
        }
    }

    pub(super) fn state(&self) -> State {
        match (self.forced, &self.phase) {
            (Some(Override::Open), _) => State::ForcedOpen,
            (Some(Override::Closed), _) => State::ForcedClosed,
            _ if self.mode() == Mode::Disabled => State::Disabled,
            (_, Phase::Closed) => State::Closed,
            (_, Phase::Open { .. }) => State::Open,
            (_, Phase::HalfOpen { .. }) => State::HalfOpen,
        }
    }

    /// Adds calls that [needed no lock](super::shortcut): in the state as it is, good, and not slow.
    pub(super) fn succeeded(&mut self, calls: u64) {
        if calls > 0 {
            self.consecutive_failures = 0;
            self.window.push_good(calls);
        }
    }

    /// What needs no lock from now on. An end that somebody has seen is not published: a caller who has read the clock before
    /// would go back behind it.
    pub(super) fn notice(&self) -> Notice {
        let (way, until) = match (self.state(), &self.phase) {
            (State::Open, Phase::Open { until }) if self.mode() == Mode::Enforce && self.largest_now < *until => {
                (Way::Refuse, Some(*until))
            }
            (State::Disabled, _) => (Way::Pass, None),
            (State::Closed | State::ForcedClosed, _) => (self.way_of_successes(), self.window.until()),
            (State::Open | State::HalfOpen | State::ForcedOpen, _) => (Way::Ask, None),
        };
        Notice {
            way,
            generation: self.tag(),
            times_calls: self.config.times_calls(),
            until,
            slow_after: self.config.slow_after,
        }
    }

    fn way_of_successes(&self) -> Way {
        let counts = self.window.counts();
        // Where a success is one of the first calls that make a rate, it can trip the breaker.
        let decides = counts.calls < u64::from(self.config.minimum_calls) && counts.failed + counts.slow > 0;
        let in_next_bucket = self.window.until().is_some_and(|until| until <= self.largest_now);
        if in_next_bucket || (self.state() == State::Closed && (decides || self.tripped(counts).is_some())) {
            Way::Admit
        } else if self.window.is_full_of_good() {
            // Its last call was good, so no failures in a row wait to be reset.
            Way::Quiet
        } else {
            Way::Count
        }
    }

    /// The generation as permits carry it.
    fn tag(&self) -> u32 {
        self.generation as u32
    }

    pub(super) fn admit(
        &mut self,
        exempt: bool,
        now: &mut Reading<impl FnOnce() -> Duration>,
        draw: impl FnOnce() -> f64,
    ) -> (Result<Permit, Refusal>, Effect) {
        let needs_time = self.config.times_calls() || matches!(self.state(), State::Open | State::HalfOpen);
        let now = needs_time.then(|| self.clamp(now.get()));
        let (decision, effect) = self.decide(now.unwrap_or(self.largest_now), draw, false);
        let answer = match decision {
            Err(_) if exempt => Ok(Kind::Passenger),
            Err(_) if self.mode() == Mode::Observe => {
                self.would_refuse += 1;
                Ok(Kind::Passenger)
            }
            decision => decision,
        };
        (answer.map(|kind| Permit::new(self.tag(), kind, now)), effect)
    }

    pub(super) fn reserve(&mut self, now: Duration, draw: impl FnOnce() -> f64) -> (Gate, Effect) {
        let now = self.clamp(now);
        let (decision, effect) = self.decide(now, draw, true);
        let gate = match decision {
            Ok(kind @ Kind::Probe(_)) => Gate::Reserved(Permit::new(self.tag(), kind, Some(now))),
            Ok(_) => Gate::Pass,
            Err(_) if self.mode() == Mode::Observe => Gate::Pass,
            Err(_) => Gate::Wait(self.next_change()),
        };
        (gate, effect)
    }

    pub(super) fn holds(&mut self, permit: &Permit, now: Duration) -> bool {
        let now = self.clamp(now);
        self.reserved(permit, now).is_some()
    }

    pub(super) fn claim(&mut self, permit: Permit, now: Duration) -> Option<Permit> {
        let now = self.clamp(now);
        let probe = self.reserved(&permit, now)?;
        probe.reserved = false;
        probe.since = now;
        Some(Permit::new(permit.generation(), permit.kind(), Some(now)))
    }

    pub(super) fn release(&mut self, permit: Permit) -> Effect {
        let returned = permit.generation() == self.tag() && self.take_probe(permit.kind());
        Effect { transition: None, wake: returned }
    }

    pub(super) fn update(&mut self, config: CircuitBreakerConfig, now: Duration) -> Result<Effect, InvalidConfig> {
        config.check()?;
        if config.name != self.config.name {
            return Err(InvalidConfig::new("name", config.name, "the name it was made with"));
        }
        if config.on_open != self.config.on_open {
            return Err(InvalidConfig::new("on_open", config.on_open, "the value it was made with"));
        }
        self.clamp(now);
        let before = self.state();
        if config.window != self.config.window {
            self.window = Record::new(config.window);
        }
        self.config = config;
        let after = self.state();
        let transition = (before != after).then(|| {
            self.close();
            self.entered(before, Cause::Updated, None, Counts::default())
        });
        Ok(Effect { transition, wake: true })
    }

    pub(super) fn force(&mut self, to: Option<Override>, now: Duration) -> Effect {
        self.clamp(now);
        let before = self.state();
        self.forced = to;
        // A reset counts as a change of a closed breaker too: the results of earlier calls belong to the time before it.
        let transition = (to.is_none() || self.state() != before).then(|| {
            // The machine rests closed under an override, so that no probe of the time before it is waited for.
            self.close();
            self.reopened = 0;
            self.entered(before, Cause::ByHand, None, Counts::default())
        });
        Effect { transition, wake: true }
    }

    /// What a call that came at `now` may do, before exemptions.
    fn decide(
        &mut self,
        now: Duration,
        draw: impl FnOnce() -> f64,
        reserving: bool,
    ) -> (Result<Kind, Refusal>, Effect) {
        let mut effect = Effect::default();
        match self.state() {
            State::Closed | State::ForcedClosed => return (Ok(Kind::Counted), effect),
            State::Disabled => return (Ok(Kind::Passenger), effect),
            State::ForcedOpen => {
                return (Err(Refusal { reason: Reason::ForcedOpen, retry_after: None }), effect);
            }
            State::Open | State::HalfOpen => {}
        }
        match &self.phase {
            // Open → HalfOpen: the time is over, and this call is the first probe.
            Phase::Open { until } if *until <= now => {
                let probes = Vec::with_capacity(self.config.probes as usize);
                self.phase = Phase::HalfOpen { probes, succeeded: 0, failed: 0 };
                effect.transition = Some(self.entered(State::Open, Cause::OpenTimeOver, None, Counts::default()));
                effect.wake = true;
            }
            Phase::HalfOpen { .. } => {
                effect.wake |= self.expire_probes(now);
                effect.transition = self.verdict(now, None, draw);
                effect.wake |= effect.transition.is_some();
            }
            _ => {}
        }
        let number = self.next_probe;
        let decision = match &mut self.phase {
            // HalfOpen → Closed: the configuration shrank to the successes that are there already.
            Phase::Closed => Ok(Kind::Counted),
            Phase::Open { until } => {
                Err(Refusal { reason: Reason::Open, retry_after: Some(until.saturating_sub(now)) })
            }
            Phase::HalfOpen { probes, succeeded, failed } => {
                if probes.len() as u64 + u64::from(*succeeded) + u64::from(*failed) < u64::from(self.config.probes) {
                    probes.push(Probe { number, since: now, reserved: reserving });
                    self.next_probe = (self.next_probe + 1) % PROBE_NUMBERS;
                    Ok(Kind::Probe(number))
                } else {
                    Err(Refusal { reason: Reason::Probing, retry_after: None })
                }
            }
        };
        (decision, effect)
    }

    pub(super) fn report(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        now: &mut Reading<impl FnOnce() -> Duration>,
        draw: impl FnOnce() -> f64,
    ) -> (Outcome, Effect) {
        let probing = matches!(permit.kind(), Kind::Probe(_));
        let timed = self.config.slow_after.is_some()
            || self.window.by_time()
            || probing
            || (outcome == Outcome::Cancelled && permit.is_timed());
        let now_if_timed = timed.then(|| self.clamp(now.get()));
        let ran = now_if_timed.and_then(|now| permit.ran(now));
        let outcome = self.resolve(outcome, probing, ran);
        let stale = permit.generation() != self.tag();
        self.stale += u64::from(stale && permit.kind() != Kind::Passenger);
        if (stale && !bug(Bug::StaleGeneration)) || permit.kind() == Kind::Passenger {
            return (outcome, Effect::default());
        }
        let (good, hint) = match outcome {
            Outcome::Success => (Some(true), None),
            Outcome::Failure => (Some(false), None),
            Outcome::Overload { retry_after } => (Some(false), retry_after),
            Outcome::Neutral | Outcome::Cancelled => (None, None),
        };
        let slow = ran.zip(self.config.slow_after).is_some_and(|(ran, limit)| ran > limit);
        let effect = match (probing, good) {
            (true, good) => self.report_probe(permit.kind(), good.map(|good| good && !slow), hint, draw),
            (false, Some(good)) => self.report_call(good, slow, hint, now, draw),
            (false, None) => Effect::default(),
        };
        (outcome, effect)
    }

    fn report_call(
        &mut self,
        good: bool,
        slow: bool,
        hint: Option<Duration>,
        now: &mut Reading<impl FnOnce() -> Duration>,
        draw: impl FnOnce() -> f64,
    ) -> Effect {
        self.consecutive_failures = if good { 0 } else { self.consecutive_failures.saturating_add(1) };
        let counts = self.window.push(self.largest_now, !good, slow);
        // Closed → Open: the time is read here if nothing else has needed it.
        let transition = self.tripped(counts).map(|cause| {
            let now = self.clamp(now.get());
            self.open(now, cause, hint, draw, counts)
        });
        Effect { wake: transition.is_some(), transition }
    }

    fn report_probe(
        &mut self,
        probe: Kind,
        good: Option<bool>,
        hint: Option<Duration>,
        draw: impl FnOnce() -> f64,
    ) -> Effect {
        let kept = good.is_none() && bug(Bug::ProbeNotReturned);
        if kept || !self.take_probe(probe) {
            // The probe has timed out, and was counted as failed then.
            return Effect::default();
        }
        if let (Some(good), Phase::HalfOpen { succeeded, failed, .. }) = (good, &mut self.phase) {
            *if good { succeeded } else { failed } += 1;
        }
        Effect { transition: self.verdict(self.largest_now, hint, draw), wake: true }
    }

    /// Replaces [`Outcome::Cancelled`] by what the policy makes of it.
    fn resolve(&self, outcome: Outcome, probing: bool, ran: Option<Duration>) -> Outcome {
        if outcome != Outcome::Cancelled {
            return outcome;
        }
        let ran_for = |limit| ran.is_some_and(|ran| ran >= limit);
        let counts = match self.config.cancel {
            CancelPolicy::FailureAfter(limit) => ran_for(limit),
            CancelPolicy::Neutral => false,
        };
        // A probe dropped after its timeout has shown what the timeout asks: the peer does not answer.
        if counts || (probing && ran_for(self.config.probe_timeout)) { Outcome::Failure } else { Outcome::Neutral }
    }

    /// Whether the closed state ends, and why; the surest sign first.
    fn tripped(&self, counts: Counts) -> Option<Cause> {
        if self.state() != State::Closed {
            return None;
        }
        if self.config.consecutive_failures.is_some_and(|limit| self.consecutive_failures >= limit) {
            return Some(Cause::ConsecutiveFailures);
        }
        if counts.calls < u64::from(self.config.minimum_calls) || counts.failed + counts.slow == 0 {
            return None;
        }
        // Division rounds to the share as the user wrote it: 7 of 100 is 0.07, while 0.07 × 100 is above 7.
        let share = |bad: u64| bad as f64 / counts.calls as f64;
        if self.config.failure_rate.is_some_and(|rate| share(counts.failed) >= rate) {
            return Some(Cause::FailureRate);
        }
        (self.config.slow_after.is_some() && share(counts.slow) >= self.config.slow_rate).then_some(Cause::SlowRate)
    }

    /// Ends the half-open state as soon as its end is certain.
    fn verdict(
        &mut self,
        now: Duration,
        hint: Option<Duration>,
        draw: impl FnOnce() -> f64,
    ) -> Option<Box<Transition>> {
        let Phase::HalfOpen { succeeded, failed, .. } = self.phase else { return None };
        let needed = self.config.probes_needed();
        let counts =
            Counts { calls: u64::from(succeeded) + u64::from(failed), failed: u64::from(failed), ..Counts::default() };
        if succeeded >= needed {
            // HalfOpen → Closed: enough probes succeeded; what the window held belongs to the outage.
            let from = self.state();
            self.close();
            self.closed_at = now;
            Some(self.entered(from, Cause::ProbesSucceeded, None, counts))
        } else if failed > self.config.probes - needed {
            // HalfOpen → Open: the rest could not reach the rate any more.
            Some(self.open(now, Cause::ProbesFailed, hint, draw, counts))
        } else {
            None
        }
    }

    fn open(
        &mut self,
        now: Duration,
        cause: Cause,
        hint: Option<Duration>,
        draw: impl FnOnce() -> f64,
        counts: Counts,
    ) -> Box<Transition> {
        let from = self.state();
        if from == State::Closed && now.saturating_sub(self.closed_at) >= self.config.stable_after {
            self.reopened = 0;
        }
        let open_for = self.open_time(draw()).max(hint.unwrap_or_default().min(self.config.retry_after_max));
        self.reopened = self.reopened.saturating_add(1);
        self.phase = Phase::Open { until: now + open_for };
        self.entered(from, cause, Some(open_for), counts)
    }

    /// Exponential with jitter below the ceiling, so that the cap keeps its jitter ("Exponential Backoff And Jitter",
    /// M. Brooker, AWS Architecture Blog, 2015).
    fn open_time(&self, draw: f64) -> Duration {
        let growth = self.config.open_factor.powi(self.reopened.min(1_000) as i32);
        let ceiling = (self.config.open_for.as_secs_f64() * growth).min(self.config.open_max.as_secs_f64());
        Duration::try_from_secs_f64(ceiling * (1.0 - self.config.jitter * draw.clamp(0.0, 1.0)))
            .unwrap_or(self.config.open_max)
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.window = Record::new(self.config.window);
        self.consecutive_failures = 0;
        self.closed_at = self.largest_now;
    }

    /// Counts a change of state whose new state is in place already.
    fn entered(&mut self, from: State, cause: Cause, open_for: Option<Duration>, counts: Counts) -> Box<Transition> {
        self.generation += 1;
        Box::new(Transition {
            from,
            to: self.state(),
            cause,
            generation: self.generation,
            open_for,
            consecutive_failures: self.consecutive_failures,
            counts,
        })
    }

    /// Fails the calls and frees the reservations that have been out too long; whether a slot became free.
    fn expire_probes(&mut self, now: Duration) -> bool {
        let Phase::HalfOpen { probes, failed, .. } = &mut self.phase else { return false };
        let before = probes.len();
        probes.retain(|probe| {
            let expired = now.saturating_sub(probe.since) >= self.config.probe_timeout;
            *failed += u32::from(expired && !probe.reserved);
            !expired
        });
        probes.len() < before
    }

    /// Takes the probe out of the table; whether it was there.
    fn take_probe(&mut self, kind: Kind) -> bool {
        let (Kind::Probe(number), Phase::HalfOpen { probes, .. }) = (kind, &mut self.phase) else { return false };
        let place = probes.iter().position(|probe| probe.number == number);
        place.map(|place| probes.swap_remove(place)).is_some()
    }

    fn reserved(&mut self, permit: &Permit, now: Duration) -> Option<&mut Probe> {
        let timeout = self.config.probe_timeout;
        if permit.generation() != self.tag() {
            return None;
        }
        let (Kind::Probe(number), Phase::HalfOpen { probes, .. }) = (permit.kind(), &mut self.phase) else {
            return None;
        };
        probes
            .iter_mut()
            .find(|probe| probe.number == number && probe.reserved && now.saturating_sub(probe.since) < timeout)
    }

    /// When a refused caller may have better luck, as far as time alone can bring it.
    fn next_change(&self) -> Option<Duration> {
        match (self.forced, &self.phase) {
            (Some(Override::Open), _) => None,
            (_, Phase::Closed) => None,
            (_, Phase::Open { until }) => Some(*until),
            (_, Phase::HalfOpen { probes, .. }) => {
                probes.iter().map(|probe| probe.since + self.config.probe_timeout).min()
            }
        }
    }

    pub(super) fn stats(&self, calls: Tally, refused: u64) -> Stats {
        Stats {
            state: self.state(),
            mode: self.mode(),
            generation: self.generation,
            admitted: calls.admitted,
            succeeded: calls.ok,
            failed: calls.failed,
            neutral: calls.neutral,
            in_flight: calls.in_flight,
            refused,
            would_refuse: self.would_refuse,
            stale: self.stale,
            consecutive_failures: self.consecutive_failures,
            window: self.window.counts(),
        }
    }
}
