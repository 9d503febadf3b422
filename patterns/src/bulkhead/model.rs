//! The compartments against a plain model, decision by decision, and what they promise.

use std::task::{Poll, Waker};

use proptest::prelude::*;

use crate::error::Reason;
use crate::semaphore::{Order, Permits, Rules, Units};
use crate::waiters::Key;

#[derive(Debug, Clone)]
enum Step {
    Try(usize),
    Enter(usize),
    Poll(usize),
    Cancel(usize),
    Give(usize),
    Update(u32, [u32; 2]),
    Close,
}

fn step(changes: bool) -> impl Strategy<Value = Step> {
    let which = 0..10_usize;
    prop_oneof![
        4 => (0..3_usize).prop_map(Step::Try),
        8 => (0..3_usize).prop_map(Step::Enter),
        5 => which.clone().prop_map(Step::Poll),
        3 => which.clone().prop_map(Step::Cancel),
        9 => which.prop_map(Step::Give),
        2 * u32::from(changes) => (4..8_u32, 0..3_u32, 0..3_u32).prop_map(|(limit, a, b)| Step::Update(limit, [a, b])),
        u32::from(changes) => Just(Step::Close),
    ]
}

fn unit(compartment: usize) -> Units {
    Units { count: 1, compartment: compartment as u32 }
}

/// Who waits where, in the order of arrival, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Granted,
    Refused(Reason),
}

struct Model {
    rules: Rules,
    closed: bool,
    in_use: [u32; 3],
    asked: Vec<(usize, usize, State)>,
}

impl Model {
    fn used(&self) -> u32 {
        self.in_use.iter().sum()
    }

    fn within_share(&self, compartment: usize) -> bool {
        self.in_use[compartment] < self.rules.shares[compartment]
    }

    fn fits(&self, compartment: usize) -> bool {
        let kept: u32 = self.rules.shares.iter().zip(self.in_use).map(|(share, used)| used.max(*share)).sum();
        self.used() < self.rules.limit && (self.within_share(compartment) || kept < self.rules.limit)
    }

    fn waiting(&self, of: impl Fn(usize) -> bool) -> usize {
        self.asked.iter().filter(|(_, compartment, state)| *state == State::Waits && of(*compartment)).count()
    }

    fn take(&mut self, compartment: usize) -> Result<(), Reason> {
        let others: u32 = self.rules.shares.iter().sum::<u32>() - self.rules.shares[compartment];
        let before = match self.rules.order {
            Order::Lifo => 0,
            Order::Fifo if self.within_share(compartment) => self.waiting(|it| it == compartment),
            Order::Fifo => self.waiting(|_| true),
        };
        if self.closed {
            Err(Reason::Closed)
        } else if others >= self.rules.limit {
            Err(Reason::Never)
        } else if before > 0 || !self.fits(compartment) {
            Err(Reason::Full)
        } else {
            self.in_use[compartment] += 1;
            Ok(())
        }
    }

    fn enter(&mut self, who: usize, compartment: usize) -> Result<bool, Reason> {
        let refused =
            self.asked.iter().filter(|(_, c, it)| *c == compartment && matches!(it, State::Refused(_))).count();
        match self.take(compartment) {
            Err(Reason::Full) if self.waiting(|_| true) >= self.rules.max_waiting => Err(Reason::QueueFull),
            // In each compartment a refused waiter keeps its place until it is told.
            Err(Reason::Full) if self.waiting(|it| it == compartment) + refused >= self.rules.max_waiting => {
                Err(Reason::QueueFull)
            }
            Err(Reason::Full) => {
                self.asked.push((who, compartment, State::Waits));
                Ok(false)
            }
            answer => answer.map(|()| true),
        }
    }

    /// Grants what can be granted, in order.
    fn settle(&mut self) {
        loop {
            let mut order: Vec<_> = (0..self.asked.len()).collect();
            if self.rules.order == Order::Lifo {
                order.reverse();
            }
            let next = order.into_iter().find(|&place| {
                let (_, compartment, state) = self.asked[place];
                state == State::Waits && self.fits(compartment)
            });
            let Some(place) = next else { return };
            self.asked[place].2 = State::Granted;
            self.in_use[self.asked[place].1] += 1;
        }
    }

    fn refuse(&mut self, reason: Reason, whom: impl Fn(usize) -> bool) {
        for (_, compartment, state) in &mut self.asked {
            if *state == State::Waits && whom(*compartment) {
                *state = State::Refused(reason);
            }
        }
        self.settle();
    }
}

fn run(order: Order, shares: [u32; 2], steps: &[Step]) -> Result<(), TestCaseError> {
    let [a, b] = shares;
    let rules = Rules { limit: 5, max_waiting: 3, order, shares: vec![a, b, 0] };
    let permits = Permits::new(&rules);
    let mut model = Model { rules, closed: false, in_use: [0; 3], asked: Vec::new() };
    let mut waiting: Vec<(usize, usize, Key)> = Vec::new();
    let mut holding: Vec<usize> = Vec::new();
    let mut changed = false;
    for (who, step) in steps.iter().enumerate() {
        match step {
            Step::Try(of) => {
                let kept = !changed && model.within_share(*of);
                let answer = permits.try_take(unit(*of));
                prop_assert_eq!(answer, model.take(*of));
                prop_assert!(answer.is_ok() || !kept, "a share was lent");
                holding.extend(answer.map(|()| *of));
            }
            Step::Enter(of) => {
                let answer = permits.join(unit(*of));
                prop_assert_eq!(answer.map(|key| key.is_none()), model.enter(who, *of));
                match answer {
                    Ok(Some(key)) => waiting.push((who, *of, key)),
                    Ok(None) => holding.push(*of),
                    Err(_) => {}
                }
            }
            Step::Poll(which) if *which < waiting.len() => {
                let (who, of, key) = waiting[*which];
                let place = model.asked.iter().position(|(it, ..)| *it == who).unwrap();
                let expected = match model.asked[place].2 {
                    State::Waits => Poll::Pending,
                    State::Granted => Poll::Ready(Ok(())),
                    State::Refused(reason) => Poll::Ready(Err(reason)),
                };
                prop_assert_eq!(permits.poll(unit(of), key, Waker::noop()), expected);
                if let Poll::Ready(turn) = expected {
                    model.asked.remove(place);
                    waiting.remove(*which);
                    holding.extend(turn.map(|()| of));
                }
            }
            Step::Cancel(which) if *which < waiting.len() => {
                let (who, of, key) = waiting.remove(*which);
                permits.cancel(unit(of), key);
                let place = model.asked.iter().position(|(it, ..)| *it == who).unwrap();
                if model.asked.remove(place).2 == State::Granted {
                    model.in_use[of] -= 1;
                }
                model.settle();
            }
            Step::Give(which) if *which < holding.len() => {
                let of = holding.remove(*which);
                permits.give(unit(of));
                model.in_use[of] -= 1;
                model.settle();
            }
            Step::Update(limit, [a, b]) => {
                changed = true;
                model.rules.limit = *limit;
                model.rules.shares = vec![*a, *b, 0];
                permits.set(&model.rules);
                permits.settle();
                let (limit, shares) = (*limit, [*a, *b, 0]);
                model.refuse(Reason::Never, |of| shares.iter().sum::<u32>() - shares[of] >= limit);
            }
            Step::Close => {
                changed = true;
                permits.close();
                model.closed = true;
                model.refuse(Reason::Closed, |_| true);
            }
            Step::Poll(_) | Step::Cancel(_) | Step::Give(_) => {}
        }
        prop_assert!(changed || model.used() <= model.rules.limit);
        prop_assert_eq!((permits.in_use(), permits.waiting()), (model.used(), model.waiting(|_| true)), "{:?}", step);
        for of in 0..3 {
            let full = (model.in_use[of], model.waiting(|it| it == of));
            prop_assert_eq!(permits.compartment(of as u32), Some(full), "{} after {:?}", of, step);
            let first = full.1 == 0 && (model.within_share(of) || model.waiting(|_| true) == 0);
            prop_assert_eq!(permits.available(of as u32) > 0, !model.closed && first && model.fits(of));
        }
    }
    for (_, of, key) in waiting {
        permits.cancel(unit(of), key);
    }
    for of in holding {
        permits.give(unit(of));
    }
    prop_assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_decision_is_that_of_the_model(
        steps in prop::collection::vec(step(true), 1..80),
        order in prop_oneof![Just(Order::Fifo), Just(Order::Lifo)],
        shares in (0..3_u32, 0..3_u32),
    ) {
        run(order, shares.into(), &steps)?;
    }

    #[test]
    fn a_share_is_never_lent(
        steps in prop::collection::vec(step(false), 1..80),
        order in prop_oneof![Just(Order::Fifo), Just(Order::Lifo)],
        shares in (0..3_u32, 0..3_u32),
    ) {
        run(order, shares.into(), &steps)?;
    }
}
