//! The core of the retry budget.

#[allow(dead_code, reason = "the configuration names it; what it decides needs no model")]
#[path = "../../../patterns/src/retry/backoff.rs"]
pub mod backoff;
#[path = "../../../patterns/src/retry/budget.rs"]
pub mod budget;
#[path = "../../../patterns/src/retry/config.rs"]
pub mod config;
