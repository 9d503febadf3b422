//! Prints what each layer costs per call, beside its peers, and writes it as JSON. What the figures mean, and what they do
//! not show, is in the documentation of the library.

use std::fs;
use std::path::PathBuf;

use clap::Parser;
use seawall_benches::{BoxError, cases, measure, table};

/// Measures what each layer costs per call, beside its peers.
#[derive(Debug, Parser)]
#[command(name = "layers")]
struct Options {
    /// Write the rows to this file, as a JSON array of {group, case, ns, ns_2threads, allocs, bytes_per_key}; a figure that is missing is null
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Repetitions, of which the median is reported
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    repetitions: u16,
    /// Measure only rows whose group and case, with a space between, contain this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() -> Result<(), BoxError> {
    let options = Options::parse();
    let mut cases = cases();
    cases.retain(|case| format!("{} {}", case.group, case.case).contains(&options.only));
    let rows = measure(&cases, options.repetitions.into())?;
    print!("{}", table(&rows));
    if let Some(path) = options.json {
        fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    Ok(())
}
