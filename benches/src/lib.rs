//! What each layer costs: calls through a layer over a service that is always ready, in time and in allocations.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// The crate that the layer comes from.
    pub group: &'static str,
    /// The layer and its variant.
    pub case: &'static str,
    /// Nanoseconds per call: the median of the repetitions.
    pub ns: f64,
    /// Heap allocations per call.
    pub allocs: f64,
}

/// Calls per repetition: long enough that the clock's own cost vanishes.
const CALLS: u32 = 200_000;
/// Repetitions; the median is reported.
pub const REPETITIONS: usize = 7;

/// A service that answers at once: what is left when the layers are taken away.
pub fn inner() -> impl Service<u64, Response = u64, Error = BoxError, Future: Send> + Clone + Send {
    tower::service_fn(|request: u64| std::future::ready(Ok::<_, BoxError>(black_box(request))))
}

/// The error of the measured services.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Drives `service` and times it. The service is built by the caller, outside of the timed loop; every answer is
/// checked.
pub async fn time_once<S>(service: &mut S) -> f64
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    let start = now();
    for request in 0..u64::from(CALLS) {
        call(service, request).await;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

/// Allocations per call, over a thousand calls after a warm-up.
pub fn allocations<S>(runtime: &tokio::runtime::Runtime, service: &mut S) -> f64
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    const COUNTED: u64 = 1000;
    let drive = |service: &mut S| {
        runtime.block_on(async {
            for request in 0..COUNTED {
                call(service, request).await;
            }
        });
    };
    drive(service);
    // The runtime's own work for a `block_on` is the same whatever runs in it.
    let idle = allocation_counter::measure(|| runtime.block_on(async {})).count_total;
    let counted = allocation_counter::measure(|| drive(service)).count_total;
    counted.saturating_sub(idle) as f64 / COUNTED as f64
}

async fn call<S>(service: &mut S, request: u64)
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    let answer: Result<u64, S::Error> = async { service.ready().await?.call(request).await }.await;
    assert!(answer.is_ok_and(|answer| answer == request), "the layer changed the answer");
}

/// The middle one of the repetitions.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Runs `future` on a runtime of one thread with a timer.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds per reading of the clock, for comparison.
pub fn clock_cost() -> f64 {
    let start = now();
    for _ in 0..CALLS {
        black_box(now());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

/// A limit that never fires during a measurement.
pub const NEVER: Duration = Duration::from_secs(3600);
