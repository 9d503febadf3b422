//! `get`: reads a key.

use clap::Args;

use crate::cli::output::value_json;
use crate::cli::target::TargetArgs;
use crate::cli::{CliError, Exit};
use crate::client::{Consistency, GetOptions};

/// The arguments of `get`.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The key
    key: String,

    /// Which state the read may see
    #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
    consistency: Consistency,

    #[command(flatten)]
    target: TargetArgs,
}

/// Prints the value and a line end.
pub(super) async fn run(args: GetArgs) -> Result<Exit, CliError> {
    let client = args.target.client()?;
    let Some(value) = client.get_with(&args.key, GetOptions { consistency: args.consistency }).await? else {
        eprintln!("seawall-kv: there is no key {:?}", args.key);
        return Ok(Exit::Failed);
    };
    args.target.output().result(&value.value, || value_json(&args.key, &value))?;
    Ok(Exit::Done)
}
