//! A cluster of real processes on loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use seawall_kv::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::{Answer, Process, Request, SendError, binary, eventually, free_port};

/// A start reads little, but on a busy machine everything takes its time.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Several elections.
const LEADER_WITHIN: Duration = Duration::from_secs(20);

/// How often a cluster is started with other ports when somebody took one of them.
const PORT_TRIES: u32 = 5;

/// Clusters of one test program take turns: two at once on a small machine would disturb each other's elections.
static TURN: Mutex<()> = Mutex::const_new(());

/// A cluster; its nodes are numbered by the order of their start, which for founders is their id.
///
/// Dropping it ends every process; when a test fails, the last lines of every node's log are shown.
#[derive(Debug)]
pub struct Cluster {
    // Fields drop in this order: the processes end before their data goes.
    nodes: BTreeMap<u64, Node>,
    flags: Vec<String>,
    dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Debug)]
struct Node {
    process: Process,
    api: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
}

/// `/cluster/status` of one node.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

impl Cluster {
    /// Founders that form a cluster together, ready.
    pub async fn founded(size: u64) -> Self {
        Self::founded_with(size, &[]).await
    }

    /// As [`Cluster::founded`], with more flags on every node.
    ///
    /// # Panics
    ///
    /// When they do not become ready.
    pub async fn founded_with(size: u64, flags: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let mut this = Self {
            nodes: BTreeMap::new(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            dir: tempfile::tempdir().unwrap(),
            _turn: turn,
        };
        for _ in 0..PORT_TRIES {
            this.found(size);
            if this.ready_or_taken().await {
                return this;
            }
            this.nodes.clear();
            this.dir = tempfile::tempdir().unwrap();
        }
        panic!("no free ports in {PORT_TRIES} tries");
    }

    /// One node that formed a cluster with `--bootstrap`.
    pub async fn alone() -> Self {
        Self::founded_with(1, &[]).await
    }

    fn found(&mut self, size: u64) {
        for id in 1..=size {
            self.add(id);
        }
        let founders: Vec<_> = self.nodes.iter().map(|(id, node)| format!("{id}={}", node.peer)).collect();
        let founders = founders.join(",");
        for (id, node) in &mut self.nodes {
            let id = id.to_string();
            node.process.args.extend(["--node-id", &id].map(str::to_owned));
            if size == 1 {
                node.process.args.push("--bootstrap".to_owned());
            } else {
                node.process.args.extend(["--nodes", &founders].map(str::to_owned));
            }
            node.process.spawn();
        }
    }

    /// A node that is not started; the flags that say how it comes to its cluster are still missing.
    fn add(&mut self, place: u64) {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (api, peer) = (address(), address());
        let data = self.dir.path().join(place.to_string());
        let mut process = Process::new(&format!("node-{place}"), self.dir.path(), binary());
        process.args = ["serve", "--exit-on-stdin-close"].map(str::to_owned).to_vec();
        process.args.extend(["--listen".to_owned(), api.to_string(), "--peer-listen".to_owned(), peer.to_string()]);
        process.args.extend(["--data-dir".to_owned(), data.display().to_string()]);
        process.args.extend(self.flags.iter().cloned());
        self.nodes.insert(place, Node { process, api, peer, data });
    }

    /// Waits until all are ready; `false` when one of them could not have its port.
    async fn ready_or_taken(&mut self) -> bool {
        let places: Vec<_> = self.nodes.keys().copied().collect();
        eventually("the new cluster is ready", READY_WITHIN, async || {
            for place in &places {
                let node = self.nodes.get_mut(place).unwrap();
                if let Some(status) = node.process.ended() {
                    let log = node.process.log();
                    assert!(log.contains("cannot listen"), "node {place} ended with {status}: {log}");
                    return Ok(false);
                }
            }
            for place in &places {
                self.is_ready(*place).await?;
            }
            Ok(true)
        })
        .await
    }

    async fn is_ready(&self, place: u64) -> Result<(), String> {
        match self.ask(place, &Request::get("/health/ready")).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("node {place}: {}", answer.text())),
            Err(error) => Err(format!("node {place}: {error:?}")),
        }
    }

    /// A further node that joins through the one at `through`; it is started, not yet a member. Returns its place.
    pub fn join(&mut self, through: u64) -> u64 {
        let place = self.nodes.keys().next_back().map_or(1, |last| last + 1);
        let url = format!("http://{}", self.api(through));
        self.add(place);
        let process = &mut self.node_mut(place).process;
        process.args.extend(["--join".to_owned(), url]);
        process.spawn();
        place
    }

    /// The places of all nodes, started or not.
    pub fn places(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Where the node serves clients.
    pub fn api(&self, place: u64) -> SocketAddr {
        self.node(place).api
    }

    /// Where the node keeps its data.
    pub fn data(&self, place: u64) -> &Path {
        &self.node(place).data
    }

    /// What the node printed so far.
    pub fn log(&self, place: u64) -> String {
        self.node(place).process.log()
    }

    /// The node's process.
    pub fn process(&mut self, place: u64) -> &mut Process {
        &mut self.node_mut(place).process
    }

    /// Starts the node with the same flags as before.
    pub fn start(&mut self, place: u64) {
        self.node_mut(place).process.spawn();
    }

    /// `kill -9`.
    pub fn kill(&mut self, place: u64) {
        self.node_mut(place).process.kill();
    }

    /// SIGTERM, and how the node ended within `limit`.
    pub async fn terminate(&mut self, place: u64, limit: Duration) -> ExitStatus {
        let process = &mut self.node_mut(place).process;
        process.signal(Signal::TERM);
        process.ended_within(limit).await
    }

    /// Waits until the node is ready.
    pub async fn ready(&self, place: u64) {
        eventually("the node is ready", READY_WITHIN, async || self.is_ready(place).await).await;
    }

    /// Sends a request to one node.
    ///
    /// # Errors
    ///
    /// There was no answer.
    pub async fn ask(&self, place: u64, request: &Request) -> Result<Answer, SendError> {
        request.send(self.api(place)).await
    }

    /// Sends a request to one node that must answer.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn answer(&self, place: u64, request: &Request) -> Answer {
        self.ask(place, request).await.unwrap_or_else(|error| panic!("node {place}, {request:?}: {error:?}"))
    }

    /// The cluster as the node sees it.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub async fn status(&self, place: u64) -> Result<Status, String> {
        match self.ask(place, &Request::get("/cluster/status")).await {
            Ok(answer) if answer.status == 200 => Ok(Status(answer.json())),
            other => Err(format!("node {place}: {other:?}")),
        }
    }

    /// The place of the node that leads, by its own word and that of the highest term; only for founders.
    pub async fn leader(&self) -> u64 {
        eventually("there is a leader", LEADER_WITHIN, async || {
            let mut statuses = Vec::new();
            for place in self.nodes.keys() {
                statuses.extend(self.status(*place).await.ok());
            }
            let leader = statuses.iter().filter(|status| status.leader() == Some(status.node_id()));
            let leader = leader.max_by_key(|status| status.term());
            leader.map(Status::node_id).ok_or_else(|| format!("{statuses:?}"))
        })
        .await
    }

    /// A client of these nodes.
    ///
    /// # Panics
    ///
    /// Never: the addresses are good.
    pub fn client_of(&self, places: &[u64]) -> Client {
        let urls = places.iter().map(|place| format!("http://{}", self.api(*place)));
        Client::builder().nodes(urls).build().unwrap()
    }

    /// A client of all nodes.
    pub fn client(&self) -> Client {
        self.client_of(&self.places())
    }

    fn node(&self, place: u64) -> &Node {
        self.nodes.get(&place).expect("the node exists")
    }

    fn node_mut(&mut self, place: u64) -> &mut Node {
        self.nodes.get_mut(&place).expect("the node exists")
    }
}

impl Status {
    /// The node that answered.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub fn node_id(&self) -> u64 {
        self.0["node_id"].as_u64().unwrap()
    }

    /// Who leads, as far as it knows.
    pub fn leader(&self) -> Option<u64> {
        self.0["leader"].as_u64()
    }

    /// Its term.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub fn term(&self) -> u64 {
        self.0["term"].as_u64().unwrap()
    }

    /// The revision of its keyspace.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub fn revision(&self) -> u64 {
        self.0["revision"].as_u64().unwrap()
    }

    /// The members that vote.
    pub fn voters(&self) -> Vec<u64> {
        let nodes = self.0["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let voters = nodes.iter().filter(|node| node["voter"] == true);
        voters.filter_map(|node| node["id"].as_u64()).collect()
    }
}
