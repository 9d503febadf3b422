//! The wait of a limit that answers at once.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::admit::{Core, Wait};
use super::patience::Patience;
use super::permit::Permit;
use crate::error::Refusal;
use crate::sync::Arc;

/// The wait of a limit that admits or refuses at once. There is no value of this type.
#[derive(Debug)]
pub struct NoWait<C> {
    none: Infallible,
    core: Arc<C>,
}

impl<C: Core> Future for NoWait<C> {
    type Output = Result<Permit<C>, Refusal>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.none {}
    }
}

impl<C: Core> Wait for NoWait<C> {
    type Core = C;

    fn core(&self) -> &Arc<C> {
        &self.core
    }

    fn patience(&self) -> Patience {
        match self.none {}
    }
}
