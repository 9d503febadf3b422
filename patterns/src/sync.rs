//! The locks and atomics of the cores: `std`'s here, loom's in `tests/loom`, which mounts the same core files beside a
//! `crate::sync` of its own. A core names no other primitive, so a model sees all of its synchronisation.

use std::cell::Cell;
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

/// How many threads at a time have a stripe to themselves: as many as a usual machine has workers. A counter takes a cache line
/// for each, 1 KiB in all.
pub const OWN_STRIPES: usize = 15;

/// Which stripe of a [`Striped`](crate::striped::Striped) this thread writes to. A number below [`OWN_STRIPES`] belongs to this
/// thread alone until it ends; any other stands for the stripe that the remaining threads share.
#[inline]
pub fn stripe() -> usize {
    let stripe = STRIPE.get();
    if stripe == UNCLAIMED { claim() } else { stripe }
}

const UNCLAIMED: usize = usize::MAX;

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(UNCLAIMED) };
    /// Apart from the number, which then needs no destructor and is as cheap to read as a static.
    static CLAIM: Claim = const { Claim };
}

/// One bit for each stripe that a living thread has to itself.
static CLAIMED: AtomicU64 = AtomicU64::new(0);

/// Takes the lowest stripe that is free, if one is, for as long as this thread lives.
#[cold]
fn claim() -> usize {
    let lowest_free = |claimed: u64| {
        let stripe = claimed.trailing_ones() as usize;
        (stripe < OWN_STRIPES).then_some(claimed | 1 << stripe)
    };
    // A thread that is being torn down would have nobody to give its stripe back.
    let claimed = match CLAIM.try_with(|_| ()) {
        // ORDERING: Acquire, pairs with the Release of the thread that had the stripe before: its last additions are seen, and
        // this thread counts on from them. Relaxed where nothing is taken.
        Ok(()) => CLAIMED.fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest_free).ok(),
        Err(_) => None,
    };
    let stripe = claimed.map_or(OWN_STRIPES, |before| before.trailing_ones() as usize);
    STRIPE.set(stripe);
    stripe
}

/// Gives the stripe of its thread back when the thread ends.
struct Claim;

impl Drop for Claim {
    fn drop(&mut self) {
        // Destructors that still run in this thread write to the shared stripe.
        let stripe = STRIPE.replace(OWN_STRIPES);
        if stripe < OWN_STRIPES {
            // ORDERING: Release, pairs with the Acquire of the next owner in `claim`.
            CLAIMED.fetch_and(!(1 << stripe), Ordering::Release);
        }
    }
}

/// A defect that `tests/loom` plants in a core to prove that the model would see it.
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

/// Never, in the product: the branch folds away.
pub const fn bug(_: Bug) -> bool {
    false
}
