//! What a node tells the outside: structured logs and Prometheus metrics.

pub mod logs;
pub mod metrics;
pub mod raft;
