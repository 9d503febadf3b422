//! Models of the sliding window: no interleaving counts a call twice or not at all, or admits one too many.
//!
//! The core is plain values behind one mutex, so what a model proves is that each answer is one step: the threads of a
//! model may run in any order, and every outcome is one that some order explains.

#![allow(clippy::unwrap_used, reason = "a model reports by panicking, in its helpers too")]

use std::time::Duration;

use loom::thread;
use seawall_loom::sliding_window::config::{Algorithm, Setting};
use seawall_loom::sliding_window::window::Window;
use seawall_loom::sync::{Arc, Bug};
use seawall_loom::{Threads, check, planted};

const WINDOW: Duration = Duration::from_secs(2);
const BUCKETS: Algorithm = Algorithm::Buckets(2);

/// On the grid of the buckets, which are a second long, and not at zero.
fn at(seconds: u64) -> Duration {
    Duration::from_secs(1000 + seconds)
}

fn window(limit: u32, algorithm: Algorithm) -> Arc<Window> {
    Arc::new(Window::new(Setting::new(limit, WINDOW, algorithm).unwrap()))
}

fn take(window: &Arc<Window>, cost: u32, now: Duration) -> impl FnOnce() -> bool + use<> {
    let window = Arc::clone(window);
    move || window.try_take(cost, now).is_ok()
}

/// Once every call has left, all of the limit is there again and nothing more.
fn quiescent(window: &Window, limit: u32) {
    assert_eq!(window.available(at(100)), limit, "something stayed counted");
}

#[test]
fn two_that_cross_the_boundary_turn_the_ring_once() {
    check("W1 two that cross the boundary turn the ring once", Threads::Three, 20, || {
        let window = window(9, BUCKETS);
        assert!(take(&window, 4, at(0))());
        let others = [thread::spawn(take(&window, 1, at(3))), thread::spawn(take(&window, 2, at(3)))];
        let left = window.available(at(3));
        assert!([9, 8, 7, 6].contains(&left), "what left the window was counted, or left twice: {left}");
        assert!(others.into_iter().all(|thread| thread.join().unwrap()));
        assert_eq!(window.available(at(3)), 6, "a count was lost or doubled");
        quiescent(&window, 9);
    });
}

#[test]
fn a_limit_of_two_admits_two_of_three() {
    for algorithm in [Algorithm::Log, BUCKETS] {
        check(&format!("W2 a limit of two admits two of three, {algorithm:?}"), Threads::Three, 20, move || {
            let window = window(2, algorithm);
            let others = [thread::spawn(take(&window, 1, at(0))), thread::spawn(take(&window, 1, at(0)))];
            let mine = take(&window, 1, at(0))();
            let admitted = others.into_iter().map(|thread| thread.join().unwrap()).chain([mine]).filter(|ok| *ok);
            assert_eq!(admitted.count(), 2, "the limit was not kept");
            assert_eq!(window.available(at(0)), 0);
            quiescent(&window, 2);
        });
    }
}

#[test]
fn a_reading_is_never_torn() {
    check("W3 a reading is never torn by a call or an update", Threads::Three, 20, || {
        let window = window(5, BUCKETS);
        let (taker, changer) = (Arc::clone(&window), Arc::clone(&window));
        let taken = thread::spawn(move || taker.try_take(2, at(0)).is_ok());
        let wider = Setting::new(7, 2 * WINDOW, BUCKETS).unwrap();
        let changed = thread::spawn(move || changer.update(wider, at(0)));
        let (left, setting) = (window.available(at(0)), window.setting());
        assert!([3, 5, 7].contains(&left), "neither limit explains {left}");
        assert!(setting == wider || setting == Setting::new(5, WINDOW, BUCKETS).unwrap());
        assert!(taken.join().unwrap());
        changed.join().unwrap();
        assert_eq!(window.available(at(0)), 5, "the update lost the call");
        quiescent(&window, 7);
    });
}

#[test]
fn a_late_now_brings_nothing_back() {
    for algorithm in [Algorithm::Log, BUCKETS] {
        check(&format!("W4 a late now brings nothing back, {algorithm:?}"), Threads::Two, 2, move || {
            let window = window(2, algorithm);
            assert!(take(&window, 2, at(0))());
            // One thread read the clock before the first call left, the other after.
            let late = thread::spawn(take(&window, 1, at(1)));
            let mine = take(&window, 1, at(3))();
            let late = late.join().unwrap();
            assert!(mine, "what had left the window was counted again");
            // If it ran first it was refused, else it was served at the later instant and counts there.
            assert_eq!(window.available(at(3)), 1 - u32::from(late));
            assert_eq!(window.available(at(4)), 1 - u32::from(late), "it was counted at the instant that it named");
            quiescent(&window, 2);
        });
    }
}

#[test]
fn a_thread_that_slept_for_a_whole_ring_writes_into_no_other_bucket() {
    check("W5 a thread that slept for a whole ring writes into no other bucket", Threads::Three, 20, || {
        let window = window(9, BUCKETS);
        // The ring has three places: 0, 3 and 6 s fall on the same one.
        let others = [thread::spawn(take(&window, 1, at(0))), thread::spawn(take(&window, 2, at(3)))];
        assert!(take(&window, 4, at(6))());
        assert!(others.into_iter().all(|thread| thread.join().unwrap()));
        let used = 9 - window.available(at(6));
        assert!([4, 5, 6, 7].contains(&used), "no order explains {used}");
        // Whatever still counts at 6 s was counted there, and leaves with it.
        assert_eq!(window.available(at(9) - Duration::from_nanos(1)), 9 - used);
        assert_eq!(window.available(at(9)), 9);
        quiescent(&window, 9);
    });
}

#[test]
fn what_leaves_beside_what_comes_keeps_every_window() {
    for (algorithm, leaves) in [(Algorithm::Log, 2), (BUCKETS, 3)] {
        check(
            &format!("W6 what leaves beside what comes keeps every window, {algorithm:?}"),
            Threads::Three,
            20,
            move || {
                let window = window(1, algorithm);
                let early = thread::spawn(take(&window, 1, at(0)));
                let before = thread::spawn(take(&window, 1, at(leaves) - Duration::from_nanos(1)));
                let after = take(&window, 1, at(leaves))();
                let outcome = (early.join().unwrap(), before.join().unwrap(), after);
                // Two fit only if the first was admitted at 0 s and the second when that one had left.
                let explained = [(true, false, true), (false, true, false), (false, false, true)];
                assert!(explained.contains(&outcome), "a window held more than its limit: {outcome:?}");
                assert_eq!(window.available(at(leaves)), 0);
                quiescent(&window, 1);
            },
        );
    }
}

#[test]
fn a_check_apart_from_its_count_would_be_seen() {
    planted(Bug::WindowCheckThenAct, "a_limit_of_two_admits_two_of_three", "the limit was not kept");
}
