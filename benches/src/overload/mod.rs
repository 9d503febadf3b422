//! What limits do for a server that gets more than it can do: goodput and the tail of its times from half to three times its
//! capacity.
//!
//! `cargo run --release -p seawall-benches --bin overload` measures four ways to run one slow server, and writes the curves as
//! `overload.svg` and `overload.csv`: without a limit, behind a bulkhead that lets some wait, behind one that refuses at once,
//! and behind a token bucket. The limits are the layers of `seawall` in tower stacks, as anyone would build them.
//!
//! # Virtual time
//!
//! Every point runs on tokio's paused clock, the one that the layers read. The whole takes seconds, other
//! programs on the machine change nothing, and one seed gives one set of curves. So they show how the layers *behave*; what
//! they *cost* is in the rest of this crate. Tokio's timers fire on whole milliseconds, which is the grain of all times here,
//! and code takes no time at all: a refusal costs the server nothing, where a real one has at least read the request.
//!
//! # The server
//!
//! It has 8 [cores](CORES). A request is [80 ms of work](MEAN_WORK) for one of them on average, exponentially
//! distributed; that makes a [capacity] of 100 requests per second. All requests under way share the cores evenly (processor
//! sharing, as threads or tasks do), and each above the number of the cores makes the work of all [0.2 % longer](DRAG): the
//! more it has taken on, the less it gets done. It takes everything that reaches it, and does not notice when a caller gives
//! up: that work is done, too, for nobody.
//!
//! # The load
//!
//! Requests come as a Poisson process, the same requests at the same times for every limit, and do not wait for the answers to
//! others (an open loop). A time counts from when its request was due, so a slow server cannot hide behind requests that came
//! late (coordinated omission). Callers wait for [one second](PATIENCE). Each request counts once: in time, late, or refused
//! with the reason that the layer gave. Goodput is what was answered in time, per second. Times are those of all requests that
//! were let in; one that still has no answer at the end counts with its age, and a quantile that falls on such a one is
//! [marked](Point::p99_at_least) as a lower bound: a queue that grows without end has no p99.

mod figure;
mod limits;
mod load;
mod server;
mod table;

pub use figure::figure;
pub use limits::{LIMITS, Limit, REFUSING};
pub use load::{PATIENCE, Plan, Point};
pub use server::{CORES, DRAG, MEAN_WORK, capacity};
pub use table::{AT_LEAST, Verdict, csv, table};
