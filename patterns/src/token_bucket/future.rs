//! A place in line, and the names of the futures.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::bucket::{Taken, Turn, Waiter};
use super::room::{Entry, Room};
use super::service::Weighed;
use crate::admission::{self, Patience, Queued, Wait};
use crate::clock;
use crate::error::{Reason, Refusal};
use crate::sync::Arc;

/// The tokens of one call; see [`admission::Permit`]. They are spent, and do not come back when it is dropped.
pub type Permit = admission::Permit<Room>;
/// Waits for a [`Permit`]; see [`admission::Acquire`].
pub type Acquire = admission::Acquire<Place>;
/// A call through the layer; see [`admission::ResponseFuture`].
pub type ResponseFuture<S, C, Req> = admission::ResponseFuture<S, Weighed<C>, Req>;

impl Permit {
    /// Puts the tokens back because the call was not made, if nobody has taken any since; says whether it did. What others
    /// have built on stays spent: to give it back would let more than the burst pass.
    pub fn refund(mut self) -> bool {
        let taken = self.take_units();
        taken != Taken::NONE && self.core().bucket.refund(taken, clock::read())
    }
}

pin_project! {
    /// Waits for tokens, from its first poll or since it was given a place.
    pub struct Place {
        room: Arc<Room>,
        cost: u32,
        state: State,
        patience: Patience,
        // When the timer is to fire; `None` while it is that of the patience.
        due: Option<Duration>,
        #[pin]
        timer: Option<Sleep>,
    }
}

enum State {
    Unasked,
    InLine(InLine),
    Over,
}

/// Timers fire up to so much late (tokio), and with them those who stand before another. What fits in between is no reason
/// to refuse who was let into the line.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// A place in the line; given up when dropped.
pub(super) struct InLine {
    queued: Queued<Room>,
    waiter: Waiter,
}

impl InLine {
    pub(super) fn new(room: &Arc<Room>, waiter: Waiter) -> Self {
        Self { queued: Queued::new(room), waiter }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.queued.core().bucket.leave(&self.waiter);
    }
}

impl Place {
    pub(super) fn unasked(room: &Arc<Room>, cost: u32) -> Self {
        Self::new(room, cost, State::Unasked, Patience::unbounded())
    }

    pub(super) fn in_line(room: &Arc<Room>, line: InLine, patience: Patience) -> Self {
        Self::new(room, 0, State::InLine(line), patience)
    }

    fn new(room: &Arc<Room>, cost: u32, state: State, patience: Patience) -> Self {
        Self { room: Arc::clone(room), cost, state, patience, due: None, timer: None }
    }

    /// Waits until the turn has come, or patience is at its end. One timer does: who is the next will not run out of patience.
    fn poll_turn(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Permit, Reason>> {
        let mut this = self.project();
        loop {
            let State::InLine(line) = this.state else {
                debug_assert!(false, "polled after it was ready");
                return Poll::Pending;
            };
            // Read anew: a shared reading stands still, and a timer that has fired would be set again and again.
            let now = clock::read();
            let at = match this.room.bucket.turn(&line.waiter, now, cx.waker()) {
                Turn::Taken(taken) => return Poll::Ready(Ok(Permit::new(this.room, taken))),
                Turn::Dismissed => return Poll::Ready(Err(Reason::Limited)),
                Turn::Never => return Poll::Ready(Err(Reason::Never)),
                Turn::Behind => return this.patience.longer_by(TIMER_GRAIN).poll(this.timer, cx).map(Err),
                Turn::At(at) => at,
            };
            // A change of the rate may have put the turn off for longer than this may wait.
            if let Err(reason) = this.patience.allows(at.saturating_sub(now)) {
                return Poll::Ready(Err(reason));
            }
            if *this.due != Some(at) {
                *this.due = Some(at);
                this.timer.set(Some(sleep_until(clock::to_instant(at))));
            }
            if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                ready!(timer.poll(cx));
            }
        }
    }
}

impl Future for Place {
    type Output = Result<Permit, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Unasked = self.state {
            let entry = {
                let _now = clock::enter();
                self.room.enter(self.cost, Patience::new)
            };
            let this = self.as_mut().project();
            *this.state = State::Over;
            match entry {
                Ok(Entry::Line(line, patience)) => {
                    *this.state = State::InLine(line);
                    *this.patience = patience;
                }
                Ok(Entry::Permit(permit)) => return Poll::Ready(Ok(permit)),
                Err(refusal) => return Poll::Ready(Err(refusal)),
            }
        }
        let turn = ready!(self.as_mut().poll_turn(cx));
        *self.project().state = State::Over;
        Poll::Ready(turn.map_err(Refusal::from))
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
