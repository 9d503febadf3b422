//! A keyed limiter of the crate `governor` decides for each client; the layer bounds its keys, counts and refuses.
//!
//! `cargo run -p seawall --features governor --example governor_client_limit`

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;
use governor::state::keyed::DashMapStateStore;
use seawall::adapters::governor::{GovernorConfig, GovernorHandle, keyed_limiter};
use seawall::{BoxError, Reason, Rejected};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

struct Request {
    from: IpAddr,
}

#[tokio::main(flavor = "current_thread", start_paused = true)] // A paused clock: the waits take no time here.
async fn main() -> Result<(), BoxError> {
    // Two at once, and one more every 250 ms; for two clients at a time, so that the third has to wait.
    let quota = Quota::with_period(Duration::from_millis(250)).ok_or("no period")?;
    let quota = quota.allow_burst(NonZeroU32::new(2).ok_or("no burst")?);
    let limiter = Arc::new(keyed_limiter(quota, DashMapStateStore::<IpAddr>::default(), 2));
    let clients = GovernorHandle::keyed(GovernorConfig::new("clients"), Arc::clone(&limiter))?;
    let mut api = ServiceBuilder::new()
        .layer(clients.layer(|request: &Request| request.from))
        .service(service_fn(|_| async { Ok::<_, std::io::Error>("hello") }));

    let [ann, ben, eve] = [1, 2, 3].map(|host| IpAddr::from([192, 0, 2, host]));
    for from in [ann, ann, ben] {
        assert_eq!(api.ready().await?.call(Request { from }).await?, "hello");
    }
    let error = api.ready().await?.call(Request { from: ann }).await.err().ok_or("three at once")?;
    let refused = Rejected::find(&*error).ok_or("a limit answers")?;
    assert_eq!((refused.reason, refused.retry_after), (Reason::Limited, Some(Duration::from_millis(250))));
    println!("{ann}: {refused}");
    let error = api.ready().await?.call(Request { from: eve }).await.err().ok_or("a third client")?;
    let refused = Rejected::find(&*error).ok_or("a limit answers")?;
    assert_eq!(refused.reason, Reason::TooManyKeys);
    println!("{eve}: {refused}");

    tokio::time::sleep(Duration::from_secs(1)).await; // The others are idle now, and forgotten.
    assert_eq!(api.ready().await?.call(Request { from: eve }).await?, "hello");
    // The limiter is still governor's own, and others may ask it.
    assert!(limiter.check_key(&eve).is_ok());
    println!("{:?}", clients.stats());
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("every answer is as it says");
}
