//! References that calls hold to the state of their layer, kept by a thread from one call to the next.
//!
//! Every call holds one, for it may outlive the layer. Counting it up and down takes two atomic operations on a word that
//! all processors write to: for a small layer more than everything else it does, and the more processors there are, the
//! more. So the thread on which a call ends keeps its reference, and lends it to the next call of the same layer that
//! starts there. A call that finds none, or one to the state of another layer, makes its own as ever.
//!
//! A thread keeps one reference for each [kind](Lend) of state. Hence a state lives until every thread that kept it has
//! called another layer of the kind, or has ended. A table that grows with the number of clients is not kept.

use std::cell::Cell;
use std::ops::Deref;
use std::thread::LocalKey;

use crate::sync::Arc;

/// Where a thread keeps a reference; empty while it is lent.
pub type Kept<T> = LocalKey<Cell<Option<Arc<T>>>>;

/// The state of a layer, of which calls hold a reference.
pub trait Lend: Sized + 'static {
    /// Where each thread keeps one.
    fn kept() -> &'static Kept<Self>;
}

/// A reference for the length of one call.
pub struct Lent<T: Lend>(
    /// Always there, but for the end of `drop`.
    Option<Arc<T>>,
);

impl<T: Lend> Lent<T> {
    /// A reference to `state`: the one that this thread has kept, or a new one.
    #[inline]
    pub fn of(state: &Arc<T>) -> Self {
        // A thread that is being torn down keeps nothing.
        let kept = T::kept().try_with(Cell::take).ok().flatten();
        Self(Some(kept.filter(|kept| Arc::ptr_eq(kept, state)).unwrap_or_else(|| Arc::clone(state))))
    }
}

impl<T: Lend> Deref for Lent<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.0 {
            Some(state) => state,
            None => unreachable!("it is gone only when this is"),
        }
    }
}

impl<T: Lend> Drop for Lent<T> {
    #[inline]
    fn drop(&mut self) {
        let state = self.0.take();
        // What was kept before is dropped here, and so is this where nothing can be kept any more.
        let _ = T::kept().try_with(|kept| kept.set(state));
    }
}

/// Keeps references to `$state`.
macro_rules! lend {
    ($state:ty) => {
        impl $crate::lent::Lend for $state {
            #[inline]
            fn kept() -> &'static $crate::lent::Kept<Self> {
                std::thread_local! {
                    static KEPT: std::cell::Cell<Option<$crate::sync::Arc<$state>>> = const { std::cell::Cell::new(None) };
                }
                &KEPT
            }
        }
    };
}
pub(crate) use lend;

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::thread;

    use super::*;

    struct State;
    lend!(State);

    fn state() -> (Arc<State>, Weak<State>) {
        let state = Arc::new(State);
        let weak = Arc::downgrade(&state);
        (state, weak)
    }

    #[test]
    fn a_thread_lends_what_it_kept() {
        let (state, weak) = state();
        drop(Lent::of(&state));
        assert_eq!(weak.strong_count(), 2, "kept");
        let lent = Lent::of(&state);
        assert_eq!(weak.strong_count(), 2, "lent");
        let second = Lent::of(&state);
        assert_eq!(weak.strong_count(), 3, "there was one");
        drop((lent, second));
        assert_eq!(weak.strong_count(), 2, "one is kept");
    }

    #[test]
    fn one_state_makes_way_for_another() {
        let ((first, weak), (second, other)) = (state(), state());
        drop(Lent::of(&first));
        drop(first);
        assert_eq!(weak.strong_count(), 1);
        let lent = Lent::of(&second);
        assert_eq!(weak.strong_count(), 0, "called another of the kind");
        assert!(std::ptr::eq(&*lent, &*second));
        drop(second);
        drop(lent);
        assert_eq!(other.strong_count(), 1);
    }

    /// Runs `f` in a thread, to the end of its thread-locals: a scope alone does not wait for those.
    fn in_a_thread(f: impl FnOnce() + Send) {
        thread::scope(|scope| scope.spawn(f).join().unwrap());
    }

    #[test]
    fn a_thread_that_ends_lets_go() {
        let (state, weak) = state();
        in_a_thread(|| drop(Lent::of(&state)));
        assert_eq!(weak.strong_count(), 1);
    }

    #[test]
    fn a_call_that_ends_with_its_thread_is_let_go() {
        struct Late(Cell<Option<Lent<State>>>);
        thread_local!(static LATE: Late = const { Late(Cell::new(None)) });
        let (state, weak) = state();
        // Whichever of the two thread-locals is torn down first.
        in_a_thread(|| LATE.with(|late| late.0.set(Some(Lent::of(&state)))));
        in_a_thread(|| {
            drop(Lent::of(&state));
            LATE.with(|late| late.0.set(Some(Lent::of(&state))));
        });
        assert_eq!(weak.strong_count(), 1);
    }
}
