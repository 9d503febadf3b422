//! Shows what limits do for an overloaded server, as curves. What is measured is in the documentation of the library, under
//! `overload`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use seawall_benches::BoxError;
use seawall_benches::overload::{Plan, Point, Verdict, csv, figure, table};
use tokio::runtime::Builder;
use tokio::signal::ctrl_c;
use tokio::task::spawn_blocking;

/// Drives a slow server at 0.5 to 3 times its capacity, with several limits and with none, and writes the curves.
///
/// Writes overload.svg and overload.csv. All times are virtual: the whole takes seconds, and the curves
/// are the same on a busy machine. Exits with 0 if the bulkhead that refuses keeps at least 80 % of the best goodput at the
/// greatest load, with 1 if it does not, with 2 if an argument is wrong, with 3 if something else fails, and with 130 when
/// interrupted, in which case nothing is written.
#[derive(Debug, Parser)]
#[command(name = "overload")]
struct Options {
    /// The folder for overload.svg and overload.csv; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "target/overload")]
    out: PathBuf,
    /// Seconds of virtual time for which requests are counted at each point [default: 60, with --quick 20]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(5..=600))]
    seconds_per_point: Option<u32>,
    /// Four loads in place of eleven
    #[arg(long)]
    quick: bool,
    /// Decides when requests come and how much work each is
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl Options {
    fn plan(&self) -> Plan {
        let mut plan = if self.quick { Plan::quick() } else { Plan::full() };
        plan.seed = self.seed;
        if let Some(seconds) = self.seconds_per_point {
            plan.counted = Duration::from_secs(seconds.into());
        }
        plan
    }
}

const DONE: u8 = 0;
const NOT_MET: u8 = 1;
const USAGE: u8 = 2;
const FAILED: u8 = 3;
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    // Before anything is measured: it would be lost.
    if let Err(error) = fs::create_dir_all(&options.out) {
        eprintln!("error: --out {}: {error}", options.out.display());
        return ExitCode::from(USAGE);
    }
    match run(&options) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(options: &Options) -> Result<u8, BoxError> {
    let plan = options.plan();
    let Some(points) = measure(plan.clone())? else {
        eprintln!("interrupted: nothing was written");
        return Ok(INTERRUPTED);
    };
    let svg = write(&options.out, "overload.svg", figure(&points, &plan)?.as_bytes())?;
    let csv = write(&options.out, "overload.csv", &csv(&points)?)?;
    let verdict = Verdict::of(&points).ok_or("no point of the refusing bulkhead")?;
    say(&format!("{}\n{verdict}\n{}\n{}\n", table(&points), svg.display(), csv.display()))?;
    Ok(if verdict.holds() { DONE } else { NOT_MET })
}

/// The points, or `None` if there was a Ctrl-C. That is waited for in real time, while a thread of its own measures in
/// virtual time.
fn measure(plan: Plan) -> Result<Option<Vec<Point>>, BoxError> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let measured = async { spawn_blocking(move || plan.run(&stopped, progress(plan.points()))).await? };
        let mut measured = pin!(measured);
        tokio::select! {
            biased; // the signal is caught before the thread starts
            Ok(()) = ctrl_c() => {
                // ORDERING: Relaxed, a wish to stop: nothing else is read because of it.
                stop.store(true, Ordering::Relaxed);
                measured.await
            }
            points = &mut measured => points,
        }
    })
}

/// Shows each point on stderr: on a terminal in one line, elsewhere in a line each.
fn progress(points: usize) -> impl FnMut(&Point) {
    let (from, to) = if io::stderr().is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
    let mut done = 0;
    move |point| {
        done += 1;
        let Point { limit, load, goodput_per_s, .. } = point;
        let to = if done == points { "\n" } else { to };
        eprint!("{from}[{done:>2}/{points}] {limit} at {load} x: goodput {goodput_per_s:.1}/s{to}");
    }
}

/// Writes under another name first: who finds the file finds all of it.
fn write(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf, BoxError> {
    let (path, unfinished) = (folder.join(name), folder.join(format!("{name}.part")));
    let named = |error: io::Error| format!("--out: {}: {error}", path.display());
    fs::write(&unfinished, content).map_err(named)?;
    fs::rename(&unfinished, &path).map_err(named)?;
    Ok(path)
}

/// A reader that has seen enough is no failure.
fn say(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
