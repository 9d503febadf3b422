//! What the product's `crate::sync` is, made of loom's primitives.

pub use loom::sync::{
    Arc, MutexGuard,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::PoisonError;

/// As the product's, over loom's mutex.
#[derive(Debug)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A mutex that guards `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fewer than the product's: each is an atomic more for every reading.
pub const OWN_STRIPES: usize = 2;

loom::thread_local! {
    static STRIPE: Cell<usize> = Cell::new(OWN_STRIPES);
}

/// The stripe of this thread: the shared one, unless it [has claimed](claim_stripe) another.
pub fn stripe() -> usize {
    STRIPE.with(Cell::get)
}

/// Gives this thread a stripe of its own. The model sees to it that no two threads have the same at a time.
pub fn claim_stripe(stripe: usize) {
    STRIPE.with(|own| own.set(stripe));
}

/// The defects that can be planted: the same list as the product's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The breaker believes a result whose admission belongs to an earlier state.
    StaleGeneration,
    /// The breaker keeps the slot of a probe that was dropped without a result.
    ProbeNotReturned,
    /// The breaker believes a success without the lock whose admission belongs to an earlier state.
    StaleSuccess,
    /// The breaker works under its lock while successes can still be left in the word beside it.
    WordNotTaken,
    /// The breaker does not look again whether what it read beside the word belongs to it.
    WordNotReadAgain,
    /// The breaker publishes words that cannot be told from those it took away.
    WordNotNumbered,
    /// The breaker reads the word without what was written before it.
    WordNotAcquired,
    /// The retry budget lets go of its lock between the check and the booking.
    BudgetCheckThenAct,
    /// The counts of calls take the starts before the ends.
    CountsStartsFirst,
    /// Threads that share a stripe add to it as if each had it to itself.
    SharedStripeAsOwn,
    /// The semaphore keeps the permit that a waiter was granted in the moment it left.
    PermitNotHandedOn,
    /// The semaphore lets go of its lock between saying that somebody waits and queueing them.
    WakeBeforeQueued,
    /// The semaphore lets a caller who does not wait take a permit while others wait.
    TryOvertakes,
    /// The sliding window lets go of its lock between the check and the count.
    WindowCheckThenAct,
    /// The limits of all keys forget one that is not as good as new.
    EvictWithDebt,
    /// The token bucket stores the time of the latest call, however stale, and not the later of it and the TAT.
    TatNotMaxed,
    /// The token bucket refunds by subtraction what others have built on.
    RefundBySubtraction,
    /// The token bucket wakes nobody when who stood in front takes its tokens or leaves.
    TurnNotPassedOn,
}

/// The environment variable that plants a defect in this process.
pub const BUG: &str = "SEAWALL_LOOM_BUG";

/// Whether this process runs with `bug` planted.
pub fn bug(bug: Bug) -> bool {
    // Read once, outside of loom's sight: the answer is the same in every interleaving.
    static PLANTED: OnceLock<String> = OnceLock::new();
    *PLANTED.get_or_init(|| std::env::var(BUG).unwrap_or_default()) == format!("{bug:?}")
}
