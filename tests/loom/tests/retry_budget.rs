//! Models of the retry budget: no interleaving grants more than it affords, loses what is refunded, or goes below zero.

#![allow(clippy::unwrap_used, reason = "a model reports by panicking, in its helpers too")]

use std::time::Duration;

use loom::thread;
use seawall_loom::retry::budget::{Budget, Reservation};
use seawall_loom::retry::config::RetryBudgetConfig;
use seawall_loom::sync::{Arc, Bug, claim_stripe};
use seawall_loom::{Threads, check, planted};

const WINDOW: Duration = Duration::from_secs(32);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(1000 + seconds)
}

/// `ratio` retries a call and `floor` without any.
fn budget(ratio: f64, floor: f64) -> Arc<Budget> {
    let config = RetryBudgetConfig::new().window(WINDOW).ratio(ratio).floor_per_second(floor / WINDOW.as_secs_f64());
    Arc::new(Budget::new(&config))
}

fn reserve(budget: &Arc<Budget>, now: Duration) -> Option<Reservation> {
    Budget::try_reserve(budget, 1, now)
}

/// Every grant was spent or refunded, and nothing waits.
fn quiet(budget: &Budget, now: Duration, spent: u64) {
    let stats = budget.stats(now);
    assert_eq!(stats.waiting, 0.0);
    assert_eq!(stats.granted, stats.refunded + spent);
}

#[test]
fn a_balance_of_one_pays_one_retry() {
    check("R1 a balance of one pays one retry", Threads::Two, 10, || {
        let budget = budget(0.0, 1.0);
        let retry = |budget: Arc<Budget>| move || reserve(&budget, at(0)).map(|retry| retry.spend(at(0))).is_some();
        let other = thread::spawn(retry(Arc::clone(&budget)));
        let granted = usize::from(retry(Arc::clone(&budget))()) + usize::from(other.join().unwrap());
        assert_eq!(granted, 1, "the budget was overdrawn");
        quiet(&budget, at(0), 1);
    });
}

#[test]
fn retries_stay_within_floor_and_ratio_while_the_window_turns() {
    check("R2 retries stay within floor and ratio while the window turns", Threads::Three, 20, || {
        let budget = budget(1.0, 1.0);
        let (caller, late) = (Arc::clone(&budget), Arc::clone(&budget));
        let calls = thread::spawn(move || {
            caller.deposit(at(0));
        });
        // A window and a slot later: what was counted before is gone, on whichever side of it the others run.
        let turned = thread::spawn(move || reserve(&late, at(33)).map(|retry| retry.spend(at(33))).is_some());
        let here: Vec<_> = (0..3).filter_map(|_| reserve(&budget, at(0))).collect();
        let sent = here.len();
        for retry in here {
            retry.spend(at(0));
        }
        calls.join().unwrap();
        let late = usize::from(turned.join().unwrap());
        assert!(sent <= 2, "more than one for the floor and one for the call");
        assert!(sent + late >= 1, "the floor pays for whoever comes first");
        quiet(&budget, at(33), (sent + late) as u64);
        // Two more calls bring the balance above zero, so that it tells what weighs on it.
        budget.deposit(at(33));
        budget.deposit(at(33));
        let stats = budget.stats(at(33));
        let weight = 1.0 + stats.calls as f64 - stats.balance;
        assert!(weight <= 2.0, "{weight} retries in one window, more than one for the floor and one for the call");
    });
}

#[test]
fn a_refund_returns_what_was_booked_and_no_more() {
    check("R3 a refund returns what was booked and no more", Threads::Three, 20, || {
        let budget = budget(0.0, 1.0);
        let (first, second) = (Arc::clone(&budget), Arc::clone(&budget));
        let dropped = thread::spawn(move || drop(reserve(&first, at(0))));
        let spent = thread::spawn(move || reserve(&second, at(0)).map(|retry| retry.spend(at(0))).is_some());
        let balance = budget.stats(at(0)).balance;
        assert!(balance == 0.0 || balance == 1.0, "never below zero, never above the floor: {balance}");
        dropped.join().unwrap();
        let spent = spent.join().unwrap();
        assert_eq!(reserve(&budget, at(0)).is_some(), !spent);
        quiet(&budget, at(0), u64::from(spent));
    });
}

#[test]
fn a_call_counts_once_while_the_slot_turns() {
    check("R4 a call counts once while the slot turns", Threads::Three, 100, || {
        let budget = budget(1.0, 0.0);
        let (early, late) = (Arc::clone(&budget), Arc::clone(&budget));
        let early = thread::spawn(move || {
            claim_stripe(0);
            early.deposit(at(0));
        });
        let late = thread::spawn(move || {
            claim_stripe(1);
            // Turns the slot, or finds it turned.
            late.deposit(at(1));
        });
        let seen = budget.stats(at(1)).calls;
        assert!(seen <= 2, "a call counts twice");
        early.join().unwrap();
        late.join().unwrap();
        assert_eq!(budget.stats(at(1)).calls, 2, "a call was lost");
        assert_eq!(budget.stats(at(31)).calls, 2, "both are within the window of 32 slots");
        // The one that was made, or was late, in the slot after the first stays a second longer.
        assert!((1..=2).contains(&budget.stats(at(32)).calls));
        assert_eq!(budget.stats(at(33)).calls, 0);
        quiet(&budget, at(33), 0);
    });
}

#[test]
fn a_check_apart_from_its_booking_would_be_seen() {
    planted(Bug::BudgetCheckThenAct, "a_balance_of_one_pays_one_retry", "the budget was overdrawn");
}

#[test]
fn a_check_apart_from_its_booking_would_be_seen_while_the_window_turns() {
    let model = "retries_stay_within_floor_and_ratio_while_the_window_turns";
    planted(Bug::BudgetCheckThenAct, model, "more than one for the floor and one for the call");
}
