//! A replicated key-value service whose peer clients are stacks of [`seawall`] layers.
//!
//! ```text
//!   clients ──► api ──► coordinator ──► consensus ──► peer ──► transport ──► other nodes
//!                            │              │           ▲
//!                            └── topology ──┴─ storage  └── seawall layers, one stack per node and lane
//! ```
//!
//! [`node`] builds the parts and owns start and stop; [`client`] is what a program links; [`cli`] is the binary.

pub mod api;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod consensus;
pub mod coordinator;
pub mod node;
pub mod peer;
pub mod storage;
pub mod telemetry;
pub mod topology;
pub mod transport;

pub use client::Client;
