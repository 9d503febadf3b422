//! What our layers may cost, as ratios to a peer in the same run or as times, and whether they keep to it.

use std::fmt;

use crate::drive::{Request, Wide};
use crate::report::{Row, shown};

/// One bound on one of our figures.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// The case of ours.
    pub case: &'static str,
    /// Which figure of it.
    pub figure: Figure,
    /// The rows, by group and case, whose figures together ours is divided by; without any, the bound is a time or a count.
    pub of: &'static [(&'static str, &'static str)],
    /// The bound.
    pub at_most: f64,
}

/// A figure of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Nanoseconds per call on one thread.
    OneThread,
    /// Nanoseconds per call in each of two tasks.
    TwoThreads,
    /// Allocations per call.
    Allocations,
}

/// Every bound on the layers that are measured here.
pub const BARS: [Bar; 34] = [
    // Three allocations, two locks and four readings of the clock are not needed to count a call.
    one_thread("circuit_breaker closed", &[("tower-resilience", "circuit_breaker closed")], 1.0 / 8.0),
    // The peer that tries hardest not to make threads wait.
    two_threads("circuit_breaker closed", &[("recloser", "circuit_breaker closed")], 1.0),
    // Two readings of the clock are the price of knowing what is slow.
    one_thread("circuit_breaker closed slow calls", &[("tower-resilience", "circuit_breaker closed slow calls")], 0.4),
    one_thread("circuit_breaker time window", &[], 100.0),
    // Refusing is what a breaker is for: it must cost less than whatever it protects.
    one_thread("circuit_breaker open", &[("tower-resilience", "circuit_breaker open")], 0.5),
    one_thread("circuit_breaker open", &[], 100.0),
    one_thread("retry", &[("tower", "retry")], 0.75),
    one_thread("timeout", &[("tower", "timeout")], 0.75),
    // What the names, the counts and the refusals of ours may add.
    one_thread("semaphore", &[("tower", "semaphore")], 1.2),
    two_threads("semaphore", &[("tower", "semaphore")], 1.0),
    one_thread("bulkhead", &[("tower", "bulkhead")], 1.2),
    two_threads("bulkhead", &[("tower", "bulkhead")], 1.0),
    // Refusing is for when there is no time to lose.
    one_thread("semaphore full", &[], 100.0),
    one_thread("bulkhead full", &[], 100.0),
    // The same algorithm, which reads a clock of its own; ours has an account of its calls besides.
    one_thread("token_bucket", &[("governor", "check"), ("baseline", "Instant::now")], 1.5),
    // Where a window is wanted and not a rate, it may cost twice as much.
    one_thread("sliding_window", &[("seawall", "token_bucket")], 2.0),
    allocations("circuit_breaker closed", 0.0),
    allocations("circuit_breaker closed slow calls", 0.0),
    allocations("circuit_breaker time window", 0.0),
    // The boxed error.
    allocations("circuit_breaker open", 1.0),
    allocations("retry", 0.0),
    allocations("timeout", 0.0),
    allocations("semaphore", 0.0),
    allocations("semaphore full", 1.0),
    allocations("bulkhead", 0.0),
    allocations("bulkhead full", 1.0),
    allocations("token_bucket", 0.0),
    allocations("token_bucket limited", 1.0),
    allocations("sliding_window", 0.0),
    allocations("sliding_window log", 0.0),
    allocations("sliding_window limited", 1.0),
    allocations("keyed token_bucket", 0.0),
    allocations("keyed sliding_window", 0.0),
    allocations("keyed limited", 1.0),
];

const fn one_thread(case: &'static str, of: &'static [(&'static str, &'static str)], at_most: f64) -> Bar {
    Bar { case, figure: Figure::OneThread, of, at_most }
}

const fn two_threads(case: &'static str, of: &'static [(&'static str, &'static str)], at_most: f64) -> Bar {
    Bar { case, figure: Figure::TwoThreads, of, at_most }
}

const fn allocations(case: &'static str, at_most: f64) -> Bar {
    Bar { case, figure: Figure::Allocations, of: &[], at_most }
}

/// A [`Bar`] beside what was measured.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The bound.
    pub bar: Bar,
    /// The case, with the size of its request.
    pub case: String,
    /// Our figure, divided by the peers' if there are any; none if one of them is missing.
    pub measured: Option<f64>,
}

impl Verdict {
    /// Whether ours is within the bound, if that was measured.
    pub fn is_met(&self) -> Option<bool> {
        self.measured.map(|measured| measured <= self.bar.at_most)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { figure, of, at_most, .. } = self.bar;
        let figure = match figure {
            Figure::OneThread => "ns",
            Figure::TwoThreads => "ns, 2 threads",
            Figure::Allocations => "allocations",
        };
        let of = match of {
            [] => String::new(),
            // Of the same case, which is named already, unless it is another.
            [(group, case)] if *case == self.bar.case => format!("of {group}"),
            several => {
                let rows: Vec<_> = several.iter().map(|(group, case)| format!("{group} {case}")).collect();
                format!("of {}", rows.join(" + "))
            }
        };
        let met = match self.is_met() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        let (case, measured) = (&self.case, shown(self.measured, 3));
        write!(f, "{case:<40} {figure:<14} {measured:>8} {of:<22} at most {at_most:<6.3} {met}")
    }
}

/// Every [bound](BARS) whose rows are there, for both sizes of the request.
pub fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let find = |group: &str, case: &str| rows.iter().find(|row| row.group == group && row.case == case);
    let judge = |bar: &Bar, suffix: &str| {
        let case = format!("{}{suffix}", bar.case);
        let ours = find("seawall", &case)?;
        // What takes no request has one row for both sizes.
        let peer =
            |&(group, case): &(&str, &str)| find(group, &format!("{case}{suffix}")).or_else(|| find(group, case));
        let peers = bar.of.iter().map(peer).collect::<Option<Vec<&Row>>>()?;
        let unit = if peers.is_empty() { Some(1.0) } else { peers.iter().map(|peer| bar.figure.of(peer)).sum() };
        let measured = bar.figure.of(ours).zip(unit).map(|(ours, unit)| ours / unit);
        Some(Verdict { bar: *bar, case, measured })
    };
    let sizes = [u64::SUFFIX, Wide::SUFFIX];
    sizes.iter().flat_map(|suffix| BARS.iter().filter_map(move |bar| judge(bar, suffix))).collect()
}

impl Figure {
    fn of(self, row: &Row) -> Option<f64> {
        match self {
            Self::OneThread => row.ns,
            Self::TwoThreads => row.ns_2threads,
            Self::Allocations => Some(row.allocs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: Bar = two_threads("semaphore", &[("tower", "semaphore")], 1.0);

    fn row(group: &'static str, ns_2threads: Option<f64>) -> Row {
        Row { group, case: "semaphore".to_owned(), ns: Some(30.0), ns_2threads, allocs: 0.0, bytes_per_key: None }
    }

    fn verdict(ours: Option<f64>, tower: Option<f64>) -> Verdict {
        let verdicts = verdicts(&[row("seawall", ours), row("tower", tower)]);
        verdicts.into_iter().find(|it| (it.bar.case, it.bar.figure) == (BAR.case, BAR.figure)).unwrap()
    }

    #[test]
    fn a_bar_is_met_up_to_its_bound() {
        assert_eq!(verdict(Some(50.0), Some(100.0)).is_met(), Some(true));
        assert_eq!(verdict(Some(100.0), Some(100.0)).is_met(), Some(true));
        let over = verdict(Some(101.0), Some(100.0));
        assert_eq!((over.measured, over.is_met()), (Some(1.01), Some(false)));
        assert!(over.to_string().ends_with("NOT MET"), "{over}");
    }

    #[test]
    fn a_bar_without_its_figures_is_neither_met_nor_not() {
        for (ours, tower) in [(None, Some(100.0)), (Some(50.0), None), (None, None)] {
            let verdict = verdict(ours, tower);
            assert_eq!((verdict.measured, verdict.is_met()), (None, None));
            assert!(verdict.to_string().ends_with("not measured"), "{verdict}");
        }
    }

    #[test]
    fn a_bar_without_its_rows_is_left_out() {
        assert!(verdicts(&[row("tower", Some(1.0))]).is_empty());
        let judged = verdicts(&[row("seawall", Some(1.0))]);
        assert!(judged.iter().all(|it| it.bar.of.is_empty()), "{judged:?}");
    }
}
