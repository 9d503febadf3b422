//! A waker runs code of others when it is woken or dropped. None of the limits holds a lock meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use seawall::token_bucket::Rate;
use seawall::{
    BulkheadConfig, BulkheadHandle, Mode, SemaphoreConfig, SemaphoreHandle, TokenBucketConfig, TokenBucketHandle,
};

type Ask = Arc<dyn Fn() + Send + Sync>;

/// Asks on another thread, and fails if that gets no answer: it would stand still for good on this one.
struct Asking {
    ask: Ask,
    asked: Arc<AtomicUsize>,
}

impl Asking {
    fn ask(&self, when: &str) {
        let (done, answer) = mpsc::channel();
        let ask = Arc::clone(&self.ask);
        thread::spawn(move || {
            ask();
            let _ = done.send(());
        });
        assert!(answer.recv_timeout(Duration::from_secs(10)).is_ok(), "{when} under a lock");
        // ORDERING: Relaxed, one thread.
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wake for Asking {
    fn wake(self: Arc<Self>) {
        self.ask("woken");
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.ask("dropped");
        }
    }
}

/// Lets `call` wait, replaces its waker, and brings its turn: both wakers ask when they are dropped, and one when it is woken.
fn asks<F: Future<Output = Result<T, E>>, T, E>(ask: &Ask, call: F, turn: impl FnOnce()) {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut call = Box::pin(call);
    for _ in 0..2 {
        let waker: Waker = Arc::new(Asking { ask: Arc::clone(ask), asked: Arc::clone(&asked) }).into();
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    turn();
    assert!(matches!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_)));
    drop(call);
    // ORDERING: Relaxed, one thread.
    assert_eq!(asked.load(Ordering::Relaxed), 3, "dropped, woken and dropped");
}

#[tokio::test(start_paused = true)]
async fn a_semaphore_wakes_under_no_lock() {
    let config = SemaphoreConfig::new("db", 1);
    let semaphore = SemaphoreHandle::new(config.clone()).unwrap();
    let ask: Ask = {
        let semaphore = semaphore.clone();
        Arc::new(move || drop((semaphore.config(), semaphore.stats(), semaphore.try_acquire())))
    };
    let permit = semaphore.try_acquire().unwrap();
    asks(&ask, semaphore.acquire(), || drop(permit));
    let _permit = semaphore.try_acquire().unwrap();
    asks(&ask, semaphore.acquire(), || semaphore.resize(2).unwrap());
    let _permits = semaphore.try_acquire().unwrap();
    asks(&ask, semaphore.acquire_many(2), || semaphore.resize(1).unwrap());
    asks(&ask, semaphore.acquire(), || semaphore.update(config.clone().mode(Mode::Observe)).unwrap());
    semaphore.update(config).unwrap();
    asks(&ask, semaphore.acquire(), || semaphore.close());
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_wakes_under_no_lock() {
    let config = BulkheadConfig::new("peer", 2).partition("writes", 1).max_waiting(4);
    let bulkhead = BulkheadHandle::new(config.clone()).unwrap();
    let ask: Ask = {
        let bulkhead = bulkhead.clone();
        Arc::new(move || drop((bulkhead.config(), bulkhead.stats(), bulkhead.try_acquire())))
    };
    let permit = bulkhead.try_acquire().unwrap();
    asks(&ask, bulkhead.acquire(), || drop(permit));
    let _permit = bulkhead.try_acquire().unwrap();
    asks(&ask, bulkhead.acquire(), || bulkhead.update(config.clone().max_in_flight(3)).unwrap());
    let _permits = bulkhead.try_acquire().unwrap();
    asks(&ask, bulkhead.acquire(), || bulkhead.close());
}

#[tokio::test(start_paused = true)]
async fn a_token_bucket_wakes_under_no_lock() {
    let config = TokenBucketConfig::new("mail", Rate::per_second(10), 2).max_waiting(4);
    let bucket = TokenBucketHandle::new(config.clone()).unwrap();
    let ask: Ask = {
        let bucket = bucket.clone();
        Arc::new(move || drop((bucket.config(), bucket.stats(), bucket.available())))
    };
    let (_first, second) = (bucket.try_acquire().unwrap(), bucket.try_acquire().unwrap());
    asks(&ask, bucket.acquire(), || assert!(second.refund()));
    asks(&ask, bucket.acquire(), || bucket.update(config.clone().burst(3)).unwrap());
    asks(&ask, bucket.acquire_many(3), || bucket.update(config.clone()).unwrap());
    asks(&ask, bucket.acquire(), || bucket.update(config.clone().mode(Mode::Observe)).unwrap());
}
