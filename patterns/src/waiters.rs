//! Tasks that wait in line: a bounded queue, allocated when it is made, that a core keeps inside its own mutex.
//!
//! A waiter is known by its [`Key`]. Whoever lets it go removes it; its place is free from then on, and its key finds
//! nothing any more, whoever has the place now: a waiter whose key is stale knows that it was let go. A waiter that must
//! be told something else is [detached](Waiters::detach): it stands in line no longer, but its key still finds what was
//! left for it.
//!
//! Wakers leave the queue to be woken or dropped after the lock is: either may run code of others, which may come back
//! for the lock. [`WakeList`] carries them out.

use std::task::Waker;

/// Waiters in the order of their arrival, at most as many as fit.
#[derive(Debug)]
pub struct Waiters<T> {
    slots: Vec<Slot<T>>,
    /// How many may be here, detached ones included; no more than there are slots.
    capacity: usize,
    /// The first of the places that are free; they are linked by `next`.
    free: Option<u32>,
    front: Option<u32>,
    back: Option<u32>,
    /// Those in line.
    len: usize,
    detached: usize,
    /// The number of the next arrival. At a billion arrivals a second it lasts for centuries.
    arrivals: u64,
}

#[derive(Debug)]
struct Slot<T> {
    /// Towards the front.
    previous: Option<u32>,
    /// Towards the back; of a free place, the next free one.
    next: Option<u32>,
    waiter: Option<Waiter<T>>,
}

#[derive(Debug)]
struct Waiter<T> {
    arrival: u64,
    in_line: bool,
    value: T,
    waker: Option<Waker>,
}

/// Where a waiter stands, and which one it is; good until that one is removed, and never again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    slot: u32,
    arrival: u64,
}

/// A waiter that was removed.
#[derive(Debug)]
#[must_use = "the waker may run code of others when it is dropped: keep it until the lock is released"]
pub struct Removed<T> {
    /// What it waited with.
    pub value: T,
    /// Whom to wake; `None` if it was never polled.
    pub waker: Option<Waker>,
}

/// The most waiters that one queue may hold: 2²⁰. Each takes some 60 bytes from the start.
pub const MAX_WAITERS: usize = 1 << 20;

impl<T> Waiters<T> {
    /// An empty queue with room for `capacity` waiters, at most [`MAX_WAITERS`]; with none, nobody can wait.
    pub fn new(capacity: usize) -> Self {
        let mut waiters = Self {
            slots: Vec::new(),
            capacity: 0,
            free: None,
            front: None,
            back: None,
            len: 0,
            detached: 0,
            arrivals: 0,
        };
        waiters.set_capacity(capacity);
        waiters
    }

    /// Changes the room. Those who are here stay; if they are more than `capacity`, nobody else comes until enough have
    /// left. Allocates if there was never as much room.
    pub fn set_capacity(&mut self, capacity: usize) {
        let capacity = capacity.min(MAX_WAITERS);
        self.capacity = capacity;
        self.slots.reserve_exact(capacity.saturating_sub(self.slots.len()));
        // From the back, so that the places are taken in order.
        let first_new = self.slots.len();
        for slot in (first_new..capacity).map(|slot| slot as u32) {
            let next = if slot as usize + 1 < capacity { Some(slot + 1) } else { self.free };
            self.slots.push(Slot { previous: None, next, waiter: None });
        }
        if first_new < capacity {
            self.free = Some(first_new as u32);
        }
    }

    /// How many may be here.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many stand in line.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody stands in line.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Joins the line at its back; `None` if it is full.
    pub fn push(&mut self, value: T) -> Option<Key> {
        if self.len + self.detached >= self.capacity {
            return None;
        }
        let index = self.free?;
        let slot = self.slots.get_mut(index as usize)?;
        self.free = slot.next;
        let arrival = self.arrivals;
        self.arrivals += 1;
        *slot = Slot {
            previous: self.back,
            next: None,
            waiter: Some(Waiter { arrival, in_line: true, value, waker: None }),
        };
        match self.back.and_then(|back| self.slots.get_mut(back as usize)) {
            Some(back) => back.next = Some(index),
            None => self.front = Some(index),
        }
        self.back = Some(index);
        self.len += 1;
        Some(Key { slot: index, arrival })
    }

    /// Who has waited longest.
    pub fn front(&self) -> Option<Key> {
        self.key(self.front?)
    }

    /// Who came last.
    pub fn back(&self) -> Option<Key> {
        self.key(self.back?)
    }

    /// Who stands behind `key`, which must stand in line.
    pub fn behind(&self, key: Key) -> Option<Key> {
        self.waiter(key).filter(|waiter| waiter.in_line)?;
        self.key(self.slots.get(key.slot as usize)?.next?)
    }

    /// What the waiter waits with; `None` if it was removed.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.waiter(key).map(|waiter| &waiter.value)
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.waiter_mut(key).map(|waiter| &mut waiter.value)
    }

    /// Takes a waiter out, wherever it stands; `None` if that has happened before.
    pub fn remove(&mut self, key: Key) -> Option<Removed<T>> {
        self.waiter(key)?;
        if !self.unlink(key) {
            self.detached -= 1;
        }
        let slot = self.slots.get_mut(key.slot as usize)?;
        let Waiter { value, waker, .. } = slot.waiter.take()?;
        *slot = Slot { previous: None, next: self.free, waiter: None };
        self.free = Some(key.slot);
        Some(Removed { value, waker })
    }

    /// Takes out who has waited longest.
    pub fn pop_front(&mut self) -> Option<Removed<T>> {
        self.remove(self.front()?)
    }

    /// Takes out who came last.
    pub fn pop_back(&mut self) -> Option<Removed<T>> {
        self.remove(self.back()?)
    }

    /// Takes a waiter out of the line, but keeps what it waits with until it is removed. Whom to wake.
    pub fn detach(&mut self, key: Key) -> Option<Waker> {
        if self.waiter(key).is_some() && self.unlink(key) {
            self.detached += 1;
        }
        self.waiter_mut(key)?.waker.take()
    }

    /// Sets whom to wake for `key`. What it replaces must outlive the lock.
    pub fn set_waker(&mut self, key: Key, waker: &Waker) -> Option<Waker> {
        let waiter = self.waiter_mut(key)?;
        match &waiter.waker {
            Some(former) if former.will_wake(waker) => None,
            _ => waiter.waker.replace(waker.clone()),
        }
    }

    /// Whom to wake for `key`, which stays where it is and sets its waker anew.
    pub fn take_waker(&mut self, key: Key) -> Option<Waker> {
        self.waiter_mut(key)?.waker.take()
    }

    fn key(&self, slot: u32) -> Option<Key> {
        let arrival = self.slots.get(slot as usize)?.waiter.as_ref()?.arrival;
        Some(Key { slot, arrival })
    }

    fn waiter(&self, key: Key) -> Option<&Waiter<T>> {
        self.slots.get(key.slot as usize)?.waiter.as_ref().filter(|waiter| waiter.arrival == key.arrival)
    }

    fn waiter_mut(&mut self, key: Key) -> Option<&mut Waiter<T>> {
        self.slots.get_mut(key.slot as usize)?.waiter.as_mut().filter(|waiter| waiter.arrival == key.arrival)
    }

    /// Takes the waiter out of the line; whether it stood in it.
    fn unlink(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get_mut(key.slot as usize) else { return false };
        match &mut slot.waiter {
            Some(waiter) if waiter.in_line => waiter.in_line = false,
            _ => return false,
        }
        let (previous, next) = (slot.previous.take(), slot.next.take());
        match previous.and_then(|previous| self.slots.get_mut(previous as usize)) {
            Some(slot) => slot.next = next,
            None => self.front = next,
        }
        match next.and_then(|next| self.slots.get_mut(next as usize)) {
            Some(slot) => slot.previous = previous,
            None => self.back = previous,
        }
        self.len -= 1;
        true
    }
}

/// Wakers on their way out of a lock, a handful at a time: whoever has more to wake releases the lock in between.
#[derive(Debug, Default)]
#[must_use = "somebody waits to be woken"]
pub struct WakeList {
    wakers: [Option<Waker>; Self::ROOM],
    len: usize,
}

impl WakeList {
    /// More than most releases let go, and still small on the stack.
    const ROOM: usize = 8;

    /// Whether another [`push`](Self::push) must wait until the others are woken.
    pub fn is_full(&self) -> bool {
        self.len == Self::ROOM
    }

    /// Keeps `waker` to be woken. There must be room.
    pub fn push(&mut self, waker: Option<Waker>) {
        debug_assert!(!self.is_full(), "the list is full");
        if let (Some(waker), Some(place)) = (waker, self.wakers.get_mut(self.len)) {
            *place = Some(waker);
            self.len += 1;
        }
    }

    /// Wakes all of them and is empty. Not under a lock.
    pub fn wake(&mut self) {
        self.len = 0;
        for waker in self.wakers.iter_mut().map_while(Option::take) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            // ORDERING: Relaxed, one thread.
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wakes() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (Arc::clone(&wakes), wakes.into())
    }

    #[test]
    fn the_line_is_bounded_and_in_order() {
        let mut waiters = Waiters::new(2);
        let (first, second) = (waiters.push('a').unwrap(), waiters.push('b').unwrap());
        assert_eq!(waiters.push('c'), None);
        assert_eq!((waiters.front(), waiters.back(), waiters.len()), (Some(first), Some(second), 2));
        assert_eq!(waiters.pop_front().unwrap().value, 'a');
        assert!(waiters.push('d').is_some());
        assert_eq!(waiters.pop_back().unwrap().value, 'd');
        assert_eq!(waiters.pop_back().unwrap().value, 'b');
        assert!(waiters.is_empty() && waiters.pop_front().is_none());
    }

    #[test]
    fn nobody_waits_where_there_is_no_room() {
        let mut waiters = Waiters::new(0);
        assert_eq!((waiters.push(()), waiters.capacity()), (None, 0));
    }

    #[test]
    fn a_stale_key_finds_nothing_though_its_place_is_taken() {
        let mut waiters = Waiters::new(1);
        let stale = waiters.push('a').unwrap();
        let _ = waiters.remove(stale);
        let key = waiters.push('b').unwrap();
        assert_ne!(stale, key);
        assert_eq!(waiters.get(stale), None);
        assert_eq!(waiters.get_mut(stale), None);
        assert!(waiters.remove(stale).is_none() && waiters.detach(stale).is_none());
        assert!(waiters.set_waker(stale, Waker::noop()).is_none());
        assert_eq!((waiters.get(key), waiters.len()), (Some(&'b'), 1));
    }

    #[test]
    fn a_detached_waiter_is_out_of_line_and_keeps_its_place() {
        let mut waiters = Waiters::new(2);
        let (told, other) = (waiters.push(1).unwrap(), waiters.push(2).unwrap());
        let (woken, waker) = wakes();
        assert!(waiters.set_waker(told, &waker).is_none());
        waiters.detach(told).unwrap().wake();
        // ORDERING: Relaxed, one thread.
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!((waiters.len(), waiters.front(), waiters.behind(told)), (1, Some(other), None));
        assert_eq!(waiters.push(3), None, "its place is not free yet");
        assert_eq!(waiters.remove(told).unwrap().value, 1);
        assert!(waiters.push(3).is_some());
    }

    #[test]
    fn the_latest_waker_counts_and_the_former_is_handed_out() {
        let mut waiters = Waiters::new(1);
        let key = waiters.push(()).unwrap();
        let ((_, former), (_, latest)) = (wakes(), wakes());
        assert!(waiters.set_waker(key, &former).is_none());
        assert!(waiters.set_waker(key, &former).is_none(), "the same one is not replaced");
        assert!(waiters.set_waker(key, &latest).unwrap().will_wake(&former));
        assert!(waiters.remove(key).unwrap().waker.unwrap().will_wake(&latest));
    }

    #[test]
    fn room_grows_and_shrinks_around_those_who_wait() {
        let mut waiters = Waiters::new(1);
        let key = waiters.push(1).unwrap();
        waiters.set_capacity(3);
        assert!(waiters.push(2).is_some() && waiters.push(3).is_some() && waiters.push(4).is_none());
        waiters.set_capacity(1);
        let _ = waiters.remove(key);
        assert_eq!((waiters.len(), waiters.push(5)), (2, None));
        let _ = (waiters.pop_front(), waiters.pop_front());
        assert!(waiters.push(6).is_some() && waiters.push(7).is_none());
    }

    #[test]
    fn a_wake_list_wakes_each_once() {
        let (woken, waker) = wakes();
        let mut list = WakeList::default();
        list.push(None);
        while !list.is_full() {
            list.push(Some(waker.clone()));
        }
        list.wake();
        list.wake();
        // ORDERING: Relaxed, one thread.
        assert_eq!(woken.0.load(Ordering::Relaxed), WakeList::ROOM);
        assert!(!list.is_full());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Remove(usize),
        Detach(usize),
        PopFront,
        PopBack,
        Capacity(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Push),
            2 => (0..40_usize).prop_map(Step::Remove),
            1 => (0..40_usize).prop_map(Step::Detach),
            1 => Just(Step::PopFront),
            1 => Just(Step::PopBack),
            1 => (0..6_usize).prop_map(Step::Capacity),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn the_queue_is_a_deque_with_removal(steps in prop::collection::vec(step(), 1..60)) {
            let mut waiters = Waiters::new(3);
            let (mut line, mut detached, mut keys) = (VecDeque::new(), Vec::new(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push => {
                        let fits = line.len() + detached.len() < waiters.capacity();
                        let key = waiters.push(number);
                        prop_assert_eq!(key.is_some(), fits);
                        if let Some(key) = key {
                            keys.push((key, number));
                            line.push_back(number);
                        }
                    }
                    Step::Remove(which) if which < keys.len() => {
                        let (key, number) = keys[which];
                        let here = line.contains(&number) || detached.contains(&number);
                        prop_assert_eq!(waiters.remove(key).map(|it| it.value), here.then_some(number));
                        line.retain(|it| *it != number);
                        detached.retain(|it| *it != number);
                    }
                    Step::Detach(which) if which < keys.len() => {
                        let (key, number) = keys[which];
                        waiters.detach(key);
                        if line.contains(&number) {
                            line.retain(|it| *it != number);
                            detached.push(number);
                        }
                    }
                    Step::PopFront => prop_assert_eq!(waiters.pop_front().map(|it| it.value), line.pop_front()),
                    Step::PopBack => prop_assert_eq!(waiters.pop_back().map(|it| it.value), line.pop_back()),
                    Step::Capacity(capacity) => waiters.set_capacity(capacity),
                    Step::Remove(_) | Step::Detach(_) => {}
                }
                let mut stand = Vec::new();
                let mut next = waiters.front();
                while let Some(key) = next {
                    stand.push(*waiters.get(key).unwrap());
                    next = waiters.behind(key);
                }
                prop_assert_eq!(&stand, &Vec::from(line.clone()));
                prop_assert_eq!(waiters.len(), stand.len());
                prop_assert_eq!(waiters.back().map(|key| *waiters.get(key).unwrap()), line.back().copied());
            }
        }
    }
}
