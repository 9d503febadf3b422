//! The cores of `seawall` compiled over loom's primitives.
//!
//! The files are the product's own, mounted by path beside a [`sync`] that is loom's; nothing in the product knows.
//! The models are this crate's integration tests and run inside plain `cargo test`. [`check`] runs one; [`planted`] proves
//! that a model can fail.

// The mounted files derive serde's traits behind a feature that this crate has no use for.
#![allow(unexpected_cfgs)]

pub mod circuit_breaker;
#[path = "../../../patterns/src/counts.rs"]
pub mod counts;
#[path = "../../../patterns/src/error.rs"]
pub mod error;
pub mod keyed;
#[path = "../../../patterns/src/mode.rs"]
pub mod mode;
pub mod retry;
pub mod semaphore;
pub mod sliding_window;
#[path = "../../../patterns/src/striped.rs"]
pub mod striped;
pub mod sync;
pub mod token_bucket;
#[path = "../../../patterns/src/waiters.rs"]
pub mod waiters;

mod model;

pub use model::{Threads, check, planted};
