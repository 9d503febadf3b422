//! `cargo bench`: the table of what each layer costs per call, from as few repetitions as give a median worth its name.
//! What the figures mean, and what they do not show, is in the documentation of the library.

use seawall_benches::{BoxError, cases, measure, table};

/// A quick look: the whole table in less than a minute, on a busy machine too.
const REPETITIONS: usize = 3;

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn main() -> Result<(), BoxError> {
    print!("{}", table(&measure(&cases(), REPETITIONS)?));
    Ok(())
}
