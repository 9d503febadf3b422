//! Which cluster, and for how long: the flags that every client command has.

use std::time::Duration;

use clap::Args;

use crate::cli::CliError;
use crate::cli::output::{Format, Output};
use crate::client::{Client, Precondition};
use crate::consensus::Revision;

/// The flags of every client command.
#[derive(Debug, Clone, Args)]
pub(super) struct TargetArgs {
    /// The nodes to ask, in turns; the next one is tried when one cannot answer
    #[arg(
        long,
        visible_alias = "target",
        env = "SEAWALL_TARGET",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7101"
    )]
    pub(super) nodes: Vec<String>,

    /// How long a call may take, retries included
    #[arg(long, env = "SEAWALL_DEADLINE", value_name = "TIME", default_value = "5s",
          value_parser = humantime::parse_duration)]
    pub(super) deadline: Duration,

    /// How the result is written to standard output
    #[arg(long, env = "SEAWALL_OUTPUT", value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(super) output: Format,
}

impl TargetArgs {
    /// The client for these nodes.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::builder().nodes(&self.nodes).deadline(self.deadline).build()?)
    }

    /// Standard output in this format.
    pub(super) fn output(&self) -> Output {
        Output::stdout(self.output)
    }
}

/// What must hold of the key for a write to happen.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub(super) struct ConditionArgs {
    /// Only if the key is at this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<Revision>,

    /// Only if there is no such key
    #[arg(long)]
    if_absent: bool,

    /// Only if there is such a key
    #[arg(long)]
    if_present: bool,
}

impl ConditionArgs {
    /// As the client takes it.
    pub(super) fn precondition(&self) -> Precondition {
        match (self.if_revision, self.if_absent, self.if_present) {
            (Some(revision), ..) => Precondition::RevisionIs(vec![revision]),
            (None, true, _) => Precondition::Absent,
            (None, false, true) => Precondition::Exists,
            (None, false, false) => Precondition::Unconditional,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        condition: ConditionArgs,
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Command::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn one_target_or_several_nodes() {
        assert_eq!(parse("x --nodes http://a:1,http://b:2").unwrap().target.nodes, ["http://a:1", "http://b:2"]);
        let command = parse("x --target http://a:1 --deadline 250ms --output json").unwrap();
        assert_eq!(command.target.nodes, ["http://a:1"]);
        assert_eq!(command.target.deadline, Duration::from_millis(250));
        assert_eq!(command.target.output, Format::Json);
    }

    #[test]
    fn a_write_has_at_most_one_condition() {
        let condition = |line| parse(line).unwrap().condition.precondition();
        assert_eq!(condition("x"), Precondition::Unconditional);
        assert_eq!(condition("x --if-revision 7"), Precondition::RevisionIs(vec![7]));
        assert_eq!(condition("x --if-absent"), Precondition::Absent);
        assert_eq!(condition("x --if-present"), Precondition::Exists);
        assert!(parse("x --if-absent --if-present").is_err());
    }
}
