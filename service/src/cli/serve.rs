//! `serve`: runs one node.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{CliError, Exit};
use crate::clock::Clock;
use crate::config::{ClientLimit, Formation, LimitBy, NodeConfig};
use crate::consensus::{self, ConsensusConfig, DEFAULT_KEEP_ENTRIES, DEFAULT_SNAPSHOT_EVERY_ENTRIES};
use crate::node::Node;
use crate::peer::NodeId;
use crate::telemetry::logs::{self, LogFormat};
use crate::telemetry::metrics;

/// The arguments of `serve`; each can come from the environment variable named in its help.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("formation").args(["bootstrap", "nodes", "join"])))]
pub struct ServeArgs {
    /// This node's number in the cluster, from 1; never reused. A node that joins is given one
    #[arg(long, env = "SEAWALL_NODE_ID", value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub node_id: Option<NodeId>,

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
    #[arg(long, env = "SEAWALL_NODES", value_name = "ID=PEER_ADDR", value_delimiter = ',')]
    pub nodes: Vec<Founder>,

    /// Join the cluster that the node at this client URL belongs to
    #[arg(long, env = "SEAWALL_JOIN", value_name = "URL")]
    pub join: Option<String>,

    /// How often a leader says that it is there; the shortest election timeout is at least twice as long
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
    #[arg(long, env = "SEAWALL_SNAPSHOT_EVERY", value_name = "ENTRIES", default_value_t = DEFAULT_SNAPSHOT_EVERY_ENTRIES,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_every: u64,

    /// Limit what each client may ask of this node, and what makes requests those of one client: the address they come
    /// from, or their X-Api-Key header (not verified; without one, the address). What is beyond the limit is answered 429
    /// with Retry-After and not applied; /health and /metrics are never limited. Off by default
    #[arg(long, env = "SEAWALL_CLIENT_LIMIT_BY", value_name = "WHAT", value_enum, requires = "client_rate")]
    pub client_limit_by: Option<LimitBy>,

    /// Requests a second of one client, on average
    #[arg(long, env = "SEAWALL_CLIENT_RATE", value_name = "REQUESTS", requires = "client_limit_by")]
    pub client_rate: Option<u32>,

    /// Requests of one client at once, after it has asked for nothing. By default those of one second
    #[arg(long, env = "SEAWALL_CLIENT_BURST", value_name = "REQUESTS", requires = "client_limit_by")]
    pub client_burst: Option<u32>,

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

/// One node of a cluster that is about to be formed, written `ID=PEER_ADDR`.
///
/// ```
/// use seawall_kv::cli::Founder;
///
/// let founder: Founder = "2=127.0.0.1:7202".parse().unwrap();
/// assert_eq!(founder.id, 2);
/// assert_eq!(founder.peer, "127.0.0.1:7202");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Its number.
    pub id: NodeId,
    /// Where it serves other nodes.
    pub peer: String,
}

impl FromStr for Founder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, peer) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` has no `=`: a node is ID=PEER_ADDR, as in 1=127.0.0.1:7201"))?;
        let id = id.trim().parse().ok().filter(|id| *id > 0).ok_or_else(|| format!("`{id}` is not a number from 1"))?;
        Ok(Self { id, peer: peer.trim().to_owned() })
    }
}

impl fmt::Display for Founder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.id, self.peer)
    }
}

impl ServeArgs {
    fn config(&self) -> Result<NodeConfig, CliError> {
        let mut founders = BTreeMap::new();
        for founder in &self.nodes {
            if founders.insert(founder.id, founder.peer.clone()).is_some() {
                return Err(CliError::Input(format!(
                    "--nodes names node {} twice; every founder has its own id",
                    founder.id
                )));
            }
        }
        let formation = match (self.bootstrap, &self.join) {
            (true, _) => Formation::Bootstrap,
            (false, Some(url)) => Formation::Join(url.clone()),
            (false, None) if founders.is_empty() => Formation::Existing,
            (false, None) => Formation::Founders(founders),
        };
        let consensus = ConsensusConfig {
            heartbeat_interval: self.heartbeat_interval,
            election_timeout_min: self.election_timeout_min,
            election_timeout_max: self.election_timeout_max,
            snapshot_every_entries: self.snapshot_every,
            keep_entries: self.snapshot_every.min(DEFAULT_KEEP_ENTRIES),
            ..ConsensusConfig::new(self.node_id.unwrap_or_default(), &self.data_dir)
        };
        Ok(NodeConfig {
            node_id: self.node_id,
            listen: self.listen,
            peer_listen: self.peer_listen,
            advertise: self.advertise.clone(),
            peer_advertise: self.peer_advertise.clone(),
            data_dir: self.data_dir.clone(),
            formation,
            consensus,
            client_limit: self.client_limit(),
        })
    }

    fn client_limit(&self) -> Option<ClientLimit> {
        let (by, rate) = self.client_limit_by.zip(self.client_rate)?;
        Some(ClientLimit { by, rate_per_second: rate, burst: self.client_burst.unwrap_or(rate) })
    }
}

/// Runs a node on `runtime` until it is told to stop (SIGTERM, SIGINT, or standard input with the hidden flag).
pub(super) fn run(args: ServeArgs, runtime: &Runtime) -> Result<Exit, CliError> {
    let config = args.config()?;
    let filter = format!("{},{}", consensus::LIBRARY_LOGS, args.log_level); // what the user says comes last and wins
    logs::install(args.log_format, &filter).map_err(|reason| CliError::Input(format!("--log-level: {reason}")))?;
    let clock = Clock::system();
    let metrics = metrics::install(&clock).map_err(|error| CliError::Input(error.to_string()))?;
    // Every task of the node runs on this thread, so this span is around every line that any of them logs.
    let span = tracing::info_span!("seawall_kv", node = tracing::field::Empty);
    let _entered = span.enter();
    runtime.block_on(async {
        let signals = Signals::new(args.exit_on_stdin_close).map_err(CliError::io("cannot wait for signals"))?;
        let mut node = tokio::select! {
            biased;
            reason = signals.clone().any() => {
                tracing::info!(reason, action = "stop", "stopped before it had started");
                return Ok(Exit::Done);
            }
            node = Node::start(config, Some(metrics), clock) => node?,
        };
        span.record("node", node.replica().local.id);
        let failure = tokio::select! {
            biased;
            reason = signals.any() => {
                tracing::info!(reason, action = "stop", "stopping");
                None
            }
            failure = node.failure() => Some(failure),
        };
        node.shutdown().await;
        failure.map_or(Ok(Exit::Done), |failure| Err(failure.into()))
    })
}

/// What tells a process to stop.
#[derive(Clone)]
struct Signals(watch::Receiver<Option<&'static str>>);

impl Signals {
    fn new(stdin: bool) -> io::Result<Self> {
        let (told, signals) = watch::channel(None);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        if stdin {
            let told = told.clone();
            // A thread of its own: reading standard input cannot be cancelled, and a runtime would wait for it.
            std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
                let _ = io::copy(&mut io::stdin(), &mut io::sink());
                told.send_replace(Some("standard input closed"));
            })?;
        }
        tokio::spawn(async move {
            let reason = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = told.closed() => return,
            };
            told.send_replace(Some(reason));
        });
        Ok(Self(signals))
    }

    async fn any(mut self) -> &'static str {
        match self.0.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or_default(),
            Err(_) => std::future::pending().await,
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
        let args = parse("serve --node-id 1 --data-dir d --nodes 1=127.0.0.1:7201,2=localhost:7202");
        let nodes = args.unwrap().nodes;
        assert_eq!(nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(nodes[1].to_string(), "2=localhost:7202");
    }

    #[test]
    fn a_cluster_is_formed_or_joined_in_one_way_only() {
        for both in ["--bootstrap --join http://127.0.0.1:7101", "--bootstrap --nodes 1=127.0.0.1:7201"] {
            assert!(parse(&format!("serve --node-id 1 --data-dir d {both}")).is_err(), "{both}");
        }
    }

    #[test]
    fn clients_are_limited_only_when_it_is_said_by_what_and_how_much() {
        let limit =
            |words: &str| parse(&format!("serve --node-id 1 --data-dir d {words}")).map(|args| args.client_limit());
        assert_eq!(limit("").unwrap(), None);
        let by_key = ClientLimit { by: LimitBy::ApiKey, rate_per_second: 100, burst: 100 };
        assert_eq!(limit("--client-limit-by api-key --client-rate 100").unwrap(), Some(by_key));
        let by_address = ClientLimit { by: LimitBy::Address, rate_per_second: 100, burst: 5 };
        let given = limit("--client-limit-by address --client-rate 100 --client-burst 5");
        assert_eq!(given.unwrap(), Some(by_address));
        for (words, missing) in [
            ("--client-limit-by address", "--client-rate"),
            ("--client-rate 100", "--client-limit-by"),
            ("--client-burst 100", "--client-limit-by"),
        ] {
            assert!(limit(words).unwrap_err().to_string().contains(missing), "{words}");
        }
    }

    #[test]
    fn a_bad_founder_is_refused_with_the_reason() {
        for (text, reason) in [("127.0.0.1:1", "no `=`"), ("x=h:1", "not a number")] {
            let error = text.parse::<Founder>().unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
