//! The decisions that belong to the caller: what counts against the peer, and which calls may never be refused.

use std::any::Any;
use std::error::Error;

use super::handle::Admission;
use super::state::Outcome;
use crate::error::{BoxError, Elapsed, Limit, Rejected, find};

/// Says what the result of a call means for the health of the peer.
///
/// Closures over `&Result<Res, Err>` are classifiers. A classifier sees the error type directly below the breaker; above
/// another of our layers that is [`BoxError`], where [`find`](crate::find) helps.
///
/// # Example
/// ```
/// use seawall::circuit_breaker::{Classify, Outcome};
///
/// let by_status = |result: &Result<u16, std::io::Error>| match result {
///     Ok(503) => Outcome::Overload { retry_after: None },
///     Ok(500..) | Err(_) => Outcome::Failure,
///     Ok(_) => Outcome::Success, // a timely 404 is a success of the peer
/// };
/// assert_eq!(by_status.classify(&Ok(404)), Outcome::Success);
/// ```
pub trait Classify<Res, Err> {
    /// The meaning of `result`.
    fn classify(&self, result: &Result<Res, Err>) -> Outcome;

    /// As [`classify`](Self::classify), also boxing the error. Override it to classify the boxed error, whose sources
    /// can be walked whatever `Err` is.
    fn classify_boxed(&self, result: Result<Res, Err>) -> (Outcome, Result<Res, BoxError>)
    where
        Err: Into<BoxError>,
    {
        (self.classify(&result), result.map_err(Into::into))
    }
}

impl<F, Res, Err> Classify<Res, Err> for F
where
    F: Fn(&Result<Res, Err>) -> Outcome,
{
    fn classify(&self, result: &Result<Res, Err>) -> Outcome {
        self(result)
    }
}

/// Says what becomes of an admitted call when the inner service has answered: [`AtOnce`] judges it there and then.
///
/// Another policy may hand the [`Admission`] on within the response, for an outcome that is known only later, such as at the
/// end of a body.
pub trait Conclude<Res, Err> {
    /// The response that the breaker gives.
    type Response;

    /// Hands in the outcome of `result`, or takes the admission to hand it in later. An admission that is left in place counts
    /// as cancelled; `None` is never passed.
    fn conclude(&self, result: Result<Res, Err>, admission: &mut Option<Admission>)
    -> Result<Self::Response, BoxError>;
}

/// The outcome is what the classifier makes of the result; made by
/// [`CircuitBreakerLayer::classify`](super::CircuitBreakerLayer::classify).
#[derive(Debug, Clone, Copy, Default)]
pub struct AtOnce<P = ByError>(pub P);

impl<P, Res, Err> Conclude<Res, Err> for AtOnce<P>
where
    P: Classify<Res, Err>,
    Err: Into<BoxError>,
{
    type Response = Res;

    #[inline]
    fn conclude(&self, result: Result<Res, Err>, admission: &mut Option<Admission>) -> Result<Res, BoxError> {
        let (outcome, result) = self.0.classify_boxed(result);
        // In place: to move it out first costs every call as much as to count it.
        if let Some(admission) = admission {
            admission.report(outcome);
        }
        result
    }
}

/// The classifier when no other is set: errors are failures, with two exceptions.
///
/// A [`Rejected`] from below never reached the peer and is neutral. An [`Elapsed`] of the ambient limit says that a caller
/// gave up: [`CancelPolicy`](super::CancelPolicy) decides. The own limit of a timeout below, of an attempt or of a total, is
/// a failure.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByError;

impl ByError {
    fn of(error: &(dyn Error + 'static)) -> Outcome {
        if Rejected::find(error).is_some() {
            return Outcome::Neutral;
        }
        match find::<Elapsed>(error) {
            Some(elapsed) if elapsed.limit == Limit::Ambient => Outcome::Cancelled,
            _ => Outcome::Failure,
        }
    }
}

impl<Res, Err: 'static> Classify<Res, Err> for ByError {
    fn classify(&self, result: &Result<Res, Err>) -> Outcome {
        let Err(error) = result else { return Outcome::Success };
        let error: &dyn Any = error;
        if let Some(error) = error.downcast_ref::<BoxError>() {
            Self::of(&**error)
        } else if let Some(error) = error.downcast_ref::<Rejected>() {
            Self::of(error)
        } else if let Some(error) = error.downcast_ref::<Elapsed>() {
            Self::of(error)
        } else {
            Outcome::Failure
        }
    }

    fn classify_boxed(&self, result: Result<Res, Err>) -> (Outcome, Result<Res, BoxError>)
    where
        Err: Into<BoxError>,
    {
        match result.map_err(Into::into) {
            Ok(response) => (Outcome::Success, Ok(response)),
            Err(error) => (Self::of(&*error), Err(error)),
        }
    }
}

/// Says which requests pass even when the breaker is open, such as heartbeats.
///
/// Closures over the request are such predicates; see
/// [`CircuitBreakerLayer::never_refuse`](super::CircuitBreakerLayer::never_refuse).
pub trait NeverRefuse<Req> {
    /// Whether `request` must pass.
    fn never_refuse(&self, request: &Req) -> bool;
}

impl<F: Fn(&Req) -> bool, Req> NeverRefuse<Req> for F {
    fn never_refuse(&self, request: &Req) -> bool {
        self(request)
    }
}

/// No request is exempt: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExemption;

impl<Req> NeverRefuse<Req> for NoExemption {
    fn never_refuse(&self, _: &Req) -> bool {
        false
    }
}
