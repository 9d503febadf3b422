//! The command line: one file per command, each with its `…Args` and its `run`.
//!
//! Results go to standard output, everything else to standard error. How a command ended is its exit code: see [`Exit`].

mod delete;
mod demo;
mod exit;
mod get;
mod load;
mod output;
mod put;
mod serve;
mod status;
mod target;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::{CliError, Exit};
pub use serve::{Founder, ServeArgs};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "seawall-kv", version, about = "A replicated key-value service", max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 not found or condition failed, 2 usage, 3 unavailable, 4 outcome unknown."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node of a cluster
    Serve(serve::ServeArgs),
    /// Start a cluster on this machine to try things out
    Demo(demo::DemoArgs),
    /// Read a key
    Get(get::GetArgs),
    /// Write a key
    Put(put::PutArgs),
    /// Remove a key
    Delete(delete::DeleteArgs),
    /// Show the cluster as each node sees it
    Status(status::StatusArgs),
    /// Write the keys and values of a file
    Load(load::LoadArgs),
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

/// Runs the program with these arguments, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version are messages too; they go to standard output and are no mistake.
            let exit = if message.use_stderr() { Exit::Usage } else { Exit::Done };
            match exit {
                Exit::Usage => eprintln!("seawall-kv: {}", one_line(&message)),
                // Nobody is left to tell if this fails.
                _ => drop(message.print()),
            }
            return exit.into();
        }
    };
    match on_runtime(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("seawall-kv: {error}");
            error.exit().into()
        }
    }
}

/// What is wrong with the command line, without the usage that follows it.
fn one_line(message: &clap::Error) -> String {
    let text = message.to_string();
    let cause = text.split("\n\n").next().unwrap_or_default();
    let cause: Vec<_> = cause.trim_start_matches("error: ").split_whitespace().collect();
    format!("{}; `seawall-kv --help` lists what there is", cause.join(" "))
}

/// A client's work is waiting: one thread does it.
fn on_runtime(command: Command) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::io("cannot start"))?;
    let command = match command {
        Command::Serve(args) => return serve::run(args, &runtime),
        other => other,
    };
    runtime.block_on(async {
        match command {
            Command::Serve(_) => Ok(Exit::Usage), // taken above
            Command::Demo(args) => demo::run(args).await,
            Command::Get(args) => get::run(args).await,
            Command::Put(args) => put::run(args).await,
            Command::Delete(args) => delete::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Load(args) => load::run(args).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
