//! Bounds how long a call may take.
//!
//! **When.** A call may hang, and its caller has better to do than to hang with it. One layer inside the retries bounds
//! [each attempt](TimeoutConfig::attempt), another outside of them bounds the [whole call](TimeoutConfig::total).
//! **What.** A call that has not ended within the limit, or within the ambient [`Deadline`](crate::Deadline) where that is
//! tighter, is dropped and ends with [`Elapsed`](crate::Elapsed), which says whose limit it was. What is below sees the
//! limit as its ambient deadline. A call whose deadline has passed already is refused and not made.
//! **How.** The inner future is polled first, so a result that is there wins over the timer; only when it is pending for the
//! first time is a timer made. The time starts at `call`: waiting in `poll_ready` is not counted.
//!
//! ```
//! use std::time::Duration;
//! use seawall::{BoxError, Elapsed, Limit, TimeoutConfig, TimeoutLayer, find};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let timeout = TimeoutLayer::new(TimeoutConfig::attempt("peer", Duration::from_millis(100)))?;
//! let mut peer = ServiceBuilder::new().layer(timeout.clone()).service(service_fn(|wait_millis: u64| async move {
//!     tokio::time::sleep(Duration::from_millis(wait_millis)).await;
//!     Ok::<_, BoxError>("answer")
//! }));
//!
//! assert_eq!(peer.ready().await?.call(50).await?, "answer");
//! let error = peer.ready().await?.call(5000).await.unwrap_err();
//! assert_eq!(find::<Elapsed>(&*error).unwrap().limit, Limit::Attempt);
//! assert_eq!(timeout.handle().stats().elapsed, 1);
//! # Ok::<_, BoxError>(())
//! # }).unwrap();
//! ```

mod config;
mod handle;
mod layer;
mod service;

mod future;
#[cfg(test)]
mod tests;

pub use self::{
    config::*,
    future::ResponseFuture,
    handle::{TimeoutHandle, TimeoutStats},
    layer::TimeoutLayer,
    service::Timeout,
};
