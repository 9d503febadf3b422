//! Models of the semaphore: no interleaving admits one too many, forgets a waiter, or loses what a waiter was granted.

#![allow(clippy::unwrap_used, reason = "a model reports by panicking, in its helpers too")]

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering as StdOrdering};
use std::task::{Context, Poll, Wake, Waker};

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::thread;
use seawall_loom::error::Reason;
use seawall_loom::semaphore::config::Order;
use seawall_loom::semaphore::permits::{Permits, Rules, Units};
use seawall_loom::sync::{Arc, Bug};
use seawall_loom::waiters::Key;
use seawall_loom::{Threads, check, planted};

const ONE: Units = Units::ONE;

fn rules(limit: u32) -> Rules {
    Rules { limit, max_waiting: 3, order: Order::Fifo, shares: Vec::new() }
}

fn permits(limit: u32) -> Arc<Permits> {
    Arc::new(Permits::new(&rules(limit)))
}

/// As many permits, all of them in use.
fn taken(limit: u32) -> Arc<Permits> {
    let permits = permits(limit);
    permits.try_take(Units::of(limit)).unwrap();
    permits
}

/// Takes or joins, as every caller does.
fn enter(permits: &Permits, units: Units) -> Result<Option<Key>, Reason> {
    match permits.try_take(units) {
        Err(Reason::Full) => permits.join(units),
        answer => answer.map(|()| None),
    }
}

fn wait(permits: &Permits, units: Units, key: Key) -> Result<(), Reason> {
    block_on(poll_fn(|cx| permits.poll(units, key, cx.waker())))
}

fn acquire(permits: &Permits, units: Units) -> Result<(), Reason> {
    match enter(permits, units)? {
        None => Ok(()),
        Some(key) => wait(permits, units, key),
    }
}

/// As [`acquire`], for a caller who has found none free before: fewer steps for loom to interleave.
fn acquire_late(permits: &Permits, units: Units) -> Result<(), Reason> {
    match permits.join(units)? {
        None => Ok(()),
        Some(key) => wait(permits, units, key),
    }
}

fn resize(permits: &Permits, limit: u32) {
    permits.set(&rules(limit));
    permits.settle();
}

/// All permits are back and nobody waits.
fn quiescent(permits: &Permits) {
    assert_eq!(permits.in_use(), 0, "a permit was lost");
    assert_eq!(permits.waiting(), 0, "a waiter was forgotten");
    assert_eq!(permits.available(0), if permits.is_closed() { 0 } else { permits.limit() });
}

#[test]
fn no_more_run_than_there_are_permits() {
    check("S1 three calls, one permit", Threads::Three, 100, || {
        let (permits, place) = (permits(1), Arc::new(UnsafeCell::new(())));
        // Loom reports two that are inside at once, and one that does not see what the one before it did.
        let call = |permits: &Permits, place: &UnsafeCell<()>, acquire: fn(&Permits, Units) -> Result<(), Reason>| {
            acquire(permits, ONE).unwrap();
            place.with_mut(|_| ());
            permits.give(ONE);
        };
        let others = [acquire, acquire_late].map(|acquire| {
            let (permits, place) = (permits.clone(), place.clone());
            thread::spawn(move || call(&permits, &place, acquire))
        });
        call(&permits, &place, acquire_late);
        for other in others {
            other.join().unwrap();
        }
        quiescent(&permits);
    });
    check("S1 three calls, two permits", Threads::Three, 100, || {
        let permits = permits(2);
        let call = |permits: Arc<Permits>| {
            move || {
                acquire(&permits, ONE).unwrap();
                assert!(permits.in_use() <= 2, "one too many");
                permits.give(ONE);
            }
        };
        let others = [(); 2].map(|()| thread::spawn(call(permits.clone())));
        call(permits.clone())();
        for other in others {
            other.join().unwrap();
        }
        quiescent(&permits);
    });
}

#[test]
fn a_permit_that_comes_back_is_not_missed() {
    check("S2 a permit comes back while one parks", Threads::Two, 10, || {
        let permits = taken(1);
        let other = permits.clone();
        let releases = thread::spawn(move || other.give(ONE));
        acquire(&permits, ONE).unwrap();
        releases.join().unwrap();
        permits.give(ONE);
        quiescent(&permits);
    });
}

#[test]
fn what_a_dropped_waiter_was_granted_goes_to_the_next() {
    check("S3 what a dropped waiter was granted goes to the next", Threads::Three, 100, || {
        let permits = taken(1);
        let first = permits.join(ONE).unwrap().unwrap();
        let second = permits.join(ONE).unwrap().unwrap();
        let (dropper, waiter) = (permits.clone(), permits.clone());
        let drops = thread::spawn(move || {
            let _ = dropper.poll(ONE, first, Waker::noop());
            dropper.cancel(ONE, first);
        });
        let waits = thread::spawn(move || {
            wait(&waiter, ONE, second).unwrap();
            waiter.give(ONE);
        });
        permits.give(ONE);
        drops.join().unwrap();
        waits.join().unwrap();
        quiescent(&permits);
    });
}

#[test]
fn cancelled_waiters_lose_nothing() {
    check("S4 three waiters cancel while three permits come back", Threads::Three, 100, || {
        let permits = taken(3);
        let [first, second, third] = [(); 3].map(|()| permits.join(ONE).unwrap().unwrap());
        let (one, two) = (permits.clone(), permits.clone());
        let threads = [
            thread::spawn(move || {
                one.cancel(ONE, first);
                one.cancel(ONE, third);
            }),
            thread::spawn(move || two.cancel(ONE, second)),
        ];
        permits.give(Units::of(2));
        permits.give(ONE);
        for thread in threads {
            thread.join().unwrap();
        }
        quiescent(&permits);
    });
}

#[test]
fn closing_refuses_and_leaks_nothing() {
    check("S5 close beside acquire and give", Threads::Three, 50, || {
        let permits = taken(1);
        let (closer, giver) = (permits.clone(), permits.clone());
        let threads = [thread::spawn(move || closer.close()), thread::spawn(move || giver.give(ONE))];
        match acquire(&permits, ONE) {
            Ok(()) => permits.give(ONE),
            Err(reason) => assert_eq!(reason, Reason::Closed),
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!((acquire(&permits, ONE), permits.try_take(ONE)), (Err(Reason::Closed), Err(Reason::Closed)));
        quiescent(&permits);
    });
}

#[test]
fn a_heavy_waiter_gets_all_or_nothing_and_is_not_starved() {
    check("S6 two at once beside one and one", Threads::Three, 100, || {
        let permits = permits(2);
        let others = [acquire, acquire_late].map(|acquire| {
            let permits = permits.clone();
            thread::spawn(move || {
                acquire(&permits, ONE).unwrap();
                permits.give(ONE);
            })
        });
        acquire_late(&permits, Units::of(2)).unwrap();
        assert_eq!(permits.in_use(), 2, "all of them");
        permits.give(Units::of(2));
        for other in others {
            other.join().unwrap();
        }
        quiescent(&permits);
    });
}

#[test]
fn a_shrunk_limit_is_kept_once_the_debt_is_paid() {
    check("S7 shrink beside release and acquire", Threads::Three, 100, || {
        let permits = taken(2);
        let (shrinker, giver) = (permits.clone(), permits.clone());
        let shrinks = thread::spawn(move || resize(&shrinker, 1));
        let gives = thread::spawn(move || {
            giver.give(ONE);
            giver.give(ONE);
        });
        acquire(&permits, ONE).unwrap();
        assert!(permits.in_use() <= 2, "more than any limit");
        shrinks.join().unwrap();
        gives.join().unwrap();
        assert_eq!((permits.try_take(ONE), permits.in_use()), (Err(Reason::Full), 1), "the debt is paid");
        permits.give(ONE);
        quiescent(&permits);
    });
}

#[test]
fn a_shrunk_limit_refuses_who_waits_for_more() {
    check("S7 shrink beside a heavy waiter", Threads::Three, 50, || {
        let permits = taken(2);
        let (shrinker, giver) = (permits.clone(), permits.clone());
        let shrinks = thread::spawn(move || resize(&shrinker, 1));
        let gives = thread::spawn(move || giver.give(Units::of(2)));
        match acquire(&permits, Units::of(2)) {
            Ok(()) => permits.give(Units::of(2)),
            Err(reason) => assert_eq!(reason, Reason::Never),
        }
        shrinks.join().unwrap();
        gives.join().unwrap();
        quiescent(&permits);
    });
}

#[test]
fn growth_wakes_enough() {
    check("S8 growth beside two who park", Threads::Three, 100, || {
        let permits = taken(1);
        let waiter = |permits: Arc<Permits>| move || acquire(&permits, ONE).unwrap();
        let waiters = [(); 2].map(|()| thread::spawn(waiter(permits.clone())));
        resize(&permits, 3);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        assert_eq!(permits.in_use(), 3);
        permits.give(Units::of(3));
        quiescent(&permits);
    });
}

/// Counts without loom: what a waker counts orders nothing.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        // ORDERING: Relaxed, read after the thread that writes was joined.
        self.0.fetch_add(1, StdOrdering::Relaxed);
    }
}

#[test]
fn the_latest_waker_is_woken_and_none_is_kept() {
    check("S9 a waker is replaced while a permit comes back", Threads::Two, 5, || {
        let permits = taken(1);
        let key = permits.join(ONE).unwrap().unwrap();
        let giver = permits.clone();
        let gives = thread::spawn(move || giver.give(ONE));
        let [former, latest] = [(); 2].map(|()| std::sync::Arc::new(Wakes::default()));
        let poll = |wakes: &std::sync::Arc<Wakes>| {
            let waker = Waker::from(wakes.clone());
            permits.poll(ONE, key, Context::from_waker(&waker).waker())
        };
        let first = poll(&former);
        let second = if first.is_pending() { poll(&latest) } else { first };
        gives.join().unwrap();
        if second.is_pending() {
            assert_eq!(latest.0.load(StdOrdering::Relaxed), 1, "the latest was not woken");
        }
        assert_eq!(poll(&latest), Poll::Ready(Ok(())));
        assert_eq!([&former, &latest].map(std::sync::Arc::strong_count), [1, 1], "a waker is kept");
        permits.give(ONE);
        quiescent(&permits);
    });
}

#[test]
fn a_reservation_dropped_unspent_wakes_the_next() {
    check("S10 a reservation and a place are dropped unspent", Threads::Three, 50, || {
        let permits = taken(1);
        let place = permits.join(ONE).unwrap().unwrap();
        let (reserved, asked) = (permits.clone(), permits.clone());
        let threads = [thread::spawn(move || reserved.give(ONE)), thread::spawn(move || asked.cancel(ONE, place))];
        acquire(&permits, ONE).unwrap();
        permits.give(ONE);
        for thread in threads {
            thread.join().unwrap();
        }
        quiescent(&permits);
    });
}

#[test]
fn the_queue_is_bounded_and_refuses_only_when_it_is_full() {
    check("S11 two join a queue of one while a permit comes back", Threads::Three, 50, || {
        let permits = Arc::new(Permits::new(&Rules { max_waiting: 1, ..rules(1) }));
        permits.try_take(ONE).unwrap();
        let (joiner, giver) = (permits.clone(), permits.clone());
        let joins = thread::spawn(move || enter(&joiner, ONE));
        let gives = thread::spawn(move || giver.give(ONE));
        let mine = enter(&permits, ONE);
        assert!(permits.waiting() <= 1, "more wait than may");
        gives.join().unwrap();
        let answers = [mine, joins.join().unwrap()];
        for (one, other) in [(answers[0], answers[1]), (answers[1], answers[0])] {
            if one.is_err() {
                assert_eq!(one, Err(Reason::QueueFull));
                assert!(matches!(other, Ok(Some(_))), "refused though nobody waited: {other:?}");
            }
        }
        for key in answers.into_iter().flatten() {
            match key {
                None => permits.give(ONE),
                Some(key) => permits.cancel(ONE, key),
            }
        }
        quiescent(&permits);
    });
}

#[test]
fn nobody_overtakes_a_waiter() {
    check("S12 a try beside a permit that comes back to a waiter", Threads::Three, 20, || {
        let permits = taken(1);
        let key = permits.join(ONE).unwrap().unwrap();
        let (trier, giver) = (permits.clone(), permits.clone());
        let tries = thread::spawn(move || trier.try_take(ONE));
        let gives = thread::spawn(move || giver.give(ONE));
        assert_eq!(permits.try_take(ONE), Err(Reason::Full), "it overtook a waiter");
        assert_eq!(tries.join().unwrap(), Err(Reason::Full), "it overtook a waiter");
        gives.join().unwrap();
        assert_eq!(permits.poll(ONE, key, Waker::noop()), Poll::Ready(Ok(())));
        permits.give(ONE);
        quiescent(&permits);
    });
}

#[test]
fn a_share_is_never_lent() {
    check("S13 a share is asked for while others take all the rest", Threads::Three, 50, || {
        let rules = Rules { limit: 2, max_waiting: 2, order: Order::Fifo, shares: vec![1, 0] };
        let permits = Arc::new(Permits::new(&rules));
        let (own, rest) = (Units { count: 1, compartment: 0 }, Units { count: 1, compartment: 1 });
        let borrower = |permits: Arc<Permits>| {
            move || {
                acquire_late(&permits, rest).unwrap();
                permits.give(rest);
            }
        };
        let others = [(); 2].map(|()| thread::spawn(borrower(permits.clone())));
        assert_eq!(permits.try_take(own), Ok(()), "its share was lent");
        assert!(permits.in_use() <= 2, "one too many");
        permits.give(own);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!((permits.in_use(), permits.waiting()), (0, 0));
        assert_eq!([permits.compartment(0), permits.compartment(1)], [Some((0, 0)); 2]);
    });
}

#[test]
fn a_kept_grant_would_be_seen() {
    planted(Bug::PermitNotHandedOn, "what_a_dropped_waiter_was_granted_goes_to_the_next", "deadlock");
}

#[test]
fn a_wake_before_the_queue_would_be_seen() {
    planted(Bug::WakeBeforeQueued, "a_permit_that_comes_back_is_not_missed", "deadlock");
}

#[test]
fn an_overtaking_try_would_be_seen() {
    planted(Bug::TryOvertakes, "nobody_overtakes_a_waiter", "it overtook a waiter");
}
