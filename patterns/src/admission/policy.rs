//! What a request weighs.

/// How many units a request takes; a closure `Fn(&Request) -> u32` is one.
pub trait Cost<Req> {
    /// The units of `request`. 0 is taken as 1: nothing passes a limit for free.
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
