//! The words of a circuit breaker: its states, why it changes them, what a call can say, what can be read.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

#[allow(unused_imports, reason = "named in the docs")]
use super::config::{CancelPolicy, CircuitBreakerConfig};
use super::window::{Counts, nanos};
use crate::counts::Ended;
use crate::error::Reason;
use crate::mode::Mode;

/// What a breaker is doing. It is *closed* when traffic flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls flow and are counted.
    Closed,
    /// Calls are refused until the open time is over; the first call after it makes the breaker half-open.
    Open,
    /// A few trial calls decide whether it closes.
    HalfOpen,
    /// Refuses by hand, until told otherwise.
    ForcedOpen,
    /// Admits by hand: calls are counted and never trip it.
    ForcedClosed,
    /// Admits everything and counts nothing in its window.
    Disabled,
}

impl State {
    /// Every state, for the one-hot metric.
    pub const ALL: [Self; 6] =
        [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::ForcedClosed, Self::Disabled];

    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
        }
    }
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// So many failures in a row.
    ConsecutiveFailures,
    /// The share of failed calls in the window.
    FailureRate,
    /// The share of slow calls in the window.
    SlowRate,
    /// The open time is over and a call came.
    OpenTimeOver,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// Too many probes failed, were slow or never answered.
    ProbesFailed,
    /// An override, or its end, through the handle.
    ByHand,
    /// A changed configuration.
    Updated,
}

impl Cause {
    /// The word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::OpenTimeOver => "open_time_over",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::ProbesFailed => "probes_failed",
            Self::ByHand => "by_hand",
            Self::Updated => "updated",
        }
    }
}

/// One change of state, with the numbers that caused it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The state that was left.
    pub from: State,
    /// The state that was entered.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// The number of this change: each is one above the change before.
    pub generation: u64,
    /// How long the breaker will stay open, if it opened by itself.
    pub open_for: Option<Duration>,
    /// Failures in a row at that moment.
    pub consecutive_failures: u32,
    /// What decided: the window when the breaker left the closed state, the finished probes when it left half-open.
    pub counts: Counts,
}

/// What one call said about the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The peer did its work; a timely "not found" is a success of the peer.
    Success,
    /// It did not.
    Failure,
    /// The call says nothing: it never reached the peer, or the caller was at fault.
    Neutral,
    /// The peer refused because it has too much to do: a failure, and the breaker that it trips stays open at least
    /// for `retry_after` (up to [`retry_after_max`](CircuitBreakerConfig::retry_after_max)).
    Overload {
        /// The wait that the peer asked for.
        retry_after: Option<Duration>,
    },
    /// The call was cut off by its caller: [`CancelPolicy`] decides. What a dropped call reports.
    Cancelled,
}

impl Outcome {
    /// What the call counts as; one that was cut off says nothing unless a policy has decided otherwise.
    #[inline]
    pub(super) const fn ended(self) -> Ended {
        match self {
            Self::Success => Ended::Ok,
            Self::Failure | Self::Overload { .. } => Ended::Failed,
            Self::Neutral | Self::Cancelled => Ended::Neutral,
        }
    }
}

/// The counts of one breaker since it was made, and its present.
///
/// `admitted = succeeded + failed + neutral + in_flight` holds in every reading.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// What the breaker is doing.
    pub state: State,
    /// The mode in force, overrides included.
    pub mode: Mode,
    /// How often the state has changed.
    pub generation: u64,
    /// Calls let through.
    pub admitted: u64,
    /// Of those, the successful.
    pub succeeded: u64,
    /// The failed, overload included.
    pub failed: u64,
    /// Those that said nothing.
    pub neutral: u64,
    /// Those without an outcome yet.
    pub in_flight: u64,
    /// Calls refused.
    pub refused: u64,
    /// Calls that were let through only because of [`Mode::Observe`].
    pub would_refuse: u64,
    /// Results that came after the state that had admitted them was gone. They are in the counts above.
    pub stale: u64,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// What the window held when the latest outcome was counted: a window by time forgets when the next one comes.
    pub window: Counts,
}

/// The right to make one call; reported back exactly once.
///
/// Two words without holes, because it travels with every call: what is written in pieces and copied whole is slow to copy.
#[derive(Clone, Copy)]
#[must_use = "every permit must be reported"]
pub struct Permit {
    /// Generation, number of the probe, kind, and a one so that an `Option` needs no third word: 32, 29, 2 and 1 bits.
    grant: NonZeroU64,
    /// When the call began, in nanoseconds; `u64::MAX` where nobody asks.
    started: u64,
}

/// What a permit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counted in the window.
    Counted,
    /// The trial call with this number, which is below [`PROBE_NUMBERS`].
    Probe(u32),
    /// Let through although the breaker would refuse, or while it decides nothing: in `stats` only.
    Passenger,
}

/// The numbers of probes come round again; of those under way at a time there are a thousand at most.
pub(super) const PROBE_NUMBERS: u32 = 1 << 29;

impl Permit {
    /// A permit of the state with this generation.
    #[inline]
    pub(super) fn new(generation: u32, kind: Kind, started: Option<Duration>) -> Self {
        let kind = match kind {
            Kind::Counted => 0,
            Kind::Passenger => 1,
            Kind::Probe(number) => 2 | u64::from(number) << 2,
        };
        let grant = NonZeroU64::MIN | u64::from(generation) << 32 | kind << 1;
        Self { grant, started: started.map_or(u64::MAX, nanos) }
    }

    /// The state that granted it: the lower half of its number.
    #[inline]
    pub(super) fn generation(&self) -> u32 {
        (self.grant.get() >> 32) as u32
    }

    #[inline]
    pub(super) fn kind(&self) -> Kind {
        let kind = self.grant.get() as u32 >> 1;
        match kind & 3 {
            0 => Kind::Counted,
            1 => Kind::Passenger,
            _ => Kind::Probe(kind >> 2),
        }
    }

    /// How long the call has run at `now`, where somebody asks.
    #[inline]
    pub(super) fn ran(&self, now: Duration) -> Option<Duration> {
        (self.started != u64::MAX).then(|| now.saturating_sub(Duration::from_nanos(self.started)))
    }

    /// Whether somebody asks how long the call ran.
    pub(super) fn is_timed(&self) -> bool {
        self.started != u64::MAX
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("generation", &self.generation()).field("kind", &self.kind()).finish()
    }
}

/// A call that is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Open, probing or forced open.
    pub reason: Reason,
    /// The open time that remains.
    pub retry_after: Option<Duration>,
}

/// What `Breaker::reserve` says to a caller that would rather wait than be refused.
#[derive(Debug)]
pub enum Gate {
    /// Calls flow; nothing was reserved.
    Pass,
    /// A probe was reserved: claim it or release it.
    Reserved(Permit),
    /// Ask again at this time, or on the next `Effect::wake`.
    Wait(Option<Duration>),
}

/// What the caller must do about a step after the lock is gone.
#[derive(Debug, Default)]
#[must_use = "transitions are published and waiters woken by the caller"]
pub struct Effect {
    /// The change of state to publish; boxed, because nearly every step moves a `None`.
    pub transition: Option<Box<Transition>>,
    /// A probe slot became free or the state changed: whoever waits should ask again.
    pub wake: bool,
}

/// A decision by hand that outranks the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Override {
    /// Refuse everything.
    Open,
    /// Admit everything; count.
    Closed,
    /// Admit everything; count nothing in the window.
    Disabled,
    /// As [`Mode::Observe`].
    Observe,
}
