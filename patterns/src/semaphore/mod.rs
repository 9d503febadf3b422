//! Lets only so many run at once; the others wait for their turn.
//!
//! **When.** Something bears so much at once and no more: a pool of connections, memory, processors. To isolate one
//! dependency from the others, see a bulkhead; to limit a rate, a token bucket.
//! **What.** There are `limit` permits. A call takes one, or as many as its request costs, and gives them back when it
//! ends. Where too few are free it waits in line, first come, first served; the line and each wait are bounded.
//! **How.** E. W. Dijkstra's semaphore (EWD 35, 1962) with weights, a line, and a limit that can change. While nobody
//! waits it is one atomic word; behind it the line stands under a mutex, and a permit that comes back is handed to whoever
//! is next, not thrown among those who happen to run.
//!
//! ```
//! use seawall::{Reason, Rejected, SemaphoreConfig, SemaphoreHandle};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let semaphore = SemaphoreHandle::new(SemaphoreConfig::new("thumbnails", 2))?;
//! let (first, _second) = (semaphore.try_acquire()?, semaphore.try_acquire()?);
//! assert_eq!(semaphore.try_acquire().unwrap_err().reason, Reason::Full);
//!
//! let third = semaphore.acquire();
//! drop(first);
//! let _third = third.await?;
//! assert_eq!(semaphore.acquire_many(3).await.unwrap_err().reason, Reason::Never);
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! As a layer, with a cost for each request:
//!
//! ```
//! use seawall::{SemaphoreConfig, SemaphoreLayer};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let layer = SemaphoreLayer::new(SemaphoreConfig::new("resize", 64))?.cost(|image: &Vec<u8>| image.len() as u32)?;
//! let mut resize = layer.layer(service_fn(|image: Vec<u8>| async move { Ok::<_, std::io::Error>(image.len()) }));
//! assert_eq!(resize.ready().await?.call(vec![0; 48]).await?, 48);
//! assert_eq!(layer.handle().stats().calls.ok, 1);
//! # Ok::<_, seawall::BoxError>(())
//! # }).unwrap();
//! ```
//!
//! ```text
//! ask ─► free, and nobody waits ─────────────► has permits ─► gives them back ─► next in line has them
//!   │                                              ▲
//!   ├─► wait in line ─► its turn ──────────────────┘
//!   │        └─► max_wait · deadline · closed · never (the limit shrank)
//!   └─► full (max_waiting is 0) · queue_full · deadline · closed · never
//! ```
//!
//! | setting | default | why |
//! |---|---|---|
//! | `limit` | none | only the owner knows what is behind it |
//! | `order` | [`Order::Fifo`] | [`DEFAULT_ORDER`] |
//! | `max_waiting` | 1024 | [`DEFAULT_MAX_WAITING`] |
//! | `max_wait` | 1 s | [`DEFAULT_MAX_WAIT`] |
//! | `waiting` | in the call | [`Waiting::InCall`](crate::Waiting) |
//!
//! | metric | what |
//! |---|---|
//! | `seawall_calls_total` | by outcome; rejected ones by `reason` as above |
//! | `seawall_in_flight`, `seawall_limit` | calls under way, permits there are |
//! | `seawall_queue_depth`, `seawall_queue_wait_seconds` | calls in line, and how long they were |
//!
//! **Cost.** A call that does not wait: no allocation, no reading of the clock, one exchange and one subtraction on the
//! word besides its counters. A call that waits allocates once, for what it needs until its turn; a plain
//! [`acquire`](SemaphoreHandle::acquire), never; a refusal, its error.
//!
//! **Do not** hold a permit while you wait for another of the same semaphore: that ends in `max_wait` at best. Do not set a
//! long queue to cure slowness: a queue that does not drain only adds its length to every answer.
//! **In a stack.** Inside a retry, so that a call that waits for its next attempt holds nothing. Under a balancer, set
//! [`Waiting::InReadiness`](crate::Waiting): an endpoint that refuses at once looks like the fastest.

mod config;

mod permits;

mod handle;
mod room;

mod layer;
mod service;

mod future;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::permits::Permits;
pub(crate) use self::{
    config::check_waiting,
    future::Place,
    permits::{Rules, Units},
    room::Room,
};
pub use self::{
    config::*,
    future::{Acquire, Permit, ResponseFuture},
    handle::{SemaphoreHandle, SemaphoreStats},
    layer::SemaphoreLayer,
    service::Semaphore,
};
pub use crate::admission::{Cost, OneUnit};

/// The name in metrics and refusals.
const PATTERN: &str = "semaphore";
