//! The layers between a call and the network, with the reason for each.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use seawall::circuit_breaker::{CancelPolicy, CircuitBreakerConfig, CircuitBreakerLayer};
use seawall::{
    Backoff, BoxError, InvalidConfig, RetryBudget, RetryBudgetConfig, RetryConfig, RetryLayer, TimeoutConfig,
    TimeoutLayer,
};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

use crate::client::nodes::RoundRobin;
use crate::client::policy::SafeRetry;
use crate::client::transport::{Answer, Call, Http, Node, Transport};

/// The name of the layers in metrics and errors.
const NAME: &str = "client";

/// The share of the deadline that one attempt at a read may take: a node that hangs leaves time for two others.
const READ_ATTEMPT_SHARE: f64 = 0.4;

/// The first pause is below a round trip to a node that just lost its leader, the longest below an election.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(400));

/// So many attempts at the longest pause outlast the default deadline: time ends a call, not this number.
const MAX_ATTEMPTS: u32 = 32;

/// What is repeated was refused before any work, so it costs the cluster little, and an election fails every call for a
/// second: half a retry for each call, and enough for sixty callers who wait for one.
const BUDGET: RetryBudgetConfig = RetryBudgetConfig::new().ratio(0.5).floor_per_second(50.0);

/// So many failures in a row are no accident, and rare enough traffic still finds them.
const TRIP_AFTER: u32 = 5;

/// A node that restarts is back within this time.
const OPEN_FOR: Duration = Duration::from_secs(1);

/// A node that is away for long costs one refused connection in this time.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// A service with all its layers.
pub(super) type Service = BoxCloneSyncService<Call, Answer, BoxError>;

/// A service over all nodes, and one for each node alone.
#[derive(Debug, Clone)]
pub(super) struct Stack {
    all: Service,
    each: Arc<[(Node, Service)]>,
}

impl Stack {
    /// The layers over `nodes`; a call takes at most `deadline`.
    pub(super) fn new(http: &Http, nodes: &[Node], deadline: Duration) -> Result<Self, InvalidConfig> {
        let read_attempt = deadline.mul_f64(READ_ATTEMPT_SHARE);
        let total = TimeoutLayer::new(TimeoutConfig::total(NAME, deadline))?;
        let attempt = TimeoutLayer::new(TimeoutConfig::attempt(NAME, read_attempt))?;
        let (base, cap) = BACKOFF;
        let retry = RetryConfig::new(NAME).max_attempts(MAX_ATTEMPTS).backoff(Backoff::exponential(base).cap(cap));
        let retry = RetryLayer::new(retry, SafeRetry { alone: nodes.len() == 1 })?.budget(RetryBudget::new(BUDGET)?);

        let mut reads: Vec<Service> = Vec::with_capacity(nodes.len());
        let mut writes: Vec<Service> = Vec::with_capacity(nodes.len());
        let mut each = Vec::with_capacity(nodes.len());
        for node in nodes {
            let transport = Transport::new(http.clone(), node.clone()).map_err(BoxError::from);
            let breaker = CircuitBreakerLayer::new(breaker(node, read_attempt))?;
            reads.push(
                ServiceBuilder::new()
                    .layer(BoxCloneSyncService::layer())
                    .layer(breaker.clone()) // one for each node: reads and writes learn from each other
                    .layer(attempt.clone()) // inside the breaker, which counts a node that hangs
                    .service(transport.clone()),
            );
            writes.push(
                ServiceBuilder::new()
                    .layer(BoxCloneSyncService::layer())
                    .layer(breaker) // the same breaker
                    // No limit for the attempt: a write cut off is unknown and not repeated, so it may use all the time.
                    .service(transport.clone()),
            );
            let alone = ServiceBuilder::new()
                .layer(BoxCloneSyncService::layer())
                .layer(total.clone()) // neither retry nor breaker: the question is how this node is now
                .service(transport);
            each.push((node.clone(), alone));
        }
        let turn = Arc::<AtomicUsize>::default();
        let over = |nodes| {
            ServiceBuilder::new()
                .layer(BoxCloneSyncService::layer()) // a type that can be named
                .layer(total.clone()) // the whole call, retries included; what is below sees it as the deadline
                .layer(retry.clone()) // outside of the turn: the next attempt goes to the next node
                .service(RoundRobin::new(nodes, turn.clone())) // passes over nodes whose breaker is open
        };
        let (reads, writes): (Service, Service) = (over(reads), over(writes));
        let by_kind = move |call: Call| if call.is_read() { reads.clone() } else { writes.clone() }.oneshot(call);
        Ok(Self { all: Service::new(tower::service_fn(by_kind)), each: each.into() })
    }

    /// Over all nodes.
    pub(super) fn all(&self) -> Service {
        self.all.clone()
    }

    /// Over one node alone, for each.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Node, Service)> {
        self.each.iter().map(|(node, service)| (node, service.clone()))
    }
}

/// Opens on connections refused or broken and on nodes that hang. Every answer is a success of the node, whatever it
/// says: a "no leader" is about the cluster, and the retry waits for that.
fn breaker(node: &Node, hangs_after: Duration) -> CircuitBreakerConfig {
    CircuitBreakerConfig::new(format!("{NAME}/{node}"))
        .consecutive_failures(TRIP_AFTER)
        .open_for(OPEN_FOR)
        .open_max(OPEN_MAX)
        .probes(1) // with few calls, three probes would take long to come together
        .probe_success_rate(1.0)
        .probe_timeout(hangs_after)
        .cancel(CancelPolicy::FailureAfter(hangs_after)) // a write that the total deadline cut off
}
