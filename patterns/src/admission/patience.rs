//! How long a call may wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock;
use crate::deadline::Deadline;
use crate::error::Reason;

/// The end of a wait, and why it ends there.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// `None` without a bound.
    until: Option<Instant>,
    reason: Reason,
}

impl Patience {
    /// From now for `max_wait`, or to the ambient deadline where that is sooner.
    ///
    /// # Errors
    /// [`Reason::Deadline`] where the deadline has passed.
    pub(crate) fn new(max_wait: Duration) -> Result<Self, Reason> {
        let now = clock::instant();
        let own = now.checked_add(max_wait).unwrap_or_else(clock::far_future);
        match Deadline::current().map(Deadline::instant) {
            Some(deadline) if deadline <= now => Err(Reason::Deadline),
            Some(deadline) if deadline < own => Ok(Self { until: Some(deadline), reason: Reason::Deadline }),
            _ => Ok(Self { until: Some(own), reason: Reason::MaxWait }),
        }
    }

    /// Without a bound: in readiness, where whoever asks decides how long.
    pub(crate) fn unbounded() -> Self {
        Self { until: None, reason: Reason::MaxWait }
    }

    /// The same, so much longer.
    pub(crate) fn longer_by(self, more: Duration) -> Self {
        Self { until: self.until.map(|until| until.checked_add(more).unwrap_or(until)), ..self }
    }

    /// Whether a wait from now for `wait` ends in time.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn allows(self, wait: Duration) -> Result<(), Reason> {
        let ends = clock::instant().checked_add(wait).unwrap_or_else(clock::far_future);
        if self.until.is_none_or(|until| ends <= until) { Ok(()) } else { Err(self.reason) }
    }

    /// Completes with the reason when it is exhausted. The timer is made when this is polled for the first time.
    pub(crate) fn poll(self, mut timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<Reason> {
        let Some(until) = self.until else { return Poll::Pending };
        if timer.is_none() {
            timer.set(Some(sleep_until(until)));
        }
        let fired = timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
        // A timer is never ready in a task that has used up its share of the scheduler's turn. The clock tells the truth.
        if fired || Instant::now() >= until { Poll::Ready(self.reason) } else { Poll::Pending }
    }
}
