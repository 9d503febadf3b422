//! Runs a model to the end, and proves that it can fail.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::{BUG, Bug};

/// How many threads a model has, the main one included; sets how far loom explores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Every interleaving.
    Two,
    /// Every interleaving with at most three preemptions: all known bugs of this size need fewer, and without a bound
    /// three threads take minutes.
    Three,
    /// Every interleaving with at most two preemptions.
    Four,
}

/// Explores `model` completely and writes the number of interleavings to standard error.
///
/// # Panics
/// If the model fails in one of them, if fewer than `at_least` were explored (its threads do not contend), or if the
/// environment caps the exploration: a capped one ends green and proves nothing.
pub fn check(name: &str, threads: Threads, at_least: u64, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match threads {
        Threads::Two => None,
        Threads::Three => Some(3),
        Threads::Four => Some(2),
    };
    builder.max_branches = 10_000;
    assert!(
        builder.max_duration.is_none() && builder.max_permutations.is_none() && builder.checkpoint_file.is_none(),
        "LOOM_MAX_DURATION, LOOM_MAX_PERMUTATIONS and LOOM_CHECKPOINT_FILE must be unset"
    );
    let interleavings = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&interleavings);
    builder.check(move || {
        // ORDERING: Relaxed, a count that loom does not see and that is read after all threads have ended.
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    // ORDERING: Relaxed, as above.
    let explored = interleavings.load(Ordering::Relaxed);
    // Written directly: the test harness captures what the print macros write.
    let _ = writeln!(std::io::stderr(), "loom: {name}: {explored} interleavings");
    assert!(
        explored >= at_least,
        "{name}: only {explored} interleavings, expected {at_least}: the threads do not contend"
    );
}

/// Runs the test `name` of this binary again with `bug` planted, and demands that it fails saying `message`.
///
/// Another process, because a deadlock found by loom unwinds through guards and aborts.
///
/// # Panics
/// If the test passed or failed in another way.
pub fn planted(bug: Bug, name: &str, message: &str) {
    let binary = std::env::current_exe().unwrap_or_default();
    let output = Command::new(binary).args(["--exact", name, "--nocapture"]).env(BUG, format!("{bug:?}")).output();
    let Ok(output) = output else { return assert!(output.is_ok(), "cannot run this binary again: {output:?}") };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("running 1 test"), "{name} is not a test of this binary:\n{said}");
    assert!(!output.status.success(), "{name} does not see {bug:?}:\n{said}");
    assert!(said.contains(message), "{name} fails under {bug:?}, but does not say {message:?}:\n{said}");
}
