//! `cargo bench`: prints what each layer costs per call on the happy path, beside tower's own.
//!
//! What it does not show: contention between threads, refusals, waiting, metrics and logs (the layers are built
//! without them here, as in the peers' lean builds).

use seawall::{TimeoutConfig, TimeoutLayer};
use seawall_benches::{BoxError, NEVER, REPETITIONS, Row, allocations, clock_cost, inner, median, runtime, time_once};
use tower::timeout::TimeoutLayer as TowerTimeoutLayer;
use tower::{Layer, Service};

fn main() -> Result<(), BoxError> {
    let runtime = runtime()?;
    let mut cases = [
        case("baseline", "inner service alone", inner()),
        case("tower", "timeout", TowerTimeoutLayer::new(NEVER).layer(inner())),
        case("seawall", "timeout", TimeoutLayer::new(TimeoutConfig::attempt("bench", NEVER))?.layer(inner())),
    ];
    let mut rows: Vec<Row> = Vec::new();
    let mut figures = vec![Vec::new(); cases.len()];
    // Peers take turns, so that what disturbs the machine disturbs all of them.
    for _ in 0..REPETITIONS {
        for (case, figures) in cases.iter_mut().zip(&mut figures) {
            figures.push((case.time)(&runtime));
        }
    }
    for (case, figures) in cases.iter_mut().zip(figures) {
        let allocs = (case.count)(&runtime);
        rows.push(Row { group: case.group, case: case.case, ns: median(figures), allocs });
    }
    print(&rows);
    Ok(())
}

/// A layer to measure: how to time it once, and how to count its allocations.
struct Case {
    group: &'static str,
    case: &'static str,
    time: Box<dyn FnMut(&tokio::runtime::Runtime) -> f64>,
    count: Box<dyn FnMut(&tokio::runtime::Runtime) -> f64>,
}

fn case<S>(group: &'static str, case: &'static str, service: S) -> Case
where
    S: Service<u64, Response = u64> + Clone + 'static,
    S::Error: std::fmt::Debug,
{
    let (mut timed, mut counted) = (service.clone(), service);
    Case {
        group,
        case,
        time: Box::new(move |runtime| runtime.block_on(time_once(&mut timed))),
        count: Box::new(move |runtime| allocations(runtime, &mut counted)),
    }
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn print(rows: &[Row]) {
    println!("{:<10} {:<28} {:>10} {:>12}", "group", "case", "ns/call", "allocs/call");
    println!("{:<10} {:<28} {:>10.1} {:>12}", "baseline", "Instant::now", clock_cost(), "-");
    for row in rows {
        println!("{:<10} {:<28} {:>10.1} {:>12.2}", row.group, row.case, row.ns, row.allocs);
    }
    println!("\nratios of seawall to its peer in this run:");
    for ours in rows.iter().filter(|row| row.group == "seawall") {
        for peer in rows.iter().filter(|row| row.group != "seawall" && row.case == ours.case) {
            println!("{:<28} {:>6.2} x {}", ours.case, ours.ns / peer.ns, peer.group);
        }
    }
}
