//! `put`: writes a key.

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::cli::target::{ConditionArgs, TargetArgs};
use crate::cli::{CliError, Exit};
use crate::consensus::MAX_VALUE_BYTES;

/// The arguments of `put`.
#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The key
    key: String,

    /// The value, or - to read it from standard input as it is
    value: String,

    #[command(flatten)]
    condition: ConditionArgs,

    #[command(flatten)]
    target: TargetArgs,
}

/// Prints the revision of the write.
pub(super) async fn run(args: PutArgs) -> Result<Exit, CliError> {
    let client = args.target.client()?;
    let value = match args.value.as_str() {
        "-" => standard_input().await?,
        _ => Bytes::from(args.value),
    };
    let outcome = client.put_if(&args.key, value, args.condition.precondition()).await?;
    let json = || json!({ "key": args.key, "revision": outcome.revision });
    args.target.output().result(format!("revision {}", outcome.revision), json)?;
    Ok(Exit::Done)
}

async fn standard_input() -> Result<Bytes, CliError> {
    // One byte more than allowed is enough to be refused, however much comes.
    let limit = u64::try_from(MAX_VALUE_BYTES).unwrap_or(u64::MAX) + 1;
    let mut value = Vec::new();
    let read = tokio::io::stdin().take(limit).read_to_end(&mut value).await;
    read.map_err(CliError::io("cannot read standard input"))?;
    Ok(value.into())
}
