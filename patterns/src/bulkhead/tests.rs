//! Layer, service and handle on a paused clock; what it shares with the semaphore is tested there.

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};

use super::*;
use crate::semaphore::Order;
use crate::{BoxError, Deadline, Mode, Reason, Rejected, Waiting};

const MS: Duration = Duration::from_millis(1);

fn bulkhead(config: BulkheadConfig) -> BulkheadHandle {
    BulkheadHandle::new(config).unwrap()
}

fn poll_now<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn reason<T>(result: Result<T, BoxError>) -> Reason {
    Rejected::find(&*result.err().expect("an error")).expect("a refusal").reason
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_refuses_at_once_with_its_reason() {
    let layer = BulkheadLayer::new(BulkheadConfig::new("peer/2", 1)).unwrap();
    let mut service = layer.layer(service_fn(|(): ()| pending::<Result<(), BoxError>>()));
    let start = Instant::now();
    let _under_way = service.ready().await.unwrap().call(());
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    let rejected = Rejected::find(&*error).unwrap();
    assert_eq!((rejected.pattern, &*rejected.name, rejected.reason), ("bulkhead", "peer/2", Reason::Full));
    assert_eq!(start.elapsed(), Duration::ZERO);
    let stats = layer.handle().stats();
    assert_eq!((stats.calls.in_flight, stats.calls.rejected, stats.in_use, stats.max_in_flight), (1, 1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn waiting_too_long_the_queue_the_deadline_and_the_end_are_told_apart() {
    let bulkhead = bulkhead(BulkheadConfig::new("peer", 1).max_waiting(1).max_wait(50 * MS));
    let held = bulkhead.acquire().await.unwrap();
    let start = Instant::now();
    assert_eq!(bulkhead.acquire().await.unwrap_err().reason, Reason::MaxWait);
    assert_eq!(start.elapsed(), 50 * MS);
    assert_eq!(Deadline::after(20 * MS).scope(bulkhead.acquire()).await.unwrap_err().reason, Reason::Deadline);
    assert_eq!(start.elapsed(), 70 * MS);
    let mut waiting = pin!(bulkhead.acquire());
    assert!(poll_now(waiting.as_mut()).is_pending());
    assert_eq!(bulkhead.acquire().await.unwrap_err().reason, Reason::QueueFull);
    bulkhead.close();
    assert_eq!(waiting.await.unwrap_err().reason, Reason::Closed);
    assert_eq!(bulkhead.try_acquire().unwrap_err().reason, Reason::Closed);
    assert!(bulkhead.is_closed());
    held.succeeded();
    let stats = bulkhead.stats();
    assert_eq!((stats.calls.ok, stats.calls.rejected, stats.in_use, stats.waiting), (1, 5, 0, 0));
}

fn divided() -> BulkheadHandle {
    bulkhead(BulkheadConfig::new("peer", 6).partition("reads", 2).partition("writes", 1).max_waiting(4))
}

#[tokio::test(start_paused = true)]
async fn a_partition_borrows_what_is_in_no_share_and_no_more() {
    let bulkhead = divided();
    let (reads, writes) = (bulkhead.partition("reads").unwrap(), bulkhead.partition("writes").unwrap());
    assert_eq!((reads.available(), writes.available(), bulkhead.available()), (5, 4, 3));
    let held: Vec<_> = (0..5).map(|_| reads.try_acquire().unwrap()).collect();
    assert_eq!(reads.try_acquire().unwrap_err().reason, Reason::Full);
    assert_eq!(bulkhead.try_acquire().unwrap_err().reason, Reason::Full);
    let write = writes.try_acquire().unwrap();
    assert_eq!(writes.try_acquire().unwrap_err().reason, Reason::Full);
    let stats = bulkhead.stats();
    let partitions: Vec<_> = stats.partitions.iter().map(|it| (it.name.as_str(), it.share, it.in_use)).collect();
    assert_eq!(partitions, [("reads", 2, 5), ("writes", 1, 1)]);
    drop((held, write));
    assert_eq!(bulkhead.stats().in_use, 0);
    assert!(bulkhead.partition("scans").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_waits_does_not_hold_up_another() {
    let bulkhead = divided();
    let (reads, writes) = (bulkhead.partition("reads").unwrap(), bulkhead.partition("writes").unwrap());
    let held: Vec<_> = (0..5).map(|_| reads.try_acquire().unwrap()).collect();
    let mut read = pin!(reads.acquire());
    assert!(poll_now(read.as_mut()).is_pending());
    let write = writes.try_acquire().unwrap();
    let mut next_write = pin!(writes.acquire());
    assert!(poll_now(next_write.as_mut()).is_pending());
    drop(write);
    assert!(poll_now(read.as_mut()).is_pending(), "it may not have the share of the writes");
    assert!(poll_now(next_write.as_mut()).is_ready());
    drop(held);
    assert!(poll_now(read.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_request_says_which_partition_it_belongs_to() {
    let config = BulkheadConfig::new("peer", 2).partition("reads", 1).partition("writes", 1);
    let layer = BulkheadLayer::new(config).unwrap().partition(|name: &&'static str| *name).unwrap();
    let mut service = layer.layer(service_fn(|_: &'static str| pending::<Result<(), BoxError>>()));
    let _read = service.ready().await.unwrap().call("reads");
    assert_eq!(reason(service.ready().await.unwrap().call("reads").await), Reason::Full);
    assert_eq!(reason(service.ready().await.unwrap().call("scans").await), Reason::Never);
    let _write = service.ready().await.unwrap().call("writes");
    assert_eq!(layer.handle().stats().calls.in_flight, 2);
}

#[tokio::test(start_paused = true)]
async fn updates_keep_those_under_way_and_are_checked_whole() {
    let bulkhead = divided();
    let config = bulkhead.config();
    for (field, bad) in [
        ("partitions", config.clone().partition("scans", 1)),
        ("partitions", config.clone().partition("reads", 6)),
        ("waiting", BulkheadConfig { waiting: Waiting::InReadiness, partitions: Vec::new(), ..config.clone() }),
        ("name", BulkheadConfig { name: "other".to_owned(), ..config.clone() }),
        ("max_in_flight", config.clone().max_in_flight(0)),
    ] {
        assert_eq!(bulkhead.update(bad).unwrap_err().field, field);
        assert_eq!(bulkhead.config(), config);
    }
    let (reads, writes) = (bulkhead.partition("reads").unwrap(), bulkhead.partition("writes").unwrap());
    let mut held: Vec<_> = (0..5).map(|_| reads.try_acquire().unwrap()).collect();
    bulkhead.update(config.partition("writes", 4)).unwrap();
    let _write = writes.try_acquire().unwrap();
    assert_eq!(writes.try_acquire().unwrap_err().reason, Reason::Full, "six are under way");
    held.pop();
    assert_eq!(reads.try_acquire().unwrap_err().reason, Reason::Full);
    let _write = writes.try_acquire().unwrap();
    assert_eq!(bulkhead.stats().in_use, 6);
}

#[tokio::test(start_paused = true)]
async fn a_run_counts_its_outcome_and_a_dropped_one_frees_its_room() {
    let bulkhead = bulkhead(BulkheadConfig::new("peer", 1));
    bulkhead.run(async { Ok::<_, BoxError>(()) }).await.unwrap();
    assert!(bulkhead.run(async { Err::<(), BoxError>("broken".into()) }).await.is_err());
    let mut dropped = Box::pin(bulkhead.run(pending::<Result<(), BoxError>>()));
    assert!(poll_now(dropped.as_mut()).is_pending());
    assert_eq!(reason(bulkhead.run(async { Ok::<_, BoxError>(()) }).await), Reason::Full);
    drop(dropped);
    let calls = bulkhead.stats().calls;
    assert_eq!((calls.ok, calls.failed, calls.neutral, calls.rejected, calls.in_flight), (1, 1, 1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn observing_and_readiness_work_as_in_the_semaphore() {
    let observed = bulkhead(BulkheadConfig::new("peer", 1).mode(Mode::Observe));
    let _both = [observed.acquire().await.unwrap(), observed.acquire().await.unwrap()];
    assert_eq!((observed.stats().calls.in_flight, observed.stats().calls.rejected), (2, 1));
    let config = BulkheadConfig::new("peer", 1).max_waiting(1).waiting(Waiting::InReadiness).order(Order::Lifo);
    let layer = BulkheadLayer::new(config).unwrap();
    let mut first = layer.layer(service_fn(|(): ()| async { Ok::<_, BoxError>(()) }));
    first.ready().await.unwrap();
    let mut second = first.clone();
    let waits = tokio::spawn(async move { second.ready().await.unwrap().call(()).await });
    advance(1_000 * MS).await;
    assert!(!waits.is_finished());
    first.call(()).await.unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(layer.partition(|(): &()| "reads").unwrap_err().field, "waiting");
}
