//! Models of the counts of calls: every reading is whole, and at the end nothing is missing.

#![allow(clippy::unwrap_used, reason = "a model reports by panicking, in its helpers too")]

use loom::thread;
use seawall_loom::counts::{Counts, Ended, Tally};
use seawall_loom::sync::{Arc, Bug, Mutex, claim_stripe};
use seawall_loom::{Threads, check, planted};

/// One reading. A start that is not seen where its end is would show as a subtraction below zero.
fn reading(counts: &Counts) -> Tally {
    let tally = counts.read();
    assert_eq!(tally.admitted, tally.ok + tally.failed + tally.neutral + tally.in_flight);
    assert!(tally.admitted <= 2, "more calls than were started");
    tally
}

#[test]
fn a_call_that_ends_elsewhere_is_never_seen_to_end_before_it_started() {
    check("M1 every reading of the counts is whole", Threads::Three, 100, || {
        let counts = Arc::new(Counts::default());
        // The call that one thread starts and another ends, as a task does that a second worker polls.
        let moved = Arc::new(Mutex::new(false));
        let (starter, reader) = (Arc::clone(&counts), Arc::clone(&counts));
        let from = Arc::clone(&moved);
        let starts = thread::spawn(move || {
            claim_stripe(0);
            starter.start();
            *from.lock() = true;
        });
        // The last to be joined, so that loom runs it after the others and has it choose from all that they wrote. It does not
        // move a store before an earlier load of another thread where the storing thread has loaded the word in between.
        let reads = thread::spawn(move || [reading(&reader), reading(&reader)]);
        claim_stripe(1);
        counts.start();
        counts.end(Ended::Failed);
        let here = *moved.lock();
        if here {
            counts.end(Ended::Ok);
        }
        starts.join().unwrap();
        let [before, after] = reads.join().unwrap();
        assert!(before.admitted <= after.admitted && before.ok <= after.ok && before.failed <= after.failed);
        let ended = u64::from(here);
        let expected = Tally { admitted: 2, ok: ended, failed: 1, neutral: 0, in_flight: 1 - ended };
        assert_eq!(counts.read(), expected);
    });
}

#[test]
fn threads_that_share_a_stripe_lose_no_call() {
    check("M2 threads that share a stripe lose no call", Threads::Three, 100, || {
        let counts = Arc::new(Counts::default());
        let call = |counts: Arc<Counts>| {
            move || {
                counts.start();
                counts.end(Ended::Neutral);
            }
        };
        let others = [(); 2].map(|()| thread::spawn(call(Arc::clone(&counts))));
        reading(&counts);
        for other in others {
            other.join().unwrap();
        }
        let all = Tally { admitted: 2, ok: 0, failed: 0, neutral: 2, in_flight: 0 };
        assert_eq!(counts.read(), all, "a call was lost");
    });
}

#[test]
fn a_stripe_that_passes_on_keeps_what_was_counted() {
    check("M3 a stripe that passes on keeps what was counted", Threads::Two, 2, || {
        let counts = Arc::new(Counts::default());
        // The lock is what hands the stripe on: the product's bit, taken with an acquire and given back with a release.
        let free = Arc::new(Mutex::new(true));
        let call = |counts: Arc<Counts>, free: Arc<Mutex<bool>>| {
            move || {
                let taken = std::mem::replace(&mut *free.lock(), false);
                claim_stripe(if taken { 0 } else { seawall_loom::sync::OWN_STRIPES });
                counts.start();
                counts.end(Ended::Ok);
                if taken {
                    *free.lock() = true;
                }
            }
        };
        let other = thread::spawn(call(Arc::clone(&counts), Arc::clone(&free)));
        call(Arc::clone(&counts), free)();
        other.join().unwrap();
        let all = Tally { admitted: 2, ok: 2, failed: 0, neutral: 0, in_flight: 0 };
        assert_eq!(counts.read(), all);
    });
}

#[test]
fn starts_that_are_read_before_ends_would_be_seen() {
    planted(
        Bug::CountsStartsFirst,
        "a_call_that_ends_elsewhere_is_never_seen_to_end_before_it_started",
        "attempt to subtract with overflow",
    );
}

#[test]
fn a_shared_stripe_without_atomic_additions_would_be_seen() {
    planted(Bug::SharedStripeAsOwn, "threads_that_share_a_stripe_lose_no_call", "a call was lost");
}
