//! A replicated key-value service whose peer clients are stacks of [`seawall`] layers.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod peer;
pub mod storage;
pub mod telemetry;
pub mod transport;

pub use client::Client;
