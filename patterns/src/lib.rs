//! Resilience patterns for Rust services as tower layers.

mod error;

pub use error::{BoxError, Elapsed, InvalidConfig, Limit, Reason, Rejected, find};
