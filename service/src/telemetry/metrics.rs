//! The service's metrics: every name, label and help text, and where they are written.
//!
//! The layers' own metrics (`seawall_*`) come from the patterns; these are the service's (`seawall_kv_*`).

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::clock::Clock;
use crate::peer::{Lane, MessageKind, NodeId};

/// Upper bounds of the duration histograms, in seconds: from a cached read to a request that ran into its deadline.
const DURATION_BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

const PEER_MESSAGES: &str = "seawall_kv_peer_messages_total";
const PEER_RPCS: &str = "seawall_kv_peer_rpcs_total";
const PEER_RPC_DURATION: &str = "seawall_kv_peer_rpc_duration_seconds";
const REQUESTS: &str = "seawall_kv_requests_total";
const REQUEST_DURATION: &str = "seawall_kv_request_duration_seconds";
const BUILD_INFO: &str = "seawall_kv_build_info";
const START_TIME: &str = "seawall_kv_start_time_seconds";
const PEER_HEALTHY: &str = "seawall_kv_peer_healthy";
const PEER_ROUND_TRIP: &str = "seawall_kv_peer_round_trip_seconds";

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To a peer.
    Sent,
    /// From a peer.
    Received,
}

impl Direction {
    const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// Installs the process's metrics recorder; the handle renders the page.
///
/// Call it before any layer is built: layers resolve their metrics when they are made.
///
/// # Errors
/// A recorder is installed already.
pub fn install(clock: &Clock) -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)?
        .install_recorder()?;
    describe();
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(START_TIME).set(Duration::from_millis(clock.wall_ms()).as_secs_f64());
    Ok(handle)
}

fn describe() {
    crate::telemetry::raft::describe();
    describe_counter!(PEER_MESSAGES, "Messages to and from other nodes");
    describe_counter!(PEER_RPCS, "Answers to messages sent to other nodes, by outcome");
    describe_histogram!(PEER_RPC_DURATION, Unit::Seconds, "Time from a message to its answer");
    describe_counter!(REQUESTS, "Client requests, by route, method, status and outcome");
    describe_histogram!(REQUEST_DURATION, Unit::Seconds, "Time to answer a client request");
    describe_gauge!(BUILD_INFO, "1, with the version that runs as a label");
    describe_gauge!(START_TIME, Unit::Seconds, "When the node started, since the Unix epoch");
    describe_gauge!(PEER_HEALTHY, "1 while the peer answers pings, else 0");
    describe_gauge!(PEER_ROUND_TRIP, Unit::Seconds, "Time of the last ping's round trip");
}

/// A message went to a peer or came from one.
pub fn peer_message(direction: Direction, kind: MessageKind) {
    counter!(PEER_MESSAGES, "direction" => direction.name(), "message" => kind.name()).increment(1);
}

/// A message to a peer has its answer, or none.
pub fn peer_rpc(peer: NodeId, lane: Lane, outcome: &'static str, took: Duration) {
    counter!(PEER_RPCS, "peer" => peer.to_string(), "lane" => lane.name(), "outcome" => outcome).increment(1);
    histogram!(PEER_RPC_DURATION, "peer" => peer.to_string(), "lane" => lane.name()).record(took.as_secs_f64());
}

/// A client's request was answered.
pub fn request(route: &str, method: &'static str, status: u16, outcome: &'static str, took: Duration) {
    let route = route.to_owned();
    counter!(REQUESTS, "route" => route.clone(), "method" => method, "status" => status.to_string(), "outcome" => outcome)
        .increment(1);
    histogram!(REQUEST_DURATION, "route" => route, "method" => method).record(took.as_secs_f64());
}

/// A ping was answered or missed.
pub fn peer_health(peer: NodeId, healthy: bool, round_trip: Option<Duration>) {
    gauge!(PEER_HEALTHY, "peer" => peer.to_string()).set(if healthy { 1.0 } else { 0.0 });
    if let Some(round_trip) = round_trip {
        gauge!(PEER_ROUND_TRIP, "peer" => peer.to_string()).set(round_trip.as_secs_f64());
    }
}
