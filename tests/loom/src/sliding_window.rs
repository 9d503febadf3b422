//! The core of the sliding window.

#[path = "../../../patterns/src/sliding_window/buckets.rs"]
pub mod buckets;
#[path = "../../../patterns/src/sliding_window/config.rs"]
pub mod config;
#[path = "../../../patterns/src/sliding_window/log.rs"]
pub mod log;
#[path = "../../../patterns/src/sliding_window/window.rs"]
pub mod window;

pub use config::{Algorithm, Setting, nanos};
pub use window::Counted;
