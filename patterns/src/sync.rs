//! The locks and atomics of the cores: `std`'s here, loom's in `tests/loom`, which mounts the same core files beside a
//! `crate::sync` of its own. A core names no other primitive, so a model sees all of its synchronisation.

#[allow(unused_imports, reason = "one list for all cores, the same as in `tests/loom`")]
pub use std::sync::{
    Arc, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use std::sync::{Mutex as StdMutex, PoisonError};

/// A mutex whose lock cannot fail: a core's critical sections leave the value whole at every step, so a panic in one
/// (only an allocation failure or a bug of ours could cause it) says nothing about the next.
#[derive(Debug, Default)]
pub struct Mutex<T>(StdMutex<T>);

impl<T> Mutex<T> {
    /// A mutex that guards `value`.
    pub const fn new(value: T) -> Self {
        Self(StdMutex::new(value))
    }

    /// Waits for the lock; poisoning is ignored.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A defect that `tests/loom` plants in a core to prove that the model would see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The breaker believes a result whose admission belongs to an earlier state.
    StaleGeneration,
    /// The breaker keeps the slot of a probe that was dropped without a result.
    ProbeNotReturned,
    /// The retry budget lets go of its lock between the check and the booking.
    BudgetCheckThenAct,
}

/// Never, in the product: the branch folds away.
pub const fn bug(_: Bug) -> bool {
    false
}
