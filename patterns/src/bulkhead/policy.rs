//! Which partition a request belongs to.

/// Names the partition of a request; a closure `Fn(&Request) -> &'static str` is one.
pub trait PartitionBy<Req> {
    /// The name of the partition of `request`. One that there is not belongs to none: it has no share, and borrows.
    fn partition<'a>(&'a self, request: &'a Req) -> &'a str;
}

impl<Req, F: Fn(&Req) -> &'static str> PartitionBy<Req> for F {
    fn partition<'a>(&'a self, request: &'a Req) -> &'a str {
        self(request)
    }
}

/// No request belongs to a partition, unless the layer was made from the handle of one: the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Whole;
