//! `demo`: a whole cluster on this machine, to try by hand or to be shown around by itself (`--script`).

mod cluster;
mod console;
mod eventually;
mod metrics;
mod script;
mod steps;
mod writer;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{CliError, Exit};
use cluster::Cluster;
use console::Console;

/// The arguments of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,

    /// Show around and end by itself, in less than a minute: load, read, kill, recover, verify
    #[arg(long)]
    script: bool,
}

/// Starts the cluster; ends with it.
pub(super) async fn run(args: DemoArgs) -> Result<Exit, CliError> {
    let mut console = Console::stdout();
    if args.script && args.nodes < 3 {
        return Err(CliError::Input("--script needs --nodes 3 or more: it kills one and goes on".to_owned()));
    }
    let mut cluster = Cluster::new(args.nodes)?;
    let end = tokio::select! {
        // Whatever way it ends, the nodes are stopped below.
        end = async {
            if args.script { script::run(&mut cluster, &mut console).await } else { by_hand(&mut cluster, &mut console).await }
        } => end,
        signal = interrupted() => signal.map(|()| {
            console.line("\nstopping");
            if args.script { Exit::Failed } else { Exit::Done }
        }),
    };
    cluster.stop().await;
    end
}

/// Ends with the first Ctrl-C or SIGTERM.
async fn interrupted() -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::io("cannot listen for SIGTERM"))?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.map_err(CliError::io("cannot listen for Ctrl-C")),
        _ = terminate.recv() => Ok(()),
    }
}

/// Starts all nodes, says how to talk to them, and tells when one ends, until it is interrupted.
async fn by_hand(cluster: &mut Cluster, console: &mut Console) -> Result<Exit, CliError> {
    cluster.start_all()?;
    if let Err(reason) = steps::all_ready(cluster).await {
        console.line(&format!("the cluster did not start: {reason}\nlogs are in {}", cluster.folder().display()));
        cluster.keep_folder();
        return Ok(Exit::Failed);
    }
    console.line(&introduction(cluster));
    loop {
        let (id, how) = cluster.ended().await;
        let again = cluster.command_line(id);
        console.line(&format!("node {id} ended ({how}). To start it again, in another terminal:\n  {again}"));
    }
}

/// What to paste.
fn introduction(cluster: &Cluster) -> String {
    let mut text = format!("{} nodes are up; data and logs are in {}\n\n", cluster.size(), cluster.folder().display());
    for id in cluster.ids() {
        let pid = cluster.pid(id).map_or("-".to_owned(), |pid| pid.to_string());
        text.push_str(&format!("  node {id}   {}   process {pid}\n", cluster.url(id)));
    }
    let first = cluster.url(1);
    let last = cluster.url(cluster.size());
    let pid = cluster.pid(1).map_or("PID".to_owned(), |pid| pid.to_string());
    let urls: Vec<_> = cluster.ids().map(|id| cluster.url(id)).collect();
    text.push_str(&format!(
        "\nWrite      curl -i -X PUT {first}/v1/strong/greeting --data-binary hello
Read       curl -i {last}/v1/strong/greeting
Write if   curl -i -X PUT {first}/v1/strong/greeting --data-binary hi -H 'If-Match: \"1\"'
Remove     curl -i -X DELETE {first}/v1/strong/greeting
Status     curl -s {first}/cluster/status
Ready      curl -i {first}/health/ready
Metrics    curl -s {first}/metrics | grep circuit_breaker_state
Kill one   kill -9 {pid}
Set, get   curl -s -X POST {first}/set -H 'content-type: application/json' -d '{{\"key\":\"name\",\"value\":\"Gemini\"}}'
           curl -s {last}/get/name
This tool  seawall-kv status --nodes {}

Ctrl-C stops all nodes and removes their data.",
        urls.join(",")
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_introduction_has_lines_to_paste_for_each_node() {
        let cluster = Cluster::new(3).unwrap();
        let text = introduction(&cluster);
        for id in cluster.ids() {
            assert!(text.contains(&cluster.url(id)), "{text}");
        }
        for word in ["-X PUT http://127.0.0.1:", "/cluster/status", "/metrics", "kill -9", "/set", "/get/name"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
