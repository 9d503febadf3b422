//! One admitted call.

use std::fmt;
use std::mem;

use super::admit::Core;
use crate::counts::Ended;
use crate::error::{Refusal, Rejected};
use crate::mode::Mode;
use crate::sync::Arc;

/// Leave for one call. Dropped, it gives back what it holds.
///
/// A plain value: keep it wherever what it stands for goes on, such as in the body of a response.
/// Say how the call ended with [`succeeded`](Self::succeeded) or [`failed`](Self::failed); dropped without a word, it
/// counts as neutral.
#[must_use = "a permit is given back when it is dropped"]
pub struct Permit<C: Core> {
    core: C::Ref,
    units: C::Units,
    /// How the call ends if this is dropped now; `None` before it has started.
    ended: Option<Ended>,
}

impl<C: Core> Permit<C> {
    /// Leave to start a call with `units` of `core`.
    #[inline]
    pub(crate) fn new(core: &Arc<C>, units: C::Units) -> Self {
        Self { core: core.lend(), units, ended: None }
    }

    pub(crate) fn core(&self) -> &C {
        &self.core
    }

    /// What it holds; from now on, nothing.
    pub(crate) fn take_units(&mut self) -> C::Units {
        mem::take(&mut self.units)
    }

    /// Counts the refusal; the error, unless the mode lets the call through.
    #[cold]
    pub(crate) fn refused(core: &Arc<C>, refusal: Refusal) -> Result<Self, Rejected> {
        match core.account().refuse(refusal) {
            Some(rejected) => Err(rejected),
            None => Ok(Self::new(core, C::Units::default())),
        }
    }

    /// Starts a call with the units of `ask`, which is not asked where the mode is not to; or counts that there are none.
    #[inline]
    pub(crate) fn ask(core: &Arc<C>, ask: impl FnOnce(&C) -> Result<C::Units, Refusal>) -> Result<Self, Rejected> {
        let units = if core.account().mode() == Mode::Disabled { Ok(C::Units::default()) } else { ask(core) };
        units.map(|units| Self::new(core, units)).or_else(|refusal| Self::refused(core, refusal)).map(Self::start)
    }

    /// Counts the start of the call.
    #[inline]
    pub(crate) fn start(mut self) -> Self {
        self.core.account().start();
        self.ended = Some(Ended::Neutral);
        self
    }

    /// Polls the inner service ready, before the call of `permit` is made; if it panics, the call has failed.
    pub(super) fn before_call<R>(permit: &mut Option<Self>, f: impl FnOnce() -> R) -> R {
        let panics = UncalledUnless(permit);
        let result = f();
        mem::forget(panics);
        result
    }

    /// Counts a call that failed before it was made. What it holds goes back unspent.
    pub(super) fn failed_uncalled(self) {
        self.core.account().start();
        self.core.account().end(Ended::Failed);
    }

    /// Runs the inner service; if it panics, the call has failed.
    #[inline]
    pub(crate) fn within<R>(&mut self, f: impl FnOnce() -> R) -> R {
        // A guard and no mark before and after: a permit that was just written to is slow to move.
        let panics = FailedUnless(self);
        let result = f();
        mem::forget(panics);
        result
    }

    /// The inner service has answered.
    #[inline]
    pub(crate) fn answered(&mut self, ok: bool) {
        self.ended = Some(if ok { Ended::Ok } else { Ended::Failed });
    }

    /// Ends the call well.
    pub fn succeeded(mut self) {
        self.answered(true);
    }

    /// Ends the call as a failure.
    pub fn failed(mut self) {
        self.answered(false);
    }
}

/// An admitted call while it is made: should the inner service panic, it has failed.
///
/// It owns nothing but the units. A [`Permit`] made here would be written to memory for the unwinding, and moved from there
/// at a cost that shows.
pub(super) struct Making<'a, C: Core> {
    core: &'a Arc<C>,
    units: C::Units,
}

impl<'a, C: Core> Making<'a, C> {
    /// Counts the start of the call.
    #[inline]
    pub(super) fn start(core: &'a Arc<C>, units: C::Units) -> Self {
        core.account().start();
        Self { core, units: C::held(units) }
    }

    /// The call is made, and goes on under this.
    #[inline]
    pub(super) fn made(mut self, core: C::Ref) -> Permit<C> {
        let units = mem::take(&mut self.units);
        let permit = Permit { core, units, ended: Some(Ended::Neutral) };
        mem::forget(self);
        permit
    }
}

impl<C: Core> Drop for Making<'_, C> {
    #[inline]
    fn drop(&mut self) {
        self.core.account().end(Ended::Failed);
        self.core.give_back(mem::take(&mut self.units), true);
    }
}

/// Marks the call as failed when it is dropped, which is when the inner service panics.
struct FailedUnless<'a, C: Core>(&'a mut Permit<C>);

impl<C: Core> Drop for FailedUnless<'_, C> {
    fn drop(&mut self) {
        self.0.answered(false);
    }
}

/// Counts the call as failed before it was made when this is dropped, which is when the inner service panics.
struct UncalledUnless<'a, C: Core>(&'a mut Option<Permit<C>>);

impl<C: Core> Drop for UncalledUnless<'_, C> {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.failed_uncalled();
        }
    }
}

impl<C: Core> Drop for Permit<C> {
    #[inline]
    fn drop(&mut self) {
        // Counted first: no reader sees more calls in flight than there are units.
        if let Some(ended) = self.ended {
            self.core.account().end(ended);
        }
        self.core.give_back(mem::take(&mut self.units), self.ended.is_some());
    }
}

impl<C: Core> fmt::Debug for Permit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("name", self.core.account().name()).finish_non_exhaustive()
    }
}
