//! Permits with an account, metrics and a wait that ends: what a semaphore is made of.

use std::time::Duration;

use super::future::{InLine, Place};
use super::permits::{Permits, Rules, Units};
use crate::admission::{Account, Core, Decision, Patience, Permit, Reserved};
use crate::clock::nanos;
use crate::error::{Reason, Refusal};
use crate::lent::{Lent, lend};
use crate::mode::{Mode, Waiting};
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::telemetry::{self, Bound, Gauge};

/// Why a call is refused.
const REASONS: [Reason; 6] =
    [Reason::Full, Reason::QueueFull, Reason::MaxWait, Reason::Deadline, Reason::Never, Reason::Closed];

/// What the handle, the layer and the services of one limit share.
pub struct Room {
    account: Account,
    pub(crate) permits: Permits,
    /// In nanoseconds.
    max_wait: AtomicU64,
    waiting: Waiting,
    limit: Bound<Gauge>,
}

/// What becomes of a call that asks.
pub(crate) enum Entry {
    Permit(Permit<Room>),
    Line(InLine, Patience),
}

lend!(Room);

impl Core for Room {
    type Units = Units;
    type Ref = Lent<Self>;

    #[inline]
    fn lend(self: &Arc<Self>) -> Lent<Self> {
        Lent::of(self)
    }

    fn account(&self) -> &Account {
        &self.account
    }

    #[inline]
    fn held(units: Units) -> Units {
        units
    }

    #[inline]
    fn give_back(&self, units: Units, _: bool) {
        if units != Units::NONE {
            self.permits.give(units);
        }
    }
}

impl Room {
    pub(crate) fn new(
        pattern: &'static str,
        name: &str,
        mode: Mode,
        waiting: Waiting,
        rules: &Rules,
        max_wait: Duration,
    ) -> Self {
        Self {
            account: Account::new(pattern, name, mode, &REASONS),
            permits: Permits::new(rules),
            max_wait: AtomicU64::new(nanos(max_wait)),
            waiting,
            limit: Bound::new(limit_gauge(pattern, name, rules.limit)),
        }
    }

    /// Where callers wait.
    #[inline]
    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// Units now, or none.
    #[inline]
    pub(crate) fn try_take(&self, units: Units) -> Result<Units, Refusal> {
        Ok(self.permits.try_take(units).map(|()| units)?)
    }

    /// A permit now or later.
    pub(crate) fn acquire(self: &Arc<Self>, units: Units) -> Place {
        Place::unasked(self, units)
    }

    /// Decides of a call through the layer that cannot go now.
    pub(crate) fn admit_later(self: &Arc<Self>, units: Units, refusal: Refusal) -> Decision<Self, Place> {
        if self.waiting == Waiting::InReadiness {
            return Permit::refused(self, refusal).into();
        }
        match self.enter(units, Patience::new) {
            Ok(Entry::Permit(permit)) => Decision::Admitted(permit),
            Ok(Entry::Line(line, patience)) => Decision::Wait(Place::in_line(self, line, patience)),
            Err(refusal) => Permit::refused(self, refusal).into(),
        }
    }

    /// Decides of a service that asks for readiness.
    pub(crate) fn reserve(self: &Arc<Self>, units: Units) -> Reserved<Self, Place> {
        match self.enter(units, |_| Ok(Patience::unbounded())) {
            Ok(Entry::Permit(permit)) => Reserved::Now(permit),
            Ok(Entry::Line(line, patience)) => Reserved::Wait(Place::in_line(self, line, patience)),
            Err(_) => Reserved::Undecided,
        }
    }

    /// A permit, or a place in line; `patience` is asked with the longest wait, and only for the latter.
    pub(crate) fn enter(
        self: &Arc<Self>,
        units: Units,
        patience: impl FnOnce(Duration) -> Result<Patience, Reason>,
    ) -> Result<Entry, Refusal> {
        let mode = self.account.mode();
        if mode == Mode::Disabled {
            return Ok(Entry::Permit(Permit::new(self, Units::NONE)));
        }
        match self.permits.try_take(units) {
            Ok(()) => Ok(Entry::Permit(Permit::new(self, units))),
            // Where nobody is refused, nobody waits.
            Err(Reason::Full) if mode == Mode::Enforce && self.permits.has_room() => {
                // ORDERING: Relaxed, the word is the whole setting and nothing else is read because of it.
                let patience = patience(Duration::from_nanos(self.max_wait.load(Ordering::Relaxed)))?;
                Ok(match self.permits.join(units)? {
                    None => Entry::Permit(Permit::new(self, units)),
                    Some(key) => Entry::Line(InLine::new(self, units, key), patience),
                })
            }
            Err(reason) => Err(reason.into()),
        }
    }

    /// Changes what can be changed live; wakes nobody. The limit before.
    pub(crate) fn set(&self, mode: Mode, rules: &Rules, max_wait: Duration) -> u32 {
        let from = self.permits.limit();
        // ORDERING: Relaxed, as in `enter`.
        self.max_wait.store(nanos(max_wait), Ordering::Relaxed);
        self.account.set_mode(mode);
        self.permits.set(rules);
        self.limit.with(|gauge| gauge.set(f64::from(rules.limit)));
        from
    }

    /// Tells those who wait, after a change of the limit `from` what it was before.
    pub(crate) fn settle(&self, from: u32) {
        self.permits.settle();
        if self.account.mode() != Mode::Enforce {
            // The mode lets them through.
            self.permits.dismiss(Reason::Full);
        }
        let limit = self.permits.limit();
        if from != limit {
            let (pattern, name) = (self.account.pattern(), self.account.name());
            telemetry::limit_changed(pattern, name, from, limit, self.permits.in_use());
        }
    }

    pub(crate) fn close(&self) {
        if self.permits.is_closed() {
            return;
        }
        let waiting = self.permits.waiting();
        self.permits.close();
        telemetry::limit_closed(self.account.pattern(), self.account.name(), self.permits.in_use(), waiting);
    }

    pub(crate) fn rebind_metrics(&self) {
        self.account.rebind_metrics();
        self.limit.rebind_with(|| limit_gauge(self.account.pattern(), self.account.name(), self.permits.limit()));
    }
}

fn limit_gauge(pattern: &'static str, name: &str, limit: u32) -> Gauge {
    let gauge = Gauge::new("seawall_limit", &[("pattern", pattern), ("name", name)]);
    gauge.set(f64::from(limit));
    gauge
}
