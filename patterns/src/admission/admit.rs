//! What a limiting pattern brings.

use std::future::Future;
use std::ops::Deref;

use super::account::Account;
use super::patience::Patience;
use super::permit::Permit;
use crate::error::{Refusal, Rejected};
use crate::mode::Waiting;
use crate::sync::Arc;

/// The state of a limit, shared by its handle, layer and services.
pub trait Core {
    /// What a permit holds of it. By default nothing: so where the mode lets a call through.
    type Units: Default;
    /// What a call holds of it: a [`Lent`](crate::lent::Lent), or an [`Arc`] where it grows with the number of clients.
    type Ref: Deref<Target = Self>;

    /// A reference for one call.
    fn lend(self: &Arc<Self>) -> Self::Ref;

    /// The account of its calls.
    fn account(&self) -> &Account;

    /// What is left of `units` to hold when a call through the layer has started; by default nothing.
    fn held(_: Self::Units) -> Self::Units {
        Self::Units::default()
    }

    /// Takes back what a permit held. `spent` if a call was made with it, which a rate does not give again. By default nothing.
    fn give_back(&self, _units: Self::Units, _spent: bool) {}
}

/// Waits for a turn. Dropped, it leaves the line, and what it was granted in that moment goes to the next.
///
/// Ends with a permit under which no call has started, or with why there is none; it has counted neither. It keeps its
/// [`patience`](Self::patience) by itself.
pub trait Wait: Future<Output = Result<Permit<Self::Core>, Refusal>> {
    /// The limit it waits for.
    type Core: Core;

    /// The limit it waits for.
    fn core(&self) -> &Arc<Self::Core>;

    /// How long it may wait.
    fn patience(&self) -> Patience;
}

/// A limit in front of services, whatever their requests.
pub trait Gate {
    /// The limit.
    type Core: Core;
    /// Waits for it.
    type Wait: Wait<Core = Self::Core>;

    /// The limit.
    fn core(&self) -> &Arc<Self::Core>;

    /// Where callers wait, if they do.
    fn waiting(&self) -> Waiting {
        Waiting::InCall
    }

    /// Whether it reads the clock to admit a call. What is below then shares the reading.
    fn reads_the_clock(&self) -> bool {
        false
    }

    /// Asks for the one unit of a call that is not known yet; only where callers wait in readiness.
    fn reserve(&self) -> Reserved<Self::Core, Self::Wait> {
        Reserved::Undecided
    }
}

/// What a limiting pattern decides of one request, before the inner service sees it.
pub trait Admit<Req>: Gate {
    /// Takes what `request` needs to go now. Small, for it is a part of every call,
    /// and counts nothing.
    ///
    /// # Errors
    /// Why it cannot go now.
    fn try_admit(&self, request: &Req) -> Result<<Self::Core as Core>::Units, Refusal>;

    /// Decides of a `request` that cannot go now, counting a refusal. Never answers [`Decision::Wait`] where callers wait in
    /// readiness. By default nobody waits.
    fn admit_later(&self, _: &Req, refusal: Refusal) -> Decision<Self::Core, Self::Wait> {
        Permit::refused(self.core(), refusal).into()
    }
}

/// What becomes of a request that cannot go now.
#[derive(Debug)]
pub enum Decision<C: Core, W> {
    /// It may go now.
    Admitted(Permit<C>),
    /// It may go later.
    Wait(W),
    /// It may not go.
    Refused(Rejected),
}

impl<C: Core, W> From<Result<Permit<C>, Rejected>> for Decision<C, W> {
    fn from(answer: Result<Permit<C>, Rejected>) -> Self {
        match answer {
            Ok(permit) => Self::Admitted(permit),
            Err(rejected) => Self::Refused(rejected),
        }
    }
}

/// What becomes of a service that asks for readiness.
#[derive(Debug)]
pub enum Reserved<C: Core, W> {
    /// It is ready, with this for its next call.
    Now(Permit<C>),
    /// It is not ready yet.
    Wait(W),
    /// It cannot wait: it is ready, and its call is decided when it comes.
    Undecided,
}
