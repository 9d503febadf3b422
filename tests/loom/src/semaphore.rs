//! The core of the semaphore and the bulkhead.

#[path = "../../../patterns/src/semaphore/config.rs"]
pub mod config;
#[path = "../../../patterns/src/semaphore/permits.rs"]
pub mod permits;
