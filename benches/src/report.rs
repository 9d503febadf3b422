//! From repetitions to rows, and from rows to a table.

use std::fmt::Write;

use serde::Serialize;

use crate::bars::verdicts;
use crate::{BoxError, Case, Runtimes};

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The crate that the layer comes from.
    pub group: &'static str,
    /// The layer and its variant, with the size of the request if that is not 8 bytes.
    pub case: String,
    /// Nanoseconds per call: the median of the repetitions.
    pub ns: f64,
    /// Nanoseconds per call in each of two tasks that run at the same time: the median of the repetitions.
    pub ns_2threads: f64,
    /// Heap allocations per call.
    pub allocs: f64,
}

/// Measures `cases`, which take turns in each of the repetitions.
///
/// # Errors
/// A layer or a runtime cannot be made.
pub fn measure(cases: &[Case], repetitions: usize) -> Result<Vec<Row>, BoxError> {
    let runtimes = Runtimes::new()?;
    let mut figures = vec![(Vec::new(), Vec::new()); cases.len()];
    for _ in 0..repetitions {
        for (case, (one, two)) in cases.iter().zip(&mut figures) {
            one.push(case.time(&runtimes)?);
            two.push(case.time_two(&runtimes)?);
        }
    }
    let rows = cases.iter().zip(figures).map(|(case, (one, two))| {
        let (ns, ns_2threads) = (median(one), median(two));
        Ok(Row { group: case.group, case: case.case.clone(), ns, ns_2threads, allocs: case.allocations(&runtimes)? })
    });
    rows.collect()
}

/// The rows, then how ours compare with what they may cost.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{:<17} {:<40} {:>10} {:>13} {:>12}\n", "group", "case", "ns/call", "ns, 2 threads", "allocs/call");
    for Row { group, case, ns, ns_2threads, allocs } in rows {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{group:<17} {case:<40} {ns:>10.1} {ns_2threads:>13.1} {allocs:>12.2}");
    }
    text.push_str("\nseawall against its bars in this run:\n");
    for verdict in verdicts(rows) {
        let _ = writeln!(text, "{verdict}");
    }
    text
}

/// The middle one, to a hundredth; zero if there is none.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).map_or(0.0, |median| (median * 100.0).round() / 100.0)
}
