//! Consensus as a whole: the stores under openraft's own suite, the log under damage, and clusters on a paused clock.

mod cluster;
mod harness;
mod log;
mod snapshots;
mod stores;
