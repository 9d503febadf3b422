//! The points as text, as CSV, and as a verdict.

use std::fmt;

use crate::BoxError;
use crate::overload::limits::REFUSING;
use crate::overload::load::Point;

/// The share of the best goodput that the refusing bulkhead keeps under the greatest load.
pub const AT_LEAST: f64 = 0.8;

/// One row per point, with a header.
///
/// # Errors
/// None that is known; writing to memory does not fail.
pub fn csv(points: &[Point]) -> Result<Vec<u8>, BoxError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for point in points {
        writer.serialize(point)?;
    }
    Ok(writer.into_inner()?)
}

/// One line per point, with a header.
pub fn table(points: &[Point]) -> String {
    let header = format!(
        "{:<17} {:>5} {:>9} {:>9} {:>8} {:>9} {:>7} {:>7} {:>7}\n",
        "limit", "load", "offered/s", "goodput/s", "p50 s", "p99 s", "in time", "late", "refused"
    );
    header + &points.iter().map(|point| format!("{point}\n")).collect::<String>()
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, load, offered_per_s, goodput_per_s, in_time, late, refused, reasons, .. } = self;
        let time = |time: Option<f64>, at_least| match time {
            Some(time) => format!("{}{time:.3}", if at_least { ">" } else { "" }),
            None => "-".to_owned(),
        };
        let (p50, p99) = (time(self.p50_s, self.p50_at_least), time(self.p99_s, self.p99_at_least));
        write!(
            f,
            "{limit:<17} {load:>4}x {offered_per_s:>9.1} {goodput_per_s:>9.1} {p50:>8} {p99:>9} {in_time:>7} {late:>7} \
             {refused:>7} {reasons}"
        )
    }
}

/// Whether the bulkhead that refuses at once does what it is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The greatest load.
    pub load: f64,
    /// Its goodput there.
    pub goodput_per_s: f64,
    /// The best goodput of any limit at any load.
    pub peak_per_s: f64,
}

impl Verdict {
    /// The refusing bulkhead's; `None` without a point of it.
    pub fn of(points: &[Point]) -> Option<Self> {
        let refusing = points.iter().filter(|point| point.limit == REFUSING);
        let heaviest = refusing.max_by(|a, b| a.load.total_cmp(&b.load))?;
        let peak_per_s = points.iter().map(|point| point.goodput_per_s).fold(0.0, f64::max);
        Some(Self { load: heaviest.load, goodput_per_s: heaviest.goodput_per_s, peak_per_s })
    }

    /// Whether [enough](AT_LEAST) of the peak is left.
    pub fn holds(&self) -> bool {
        self.goodput_per_s >= AT_LEAST * self.peak_per_s
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, goodput_per_s, peak_per_s } = self;
        let (share, bar) = (100.0 * goodput_per_s / peak_per_s, 100.0 * AT_LEAST);
        let met = if self.holds() { "met" } else { "NOT MET" };
        write!(
            f,
            "{REFUSING} at {load}x: {goodput_per_s:.1}/s, {share:.1} % of the peak of {peak_per_s:.1}/s; at least {bar} %: {met}"
        )
    }
}
