//! The permits against a plain model, decision by decision, and against tokio's semaphore.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore as Tokens};

use super::config::Order;
use super::permits::{Permits, Rules, Units};
use crate::error::Reason;
use crate::waiters::Key;

/// What is done next; waiters and holders are named by the number of the step that made them.
#[derive(Debug, Clone)]
enum Step {
    Try(u32),
    Enter(u32),
    /// Polls one of those who wait.
    Poll(usize),
    Cancel(usize),
    /// Leaves, as when the timer fires.
    Leave(usize),
    Give(usize),
    Resize(u32),
    Room(usize),
    Close,
}

fn step(close: bool) -> impl Strategy<Value = Step> {
    let which = 0..8_usize;
    prop_oneof![
        4 => (1..4_u32).prop_map(Step::Try),
        8 => (1..4_u32).prop_map(Step::Enter),
        6 => which.clone().prop_map(Step::Poll),
        3 => which.clone().prop_map(Step::Cancel),
        2 => which.clone().prop_map(Step::Leave),
        8 => which.prop_map(Step::Give),
        1 => (1..6_u32).prop_map(Step::Resize),
        1 => (0..5_usize).prop_map(Step::Room),
        u32::from(close) => Just(Step::Close),
    ]
}

/// Everything in one list, in the plainest way.
struct Model {
    rules: Rules,
    in_use: u32,
    closed: bool,
    /// In the order of arrival: who, how many, and what became of it.
    asked: Vec<(usize, u32, State)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Granted,
    Refused(Reason),
}

impl Model {
    fn waiting(&self) -> usize {
        self.asked.iter().filter(|(_, _, state)| *state == State::Waits).count()
    }

    fn refused(&self) -> usize {
        self.asked.iter().filter(|(_, _, state)| matches!(state, State::Refused(_))).count()
    }

    fn fits(&self, count: u32) -> bool {
        self.in_use + count <= self.rules.limit
    }

    fn take(&mut self, count: u32) -> Result<(), Reason> {
        if self.closed {
            return Err(Reason::Closed);
        }
        if count > self.rules.limit {
            return Err(Reason::Never);
        }
        let first = self.waiting() == 0 || self.rules.order == Order::Lifo;
        if !first || !self.fits(count) {
            return Err(Reason::Full);
        }
        self.in_use += count;
        Ok(())
    }

    /// True if it was granted at once, false if it waits.
    fn enter(&mut self, who: usize, count: u32) -> Result<bool, Reason> {
        match self.take(count) {
            Err(Reason::Full) if self.rules.max_waiting == 0 => Err(Reason::Full),
            // A refused waiter keeps its place until it is told.
            Err(Reason::Full) if self.waiting() + self.refused() >= self.rules.max_waiting => Err(Reason::QueueFull),
            Err(Reason::Full) => {
                self.asked.push((who, count, State::Waits));
                Ok(false)
            }
            answer => answer.map(|()| true),
        }
    }

    fn state(&self, who: usize) -> State {
        self.asked.iter().find(|(it, _, _)| *it == who).unwrap().2
    }

    fn forget(&mut self, who: usize) {
        self.asked.retain(|(it, _, _)| *it != who);
    }

    /// Grants what can be granted, in order.
    fn settle(&mut self) {
        loop {
            let mut waiting = self.asked.iter_mut().filter(|(_, _, state)| *state == State::Waits);
            let next = match self.rules.order {
                Order::Fifo => waiting.next(),
                Order::Lifo => waiting.next_back(),
            };
            match next {
                Some((_, count, state)) if self.in_use + *count <= self.rules.limit => {
                    *state = State::Granted;
                    self.in_use += *count;
                }
                _ => return,
            }
        }
    }

    fn refuse(&mut self, reason: Reason, whom: impl Fn(u32) -> bool) {
        for (_, count, state) in &mut self.asked {
            if *state == State::Waits && whom(*count) {
                *state = State::Refused(reason);
            }
        }
        self.settle();
    }
}

/// Who waits, and who holds how many.
#[derive(Default)]
struct People {
    waiting: Vec<(usize, Units, Key)>,
    holding: Vec<Units>,
}

fn poll(permits: &Permits, units: Units, key: Key) -> Poll<Result<(), Reason>> {
    permits.poll(units, key, Waker::noop())
}

fn run(order: Order, steps: &[Step]) -> Result<(), TestCaseError> {
    let rules = Rules { limit: 3, max_waiting: 3, order, shares: Vec::new() };
    let permits = Permits::new(&rules);
    let mut model = Model { rules, in_use: 0, closed: false, asked: Vec::new() };
    let mut people = People::default();
    for (who, step) in steps.iter().enumerate() {
        match step {
            Step::Try(count) => {
                let answer = permits.try_take(Units::of(*count));
                prop_assert_eq!(answer, model.take(*count));
                people.holding.extend(answer.map(|()| Units::of(*count)));
            }
            Step::Enter(count) => {
                let units = Units::of(*count);
                let answer = permits.join(units);
                prop_assert_eq!(answer.map(|key| key.is_none()), model.enter(who, *count));
                match answer {
                    Ok(Some(key)) => people.waiting.push((who, units, key)),
                    Ok(None) => people.holding.push(units),
                    Err(_) => {}
                }
            }
            Step::Poll(which) if *which < people.waiting.len() => {
                let (who, units, key) = people.waiting[*which];
                let expected = match model.state(who) {
                    State::Waits => Poll::Pending,
                    State::Granted => Poll::Ready(Ok(())),
                    State::Refused(reason) => Poll::Ready(Err(reason)),
                };
                prop_assert_eq!(poll(&permits, units, key), expected);
                if let Poll::Ready(turn) = expected {
                    people.waiting.remove(*which);
                    people.holding.extend(turn.map(|()| units));
                    model.forget(who);
                }
            }
            Step::Cancel(which) if *which < people.waiting.len() => {
                let (who, units, key) = people.waiting.remove(*which);
                permits.cancel(units, key);
                if model.state(who) == State::Granted {
                    model.in_use -= units.count;
                }
                model.forget(who);
                model.settle();
            }
            Step::Leave(which) if *which < people.waiting.len() => {
                let (who, units, key) = people.waiting.remove(*which);
                let granted = model.state(who) == State::Granted;
                prop_assert_eq!(permits.leave(units, key), granted);
                people.holding.extend(granted.then_some(units));
                model.forget(who);
                model.settle();
            }
            Step::Give(which) if *which < people.holding.len() => {
                let units = people.holding.remove(*which);
                permits.give(units);
                model.in_use -= units.count;
                model.settle();
            }
            Step::Resize(limit) => {
                model.rules.limit = *limit;
                permits.set(&model.rules);
                permits.settle();
                let limit = *limit;
                model.refuse(Reason::Never, |count| count > limit);
            }
            Step::Room(max_waiting) => {
                model.rules.max_waiting = *max_waiting;
                permits.set(&model.rules);
                permits.settle();
            }
            Step::Close => {
                permits.close();
                model.closed = true;
                model.refuse(Reason::Closed, |_| true);
            }
            Step::Poll(_) | Step::Cancel(_) | Step::Leave(_) | Step::Give(_) => {}
        }
        prop_assert_eq!((permits.in_use(), permits.waiting()), (model.in_use, model.waiting()), "after {:?}", step);
        let free = model.rules.limit.saturating_sub(model.in_use);
        prop_assert_eq!(permits.available(0), if model.closed || model.waiting() > 0 { 0 } else { free });
    }
    for (_, units, key) in people.waiting {
        permits.cancel(units, key);
    }
    for units in people.holding {
        permits.give(units);
    }
    prop_assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
    Ok(())
}

/// Scripts that tokio's semaphore can follow: it has no bound on those who wait, and does not resize beneath them.
fn common_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..4_u32).prop_map(Step::Try),
        4 => (1..4_u32).prop_map(Step::Enter),
        2 => (0..8_usize).prop_map(Step::Cancel),
        4 => (0..8_usize).prop_map(Step::Give),
    ]
}

type Theirs = std::pin::Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, tokio::sync::AcquireError>>>>;

/// Grants of both in the order in which they were polled, which is that of arrival.
fn beside_tokio(steps: &[Step]) -> Result<(), TestCaseError> {
    const LIMIT: u32 = 3;
    let ours = Permits::new(&Rules { limit: LIMIT, max_waiting: 100, order: Order::Fifo, shares: Vec::new() });
    let theirs = Arc::new(Tokens::new(LIMIT as usize));
    let mut waiting: BTreeMap<usize, (Units, Key, Theirs)> = BTreeMap::new();
    let mut holding: Vec<(Units, OwnedSemaphorePermit)> = Vec::new();
    for (who, step) in steps.iter().enumerate() {
        match step {
            Step::Try(count) => {
                let units = Units::of(*count);
                let token = theirs.clone().try_acquire_many_owned(*count).ok();
                // Beside a waiter that wants more, tokio has free tokens set aside for it; ours are just not available.
                prop_assert_eq!(ours.try_take(units).is_ok(), token.is_some(), "try {}", count);
                holding.extend(token.map(|token| (units, token)));
            }
            Step::Enter(count) => {
                let units = Units::of(*count);
                let mut token: Theirs = Box::pin(theirs.clone().acquire_many_owned(*count));
                let first = token.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                match (ours.join(units).unwrap(), first) {
                    (None, Poll::Ready(Ok(token))) => holding.push((units, token)),
                    (Some(key), Poll::Pending) => drop(waiting.insert(who, (units, key, token))),
                    (ours, theirs) => prop_assert!(false, "{ours:?} beside {theirs:?}"),
                }
            }
            Step::Cancel(which) => {
                if let Some(who) = waiting.keys().nth(*which).copied() {
                    let (units, key, token) = waiting.remove(&who).unwrap();
                    ours.cancel(units, key);
                    drop(token);
                }
            }
            Step::Give(which) if *which < holding.len() => {
                let (units, token) = holding.remove(*which);
                ours.give(units);
                drop(token);
            }
            _ => {}
        }
        let mut granted = Vec::new();
        for (who, (units, key, token)) in &mut waiting {
            let mine = poll(&ours, *units, *key).is_ready();
            match token.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(token)) => {
                    prop_assert!(mine, "{} waits beside tokio's, after {:?}", who, step);
                    granted.push((*who, token));
                }
                _ => prop_assert!(!mine, "{} was granted before tokio's, after {:?}", who, step),
            }
        }
        for (who, token) in granted {
            let (units, ..) = waiting.remove(&who).unwrap();
            holding.push((units, token));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_decision_is_that_of_the_model(
        steps in prop::collection::vec(step(false), 1..80),
        order in prop_oneof![Just(Order::Fifo), Just(Order::Lifo)],
    ) {
        run(order, &steps)?;
    }

    #[test]
    fn so_it_is_where_it_is_closed_at_some_time(
        steps in prop::collection::vec(step(true), 1..40),
        order in prop_oneof![Just(Order::Fifo), Just(Order::Lifo)],
    ) {
        run(order, &steps)?;
    }

    #[test]
    fn grants_come_in_the_order_of_tokios(steps in prop::collection::vec(common_step(), 1..80)) {
        beside_tokio(&steps)?;
    }
}
