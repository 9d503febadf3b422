//! Counters that many threads add to and few read: each thread writes to a stripe of its own.

use crate::sync::{AtomicU64, Bug, OWN_STRIPES, Ordering, bug, stripe};

/// `N` counters that only grow, in one cache line for each of the first threads and one for all the others.
///
/// A thread that has a stripe [for itself](stripe) is the only one that writes to it, so adding is a load and a store, with no
/// read-modify-write and no line that two processors pull at. Threads beyond those share one stripe and add atomically.
///
/// What a reader may rely on: **who sees an addition sees all that happened before it**, on whichever stripe. The store of an
/// addition releases, the load of a reading acquires. Neither a later store by the same thread nor by the one that inherits its
/// stripe undoes this: the first comes after it in program order, the second takes the stripe over with an acquire.
#[derive(Debug)]
pub struct Striped<const N: usize> {
    own: [Stripe<N>; OWN_STRIPES],
    shared: Stripe<N>,
}

/// The counters of one thread, apart from those of others by a cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Stripe<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Striped<N> {
    fn default() -> Self {
        Self { own: std::array::from_fn(|_| Stripe::default()), shared: Stripe::default() }
    }
}

impl<const N: usize> Default for Stripe<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Striped<N> {
    /// Adds one to `counter`, one of the `N`.
    #[inline]
    pub fn add(&self, counter: usize) {
        match self.own.get(stripe()) {
            Some(Stripe(own)) => add_alone(&own[counter]),
            None => self.add_shared(counter),
        }
    }

    #[cold]
    fn add_shared(&self, counter: usize) {
        let shared = &self.shared.0[counter];
        if bug(Bug::SharedStripeAsOwn) {
            return add_alone(shared);
        }
        // ORDERING: Release, pairs with the Acquire in `sum`. The additions of others to this stripe continue it.
        shared.fetch_add(1, Ordering::Release);
    }

    /// What was added to `counter`: all of what happened before, some of what happens at the same time.
    pub fn sum(&self, counter: usize) -> u64 {
        // ORDERING: Acquire, pairs with the Release of each addition: who sees it sees what was before it.
        self.own.iter().chain([&self.shared]).map(|Stripe(stripe)| stripe[counter].load(Ordering::Acquire)).sum()
    }
}

/// Adds one to a counter that no other thread writes to.
#[inline]
fn add_alone(counter: &AtomicU64) {
    // ORDERING: Relaxed, this thread wrote it last, or took it over with an acquire.
    let count = counter.load(Ordering::Relaxed);
    // ORDERING: Release, pairs with the Acquire in `sum`.
    counter.store(count.wrapping_add(1), Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_stripes_lose_no_addition() {
        let counters = Striped::<2>::default();
        std::thread::scope(|scope| {
            for _ in 0..3 * OWN_STRIPES {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.add(0);
                        counters.add(1);
                    }
                });
            }
        });
        assert_eq!((counters.sum(0), counters.sum(1)), (3000 * OWN_STRIPES as u64, 3000 * OWN_STRIPES as u64));
    }

    #[test]
    fn one_thread_after_another_takes_over_a_stripe() {
        let counters = Striped::<1>::default();
        for _ in 0..3 * OWN_STRIPES {
            std::thread::scope(|scope| _ = scope.spawn(|| counters.add(0)));
        }
        assert_eq!(counters.sum(0), 3 * OWN_STRIPES as u64);
    }

    #[test]
    fn stripes_do_not_share_a_cache_line() {
        assert_eq!(size_of::<Striped<1>>(), 64 * (OWN_STRIPES + 1));
        assert_eq!(align_of::<Striped<1>>(), 64);
    }
}
