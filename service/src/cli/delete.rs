//! `delete`: removes a key.

use clap::Args;
use serde_json::json;

use crate::cli::target::{ConditionArgs, TargetArgs};
use crate::cli::{CliError, Exit};

/// The arguments of `delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The key
    key: String,

    #[command(flatten)]
    condition: ConditionArgs,

    #[command(flatten)]
    target: TargetArgs,
}

/// Prints whether there was something to remove.
pub(super) async fn run(args: DeleteArgs) -> Result<Exit, CliError> {
    let client = args.target.client()?;
    let outcome = client.delete_if(&args.key, args.condition.precondition()).await?;
    let text = if outcome.deleted { "deleted" } else { "not found" };
    let json = || json!({ "key": args.key, "deleted": outcome.deleted, "revision": outcome.revision });
    args.target.output().result(format!("{text}, revision {}", outcome.revision), json)?;
    Ok(if outcome.deleted { Exit::Done } else { Exit::Failed })
}
