//! A builder of the crate `backon` supplies the delays of a retry; attempts, budget and deadline stay with the layer.
//!
//! `cargo run -p seawall --features backon --example retry_with_backon`

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use seawall::{BoxError, RetryConfig, RetryErrors, RetryLayer, Transient, adapters};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread", start_paused = true)] // A paused clock: the waits take no time here.
async fn main() -> Result<(), BoxError> {
    let policy = backon::ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_jitter();
    let retry = RetryLayer::new(RetryConfig::new("inventory").max_attempts(5), RetryErrors::all_idempotent())?
        .delays(adapters::backon::delays(policy));

    // A peer that is busy twice.
    let calls = AtomicU32::new(0);
    let mut inventory = ServiceBuilder::new().layer(retry.clone()).service(service_fn(|sku: u32| {
        let busy = calls.fetch_add(1, Ordering::Relaxed) < 2;
        async move { if busy { Err(BoxError::from(Transient::new("busy"))) } else { Ok(sku * 2) } }
    }));

    let (answer, report) = inventory.ready().await?.call(21).reported().await;
    assert_eq!(answer?, 42);
    assert_eq!(report.attempts, 3);
    // 100 ms and 200 ms, each with up to as much again on top.
    assert!((Duration::from_millis(300)..=Duration::from_millis(602)).contains(&report.elapsed));
    println!("answered after {} attempts in {:?}; {:?}", report.attempts, report.elapsed, retry.handle().stats());
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("every answer is as it says");
}
