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
    #[command(flatten)]
    Use(UseCommand),
}

/// What a client of a cluster does.
#[derive(Debug, Subcommand)]
enum UseCommand {
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
    match command {
        Command::Serve(args) => serve::run(args, &runtime),
        Command::Use(command) => runtime.block_on(dispatch(command)),
    }
}

async fn dispatch(command: UseCommand) -> Result<Exit, CliError> {
    match command {
        UseCommand::Demo(args) => demo::run(args).await,
        UseCommand::Get(args) => get::run(args).await,
        UseCommand::Put(args) => put::run(args).await,
        UseCommand::Delete(args) => delete::run(args).await,
        UseCommand::Status(args) => status::run(args).await,
        UseCommand::Load(args) => load::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::client::fake::FakeNode;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The exit code of a command line for which `URL` stands for `url`.
    async fn exit(url: &str, line: &str) -> u8 {
        let words = ["seawall-kv"].into_iter().chain(line.split_whitespace());
        let words: Vec<OsString> = words.map(|word| word.replace("URL", url).into()).collect();
        let Command::Use(command) = Cli::try_parse_from(words).unwrap().command else { panic!("{line}") };
        dispatch(command).await.unwrap_or_else(|error| error.exit()).code()
    }

    #[tokio::test]
    async fn every_command_ends_with_its_code() {
        let node = FakeNode::new().await;
        let table = [
            ("get k --target URL", 1),
            ("put k first --target URL --if-present", 1),
            ("put k first --target URL --if-absent", 0),
            ("put k second --target URL --if-revision 9", 1),
            ("put k second --target URL --if-revision 1", 0),
            ("get k --nodes URL,URL --output json", 0),
            ("get k --target URL --consistency stale", 0),
            ("status --target URL", 0),
            ("delete k --target URL --if-absent", 1),
            ("delete k --target URL", 0),
            ("delete k --target URL", 1),
            ("load /does/not/exist.csv --target URL", 2),
            ("load notes.txt --target URL", 2),
            ("get k --target nonsense", 2),
            ("get k --target 127.0.0.1:1 --deadline 100ms", 3),
            ("put k v --target 127.0.0.1:1 --deadline 100ms", 3),
            ("status --target 127.0.0.1:1 --deadline 100ms", 3),
            ("demo --nodes 2 --script", 2),
        ];
        for (line, code) in table {
            assert_eq!(exit(&node.url, line).await, code, "{line}");
        }
        node.refuse("unknown");
        assert_eq!(exit(&node.url, "put k v --target URL").await, 4);
        assert_eq!(exit(&node.url, "delete k --target URL").await, 4);
    }

    #[test]
    fn a_line_that_cannot_be_understood_is_a_usage_error() {
        for line in ["", "fly", "get", "put k", "put k v --if-absent --if-revision 3", "get k --deadline soon"] {
            let words = ["seawall-kv"].into_iter().chain(line.split_whitespace());
            assert_eq!(run(words.map(OsString::from)), ExitCode::from(2), "{line}");
        }
        assert_eq!(run(["seawall-kv", "--help"].map(OsString::from)), ExitCode::SUCCESS);
    }
}
