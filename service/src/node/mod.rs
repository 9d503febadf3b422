//! One node as a process runs it: takes its sockets and its data directory, comes to belong to a cluster, serves, and
//! stops without leaving anything behind.

mod replica;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Bodies, ClientLimits, Readiness, router};
use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::config::{Formation, Mistakes, NodeConfig};
use crate::consensus::{ClusterId, ConsensusConfig, OpenError};
use crate::peer::{LocalNode, NodeId};
use crate::storage::{Identity, StorageError};
use crate::topology::{FormationError, JoinAnswer, JoinRequest};
use crate::transport::{Http2, Listener, listen};

pub use replica::Replica;

/// How long a joining node keeps asking before it gives up.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// Reading back the log is bounded by its size, not by time; a leader must be found for the last step of it.
const RECOVER_WITHIN: Duration = Duration::from_secs(365 * 24 * 3600);
/// Between two asks.
const JOIN_ROUND: Duration = Duration::from_millis(200);

/// A running node.
pub struct Node {
    replica: Arc<Replica>,
    api: Listener,
    peer: Listener,
    readiness: Readiness,
    stop: CancellationToken,
    /// Brings the node into a cluster and watches over it; ends with why it cannot go on.
    life: JoinHandle<Option<NodeError>>,
}

/// Why a node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] Mistakes),
    /// A socket cannot be had.
    #[error("cannot listen on {address} ({flag}): {source}; stop what uses it, or choose another port")]
    Listen {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The data directory is empty, and nothing says which cluster the node belongs to.
    #[error("{path} holds no data; start a new cluster with --bootstrap or --nodes, or join one with --join")]
    NoCluster {
        /// The directory.
        path: String,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Consensus did not start.
    #[error(transparent)]
    Open(OpenError),
    /// The cluster was not formed.
    #[error(transparent)]
    Formation(#[from] FormationError),
    /// The cluster was not joined.
    #[error("cannot join the cluster at {url}: {source}")]
    Join {
        /// Whom we asked.
        url: String,
        /// Why not.
        source: ClientError,
    },
    /// The directory belongs to another cluster than the one to join.
    #[error("{path} belongs to cluster {found}, but {url} to cluster {expected}; use an empty directory to join")]
    OtherCluster {
        /// The directory.
        path: String,
        /// Its cluster.
        found: ClusterId,
        /// Whom we asked.
        url: String,
        /// Their cluster.
        expected: String,
    },
    /// Consensus stopped by itself; a restart reads everything back.
    #[error("the node stopped: {0}")]
    Failed(Arc<str>),
}

impl NodeError {
    /// Whether the settings or the directory must change before another start can succeed.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Config(_) | Self::NoCluster { .. } | Self::Formation(_) | Self::OtherCluster { .. } => true,
            Self::Storage(error) => !matches!(error, StorageError::Io { .. } | StorageError::Locked { .. }),
            Self::Open(OpenError::Config(_)) => true,
            Self::Join { source: ClientError::Config { .. }, .. } => true, // no address at all
            Self::Open(_) | Self::Listen { .. } | Self::Join { .. } | Self::Failed(_) => false,
        }
    }
}

impl From<OpenError> for NodeError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Storage(error) => Self::Storage(error),
            other => Self::Open(other),
        }
    }
}

impl Node {
    /// Starts a node. It serves when this returns; [`Node::failure`] tells if it later cannot go on.
    ///
    /// # Errors
    /// Whatever is wrong with settings, sockets or data directory. Nothing that existed was changed.
    pub async fn start(config: NodeConfig, metrics: Option<PrometheusHandle>, clock: Clock) -> Result<Self, NodeError> {
        config.check()?;
        let api_socket = bind("--listen", config.listen).await?;
        let peer_socket = bind("--peer-listen", config.peer_listen).await?;
        let api_addr = advertised(&config.advertise, &api_socket, config.listen);
        let peer_addr = advertised(&config.peer_advertise, &peer_socket, config.peer_listen);
        let (id, cluster) = identify(&config, &peer_addr, &api_addr, &clock).await?;
        let local = LocalNode::new(id, peer_addr, api_addr, cluster.map(|id| id.to_string()));

        crate::storage::create_data_dir(&config.data_dir)?;
        let consensus = ConsensusConfig {
            node_id: id,
            cluster_id: cluster,
            data_dir: config.data_dir.clone(),
            ..config.consensus.clone()
        };
        let transport = Arc::new(Http2::new(local.clone(), clock.clone(), consensus.election_timeout_min));
        let founders: Arc<[NodeId]> = match &config.formation {
            Formation::Founders(founders) => founders.keys().copied().collect(),
            _ => Arc::new([]),
        };
        let replica = Replica::start(local.clone(), consensus, transport, founders, clock.clone()).await?;
        let replica = Arc::new(replica);

        let readiness = Readiness::default();
        let api = Api {
            local: local.clone(),
            consensus: replica.consensus.clone(),
            coordinator: replica.coordinator.clone(),
            heartbeats: replica.heartbeats.clone(),
            readiness: readiness.clone(),
            metrics,
            clock: clock.clone(),
            bodies: Bodies::default(),
            client_limits: config.client_limit.map(ClientLimits::new).transpose().map_err(OpenError::Config)?,
        };
        let listening = |flag, address| move |source| NodeError::Listen { flag, address, source };
        let peer = listen(peer_socket, local.clone(), replica.inbound(), clock.clone())
            .map_err(listening("--peer-listen", config.peer_listen))?;
        let api =
            Listener::start(api_socket, CancellationToken::new(), clock.clone(), move |from| router(api.clone(), from))
                .map_err(listening("--listen", config.listen))?;
        tracing::info!(node = id, api = %api.address(), peers = %peer.address(), action = "start", "node started");

        let stop = CancellationToken::new();
        let life = tokio::spawn(live(Arc::clone(&replica), config, readiness.clone(), stop.clone()));
        Ok(Self { replica, api, peer, readiness, stop, life })
    }

    /// Where clients are served.
    pub fn api_address(&self) -> SocketAddr {
        self.api.address()
    }

    /// Where other nodes are served.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer.address()
    }

    /// The node without its sockets.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Resolves with the reason when the node cannot go on by itself. Never otherwise.
    ///
    /// Dropping the future changes nothing. Once it has resolved, only [`Node::shutdown`] is left to call.
    pub async fn failure(&mut self) -> NodeError {
        match (&mut self.life).await {
            Ok(Some(error)) => error,
            Ok(None) => std::future::pending().await,
            Err(error) => NodeError::Failed(error.to_string().into()),
        }
    }

    /// Hands leadership over, finishes what is under way and ends every task, within 5 seconds.
    pub async fn shutdown(self) {
        self.readiness.set_stopping();
        self.replica.hand_over().await;
        self.stop.cancel();
        if !self.life.is_finished() {
            let _ = self.life.await;
        }
        // Clients first: what they asked for still needs the peers.
        self.api.shutdown().await;
        self.replica.stop().await;
        self.peer.shutdown().await;
        tracing::info!(action = "stop", "node stopped");
    }
}

/// Brings the node into its cluster, then waits for consensus to fail. `None` when it was told to stop.
async fn live(
    replica: Arc<Replica>,
    config: NodeConfig,
    readiness: Readiness,
    stop: CancellationToken,
) -> Option<NodeError> {
    let life = async {
        let belong = belong(&replica, &config);
        let recover = async {
            let far = replica.clock.now() + RECOVER_WITHIN;
            if replica.consensus.wait_for_recovery(far).await.is_ok() {
                readiness.set_started();
            }
            Ok(())
        };
        let failure = async {
            let mut changes = replica.consensus.watch();
            match changes.wait_for(|status| status.failure.is_some()).await {
                Ok(status) => status.failure.clone().unwrap_or_default(),
                Err(_) => "consensus stopped".into(),
            }
        };
        tokio::select! {
            Err(error) = async { tokio::try_join!(belong, recover) } => error,
            failure = failure => NodeError::Failed(failure),
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        error = life => Some(error),
    }
}

/// Forms or joins a cluster, where that is still to be done.
async fn belong(replica: &Replica, config: &NodeConfig) -> Result<(), NodeError> {
    match &config.formation {
        Formation::Existing => Ok(()),
        Formation::Bootstrap => Ok(replica.bootstrap().await?),
        Formation::Founders(founders) => Ok(replica.found(founders).await?),
        Formation::Join(url) => become_member(replica, url).await,
    }
}

/// Who the node is: what its directory says, or what it was told, or what the cluster gives it.
async fn identify(
    config: &NodeConfig,
    peer_addr: &str,
    api_addr: &str,
    clock: &Clock,
) -> Result<(NodeId, Option<ClusterId>), NodeError> {
    let found = Identity::read(&config.data_dir)?;
    let found_cluster = found.and_then(|found| found.cluster_id).map(ClusterId::new);
    match (&config.formation, found, config.node_id) {
        (Formation::Join(url), Some(found), _) => {
            check_same_cluster(config, found_cluster, url).await?;
            Ok((found.node_id, found_cluster))
        }
        (Formation::Join(url), None, _) => {
            let answer = join(url, &JoinRequest::new(None, peer_addr, api_addr), clock).await?;
            tracing::info!(node = answer.id, cluster = answer.cluster_id, action = "join", "the cluster gave an id");
            let cluster = answer.cluster_id.parse().map_err(|_| NodeError::Join {
                url: url.clone(),
                source: ClientError::Protocol {
                    node: url.clone(),
                    detail: format!("{:?} is no cluster id", answer.cluster_id),
                    source: None,
                },
            })?;
            Ok((answer.id, Some(cluster)))
        }
        (Formation::Existing, None, _) => Err(NodeError::NoCluster { path: config.data_dir.display().to_string() }),
        // A wrong id is refused where the directory is opened.
        (_, Some(found), given) => Ok((given.unwrap_or(found.node_id), found_cluster)),
        (_, None, given) => Ok((given.unwrap_or_default(), None)), // checked: a founder has an id
    }
}

/// A directory of one cluster does not join another.
async fn check_same_cluster(config: &NodeConfig, found: Option<ClusterId>, url: &str) -> Result<(), NodeError> {
    // Whoever cannot be reached cannot disagree; members are found again through the log.
    let Some(Ok(status)) = client(url)?.status().await.into_iter().next().map(|report| report.status) else {
        return Ok(());
    };
    match (found, status.cluster_id) {
        (Some(found), Some(expected)) if found.to_string() != expected => Err(NodeError::OtherCluster {
            path: config.data_dir.display().to_string(),
            found,
            url: url.to_owned(),
            expected,
        }),
        _ => Ok(()),
    }
}

/// Asks until this node is a voter, or a learner where there are voters enough.
async fn become_member(replica: &Replica, url: &str) -> Result<(), NodeError> {
    let local = &replica.local;
    let request = JoinRequest::new(Some(local.id), &local.peer_addr, &local.api_addr);
    let mut told = None;
    loop {
        match join(url, &request, &replica.clock).await {
            Ok(answer) => {
                if told.replace(answer.standing) != Some(answer.standing) {
                    tracing::info!(standing = ?answer.standing, action = "join", "joining the cluster");
                }
                if answer.standing.is_final() {
                    return Ok(());
                }
            }
            // A member finds its way back without help; only one that never was needs the answer.
            Err(_) if replica.consensus.status().members.get(local.id).is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
        replica.clock.sleep(JOIN_ROUND).await;
    }
}

/// One ask, repeated while nobody can answer it, for at most [`JOIN_WITHIN`].
async fn join(url: &str, request: &JoinRequest, clock: &Clock) -> Result<JoinAnswer, NodeError> {
    let client = client(url)?;
    let give_up = clock.now() + JOIN_WITHIN;
    loop {
        match client.join(request).await {
            Ok(answer) => return Ok(answer),
            Err(error @ (ClientError::Unavailable { .. } | ClientError::Unknown { .. })) if clock.now() < give_up => {
                tracing::info!(url, %error, action = "join", "not joined yet");
                clock.sleep(JOIN_ROUND).await;
            }
            Err(source) => return Err(NodeError::Join { url: url.to_owned(), source }),
        }
    }
}

fn client(url: &str) -> Result<Client, NodeError> {
    Client::builder().nodes([url]).build().map_err(|source| NodeError::Join { url: url.to_owned(), source })
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::Listen { flag, address, source })
}

/// What others are told: the given address, or the one that was bound (its port may have been chosen by the system).
fn advertised(given: &Option<String>, socket: &TcpListener, asked: SocketAddr) -> String {
    given.clone().unwrap_or_else(|| socket.local_addr().unwrap_or(asked).to_string())
}
