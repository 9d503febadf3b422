//! A policy of the crate `backoff` supplies the delays of a retry; attempts, budget and deadline stay with the layer.
//!
//! `cargo run -p seawall --features backoff --example retry_with_backoff`

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use seawall::{BoxError, RetryConfig, RetryErrors, RetryLayer, Transient, adapters};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread", start_paused = true)] // A paused clock: the waits take no time here.
async fn main() -> Result<(), BoxError> {
    let policy = backoff::ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(100))
        .with_randomization_factor(0.5)
        .build();
    let retry = RetryLayer::new(RetryConfig::new("inventory").max_attempts(5), RetryErrors::all_idempotent())?
        .delays(adapters::backoff::delays(policy));

    // A peer that is busy twice.
    let calls = AtomicU32::new(0);
    let mut inventory = ServiceBuilder::new().layer(retry.clone()).service(service_fn(|sku: u32| {
        let busy = calls.fetch_add(1, Ordering::Relaxed) < 2;
        async move { if busy { Err(BoxError::from(Transient::new("busy"))) } else { Ok(sku * 2) } }
    }));

    let (answer, report) = inventory.ready().await?.call(21).reported().await;
    assert_eq!(answer?, 42);
    assert_eq!(report.attempts, 3);
    // 100 ms and 150 ms, each more or less its half.
    assert!((Duration::from_millis(125)..=Duration::from_millis(377)).contains(&report.elapsed));
    println!("answered after {} attempts in {:?}; {:?}", report.attempts, report.elapsed, retry.handle().stats());
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("every answer is as it says");
}
