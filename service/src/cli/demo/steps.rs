//! What is asked of nodes, and what is waited for.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde_json::{Value as Json, json};

use super::cluster::Cluster;
use super::eventually::eventually;
use crate::client::{Client, ClusterStatus, Http, HttpCall, HttpNode};
use crate::peer::NodeId;

/// A node starts, an election is held, a node catches up: each takes a second or two; this is the end of patience.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Reads under way at once when much is read back.
const READS_AT_ONCE: usize = 32;

/// Asks one node, by plain HTTP, for what the client library has no call for. The answer of any success.
pub(super) async fn fetch(url: &str, call: HttpCall) -> Result<Bytes, String> {
    let node = HttpNode::parse(url)?;
    let path = call.path.clone();
    // A pool of its own: a connection to the process that was there before a kill must not be met again.
    let answer = Http::new().send(&node, call).await.map_err(|error| error.to_string())?;
    if answer.status.is_success() {
        return Ok(answer.body);
    }
    Err(format!("{path} answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

/// The page at `path`, as text.
pub(super) async fn page(url: &str, path: &str) -> Result<String, String> {
    let body = fetch(url, HttpCall::new(Method::GET, path)).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// `POST /set`: the revision of the write.
pub(super) async fn set(url: &str, key: &str, value: &str) -> Result<Json, String> {
    let mut call = HttpCall::new(Method::POST, "/set");
    call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    call.body = json!({ "key": key, "value": value }).to_string().into();
    let body = fetch(url, call).await?;
    serde_json::from_slice(&body).map_err(|error| format!("/set answered no JSON: {error}"))
}

/// `GET /get/{key}`: the value.
pub(super) async fn get(url: &str, key: &str) -> Result<Json, String> {
    let body = page(url, &format!("/get/{key}")).await?;
    let mut object: Json = serde_json::from_str(&body).map_err(|error| format!("/get answered no JSON: {error}"))?;
    Ok(object["value"].take())
}

/// What one node says of the cluster.
pub(super) async fn status(cluster: &Cluster, id: NodeId) -> Result<ClusterStatus, String> {
    let body = page(&cluster.url(id), "/cluster/status").await?;
    serde_json::from_str(&body).map_err(|error| format!("/cluster/status is not what was expected: {error}"))
}

/// Waits until every running node is ready and all name the same running leader; returns it.
pub(super) async fn all_ready(cluster: &Cluster) -> Result<(NodeId, Duration), String> {
    let poll = async || {
        for id in cluster.running() {
            page(&cluster.url(id), "/health/ready").await.map_err(|error| format!("node {id}: {error}"))?;
        }
        leader(cluster, None).await
    };
    eventually("all nodes ready with one leader", PATIENCE, poll).await
}

/// The leader that every running node names, if it runs and is not `former`.
pub(super) async fn leader(cluster: &Cluster, former: Option<NodeId>) -> Result<NodeId, String> {
    let running = cluster.running();
    let mut named = None;
    for id in &running {
        let status = status(cluster, *id).await.map_err(|error| format!("node {id}: {error}"))?;
        let leader = status.leader.ok_or_else(|| format!("node {id} knows no leader"))?;
        if Some(leader) == former || !running.contains(&leader) {
            return Err(format!("node {id} still follows node {leader}"));
        }
        if named.is_some_and(|named| named != leader) {
            return Err(format!("node {id} names node {leader}, another one does not"));
        }
        named = Some(leader);
    }
    named.ok_or_else(|| "no node runs".to_owned())
}

/// How far a node's state is, by its own word.
pub(super) async fn applied(cluster: &Cluster, id: NodeId) -> Result<u64, String> {
    let status = status(cluster, id).await?;
    status.node(id).and_then(|node| node.last_applied).ok_or_else(|| format!("node {id} does not tell last_applied"))
}

/// Reads every pair through `client` and returns how many there are, or the first that is not as it should be.
pub(super) async fn read_back<'a>(
    client: &Client,
    pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<u64, String> {
    let reads = pairs.into_iter().map(|(key, expected)| async move {
        match client.get(key).await {
            Ok(Some(value)) if value.value == expected => Ok(()),
            Ok(Some(value)) => Err(format!("{key} is {:?}", String::from_utf8_lossy(&value.value))),
            Ok(None) => Err(format!("{key} is lost")),
            Err(error) => Err(format!("{key}: {error}")),
        }
    });
    stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_fold(0, async |count, ()| Ok(count + 1)).await
}
