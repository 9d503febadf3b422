//! The layers between a call and the network.

use std::sync::Arc;
use std::time::Duration;

use seawall::{BoxError, Deadline, InvalidConfig, TimeoutConfig, TimeoutLayer};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

use crate::client::nodes::RoundRobin;
use crate::client::policy::{Verdict, judge};
use crate::client::transport::{Answer, Call, Http, Node, Transport};

/// Between two attempts, where nobody says how long to wait.
const PAUSE: Duration = Duration::from_millis(50);

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
        let total = TimeoutLayer::new(TimeoutConfig::total("client", deadline))?;
        let transport = |node: &Node| Transport::new(http.clone(), node.clone()).map_err(BoxError::from);
        let finish = |nodes: RoundRobin<_>| {
            ServiceBuilder::new()
                .layer(BoxCloneSyncService::layer()) // a type that can be named
                .layer(total.clone()) // the whole call, retries included
                .service_fn(move |call| retry(nodes.clone(), call))
        };
        let each = nodes
            .iter()
            .map(|node| (node.clone(), finish(RoundRobin::new([transport(node)], Arc::default()))))
            .collect();
        Ok(Self { all: finish(RoundRobin::new(nodes.iter().map(transport), Arc::default())), each })
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

/// Tries again what was certainly not done, as long as the deadline leaves time for the wait.
async fn retry<S>(nodes: S, call: Call) -> Result<Answer, BoxError>
where
    S: tower::Service<Call, Response = Answer, Error = BoxError> + Clone,
{
    loop {
        let result = nodes.clone().oneshot(call.clone()).await;
        let Verdict::NotApplied { again: true, retry_after } = judge(call.is_read(), result.as_ref()) else {
            return result;
        };
        let wait = retry_after.unwrap_or(PAUSE);
        if Deadline::remaining().is_some_and(|left| left <= wait) {
            return result;
        }
        tokio::time::sleep(wait).await;
    }
}
