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
    pub ns: Option<f64>,
    /// Nanoseconds per call in each of two tasks that run at the same time: the median of the repetitions in which they
    /// did.
    pub ns_2threads: Option<f64>,
    /// Heap allocations per call.
    pub allocs: f64,
    /// Bytes held for each key, where there are keys.
    pub bytes_per_key: Option<f64>,
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
            two.extend(case.time_two(&runtimes)?);
        }
    }
    let rows = cases.iter().zip(figures).map(|(case, (one, two))| {
        Ok(Row {
            group: case.group,
            case: case.case.clone(),
            ns: median(one),
            ns_2threads: median(two),
            allocs: case.allocations(&runtimes)?,
            bytes_per_key: case.bytes_per_key()?,
        })
    });
    rows.collect()
}

/// The rows, then how ours compare with what they may cost.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<17} {:<40} {:>10} {:>13} {:>12} {:>10}\n",
        "group", "case", "ns/call", "ns, 2 threads", "allocs/call", "bytes/key"
    );
    for Row { group, case, ns, ns_2threads, allocs, bytes_per_key } in rows {
        let (ns, ns_2threads, bytes) = (shown(*ns, 1), shown(*ns_2threads, 1), shown(*bytes_per_key, 1));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{group:<17} {case:<40} {ns:>10} {ns_2threads:>13} {allocs:>12.2} {bytes:>10}");
    }
    text.push_str("\nseawall against its bars in this run:\n");
    for verdict in verdicts(rows) {
        let _ = writeln!(text, "{verdict}");
    }
    text
}

/// A figure with so many decimals, or a dash for none.
pub(crate) fn shown(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.decimals$}"))
}

/// The middle one, to a hundredth; none if there is none.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).map(|median| (median * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_what_there_is() {
        assert_eq!(median(vec![9.0, 1.0, 2.004]), Some(2.0));
        assert_eq!(median(vec![9.0]), Some(9.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_missing_figure_is_a_dash_in_the_table_and_null_in_the_file() {
        let row = Row {
            group: "tower",
            case: "semaphore".to_owned(),
            ns: Some(12.34),
            ns_2threads: None,
            allocs: 0.0,
            bytes_per_key: None,
        };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!((json["ns"].as_f64(), json["ns_2threads"].is_null()), (Some(12.34), true));
        let table = table(&[row]);
        let line = table.lines().nth(1).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["tower", "semaphore", "12.3", "-", "0.00", "-"]);
    }
}
