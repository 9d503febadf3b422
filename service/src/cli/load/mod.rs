//! `load`: writes the keys and values of a file.
//!
//! The whole file is checked before the first write, so a bad line means that nothing was changed. Then lines are
//! written side by side, but those of one key in their order: the last one wins.

mod records;
mod write;

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::target::TargetArgs;
use crate::cli::{CliError, Exit};

pub(super) use records::{Kind, Source};
pub(super) use write::write;

/// The arguments of `load`.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// The file: JSON lines such as {"key":"a","value":"1"}, or CSV with the columns key,value
    file: PathBuf,

    /// How the file is written; by default as its name ends
    #[arg(long, value_enum)]
    format: Option<Kind>,

    /// How many writes are under way at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,

    #[command(flatten)]
    target: TargetArgs,
}

/// Prints how many lines were written.
pub(super) async fn run(args: LoadArgs) -> Result<Exit, CliError> {
    let client = args.target.client()?;
    let source = Source::new(args.file, args.format)?;
    let total = source.check().await?;

    let bar = bar(total);
    let stop = CancellationToken::new();
    let interrupt = tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let written = write(&client, source, usize::from(args.concurrency), &stop, |outcome| {
        if let Err((line, error)) = outcome {
            // Above the bar, where it stays; without a bar, a plain line.
            bar.suspend(|| eprintln!("seawall-kv: line {line}: {error}"));
        }
        bar.inc(1);
    });
    let report = written.await;
    interrupt.abort();
    bar.finish_and_clear();
    let report = report?;

    args.target.output().result(report.text(total), || {
        json!({
            "lines": total, "done": report.done, "not_applied": report.not_applied, "unknown": report.unknown,
            "not_sent": report.not_sent(total), "interrupted": report.interrupted,
        })
    })?;
    Ok(report.exit(total))
}

/// A bar on standard error if that is a terminal, else nothing.
fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:40} {pos}/{len} lines, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
