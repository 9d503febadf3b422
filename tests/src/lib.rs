//! What the tests of whole clusters share: real processes, raw HTTP, bounded waiting.
//!
//! Everything binds loopback only, waits with a bound, and ends the processes it started by their ids.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its harness too"
)]

mod cluster;
mod http;
mod ports;
pub mod probe;
mod program;
mod wait;

pub use cluster::{Cluster, Status};
pub use http::{Answer, Request, SendError, Write};
pub use ports::free_port;
pub use program::{Output, Process, binary, run, say, snapshot_of};
pub use wait::{Stopwatch, eventually};
