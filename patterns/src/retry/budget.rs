//! How many retries all calls together may afford.
//!
//! A retry is granted when, with it, the retries that are waiting or were sent within the last window are no more than
//! `floor_per_second · window + ratio · (calls within that window)`. So **in every window of that length, the retries
//! sent are at most the floor plus the ratio of the calls made in the window that ends at the last of their grants.**
//! A retry that costs two counts twice, and one that costs nothing not at all.
//!
//! A call is counted on a [stripe](crate::striped) of its thread, without the lock: the ledger learns of the calls of a slot when
//! the slot ends, and of those of the running one when it is asked for a retry. A call whose slot has ended meanwhile counts in
//! the running one, as every stale `now` does.
//!
//! The check and the booking of a retry are one step under one lock. A grant is a [`Reservation`]: it weighs on the budget from the
//! grant on, for as long as it waits, and for one window after it was sent. Counting it from the grant alone would let
//! retries that wait long leave together with later ones, twice the budget in one burst. A reservation that is dropped
//! before it was sent takes its weight along.
//!
//! The window slides in 32 slots. Calls are counted over 32 slots, the running one among them, and retries over 33: less
//! than a window of the one, more than a window of the other, which makes the bound strict. Under a constant load the
//! budget gives 31/33 to all of its ratio.

use std::time::Duration;

use super::backoff::nanos;
use super::config::RetryBudgetConfig;
use crate::striped::Striped;
use crate::sync::{Arc, AtomicU64, Bug, Mutex, MutexGuard, Ordering, bug};

/// In how many parts the window slides.
const SLOTS: u64 = 32;
/// The slots kept: those of the window and the one that is leaving it.
const RING: usize = SLOTS as usize + 1;
/// Amounts are whole millionths of a retry, so that a ratio of 0.6 is neither 0.5 nor 1.
const UNIT: u64 = 1_000_000;

/// The budget: one ledger behind one lock, and beside it the calls, which are many.
///
/// A call first looks whether the running slot has ended, in a copy of the ledger's word. Who sees an old copy takes the lock
/// and finds that nothing is to be done, or, after an update to a shorter window, counts in the slot that was running: earlier
/// than its time, so that the call pays for less than a window.
#[derive(Debug)]
pub struct Budget {
    /// Calls since the start.
    calls: Striped<1>,
    /// A copy of `ledger.slot_ends_nanos`.
    slot_ends_nanos: AtomicU64,
    /// Guards every other number of the budget; held for a few instructions, never across a wait.
    ledger: Mutex<Ledger>,
}

/// What a budget has seen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct RetryBudgetStats {
    /// How much a retry may cost right now, in retries of cost 1.
    pub balance: f64,
    /// Calls counted within the window.
    pub calls: u64,
    /// Cost of the retries that are granted and neither sent nor given up, in retries of cost 1.
    pub waiting: f64,
    /// Retries granted since the start.
    pub granted: u64,
    /// Retries refused since the start.
    pub refused: u64,
    /// Granted retries that were never sent, since the start.
    pub refunded: u64,
}

/// A granted retry. It is spent when the retry is sent; dropped before that, it is refunded.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is refunded"]
pub struct Reservation {
    budget: Arc<Budget>,
    amount: u64,
    spent: bool,
}

#[derive(Debug)]
struct Ledger {
    /// What each call adds.
    per_call: u64,
    /// What is there without any call.
    floor: u64,
    slot_nanos: u64,
    /// Where the running slot ends; time before it counts as within the slot, so a stale `now` reopens nothing.
    slot_ends_nanos: u64,
    /// The running slot in the ring.
    head: usize,
    /// By slot; that of the running one is entered when the slot ends.
    calls: [u64; RING],
    sent: [u64; RING],
    /// Calls since the start, at the last look.
    calls_seen: u64,
    /// Those among them that belong to slots before the running one, or are forgotten.
    calls_before: u64,
    /// In the slots of the window that have ended.
    calls_in_window: u64,
    sent_in_window: u64,
    waiting: u64,
    granted: u64,
    refused: u64,
    refunded: u64,
}

impl Budget {
    /// A budget that has seen nothing. The configuration is checked by the caller.
    pub fn new(config: &RetryBudgetConfig) -> Self {
        let mut ledger = Ledger {
            per_call: 0,
            floor: 0,
            slot_nanos: 1,
            slot_ends_nanos: 0,
            head: 0,
            calls: [0; RING],
            sent: [0; RING],
            calls_seen: 0,
            calls_before: 0,
            calls_in_window: 0,
            sent_in_window: 0,
            waiting: 0,
            granted: 0,
            refused: 0,
            refunded: 0,
        };
        ledger.configure(config);
        Self { calls: Striped::default(), slot_ends_nanos: AtomicU64::new(0), ledger: Mutex::new(ledger) }
    }

    /// Counts a call. Returns the balance once per slot, for a gauge that need not move with every call.
    #[inline]
    pub fn deposit(&self, now: Duration) -> Option<f64> {
        // ORDERING: Relaxed, an old copy does no harm; see the type.
        if nanos(now) < self.slot_ends_nanos.load(Ordering::Relaxed) {
            self.calls.add(0);
            return None;
        }
        self.deposit_first(now)
    }

    /// Counts the first call of a slot.
    #[cold]
    fn deposit_first(&self, now: Duration) -> Option<f64> {
        let (mut ledger, turned) = self.ledger(now);
        self.calls.add(0);
        ledger.calls_seen = self.calls.sum(0);
        turned.then(|| retries(ledger.balance()))
    }

    /// The ledger as of `now`, and whether a new slot has begun since it was last asked for.
    fn ledger(&self, now: Duration) -> (MutexGuard<'_, Ledger>, bool) {
        let mut ledger = self.ledger.lock();
        ledger.calls_seen = self.calls.sum(0);
        let turned = ledger.slide(now);
        if turned {
            // ORDERING: Relaxed, as the load in `deposit`: the lock orders the ledger itself.
            self.slot_ends_nanos.store(ledger.slot_ends_nanos, Ordering::Relaxed);
        }
        (ledger, turned)
    }

    /// Books a retry that costs as much as `cost` ordinary ones, if the budget affords it.
    pub fn try_reserve(this: &Arc<Self>, cost: u32, now: Duration) -> Option<Reservation> {
        let amount = u64::from(cost) * UNIT;
        let (mut ledger, _) = this.ledger(now);
        if ledger.balance() < amount {
            ledger.refused += 1;
            return None;
        }
        if bug(Bug::BudgetCheckThenAct) {
            drop(ledger);
            ledger = this.ledger.lock();
        }
        ledger.granted += 1;
        ledger.waiting += amount;
        Some(Reservation { budget: Arc::clone(this), amount, spent: false })
    }

    /// Changes ratio, floor and window. What was sent stays counted; calls are forgotten if the window changes, since
    /// they cannot be told apart by age any more.
    pub fn update(&self, config: &RetryBudgetConfig, now: Duration) {
        let (mut ledger, _) = self.ledger(now);
        ledger.configure(config);
        drop(ledger);
        // Finds the place in the new grid.
        let _ = self.ledger(now);
    }

    /// What the budget has seen.
    pub fn stats(&self, now: Duration) -> RetryBudgetStats {
        let (ledger, _) = self.ledger(now);
        RetryBudgetStats {
            balance: retries(ledger.balance()),
            calls: ledger.calls(),
            waiting: retries(ledger.waiting),
            granted: ledger.granted,
            refused: ledger.refused,
            refunded: ledger.refunded,
        }
    }
}

impl Reservation {
    /// The retry is being sent: from now on it weighs for one window. Returns the balance.
    pub fn spend(mut self, now: Duration) -> f64 {
        self.spent = true;
        let (mut ledger, _) = self.budget.ledger(now);
        let head = ledger.head;
        ledger.waiting -= self.amount;
        ledger.sent[head] += self.amount;
        ledger.sent_in_window += self.amount;
        retries(ledger.balance())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.spent {
            let mut ledger = self.budget.ledger.lock();
            ledger.waiting -= self.amount;
            ledger.refunded += 1;
        }
    }
}

impl Ledger {
    /// Takes over the numbers of `config`; the caller has slid the ring to now.
    fn configure(&mut self, config: &RetryBudgetConfig) {
        let window_nanos = u64::try_from(config.window.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: a window is never shorter than it was asked to be.
        let slot_nanos = window_nanos.div_ceil(SLOTS).max(1);
        // Rounded to the nearest millionth, not down: 0.29 · 10⁶ is 289,999.99… in binary. The casts saturate.
        self.per_call = (config.ratio * UNIT as f64).round() as u64;
        self.floor = (config.floor_per_second * config.window.as_secs_f64() * UNIT as f64).round() as u64;
        if slot_nanos != self.slot_nanos {
            self.slot_nanos = slot_nanos;
            // Zero makes the next `slide` find its place in the new grid.
            self.slot_ends_nanos = 0;
            self.calls = [0; RING];
            self.calls_in_window = 0;
            self.calls_before = self.calls_seen;
            // In the newest slot, which stays longest: the new window may be the longer one.
            self.sent = [0; RING];
            self.sent[self.head] = self.sent_in_window;
        }
    }

    /// Moves the ring to `now` and says whether it moved.
    fn slide(&mut self, now: Duration) -> bool {
        let now = nanos(now);
        let turns = now >= self.slot_ends_nanos;
        if turns {
            self.turn(now);
        }
        turns
    }

    /// The running slot has ended: each that went by since leaves the ring.
    fn turn(&mut self, now: u64) {
        let slot = now / self.slot_nanos;
        let ends = slot.saturating_add(1).saturating_mul(self.slot_nanos);
        let ended = std::mem::replace(&mut self.slot_ends_nanos, ends);
        if ended == 0 {
            // After a change of the window the ring has no place yet, and nothing has aged.
            return;
        }
        let steps = (ends - ended) / self.slot_nanos;
        let calls = self.calls_seen - std::mem::replace(&mut self.calls_before, self.calls_seen);
        self.calls[self.head] = calls;
        self.calls_in_window += calls;
        if steps >= RING as u64 {
            self.calls = [0; RING];
            self.sent = [0; RING];
            self.calls_in_window = 0;
            self.sent_in_window = 0;
            return;
        }
        for _ in 0..steps {
            // The oldest slot leaves the ring and becomes the running one; its calls had left the window a slot before.
            self.head = (self.head + 1) % RING;
            self.sent_in_window -= std::mem::take(&mut self.sent[self.head]);
            self.calls[self.head] = 0;
            self.calls_in_window -= self.calls[(self.head + 1) % RING];
        }
    }

    /// Calls within the window.
    fn calls(&self) -> u64 {
        self.calls_in_window + (self.calls_seen - self.calls_before)
    }

    /// What a retry may cost now. Zero, not less, where calls have left the window that had paid for retries still in it.
    fn balance(&self) -> u64 {
        let earned = self.calls().saturating_mul(self.per_call).saturating_add(self.floor);
        earned.saturating_sub(self.sent_in_window.saturating_add(self.waiting))
    }
}

fn retries(amount: u64) -> f64 {
    amount as f64 / UNIT as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(32);
    const SLOT: Duration = Duration::from_secs(1);

    fn config(ratio: f64, floor_per_second: f64) -> RetryBudgetConfig {
        RetryBudgetConfig::new().window(WINDOW).ratio(ratio).floor_per_second(floor_per_second)
    }

    fn budget(ratio: f64, floor_per_second: f64) -> Arc<Budget> {
        Arc::new(Budget::new(&config(ratio, floor_per_second)))
    }

    fn at(seconds: u64) -> Duration {
        // Not at zero, so that a subtraction below the start would show.
        Duration::from_secs(1000 + seconds)
    }

    /// Sends retries until the budget refuses one.
    fn drain(budget: &Arc<Budget>, now: Duration) -> u32 {
        let mut sent = 0;
        while let Some(reservation) = Budget::try_reserve(budget, 1, now) {
            reservation.spend(now);
            sent += 1;
        }
        sent
    }

    fn deposit(budget: &Budget, calls: u32, now: Duration) {
        for _ in 0..calls {
            budget.deposit(now);
        }
    }

    #[test]
    fn a_ratio_of_one_fifth_pays_twenty_retries_of_a_hundred_calls() {
        let budget = budget(0.2, 0.0);
        deposit(&budget, 100, at(0));
        assert_eq!(drain(&budget, at(1)), 20);
    }

    #[test]
    fn a_ratio_is_what_it_says_also_above_one_half() {
        // A budget that counts whole calls per retry turns every ratio between 0.51 and 1 into 1.
        for percent in [1, 29, 57, 60, 99, 100, 250] {
            let budget = budget(f64::from(percent) / 100.0, 0.0);
            deposit(&budget, 100, at(0));
            assert_eq!(drain(&budget, at(0)), percent);
        }
    }

    #[test]
    fn the_floor_pays_without_calls() {
        let budget = budget(0.0, 0.5);
        assert_eq!(drain(&budget, at(0)), 16, "half a retry a second over 32 s");
        assert_eq!(drain(&budget, at(31)), 0);
        assert_eq!(drain(&budget, at(33)), 16, "one window and one slot later");
    }

    #[test]
    fn a_dropped_reservation_is_refunded_once() {
        let budget = budget(0.0, 1.0 / 32.0);
        let reservation = Budget::try_reserve(&budget, 1, at(0)).unwrap();
        assert!(Budget::try_reserve(&budget, 1, at(0)).is_none());
        drop(reservation);
        let stats = budget.stats(at(0));
        assert_eq!((stats.balance, stats.waiting, stats.granted, stats.refused, stats.refunded), (1.0, 0.0, 1, 1, 1));
        Budget::try_reserve(&budget, 1, at(0)).unwrap().spend(at(0));
        assert_eq!(budget.stats(at(0)).refunded, 1, "a spent one is not refunded");
        assert_eq!(drain(&budget, at(0)), 0);
    }

    #[test]
    fn a_retry_that_waits_weighs_for_as_long_as_it_waits_and_a_window_after_it_was_sent() {
        let budget = budget(0.0, 1.0 / 32.0);
        let reservation = Budget::try_reserve(&budget, 1, at(0)).unwrap();
        assert_eq!(drain(&budget, at(500)), 0, "else the two would be sent together");
        reservation.spend(at(500));
        assert_eq!(drain(&budget, at(531)), 0);
        assert_eq!(drain(&budget, at(533)), 1);
    }

    #[test]
    fn a_retry_may_cost_several() {
        let budget = budget(0.0, 5.0 / 32.0);
        Budget::try_reserve(&budget, 2, at(0)).unwrap().spend(at(0));
        Budget::try_reserve(&budget, 2, at(0)).unwrap().spend(at(0));
        assert!(Budget::try_reserve(&budget, 2, at(0)).is_none(), "one is left");
        assert!(Budget::try_reserve(&budget, 1, at(0)).is_some());
    }

    #[test]
    fn calls_pay_for_less_than_a_window_and_retries_weigh_for_more() {
        let budget = budget(1.0, 0.0);
        deposit(&budget, 1, at(0));
        assert_eq!(budget.stats(at(31)).balance, 1.0);
        assert_eq!(budget.stats(at(32)).balance, 0.0);
    }

    #[test]
    fn a_stale_now_counts_in_the_running_slot() {
        let budget = budget(1.0, 0.0);
        deposit(&budget, 1, at(100));
        deposit(&budget, 1, at(0));
        assert_eq!(budget.stats(at(131)).calls, 2);
        assert_eq!(budget.stats(at(0)).calls, 2, "nothing is brought back");
    }

    #[test]
    fn a_long_idle_time_costs_no_more_than_a_short_one() {
        let budget = budget(1.0, 1.0);
        deposit(&budget, 5, at(0));
        // A loop over the slots that went by would run for centuries here.
        assert_eq!(budget.stats(Duration::MAX).balance, 32.0);
    }

    #[test]
    fn the_balance_is_told_once_a_slot() {
        let budget = budget(1.0, 0.0);
        assert_eq!(budget.deposit(at(0)), Some(1.0));
        assert_eq!(budget.deposit(at(0)), None);
        assert_eq!(budget.deposit(at(1)), Some(3.0));
    }

    #[test]
    fn an_update_keeps_what_was_sent() {
        let budget = budget(0.0, 1.0);
        assert_eq!(drain(&budget, at(0)), 32);
        budget.update(&config(0.0, 2.0), at(1));
        assert_eq!(drain(&budget, at(1)), 32, "64 now, of which 32 are spent");
        budget.update(&config(0.0, 2.0).window(2 * WINDOW), at(2));
        assert_eq!(drain(&budget, at(2)), 64, "128 now, of which 64 are spent");
        assert_eq!(drain(&budget, at(60)), 0);
        assert_eq!(drain(&budget, at(70)), 128);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Advance(Duration),
        Call,
        Reserve(u32),
        Spend(usize),
        Refund(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let nano = Duration::from_nanos(1);
        prop_oneof![
            4 => Just(Step::Call),
            4 => (0..3_u32).prop_map(Step::Reserve),
            3 => any::<usize>().prop_map(Step::Spend),
            1 => any::<usize>().prop_map(Step::Refund),
            2 => prop_oneof![
                Just(nano), Just(SLOT - nano), Just(SLOT), Just(SLOT + nano), Just(WINDOW - SLOT), Just(WINDOW - nano),
                Just(WINDOW), (0..4_000_u64).prop_map(Duration::from_millis),
            ].prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// Against a plain log of what happened, over the window that ends at each event.
        #[test]
        fn over_any_window_retries_are_at_most_the_floor_and_the_ratio_of_calls(
            ratio in prop_oneof![Just(0.0), Just(0.2), Just(0.6), Just(1.0), 0.0..3.0],
            floor in prop_oneof![Just(0.0), Just(1.0 / 32.0), Just(0.1)],
            steps in prop::collection::vec(any_step(), 1..300),
        ) {
            let budget = budget(ratio, floor);
            let mut now = at(0);
            let (mut calls, mut sent, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Advance(by) => now += by,
                    Step::Call => { budget.deposit(now); calls.push(now); }
                    Step::Reserve(cost) => {
                        waiting.extend(Budget::try_reserve(&budget, cost, now).map(|r| (now, cost, r)));
                    }
                    Step::Spend(i) if !waiting.is_empty() => {
                        let (granted, cost, reservation) = waiting.swap_remove(i % waiting.len());
                        reservation.spend(now);
                        sent.push((now, granted, cost));
                    }
                    Step::Refund(i) if !waiting.is_empty() => drop(waiting.swap_remove(i % waiting.len())),
                    Step::Spend(_) | Step::Refund(_) => {}
                }
            }
            for &(end, ..) in &sent {
                // A retry that costs nothing is granted whatever the balance: its grant says nothing.
                let weighs = |(at, _, cost): &&(Duration, Duration, u32)| *at <= end && *at + WINDOW > end && *cost > 0;
                let inside: Vec<_> = sent.iter().filter(weighs).collect();
                if inside.is_empty() {
                    continue;
                }
                let weight: u32 = inside.iter().map(|(.., cost)| cost).sum();
                let last_grant = inside.iter().map(|(_, granted, _)| *granted).max().unwrap();
                let paid = calls.iter().filter(|&&at| at <= last_grant && at + WINDOW > last_grant).count();
                let bound = floor * WINDOW.as_secs_f64() + ratio * paid as f64;
                prop_assert!(f64::from(weight) <= bound + 1e-3, "{weight} retries, {paid} calls, window to {end:?}");
            }
            let open: u32 = waiting.iter().map(|(_, cost, _)| cost).sum();
            prop_assert_eq!(budget.stats(now).waiting, f64::from(open));
            drop(waiting);
            let stats = budget.stats(now);
            prop_assert_eq!(stats.waiting, 0.0);
            prop_assert_eq!(stats.granted - stats.refunded, sent.len() as u64);
        }
    }

    #[test]
    fn under_a_constant_load_the_budget_gives_most_of_its_ratio() {
        let budget = budget(0.2, 0.0);
        let mut sent = 0;
        for second in 0..3200 {
            deposit(&budget, 10, at(second));
            sent += drain(&budget, at(second));
        }
        assert!((5_900..=6_400).contains(&sent), "a fifth of 32,000 calls is 6,400: {sent}");
    }
}
