//! The one source of randomness: jitter and probabilistic shedding draw here, cores receive the draw as an argument.
//!
//! Each thread has a small fast generator of its own, seeded by the operating system. It is not for secrets.
//! With the feature `test-util`, `fix` makes the draws of the current thread repeatable.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

thread_local! {
    // `RandomState` is seeded by the operating system and needs no further dependency.
    static RNG: RefCell<SmallRng> = RefCell::new(SmallRng::seed_from_u64(RandomState::new().hash_one(0_u64)));
}

/// A number drawn evenly from 0 (possible) to 1 (never reached).
pub(crate) fn draw() -> f64 {
    // A thread being torn down has no generator any more; the middle of the range is a fair answer for its last draw.
    RNG.try_with(|rng| rng.borrow_mut().random::<f64>()).unwrap_or(0.5)
}

/// 64 bits, for the seed of something that has to differ from instance to instance.
pub(crate) fn bits() -> u64 {
    // A thread being torn down has no generator any more, but the operating system still has one.
    RNG.try_with(|rng| rng.borrow_mut().random::<u64>()).unwrap_or_else(|_| RandomState::new().hash_one(0_u64))
}

/// Makes the draws of this thread a function of `seed` until the guard is dropped.
///
/// On a current-thread runtime that makes a whole test repeatable.
///
/// # Example
/// ```
/// # #[cfg(feature = "test-util")] {
/// let _fixed = seawall::rng::fix(7);
/// // … every jitter on this thread is now the same in every run.
/// # }
/// ```
#[cfg(any(test, feature = "test-util"))]
pub fn fix(seed: u64) -> Fixed {
    let before = RNG.with(|rng| rng.replace(SmallRng::seed_from_u64(seed)));
    Fixed { before: Some(before), thread: std::marker::PhantomData }
}

/// Restores the thread's generator when dropped; see [`fix`].
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
#[must_use = "the seed is fixed only while this lives"]
pub struct Fixed {
    before: Option<SmallRng>,
    /// The guard belongs to the thread whose generator it replaced.
    thread: std::marker::PhantomData<*const ()>,
}

#[cfg(any(test, feature = "test-util"))]
impl Drop for Fixed {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = RNG.try_with(|rng| rng.replace(before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_seed_repeats_its_draws() {
        let draws = |seed| {
            let _fixed = fix(seed);
            [draw(), draw(), draw()]
        };
        assert_eq!(draws(7), draws(7));
        assert_ne!(draws(7), draws(8));
        assert!(draws(7).iter().all(|draw| (0.0..1.0).contains(draw)));
    }

    #[test]
    fn the_former_generator_continues_after_the_guard() {
        let _outer = fix(1);
        let first = draw();
        drop(fix(2));
        let second = draw();
        let _again = fix(1);
        assert_eq!([draw(), draw()], [first, second]);
    }
}
