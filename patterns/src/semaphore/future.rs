//! A place in line, and the names of the futures.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::permits::Units;
use super::room::{Entry, Room};
use super::service::Weighed;
use crate::admission::{self, Patience, Queued, Wait};
use crate::clock;
use crate::error::{Reason, Refusal};
use crate::sync::Arc;
use crate::waiters::Key;

/// Leave for one call; see [`admission::Permit`].
pub type Permit = admission::Permit<Room>;
/// Waits for a [`Permit`]; see [`admission::Acquire`].
pub type Acquire = admission::Acquire<Place>;
/// A call through the layer; see [`admission::ResponseFuture`].
pub type ResponseFuture<S, C, Req> = admission::ResponseFuture<S, Weighed<C>, Req>;

pin_project! {
    /// Waits for permits, from its first poll or since it was given a place.
    pub struct Place {
        room: Arc<Room>,
        units: Units,
        state: State,
        patience: Patience,
        #[pin]
        timer: Option<Sleep>,
    }
}

enum State {
    Unasked,
    InLine(InLine),
    Over,
}

/// A place in the line; given up when dropped.
pub(crate) struct InLine {
    queued: Queued<Room>,
    units: Units,
    /// `None` once it was left.
    key: Option<Key>,
}

impl InLine {
    pub(crate) fn new(room: &Arc<Room>, units: Units, key: Key) -> Self {
        Self { queued: Queued::new(room), units, key: Some(key) }
    }

    /// Whether the turn has come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        let Some(key) = self.key else { return Poll::Pending };
        let turn = ready!(self.queued.core().permits.poll(self.units, key, cx.waker()));
        self.key = None;
        Poll::Ready(turn)
    }

    /// Leaves. Whether the turn had come before.
    fn leave(&mut self) -> bool {
        self.key.take().is_some_and(|key| self.queued.core().permits.leave(self.units, key))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.queued.core().permits.cancel(self.units, key);
        }
    }
}

impl Place {
    pub(crate) fn unasked(room: &Arc<Room>, units: Units) -> Self {
        Self::new(room, units, State::Unasked, Patience::unbounded())
    }

    pub(crate) fn in_line(room: &Arc<Room>, line: InLine, patience: Patience) -> Self {
        Self::new(room, line.units, State::InLine(line), patience)
    }

    fn new(room: &Arc<Room>, units: Units, state: State, patience: Patience) -> Self {
        Self { room: Arc::clone(room), units, state, patience, timer: None }
    }
}

impl Future for Place {
    type Output = Result<Permit, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let State::Unasked = this.state {
            let _now = clock::enter();
            match this.room.enter(*this.units, Patience::new) {
                Ok(Entry::Line(line, patience)) => {
                    *this.state = State::InLine(line);
                    *this.patience = patience;
                }
                Ok(Entry::Permit(permit)) => {
                    *this.state = State::Over;
                    return Poll::Ready(Ok(permit));
                }
                Err(refusal) => {
                    *this.state = State::Over;
                    return Poll::Ready(Err(refusal));
                }
            }
        }
        let State::InLine(line) = this.state else {
            debug_assert!(false, "polled after it was ready");
            return Poll::Pending;
        };
        let turn = match line.poll(cx) {
            Poll::Ready(turn) => turn,
            Poll::Pending => {
                let reason = ready!(this.patience.poll(this.timer, cx));
                // Its turn may have come in this moment, and what it got must not be lost.
                if line.leave() { Ok(()) } else { Err(reason) }
            }
        };
        *this.state = State::Over;
        Poll::Ready(match turn {
            Ok(()) => Ok(Permit::new(this.room, *this.units)),
            Err(reason) => Err(reason.into()),
        })
    }
}

impl Wait for Place {
    type Core = Room;

    fn core(&self) -> &Arc<Room> {
        &self.room
    }

    fn patience(&self) -> Patience {
        self.patience
    }
}
