//! The core of the limits for each key.

#[path = "../../../patterns/src/keyed/keys.rs"]
pub mod keys;
#[path = "../../../patterns/src/keyed/limit.rs"]
pub mod limit;
#[path = "../../../patterns/src/keyed/table.rs"]
pub mod table;
