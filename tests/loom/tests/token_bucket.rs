//! Models of the token bucket: no interleaving takes more than the bound, gives back what others have built on, or forgets
//! who waits.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a model reports by panicking, in its helpers too")]

use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use loom::future::block_on;
use loom::thread;
use seawall_loom::sync::{Arc, AtomicU64, Bug, Ordering};
use seawall_loom::token_bucket::bucket::{Bucket, Joined, Turn, Waiter};
use seawall_loom::token_bucket::config::Rate;
use seawall_loom::token_bucket::gcra::{Setting, Shortage};
use seawall_loom::{Threads, check, planted};

/// The period of most models.
const PERIOD: u64 = 10;

fn at(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

fn setting(period: u64, burst: u32) -> Setting {
    Setting::new(Rate::every(at(period)), burst)
}

fn bucket(burst: u32) -> Arc<Bucket> {
    Arc::new(Bucket::new(setting(PERIOD, burst), 4))
}

fn change(bucket: &Bucket, setting: Setting) {
    bucket.update(setting, Some(4), at(0)).into_iter().for_each(Waker::wake);
}

fn took(bucket: &Bucket, cost: u32, now: u64) -> u32 {
    if bucket.try_take(cost, at(now)).is_ok() { cost } else { 0 }
}

/// A thread with the bucket.
fn spawn<R: 'static>(bucket: &Arc<Bucket>, run: impl FnOnce(&Bucket) -> R + 'static) -> thread::JoinHandle<R> {
    let bucket = bucket.clone();
    thread::spawn(move || run(&bucket))
}

/// Nobody waits, and the bucket fills to its brim.
fn quiescent(bucket: &Bucket, burst: u32) {
    assert_eq!(bucket.waiting(), 0, "a place in line was kept");
    assert_eq!(bucket.available(at(1_000_000)), burst);
}

#[test]
fn one_token_is_taken_once() {
    check("T1 one token is taken once", Threads::Three, 20, || {
        let bucket = bucket(1);
        let others = [(); 2].map(|()| spawn(&bucket, |bucket| took(bucket, 1, 0)));
        // As they do, with a clone that is dropped among theirs.
        let mine = took(&bucket.clone(), 1, 0);
        let taken = mine + others.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>();
        assert_eq!(taken, 1, "a token was taken twice");
        assert_eq!(bucket.try_take(1, at(PERIOD - 1)), Err(Shortage::Until(at(PERIOD))));
        quiescent(&bucket, 1);
    });
}

#[test]
fn a_period_that_passes_adds_one_token() {
    check("T2 a period that passes adds one token", Threads::Three, 20, || {
        let bucket = bucket(1);
        let clock = Arc::new(AtomicU64::new(0));
        let others = [clock.clone(), clock.clone()].map(|clock| {
            // ORDERING: Relaxed, only the time is passed on.
            spawn(&bucket, move |bucket| took(bucket, 1, clock.load(Ordering::Relaxed)))
        });
        // ORDERING: Relaxed, as above.
        clock.store(PERIOD, Ordering::Relaxed);
        let taken = others.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>();
        assert!((1..=2).contains(&taken), "{taken} of a burst of 1 and a period");
        assert_eq!((took(&bucket, 1, 2 * PERIOD), took(&bucket, 1, 2 * PERIOD)), (1, 0), "one more for the next");
        quiescent(&bucket, 1);
    });
}

#[test]
fn a_stale_time_takes_nothing_back() {
    check("T3 a stale time takes nothing back", Threads::Two, 10, || {
        let bucket = bucket(4);
        let late = spawn(&bucket, |bucket| took(bucket, 1, 2 * PERIOD));
        // This thread has read the clock and then slept.
        let stale = took(&bucket, 1, 0);
        assert_eq!(late.join().unwrap(), 1);
        let spent = 4 - bucket.available(at(2 * PERIOD));
        // Taken before the late one, the stale token is paid off by then; after it, it is not.
        assert!(stale <= spent && spent <= 2, "the bucket went back in time: {spent} spent");
        let rest = (0..5).map(|_| took(&bucket, 1, 2 * PERIOD)).sum::<u32>();
        assert_eq!(rest + spent, 4, "the bucket went back in time");
        quiescent(&bucket, 4);
    });
}

#[test]
fn several_tokens_are_taken_all_or_none() {
    check("T4 several tokens are taken all or none", Threads::Two, 10, || {
        let bucket = bucket(3);
        let other = spawn(&bucket, |bucket| took(bucket, 2, 0));
        let taken = took(&bucket, 2, 0) + other.join().unwrap();
        assert_eq!(taken, 2, "2 and 2 of 3");
        assert_eq!(bucket.available(at(0)), 1);
        assert_eq!(bucket.try_take(4, at(0)), Err(Shortage::Never));
        quiescent(&bucket, 3);
    });
}

#[test]
fn a_reservation_is_refunded_once_and_only_untouched() {
    check("T5 a reservation is refunded once and only untouched", Threads::Three, 20, || {
        let bucket = bucket(1);
        let reserved = bucket.try_take(1, at(0)).unwrap();
        let refund = spawn(&bucket, |bucket| bucket.refund(reserved, at(0)));
        let late = PERIOD + PERIOD / 2;
        let take = spawn(&bucket, move |bucket| took(bucket, 1, late));
        let early = took(&bucket, 1, 0);
        let (refunded, taken) = (refund.join().unwrap(), take.join().unwrap());
        assert!(early == 0 || refunded, "the token was there twice");
        let again = took(&bucket, 1, late);
        assert!(taken + again <= 1, "{taken} and {again} at the same time from a burst of 1: refunded into the past");
        assert!(early + taken + again >= 1);
        quiescent(&bucket, 1);
    });
}

#[test]
fn a_change_of_the_rate_is_seen_whole() {
    check("T6 a change of the rate is seen whole", Threads::Two, 10, || {
        let bucket = bucket(1);
        let change = spawn(&bucket, |bucket| change(bucket, setting(10 * PERIOD, 2)));
        assert_eq!(took(&bucket, 1, 0), 1, "there under either");
        change.join().unwrap();
        assert_eq!(bucket.available(at(0)), 1, "what is spent stays spent, up to the larger burst");
        // Taken at the old period, it would be back before; of a mixture of both settings, at any time.
        assert_eq!(bucket.available(at(10 * PERIOD - 1)), 1, "taken at the rate that was no longer in force");
        assert_eq!(bucket.available(at(10 * PERIOD)), 2);
        quiescent(&bucket, 2);
    });
}

#[test]
fn a_tat_that_another_has_moved_is_seen_with_its_setting() {
    check("T6 a TAT that another has moved is seen with its setting", Threads::Two, 10, || {
        // Both settings hold the same time, of tokens that are ten times as long: fewer words change.
        let bucket = bucket(20);
        let other = spawn(&bucket, |bucket| {
            change(bucket, setting(10 * PERIOD, 2));
            took(bucket, 1, 0)
        });
        // It may see the change only in what the other has taken since.
        let taken = took(&bucket, 1, 0);
        assert_eq!(taken + other.join().unwrap(), 2, "there under either");
        assert_eq!(bucket.available(at(10 * PERIOD - 1)), 0, "taken at the rate that was no longer in force");
        assert_eq!(bucket.available(at(10 * PERIOD)), 1);
        quiescent(&bucket, 2);
    });
}

/// A bucket of one token, which was taken at 0, and who waits for the next ones.
fn in_line<const N: usize>() -> (Arc<Bucket>, [Waiter; N]) {
    let bucket = bucket(1);
    assert_eq!(took(&bucket, 1, 0), 1);
    let waiters = [(); N].map(|()| match bucket.join(1, at(0), |_| Ok::<_, ()>(())) {
        Ok(Joined::Waits(waiter)) => waiter,
        other => panic!("{other:?}"),
    });
    (bucket, waiters)
}

/// Waits for the turn, with a timer that fires on time: when the turn came.
fn wait(bucket: &Bucket, waiter: &Waiter, now: u64) -> Duration {
    let mut now = at(now);
    block_on(poll_fn(|context| {
        loop {
            match bucket.turn(waiter, now, context.waker()) {
                Turn::Taken(_) => return Poll::Ready(now),
                Turn::At(at) if at > now => now = at,
                Turn::Behind => return Poll::Pending,
                other => panic!("{other:?} at {now:?}"),
            }
        }
    }))
}

#[test]
fn turns_come_in_order_and_none_is_lost() {
    check("T7 turns come in order and none is lost", Threads::Two, 10, || {
        let (bucket, [first, second]) = in_line();
        let other = spawn(&bucket, move |bucket| wait(bucket, &second, 0));
        assert_eq!(wait(&bucket, &first, 0), at(PERIOD));
        assert_eq!(other.join().unwrap(), at(2 * PERIOD), "one period later");
        quiescent(&bucket, 1);
    });
}

#[test]
fn who_leaves_the_line_passes_the_turn_on() {
    check("T7 who leaves the line passes the turn on", Threads::Three, 20, || {
        let (bucket, [first, second]) = in_line();
        let other = spawn(&bucket, move |bucket| wait(bucket, &second, 0));
        let pushy = spawn(&bucket, |bucket| took(bucket, 1, PERIOD));
        // Polled once and dropped: it has taken nothing.
        block_on(poll_fn(|context| {
            assert_eq!(bucket.turn(&first, at(0), context.waker()), Turn::At(at(PERIOD)));
            Poll::Ready(())
        }));
        bucket.leave(&first);
        let turn = other.join().unwrap();
        // Only once nobody waits may another take, and then its token is a period later.
        assert_eq!((turn, pushy.join().unwrap()), (at(PERIOD), 0), "overtaken");
        quiescent(&bucket, 1);
    });
}

#[test]
fn a_faster_rate_brings_the_turn_forward() {
    check("T7 a faster rate brings the turn forward", Threads::Two, 5, || {
        let (bucket, [waiter]) = in_line();
        let change = spawn(&bucket, |bucket| change(bucket, setting(2, 1)));
        // A timer that never fires: only the change can wake.
        let turn = block_on(poll_fn(|context| match bucket.turn(&waiter, at(0), context.waker()) {
            Turn::At(at) if at > self::at(2) => Poll::Pending,
            turn => Poll::Ready(turn),
        }));
        assert_eq!(turn, Turn::At(at(2)));
        change.join().unwrap();
        wait(&bucket, &waiter, 2);
        quiescent(&bucket, 1);
    });
}

#[test]
fn a_tat_that_is_not_maxed_would_be_seen() {
    planted(Bug::TatNotMaxed, "a_stale_time_takes_nothing_back", "the bucket went back in time");
}

#[test]
fn a_refund_by_subtraction_would_be_seen() {
    planted(Bug::RefundBySubtraction, "a_reservation_is_refunded_once_and_only_untouched", "refunded into the past");
}

#[test]
fn a_turn_that_is_not_passed_on_would_be_seen() {
    planted(Bug::TurnNotPassedOn, "turns_come_in_order_and_none_is_lost", "deadlock");
}
