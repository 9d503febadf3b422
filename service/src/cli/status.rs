//! `status`: the cluster as each node sees it.

use std::fmt::Write;

use clap::Args;
use serde_json::json;

use crate::cli::target::TargetArgs;
use crate::cli::{CliError, Exit};
use crate::client::{ClusterStatus, NodeReport};

/// The arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
}

/// Prints what every node that was named says; done if any of them answered.
pub(super) async fn run(args: StatusArgs) -> Result<Exit, CliError> {
    let client = args.target.client()?;
    let mut output = args.target.output();
    let mut answered = false;
    for NodeReport { url, status } in client.status().await {
        match status {
            Ok(status) => {
                answered = true;
                output.result(text(&url, &status), || json!({ "url": url, "status": status }))?;
            }
            Err(error) => {
                output.result(format!("{url}: {error}"), || json!({ "url": url, "error": error.to_string() }))?
            }
        }
    }
    Ok(if answered { Exit::Done } else { Exit::Unavailable })
}

/// One node's view as a table.
pub(super) fn text(url: &str, status: &ClusterStatus) -> String {
    let leader = status.leader.map_or("no leader".to_owned(), |id| format!("leader {id}"));
    let revision = status.revision.map_or(String::new(), |revision| format!(", revision {revision}"));
    let mut text = format!("{url}: {leader}, term {}{revision}\n", status.term);
    let columns = ["id", "role", "healthy", "commit", "applied", "heard", "address"];
    let mut row = |cells: [&str; 7]| {
        let [id, role, healthy, commit, applied, heard, address] = cells;
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {id:>3}  {role:<9}  {healthy:<7}  {commit:>8}  {applied:>8}  {heard:>8}  {address}");
    };
    row(columns);
    for node in &status.nodes {
        let number = |value: Option<u64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value}{unit}"));
        row([
            &node.id.to_string(),
            &node.role,
            if node.healthy { "yes" } else { "no" },
            &number(node.commit_index, ""),
            &number(node.last_applied, ""),
            &number(node.last_heartbeat_ms, "ms"),
            &node.address,
        ]);
    }
    // The heading and the table are one block.
    text.replacen("\n\n", "\n", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_line_and_a_table() {
        let status: ClusterStatus = serde_json::from_value(json!({
            "cluster_id": "c", "leader": 1, "term": 3, "revision": 9, "node_id": 2, "surplus": true,
            "nodes": [
                { "id": 1, "address": "127.0.0.1:7101", "role": "leader", "healthy": true, "last_heartbeat_ms": 12,
                  "commit_index": 40, "last_applied": 40 },
                { "id": 2, "address": "127.0.0.1:7102", "role": "follower", "healthy": false, "last_heartbeat_ms": null,
                  "commit_index": null, "last_applied": null },
            ],
        }))
        .unwrap();
        let text = text("http://127.0.0.1:7101", &status);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], "http://127.0.0.1:7101: leader 1, term 3, revision 9");
        assert!(lines[2].contains("12ms"), "{text}");
        assert!(lines[3].contains("  -  "), "{text}");
    }
}
