//! What a request weighs, and when its call is over.

use super::admit::Core;
use super::permit::Permit;
use crate::error::BoxError;

/// How many units a request takes; a closure `Fn(&Request) -> u32` is one.
pub trait Cost<Req> {
    /// The units of `request`. 0 is taken as 1: nothing passes a limit for free. Asked once more for a request that cannot go
    /// at once.
    fn cost(&self, request: &Req) -> u32;
}

impl<Req, F: Fn(&Req) -> u32> Cost<Req> for F {
    #[inline]
    fn cost(&self, request: &Req) -> u32 {
        self(request)
    }
}

/// Every request takes one unit: the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OneUnit;

impl<Req> Cost<Req> for OneUnit {
    #[inline]
    fn cost(&self, _: &Req) -> u32 {
        1
    }
}

/// Says when an admitted call is over, once the inner service has answered: [`AtAnswer`], that is there and then.
///
/// Another policy may hand the [`Permit`] on within the response, for a call that goes on, such as in the body.
pub trait End<Res, Err, C: Core> {
    /// The response that the limit gives.
    type Response;

    /// Ends the call with `result`, or takes the permit to end it later. A permit that is left in place is given back, and
    /// counts as neutral unless it was [answered](AtAnswer); `None` is never passed.
    fn end(&self, result: Result<Res, Err>, permit: &mut Option<Permit<C>>) -> Result<Self::Response, BoxError>;
}

/// The call is over when the inner service has answered. The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct AtAnswer;

impl<Res, Err: Into<BoxError>, C: Core> End<Res, Err, C> for AtAnswer {
    type Response = Res;

    #[inline]
    fn end(&self, result: Result<Res, Err>, permit: &mut Option<Permit<C>>) -> Result<Res, BoxError> {
        // In place: it is given back after the inner future, and nothing is moved.
        if let Some(permit) = permit {
            permit.answered(result.is_ok());
        }
        result.map_err(Into::into)
    }
}
