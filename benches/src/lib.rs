//! What each layer costs, beside its peers: nanoseconds and heap allocations per call.
//!
//! `cargo run --release -p seawall-benches --bin layers -- --json layers.json` measures and writes, `cargo bench -p
//! seawall-benches` prints the same table from fewer repetitions. Both are this library. What limits do for a server that
//! has too much to do is in [`overload`].
//!
//! # How it is measured
//!
//! A call is: make the request, wait for readiness, call, await the answer, check it. The service below the layer
//! [answers at once](Echo), and its row `inner service alone` is what the driving itself costs: it is in every other row,
//! and nothing is subtracted. Each repetition makes a fresh layer and warms it up outside of the timed loop. The peers take
//! turns within a repetition, so that what disturbs the machine disturbs all of them; the median of the repetitions is
//! reported. The rows `… 256 B` send a request of that size in place of one of 8 bytes.
//!
//! A figure for two threads comes from two tasks that run at the same time on the two workers of one runtime, each with its
//! own clone of one service. It is the time that a call takes in such a task: equal to the figure for one thread if they do
//! not get in each other's way, more if they do. Where the machine let both be at work for less than half of the time, again
//! and again, there is no figure: a dash in the table, `null` in the file, and a bar that needs it is not measured.
//!
//! The limits of each key know 100,000 keys, numbers of 8 bytes, before the first call, and are asked for all of them in a
//! shuffled order; governor's `check_key` too, in the map that it has by default. `bytes/key` is what they hold then, by the
//! count of the allocator. That it stays so however many keys come is in `tests/memory.rs`.
//!
//! Breakers count over 100 calls or 10 seconds and trip at half. Peers are built as lean as they can be, and so is Seawall,
//! without metrics and logs. That holds for builds of this package alone (`-p seawall-benches`): in a build of the whole
//! workspace cargo gives Seawall the features that the service asks for.
//!
//! # What the figures do not show
//!
//! - A real service: one that takes time, waits for readiness or answers after several polls. Timers that are armed only
//!   when an answer is late cost nothing here.
//! - Failures, retries and the change of a breaker's state; keys that are new or forgotten.
//! - More than two threads, and what two tasks do to each other that call once in a while and not in a tight loop. A loop on
//!   one lock is the worst case for a mutex, and it is what the figures for two threads show.
//! - Quiet, where there is none: other programs on the machine show in every figure, most in those for two threads, which
//!   need both processors at the same time. The ratios of one run suffer less than its times.
//! - The tail: a median hides what one call in a hundred takes.
//! - Metrics and logs.
//! - What a layer does besides. governor's `check` and `check_key` stand by themselves, with no service below and no
//!   account; tower's `Retry` reads the clock and takes its budget's lock once a call, as ours reads it once, but has no
//!   account of its calls, backon no budget; recloser and failsafe know neither slow calls nor cancelled ones;
//!   failsafe's `circuit_breaker closed` counts failures in a row, since it has a rate over time only. tower-resilience's
//!   window over calls does not slide (`tests/peers.rs`).
//! - tower-resilience's bulkhead waits for a timer before it refuses, at least a millisecond: `bulkhead full`, from few calls.
//! - `tower-resilience` over a time window goes through all calls in the window at each call, so that its figure grows with
//!   their number: here some thousands, a few hundred in a second of the window.
//!
//! The allocator of this program can count. While time is taken it does not, but it asks at each allocation whether it should,
//! which a peer that allocates would not pay elsewhere.

mod bars;
mod cases;
mod drive;
pub mod overload;
mod report;

pub use bars::{BARS, Bar, Figure, Verdict, verdicts};
pub use cases::{Case, cases};
pub use drive::{Echo, Request, Runtimes, Wide};
pub use report::{Row, measure, table};

/// The error of the measured services.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
