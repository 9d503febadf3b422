//! The names of the futures.

use super::service::Divided;
use crate::admission;
use crate::semaphore::{Place, Room};

/// Leave for one call; see [`admission::Permit`].
pub type Permit = admission::Permit<Room>;
/// Waits for a [`Permit`]; see [`admission::Acquire`].
pub type Acquire = admission::Acquire<Place>;
/// A call through the layer; see [`admission::ResponseFuture`].
pub type ResponseFuture<S, P, Req> = admission::ResponseFuture<S, Divided<P>, Req>;
