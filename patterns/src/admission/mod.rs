//! What every limit shares: one layer, one service and one future, and the account of their calls.
//!
//! A limiting pattern decides of a request before the inner service sees it: admitted, to wait, or refused. Its core and
//! its wait are its own; all else is here, and the pattern gives it its name:
//! [`Semaphore<S>`](crate::Semaphore) is [`Limited`] by a semaphore.
//!
//! ```text
//!            ┌─ admitted ─────────────────────────────► calls the readied inner service
//! call ─ ask ┼─ refused ──────────────────────────────► ends with `Rejected`
//!            └─ wait ─► its turn ─► readies a clone ──► calls the clone
//!                         └──────────────┴─ too long ─► ends with `Rejected`
//! ```
//!
//! **Admitted** calls allocate nothing and clone nothing; only a rate reads the clock for them. A call that **waits** or is
//! **refused** gives the readied inner service back at once, in exchange for a clone, and allocates once: for its place, or
//! for the error. It waits no longer than the pattern's `max_wait` and the ambient [`Deadline`](crate::Deadline), the
//! readiness of its clone included, and is refused at once where that has passed. Dropping the future gives up the place in
//! line, or the permit.
//!
//! Every call is counted once: refused, or admitted and then ended as `ok`, `failed` (an error, or a panic) or `neutral`
//! (dropped before it answered).

mod account;
pub(crate) mod admit;
mod no_wait;
mod patience;
mod permit;

mod future;
mod later;
mod layer;
mod policy;
mod service;

pub use self::{
    account::CallStats,
    future::{Acquire, ResponseFuture, Run},
    layer::LimitLayer,
    permit::Permit,
    policy::{AtAnswer, Cost, End, OneUnit},
    service::Limited,
};
pub(crate) use self::{
    account::{Account, Queued},
    admit::{Admit, Core, Decision, Gate, Reserved, Wait},
    no_wait::NoWait,
    patience::Patience,
};
