//! The core of the token bucket.

#[path = "../../../patterns/src/token_bucket/bucket.rs"]
pub mod bucket;
#[path = "../../../patterns/src/token_bucket/config.rs"]
pub mod config;
#[path = "../../../patterns/src/token_bucket/gcra.rs"]
pub mod gcra;

pub use config::Rate;
pub use gcra::{Setting, Shortage, Tat};
