//! Nodes as child processes of this binary, with their data in a temporary folder.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};

use crate::cli::{CliError, Founder};
use crate::client::{Client, ClientError};
use crate::peer::NodeId;

/// How long a node may take to stop when it is asked to, before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The ports of the documentation, where they are free.
const USUAL_PORTS: (u16, u16) = (7101, 7201);

/// Where other ports are looked for: below the range from which systems take the ports of outgoing connections
/// (32768 on Linux), so that a node that is down does not lose its port to one of them.
const OTHER_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A cluster of child processes.
#[derive(Debug)]
pub(super) struct Cluster {
    program: PathBuf,
    folder: TempDir,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    id: NodeId,
    listen: SocketAddr,
    peer_listen: SocketAddr,
    child: Option<Child>,
    /// Held open: the node ends when this process does, however this process ends. Taken out of `child`, because
    /// waiting for a child closes what it still holds.
    stdin: Option<ChildStdin>,
}

impl Cluster {
    /// A cluster of `size` nodes, none of them started yet.
    pub(super) fn new(size: u64) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(CliError::io("cannot find this program's own file"))?;
        let folder = tempfile::Builder::new().prefix("seawall-demo-").tempdir();
        let folder = folder.map_err(CliError::io("cannot make a temporary folder"))?;
        let (client, peer) = free_ports(size, are_free)?;
        let local = |first: u16, id: NodeId| {
            let offset = u16::try_from(id - 1).unwrap_or(u16::MAX);
            SocketAddr::from((Ipv4Addr::LOCALHOST, first.saturating_add(offset)))
        };
        let nodes = (1..=size)
            .map(|id| Node { id, listen: local(client, id), peer_listen: local(peer, id), child: None, stdin: None })
            .collect();
        Ok(Self { program, folder, nodes })
    }

    /// How many nodes there are, running or not.
    pub(super) fn size(&self) -> u64 {
        self.nodes.len() as u64
    }

    /// Every node.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        1..=self.size()
    }

    /// The nodes that run.
    pub(super) fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| node.child.is_some()).map(|node| node.id).collect()
    }

    /// Where data and logs are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves data and logs behind, for whoever looks for the cause.
    pub(super) fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Where clients reach a node.
    pub(super) fn url(&self, id: NodeId) -> String {
        let address = self.node(id).map_or_else(|| "unknown".to_owned(), |node| node.listen.to_string());
        format!("http://{address}")
    }

    /// Its process, if it runs.
    pub(super) fn pid(&self, id: NodeId) -> Option<u32> {
        self.node(id)?.child.as_ref()?.id()
    }

    /// A client of these nodes.
    pub(super) fn client(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
        deadline: Duration,
    ) -> Result<Client, ClientError> {
        let urls = nodes.into_iter().map(|id| self.url(id));
        Client::builder().nodes(urls).deadline(deadline).build()
    }

    /// Starts every node that does not run.
    pub(super) fn start_all(&mut self) -> Result<(), CliError> {
        self.ids().try_for_each(|id| self.start(id))
    }

    /// Starts a node that does not run.
    pub(super) fn start(&mut self, id: NodeId) -> Result<(), CliError> {
        let args = self.args(id);
        let log = self.folder.path().join(format!("node-{id}.log"));
        let log = File::options().create(true).append(true).open(log).map_err(CliError::io("cannot write a log"))?;
        let errors = log.try_clone().map_err(CliError::io("cannot write a log"))?;
        let mut command = Command::new(&self.program);
        command.args(args).arg("--exit-on-stdin-close");
        // Settings meant for a node started by hand would be taken for these, too.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEAWALL_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(log).stderr(errors).kill_on_drop(true);
        // A group of its own: Ctrl-C reaches this process only, which then stops the nodes in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(CliError::io(format!("cannot start node {id}")))?;
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) {
            node.stdin = child.stdin.take();
            node.child = Some(child);
        }
        Ok(())
    }

    /// Ends a node at once, as a crash would, and waits until its process is gone.
    pub(super) async fn kill(&mut self, id: NodeId) -> Result<(), CliError> {
        let child = self.nodes.iter_mut().find(|node| node.id == id).and_then(|node| node.child.take());
        match child {
            Some(mut child) => child.kill().await.map_err(CliError::io(format!("cannot kill node {id}"))),
            None => Ok(()),
        }
    }

    /// Asks every node to stop, kills those that do not within [`STOP_LIMIT`], and waits for all.
    pub(super) async fn stop(&mut self) {
        let children: Vec<_> = self.nodes.iter_mut().filter_map(|node| node.child.take()).collect();
        let stopping = children.into_iter().map(|mut child| async move {
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            // The child has not been waited for, so its id is still its own. If it cannot be asked, it is killed.
            let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
            if !asked || tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
                // A child that cannot even be killed is beyond help, and the folder goes anyway.
                let _ = child.kill().await;
            }
        });
        futures_util::future::join_all(stopping).await;
    }

    /// Waits until a node ends without having been killed here, and tells which and how.
    pub(super) async fn ended(&mut self) -> (NodeId, String) {
        let waiting = self.nodes.iter_mut().filter_map(|node| {
            let id = node.id;
            let child = node.child.as_mut()?;
            Some(Box::pin(async move {
                let status = child.wait().await;
                (id, status.map_or_else(|error| error.to_string(), |status| status.to_string()))
            }))
        });
        let waiting: Vec<_> = waiting.collect();
        if waiting.is_empty() {
            return std::future::pending().await;
        }
        let ((id, how), ..) = futures_util::future::select_all(waiting).await;
        if let Some(node) = self.nodes.iter_mut().find(|node| node.id == id) {
            node.child = None;
        }
        (id, how)
    }

    /// A line for a shell that starts a node as it was started here.
    pub(super) fn command_line(&self, id: NodeId) -> String {
        let program = self.program.display().to_string();
        std::iter::once(program).chain(self.args(id)).map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    fn args(&self, id: NodeId) -> Vec<String> {
        let founder = |node: &Node| Founder { id: node.id, peer: node.peer_listen.to_string() };
        let founders = self.nodes.iter().map(|node| founder(node).to_string()).collect::<Vec<_>>().join(",");
        let Some(node) = self.node(id) else { return Vec::new() };
        let data = self.folder.path().join(format!("node-{id}"));
        [
            ("--node-id", node.id.to_string()),
            ("--listen", node.listen.to_string()),
            ("--peer-listen", node.peer_listen.to_string()),
            ("--data-dir", data.to_string_lossy().into_owned()),
            ("--nodes", founders),
        ]
        .into_iter()
        .fold(vec!["serve".to_owned()], |mut args, (flag, value)| {
            args.extend([flag.to_owned(), value]);
            args
        })
    }
}

/// Two runs of `size` free ports, by their first. `are_free` tells whether so many ports from a first one are free.
fn free_ports(size: u64, are_free: impl Fn(u16, u16) -> bool) -> Result<(u16, u16), CliError> {
    let size = u16::try_from(size).unwrap_or(u16::MAX);
    let (client, peer) = USUAL_PORTS;
    if are_free(client, size) && are_free(peer, size) {
        return Ok(USUAL_PORTS);
    }
    // Begin where other demos on this machine probably do not.
    let span = OTHER_PORTS.end - OTHER_PORTS.start;
    let begin = u16::try_from(std::process::id().wrapping_mul(31) % u32::from(span)).unwrap_or(0);
    let run = size.saturating_mul(2);
    (0..span / run.max(1))
        .map(|turn| OTHER_PORTS.start + begin.wrapping_add(turn.wrapping_mul(run)) % span)
        .find(|first| are_free(*first, run))
        .map(|first| (first, first + size))
        .ok_or_else(|| CliError::Input(format!("there are no {run} free ports in a row in {OTHER_PORTS:?}")))
}

fn are_free(first: u16, count: u16) -> bool {
    let bind = |offset| TcpListener::bind((Ipv4Addr::LOCALHOST, first.checked_add(offset)?)).ok();
    (0..count).map(bind).collect::<Option<Vec<_>>>().is_some()
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:=,@%+".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::ServeArgs;

    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        args: ServeArgs,
    }

    #[test]
    fn each_node_gets_its_own_ports_and_folder_and_the_same_founders() {
        let cluster = Cluster::new(3).unwrap();
        let parsed: Vec<_> = cluster.ids().map(|id| Serve::try_parse_from(cluster.args(id)).unwrap().args).collect();
        for (args, id) in parsed.iter().zip(1..) {
            assert_eq!(args.node_id, Some(id));
            assert_eq!(args.nodes, parsed[0].nodes);
            assert_eq!(args.nodes.len(), 3);
            assert_eq!(args.nodes[id as usize - 1].peer, args.peer_listen.to_string());
            assert_eq!(format!("http://{}", args.listen), cluster.url(id));
            assert!(args.data_dir.ends_with(format!("node-{id}")));
        }
    }

    #[test]
    fn the_usual_ports_are_taken_where_they_are_free() {
        assert_eq!(free_ports(3, |_, _| true).unwrap(), USUAL_PORTS);
    }

    #[test]
    fn taken_ports_are_passed_over() {
        let usual = |first| [USUAL_PORTS.0, USUAL_PORTS.1].contains(&first);
        let (first_choice, _) = free_ports(3, |first, _| !usual(first)).unwrap();
        assert!(OTHER_PORTS.contains(&first_choice));
        let (client, peer) = free_ports(3, |first, _| !usual(first) && first != first_choice).unwrap();
        assert!(OTHER_PORTS.contains(&client) && client != first_choice);
        assert_eq!(peer, client + 3, "the second run follows the first");
        assert!(matches!(free_ports(3, |_, _| false), Err(CliError::Input(_))));
    }

    #[test]
    fn a_port_that_is_held_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!are_free(taken.local_addr().unwrap().port(), 1));
        assert!(!are_free(u16::MAX, 2), "there is no port after the last");
    }

    #[test]
    fn a_command_line_can_be_pasted() {
        assert_eq!(quoted("1=127.0.0.1:7201/127.0.0.1:7101,2=a:1"), "1=127.0.0.1:7201/127.0.0.1:7101,2=a:1");
        assert_eq!(quoted("/tmp/it's here"), r"'/tmp/it'\''s here'");
    }
}
