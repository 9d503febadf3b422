//! A strict service to put under a layer: it keeps account of readiness, calls and drops, and notes every breach.
//!
//! Stricter than most services in four ways. Readiness is a reservation that belongs to one instance, counts against a
//! limit and is not copied by `Clone`. A call occupies its place until its future is dropped, not until it has answered.
//! Only the latest waker is kept. Whatever is cloned, called or dropped is in the [log](Site::log), in its order.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use seawall::{BoxError, Deadline, Permanent, Transient};
use tower::Service;

/// The one place that all instances of a probe belong to: what they shall do, and what happened to them.
#[derive(Debug, Clone, Default)]
pub struct Site(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    pending: usize,
    limit: Option<usize>,
    /// The next instance that is polled for readiness fails.
    breaks: bool,
    /// The next instance that is polled for readiness panics.
    panics: bool,
    instances: usize,
    calls: Vec<Called>,
    held: usize,
    running: usize,
    polls_ready: usize,
    polls_ready_under_a_deadline: usize,
    waiting: BTreeMap<usize, Waker>,
    /// Where the last [`Broken`] lies in memory.
    last_broken: Option<usize>,
    log: Vec<Event>,
    breaches: Vec<String>,
}

/// What a call does in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Answers with the request.
    Good,
    /// Fails for a moment.
    Fleeting,
    /// Fails for good, with [`Broken`].
    Broken,
    /// Panics in `call`.
    PanicInCall,
    /// Panics in the last poll.
    PanicInPoll,
}

/// One call of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Called {
    /// Which instance was called.
    pub instance: usize,
    /// With what.
    pub request: u64,
}

/// What happened to an instance or a call, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An instance was made from another one.
    Cloned {
        /// The new instance.
        instance: usize,
    },
    /// An instance took a reservation.
    Reserved {
        /// Which one.
        instance: usize,
    },
    /// An instance was dropped.
    ServiceDropped {
        /// Which one.
        instance: usize,
        /// Whether it gave a reservation back.
        reserved: bool,
    },
    /// An instance was called.
    Called {
        /// Which one.
        instance: usize,
        /// The number of the call.
        call: usize,
    },
    /// A call gave its answer.
    Answered {
        /// Which one.
        call: usize,
    },
    /// The future of a call was dropped.
    CallDropped {
        /// Which one.
        call: usize,
        /// How often it had been polled.
        polls: usize,
    },
}

/// The error of a probe that fails for good. Its source is a [`Permanent`], so that no retry hides it.
#[derive(Debug)]
pub struct Broken(Permanent);

impl Broken {
    /// Where this very error lies, to tell whether it was moved to another box.
    pub fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken")
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl Site {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A first instance, which no layer has seen.
    pub fn probe(&self) -> Probe {
        let mut state = self.lock();
        state.instances += 1;
        Probe { site: self.clone(), instance: state.instances, reserved: false, broken: false }
    }

    /// The next calls answer with these, all after them with [`Answer::Good`].
    pub fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.lock().answers = answers.into_iter().collect();
    }

    /// Calls from now on are pending in their first `polls` polls; they wake their task themselves.
    pub fn pending(&self, polls: usize) {
        self.lock().pending = polls;
    }

    /// No more than `limit` reservations and calls at once; 0 makes the service not ready.
    pub fn limit(&self, limit: usize) {
        let wakers = {
            let mut state = self.lock();
            state.limit = Some(limit);
            mem::take(&mut state.waiting)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// The next instance that is polled for readiness fails with [`Broken`], then and for ever.
    pub fn break_readiness(&self) {
        self.lock().breaks = true;
    }

    /// The next instance that is polled for readiness panics, once.
    pub fn panic_in_readiness(&self) {
        self.lock().panics = true;
    }

    /// Reservations that instances hold right now.
    pub fn held(&self) -> usize {
        self.lock().held
    }

    /// Calls whose futures are alive.
    pub fn running(&self) -> usize {
        self.lock().running
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Called> {
        self.lock().calls.clone()
    }

    /// How often any instance was asked for readiness.
    pub fn polls_ready(&self) -> usize {
        self.lock().polls_ready
    }

    /// How often that was under a deadline. Within a call, before a retry, it may be.
    pub fn polls_ready_under_a_deadline(&self) -> usize {
        self.lock().polls_ready_under_a_deadline
    }

    /// The instances that took a reservation, in their order.
    pub fn readied(&self) -> Vec<usize> {
        let readied = |event: &Event| if let Event::Reserved { instance } = event { Some(*instance) } else { None };
        self.lock().log.iter().filter_map(readied).collect()
    }

    /// Where the last [`Broken`] was put.
    pub fn last_broken(&self) -> Option<usize> {
        self.lock().last_broken
    }

    /// What happened, in its order.
    pub fn log(&self) -> Vec<Event> {
        self.lock().log.clone()
    }

    /// What no user of a service may do: calls without readiness, polls after the answer.
    pub fn breaches(&self) -> Vec<String> {
        self.lock().breaches.clone()
    }
}

impl State {
    fn broken(&mut self) -> BoxError {
        let error = Box::new(Broken(Permanent::new("the disk is full")));
        self.last_broken = Some(error.place());
        error
    }
}

/// Changes the account, then wakes whoever waits for a place, without the lock.
fn free(site: &Site, change: impl FnOnce(&mut State)) {
    let wakers = {
        let mut state = site.lock();
        change(&mut state);
        mem::take(&mut state.waiting)
    };
    wakers.into_values().for_each(Waker::wake);
}

/// One instance of the service; see the module.
#[derive(Debug)]
pub struct Probe {
    site: Site,
    instance: usize,
    reserved: bool,
    broken: bool,
}

impl Clone for Probe {
    /// Neither readiness nor a reservation is copied.
    fn clone(&self) -> Self {
        let clone = self.site.probe();
        self.site.lock().log.push(Event::Cloned { instance: clone.instance });
        clone
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let Self { instance, reserved, .. } = *self;
        self.site.lock().waiting.remove(&instance);
        let note = |state: &mut State| state.log.push(Event::ServiceDropped { instance, reserved });
        if reserved {
            free(&self.site, |state| {
                state.held -= 1;
                note(state);
            });
        } else {
            note(&mut self.site.lock());
        }
    }
}

impl Service<u64> for Probe {
    type Response = u64;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.site.lock();
        state.polls_ready += 1;
        if Deadline::current().is_some() {
            state.polls_ready_under_a_deadline += 1;
        }
        if mem::take(&mut state.panics) {
            drop(state);
            panic!("the probe panics in readiness");
        }
        self.broken |= mem::take(&mut state.breaks);
        if self.broken {
            return Poll::Ready(Err(state.broken()));
        }
        if !self.reserved {
            if state.limit.is_some_and(|limit| state.held + state.running >= limit) {
                state.waiting.insert(self.instance, cx.waker().clone());
                return Poll::Pending;
            }
            self.reserved = true;
            state.held += 1;
            state.log.push(Event::Reserved { instance: self.instance });
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answering {
        let reserved = mem::take(&mut self.reserved);
        let (call, answer, pending) = {
            let mut state = self.site.lock();
            if reserved {
                state.held -= 1;
            } else {
                state.breaches.push(format!("called instance {} without readiness", self.instance));
            }
            let call = state.calls.len();
            state.calls.push(Called { instance: self.instance, request });
            state.log.push(Event::Called { instance: self.instance, call });
            state.running += 1;
            (call, state.answers.pop_front().unwrap_or(Answer::Good), state.pending)
        };
        // Made before the panic, so that unwinding gives the place back.
        let answering = Answering { site: self.site.clone(), call, request, answer, pending, polls: 0, done: false };
        assert!(answer != Answer::PanicInCall, "the probe panics in call");
        answering
    }
}

/// One call of a [`Probe`]. It occupies its place until it is dropped.
#[derive(Debug)]
pub struct Answering {
    site: Site,
    call: usize,
    request: u64,
    answer: Answer,
    pending: usize,
    polls: usize,
    done: bool,
}

impl Future for Answering {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.done {
            self.site.lock().breaches.push(format!("polled call {} after its answer", self.call));
            return Poll::Pending;
        }
        self.polls += 1;
        if self.polls <= self.pending {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        assert!(self.answer != Answer::PanicInPoll, "the probe panics in poll");
        self.done = true;
        let mut state = self.site.lock();
        state.log.push(Event::Answered { call: self.call });
        Poll::Ready(match self.answer {
            Answer::Fleeting => Err(Transient::new("come again").into()),
            Answer::Broken => Err(state.broken()),
            Answer::Good | Answer::PanicInCall | Answer::PanicInPoll => Ok(self.request),
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let (call, polls) = (self.call, self.polls);
        free(&self.site, |state| {
            state.running -= 1;
            state.log.push(Event::CallDropped { call, polls });
        });
    }
}
