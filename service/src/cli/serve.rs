//! `serve`: the arguments of one node.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};

use crate::peer::NodeId;

/// The arguments of `serve`; each can come from the environment variable named in its help.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("formation").args(["bootstrap", "nodes", "join"])))]
pub struct ServeArgs {
    /// This node's number in the cluster, from 1; never reused
    #[arg(long, env = "SEAWALL_NODE_ID", value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub node_id: NodeId,

    /// Where clients are served
    #[arg(long, env = "SEAWALL_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7101")]
    pub listen: SocketAddr,

    /// Where other nodes are served
    #[arg(long, env = "SEAWALL_PEER_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7201")]
    pub peer_listen: SocketAddr,

    /// The client address told to others, where it differs from --listen
    #[arg(long, env = "SEAWALL_ADVERTISE", value_name = "ADDR")]
    pub advertise: Option<String>,

    /// The peer address told to others, where it differs from --peer-listen
    #[arg(long, env = "SEAWALL_PEER_ADVERTISE", value_name = "ADDR")]
    pub peer_advertise: Option<String>,

    /// Where this node keeps its identity, log and snapshots
    #[arg(long, env = "SEAWALL_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Form a new cluster of this one node; others join it
    #[arg(long, env = "SEAWALL_BOOTSTRAP")]
    pub bootstrap: bool,

    /// Form a new cluster of exactly these nodes; every one of them is given the same list
    #[arg(long, env = "SEAWALL_NODES", value_name = "ID=PEER_ADDR[/CLIENT_ADDR]", value_delimiter = ',')]
    pub nodes: Vec<Founder>,

    /// Join the cluster that the node at this client URL belongs to
    #[arg(long, env = "SEAWALL_JOIN", value_name = "URL")]
    pub join: Option<String>,

    /// How often a leader says that it is there; three must fit into the shortest election timeout
    #[arg(long, env = "SEAWALL_HEARTBEAT_INTERVAL", value_name = "TIME", default_value = "100ms",
          value_parser = humantime::parse_duration)]
    pub heartbeat_interval: Duration,

    /// The shortest wait before a follower that hears nothing stands for election
    #[arg(long, env = "SEAWALL_ELECTION_TIMEOUT_MIN", value_name = "TIME", default_value = "300ms",
          value_parser = humantime::parse_duration)]
    pub election_timeout_min: Duration,

    /// The longest such wait; every follower draws its own, so that two rarely stand at once
    #[arg(long, env = "SEAWALL_ELECTION_TIMEOUT_MAX", value_name = "TIME", default_value = "450ms",
          value_parser = humantime::parse_duration)]
    pub election_timeout_max: Duration,

    /// Log entries between two snapshots: a restart replays about this many
    #[arg(long, env = "SEAWALL_SNAPSHOT_EVERY", value_name = "ENTRIES", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_every: u64,

    /// How log lines are written to standard error
    #[arg(long, env = "SEAWALL_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Which log lines are written: error, warn, info, debug, trace, or a filter such as `seawall_kv=debug,info`
    #[arg(long, env = "SEAWALL_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// Stop when standard input closes: a child process does not outlive its parent this way
    #[arg(long, hide = true)]
    pub exit_on_stdin_close: bool,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Text,
}

/// One node of a cluster that is about to be formed, written `ID=PEER_ADDR[/CLIENT_ADDR]`.
///
/// ```
/// use seawall_kv::cli::Founder;
///
/// let founder: Founder = "2=127.0.0.1:7202/127.0.0.1:7102".parse().unwrap();
/// assert_eq!(founder.id, 2);
/// assert_eq!(founder.peer, "127.0.0.1:7202");
/// assert_eq!(founder.client.as_deref(), Some("127.0.0.1:7102"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Its number.
    pub id: NodeId,
    /// Where it serves other nodes.
    pub peer: String,
    /// Where it serves clients; where absent, it is known when the node is up and says so.
    pub client: Option<String>,
}

impl FromStr for Founder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, addresses) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` has no `=`: a node is ID=PEER_ADDR, as in 1=127.0.0.1:7201"))?;
        let id = id.trim().parse().ok().filter(|id| *id > 0).ok_or_else(|| format!("`{id}` is not a number from 1"))?;
        let (peer, client) = match addresses.split_once('/') {
            Some((peer, client)) => (peer, Some(client)),
            None => (addresses, None),
        };
        let checked = |address: &str| {
            let address = address.trim();
            match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_owned()),
                _ => Err(format!("`{address}` is not HOST:PORT")),
            }
        };
        Ok(Self { id, peer: checked(peer)?, client: client.map(checked).transpose()? })
    }
}

impl fmt::Display for Founder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.id, self.peer)?;
        match &self.client {
            Some(client) => write!(f, "/{client}"),
            None => Ok(()),
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
        serve: ServeArgs,
    }

    fn parse(line: &str) -> Result<ServeArgs, clap::Error> {
        Command::try_parse_from(line.split_whitespace()).map(|command| command.serve)
    }

    #[test]
    fn a_node_needs_a_number_and_a_folder_and_the_rest_has_defaults() {
        let args = parse("serve --node-id 1 --data-dir /tmp/one --bootstrap").unwrap();
        assert_eq!(args.listen.port(), 7101);
        assert_eq!(args.peer_listen.port(), 7201);
        assert_eq!(args.heartbeat_interval, Duration::from_millis(100));
        assert_eq!(args.log_format, LogFormat::Text);
        assert!(args.bootstrap);
        assert!(parse("serve --node-id 0 --data-dir /tmp/one").is_err());
    }

    #[test]
    fn founders_are_a_list_of_numbers_and_addresses() {
        let args = parse("serve --node-id 1 --data-dir d --nodes 1=127.0.0.1:7201,2=localhost:7202/localhost:7102");
        let nodes = args.unwrap().nodes;
        assert_eq!(nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(nodes[0].client, None);
        assert_eq!(nodes[1].to_string(), "2=localhost:7202/localhost:7102");
    }

    #[test]
    fn a_cluster_is_formed_or_joined_in_one_way_only() {
        for both in ["--bootstrap --join http://127.0.0.1:7101", "--bootstrap --nodes 1=127.0.0.1:7201"] {
            assert!(parse(&format!("serve --node-id 1 --data-dir d {both}")).is_err(), "{both}");
        }
    }

    #[test]
    fn a_bad_founder_is_refused_with_the_reason() {
        for (text, reason) in [("127.0.0.1:1", "no `=`"), ("x=h:1", "not a number"), ("1=host", "not HOST:PORT")] {
            let error = text.parse::<Founder>().unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
