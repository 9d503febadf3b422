//! What stands before the server.

use std::time::Duration;

use seawall::token_bucket::{Rate, TokenBucketConfig, TokenBucketLayer};
use seawall::{BulkheadConfig, BulkheadLayer};
use tower::layer::util::Identity;
use tower::util::BoxCloneService;
use tower::{Service, ServiceBuilder};

use crate::BoxError;
use crate::overload::server::{Job, Server};

/// A stack around the server.
pub type Protected = BoxCloneService<Job, (), BoxError>;

/// One of the ways to protect the server that are compared.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// What it is called in the table and in the figure.
    pub name: &'static str,
    /// How it is set, for the legend.
    pub setting: &'static str,
    /// Puts a fresh one before a server.
    protect: fn(Server) -> Result<Protected, BoxError>,
}

impl Limit {
    /// A fresh stack of it around `server`.
    ///
    /// # Errors
    /// Its configuration is refused.
    pub fn protect(&self, server: Server) -> Result<Protected, BoxError> {
        (self.protect)(server)
    }
}

/// The limit whose goodput must [not collapse](super::Verdict).
pub const REFUSING: &str = "refusing bulkhead";

/// All that are compared.
///
/// Twice as many requests in flight as the server has cores: one is at hand when a core has nothing to do, and most are
/// answered in a quarter of the time that callers wait. The queue is as long as what the server works off in half of it. A rate
/// limit does not see how much work the requests are: it keeps a fifth of the capacity for when they are more than on average.
pub const LIMITS: [Limit; 4] = [
    Limit {
        name: "no limit",
        setting: "every request is let in",
        protect: |server| Ok(boxed(ServiceBuilder::new().layer(Identity::new()).service(server))),
    },
    Limit {
        name: "waiting bulkhead",
        setting: "16 in flight, 50 more wait up to 500 ms",
        protect: |server| {
            let config = BulkheadConfig::new("server", 16).max_waiting(50).max_wait(Duration::from_millis(500));
            Ok(boxed(ServiceBuilder::new().layer(BulkheadLayer::new(config)?).service(server)))
        },
    },
    Limit {
        name: REFUSING,
        setting: "16 in flight, nobody waits",
        protect: |server| {
            let config = BulkheadConfig::new("server", 16);
            Ok(boxed(ServiceBuilder::new().layer(BulkheadLayer::new(config)?).service(server)))
        },
    },
    Limit {
        name: "rate limit",
        setting: "80 requests per second, bursts of 8",
        protect: |server| {
            let config = TokenBucketConfig::new("server", Rate::per_second(80), 8);
            Ok(boxed(ServiceBuilder::new().layer(TokenBucketLayer::new(config)?).service(server)))
        },
    },
];

fn boxed<S>(stack: S) -> Protected
where
    S: Service<Job, Response = (), Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    BoxCloneService::new(stack)
}
