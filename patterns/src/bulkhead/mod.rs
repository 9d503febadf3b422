//! Bounds how much of us one dependency can hold, so that it cannot sink the others.
//!
//! **When.** A slow peer keeps every task that calls it. Without a wall all tasks end up there, and calls to healthy peers
//! fail too. To stop calling a peer that fails, see a [circuit breaker](crate::circuit_breaker); to share something scarce
//! among callers who would rather wait, a [semaphore](crate::semaphore).
//! **What.** At most `max_in_flight` calls are under way. The next is refused at once, or waits where `max_waiting` lets
//! it, for `max_wait` at most. Partitions divide the room among kinds of requests: each has a share that nobody else
//! takes, and borrows what is in no share.
//! **How.** M. Nygard, *Release It!* (2007), over the permits of the [semaphore](crate::semaphore). Without partitions a
//! call costs one exchange and one subtraction on one word, and so does finding it full. With partitions each takes a short
//! lock.
//!
//! ```
//! use seawall::{BulkheadConfig, BulkheadHandle, BulkheadLayer, Reason, Rejected};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let layer = BulkheadLayer::new(BulkheadConfig::new("search", 1))?;
//! let mut search = layer.layer(service_fn(|words: &'static str| async move { Ok::<_, std::io::Error>(words.len()) }));
//! let under_way = search.ready().await?.call("walls");
//! let refused = search.ready().await?.call("more").await.unwrap_err();
//! assert_eq!(Rejected::find(&*refused).unwrap().reason, Reason::Full);
//! assert_eq!(under_way.await?, 5);
//!
//! // Writes always have room for two; reads may use the other six, and no more.
//! let config = BulkheadConfig::new("peer/2", 8).partition("writes", 2);
//! let bulkhead = BulkheadHandle::new(config)?;
//! let _reads: Vec<_> = (0..6).map(|_| bulkhead.try_acquire()).collect::<Result<_, _>>()?;
//! assert_eq!(bulkhead.try_acquire().unwrap_err().reason, Reason::Full);
//! let written = bulkhead.partition("writes").unwrap().run(async { Ok::<_, std::io::Error>("written") });
//! assert_eq!(written.await?, "written");
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! ```text
//!                 max_in_flight = 8
//! ┌────────────┬──────────┬──────────────────┐   a call of `writes`: its share first, then the rest
//! │ writes  2  │ reads  3 │ in no share   3  │   a call of no partition: the rest only
//! └────────────┴──────────┴──────────────────┘   nobody has what is kept for another, even while it is idle
//!
//! ask ─► room ────────────────────────► under way ─► ends ─► the next in line, of its partition first
//!   ├──► wait in line ─► its turn ──────────▲
//!   │        └─► max_wait · deadline · closed · never (it shrank)
//!   └──► full (max_waiting is 0) · queue_full · deadline · closed · never
//! ```
//!
//! | setting | default | why |
//! |---|---|---|
//! | `max_in_flight` | none | what the dependency bears at once: its rate times its latency, and some to spare |
//! | `max_waiting` | 0 | [`DEFAULT_MAX_WAITING`] |
//! | `max_wait` | 100 ms | [`DEFAULT_MAX_WAIT`] |
//! | `order` | first come | [`Order::Fifo`](crate::semaphore::Order) |
//! | `partitions` | none | kinds of requests are the caller's |
//! | `waiting` | in the call | [`Waiting::InCall`](crate::Waiting) |
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason` as above |
//! | `seawall_in_flight`, `seawall_limit` | calls under way, and how many may be |
//! | `seawall_queue_depth`, `seawall_queue_wait_seconds` | calls in line, and how long they were |
//!
//! **Cost.** No allocation for a call that does not wait, one for what it needs until its turn if it does; a refusal allocates
//! its error.
//!
//! **Do not** share one bulkhead among dependencies: then the slowest has it all. Do not add a queue to make refusals go
//! away: when the dependency is slow it is full all the time, and only lengthens every answer.
//! **In a stack.** Inside retry and breaker, outside the timeout of the attempt: each attempt is counted while it runs.

mod config;

mod handle;
mod layer;
mod service;

mod future;
mod policy;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use self::{
    config::*,
    future::{Acquire, Permit, ResponseFuture},
    handle::{BulkheadHandle, BulkheadStats, PartitionStats},
    layer::BulkheadLayer,
    policy::{PartitionBy, Whole},
    service::Bulkhead,
};

/// The name in metrics and refusals.
const PATTERN: &str = "bulkhead";
