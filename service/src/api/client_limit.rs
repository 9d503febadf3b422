//! A limit for each client of this node, off by default.
//!
//! It stands where the client connects: a request that goes on to the leader is not counted again there. Each client has a
//! slot, picked by a hash with a secret of this process. So the memory is bounded whatever clients send, nothing of an
//! API key is kept, and nobody can choose with whom to share a slot or fill the places of others.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use governor::Quota;
use governor::state::keyed::HashMapStateStore;
use http::{HeaderMap, HeaderName, StatusCode};
use seawall::adapters::governor::{GovernorConfig, GovernorHandle, Keyed, KeyedLimiter, keyed_limiter};
use seawall::http::RejectedToResponseLayer;
use seawall::{BoxError, InvalidConfig, Rejected};
use tower::ServiceBuilder;

use super::ApiError;
use crate::config::{ClientLimit, LimitBy};

/// Names a client. It is not verified.
pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// The name in metrics.
const NAME: &str = "clients";
/// Places for clients; one is taken while its client has something to account for. Of a thousand clients at one time about
/// four share theirs.
const SLOTS: u32 = 1 << 18;

type Limiter = KeyedLimiter<u32, HashMapStateStore<u32>>;

/// What each client may ask of this node. Clones share what the clients have used up.
#[derive(Debug, Clone)]
pub(crate) struct ClientLimits {
    by: LimitBy,
    secret: RandomState,
    limits: GovernorHandle<Keyed<Limiter>>,
}

impl ClientLimits {
    /// Nobody has asked for anything yet.
    ///
    /// # Errors
    /// A rate or burst out of its bounds.
    pub(crate) fn new(limit: ClientLimit) -> Result<Self, InvalidConfig> {
        let quota = Quota::per_second(at_least_one("rate_per_second", limit.rate_per_second)?)
            .allow_burst(at_least_one("burst", limit.burst)?);
        let limiter = keyed_limiter(quota, HashMapStateStore::default(), SLOTS as usize);
        let limits = GovernorHandle::keyed(GovernorConfig::new(NAME), Arc::new(limiter))?;
        Ok(Self { by: limit.by, secret: RandomState::new(), limits })
    }

    /// Puts the limit before `router`, for a connection from `from`. Nothing of a request is read but its headers.
    pub(super) fn before<S>(&self, router: Router<S>, from: SocketAddr) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let address = self.slot(network(from.ip()));
        let limits = self.clone();
        let slot = move |request: &Request| limits.key(request.headers()).unwrap_or(address);
        router.layer(
            ServiceBuilder::new()
                .layer(RejectedToResponseLayer::new().problem(refused)) // a refusal is an answer
                .layer(self.limits.layer(slot)),
        )
    }

    /// The slot of the client that names itself, where that counts.
    fn key(&self, headers: &HeaderMap) -> Option<u32> {
        if self.by == LimitBy::Address {
            return None;
        }
        headers.get(API_KEY).map(|key| key.as_bytes()).filter(|key| !key.is_empty()).map(|key| self.slot(key))
    }

    fn slot(&self, client: impl std::hash::Hash) -> u32 {
        // The remainder is below `SLOTS`.
        u32::try_from(self.secret.hash_one(client) % u64::from(SLOTS)).unwrap_or_default()
    }
}

fn at_least_one(field: &'static str, value: u32) -> Result<NonZeroU32, InvalidConfig> {
    NonZeroU32::new(value).ok_or_else(|| InvalidConfig::new(field, value, "at least 1"))
}

/// What one client has of addresses: one of IPv4, the first 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => std::net::Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    }
}

fn refused(_: StatusCode, error: &BoxError) -> Response {
    let retry_after = Rejected::find(&**error).and_then(|rejected| rejected.retry_after);
    ApiError::Limited { retry_after: retry_after.unwrap_or(Duration::from_secs(1)) }.into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::body::Body;
    use axum::routing::put;
    use http::header::RETRY_AFTER;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    /// A node that answers every request, and how many reached it.
    struct Node {
        limits: ClientLimits,
        reached: Arc<AtomicU32>,
    }

    impl Node {
        fn new(by: LimitBy, rate_per_second: u32, burst: u32) -> Self {
            let limits = ClientLimits::new(ClientLimit { by, rate_per_second, burst }).unwrap();
            Self { limits, reached: Arc::default() }
        }

        /// A request over a connection of its own.
        async fn ask(&self, from: &str, key: Option<&str>) -> Response {
            let reached = Arc::clone(&self.reached);
            let handler = put(async move |_: Request| {
                // ORDERING: Relaxed, one thread.
                reached.fetch_add(1, Ordering::Relaxed);
            });
            let router = self.limits.before(Router::new().route("/v1/strong/k", handler), from.parse().unwrap());
            let mut request = http::Request::put("/v1/strong/k");
            if let Some(key) = key {
                request = request.header(API_KEY, key);
            }
            router.oneshot(request.body(Body::from("value")).unwrap()).await.unwrap()
        }

        /// How many of so many requests at once are answered.
        async fn answered(&self, from: &str, key: Option<&str>, asked: u32) -> u32 {
            let mut answered = 0;
            for _ in 0..asked {
                answered += u32::from(self.ask(from, key).await.status() == StatusCode::OK);
            }
            answered
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_is_limited_and_another_is_not() {
        let node = Node::new(LimitBy::Address, 2, 4);
        assert_eq!(node.answered("192.0.2.1:1000", None, 6).await, 4);
        assert_eq!(node.answered("192.0.2.1:2000", Some("key"), 6).await, 0, "whatever the port, and it has no key");
        assert_eq!(node.answered("192.0.2.2:1000", None, 6).await, 4);
        assert_eq!(node.answered("[::ffff:192.0.2.2]:1000", None, 6).await, 0, "IPv4 in IPv6 is IPv4");
        assert_eq!(node.answered("[2001:db8::1]:1000", None, 6).await, 4);
        assert_eq!(node.answered("[2001:db8::ffff]:1000", None, 6).await, 0, "one client has a whole /64");
        assert_eq!(node.answered("[2001:db8:0:1::1]:1000", None, 6).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_lets_up_gets_its_rate_and_no_more() {
        let node = Node::new(LimitBy::Address, 100, 50);
        let mut answered = 0;
        for _ in 0..10_000 {
            answered += node.answered("192.0.2.1:1000", None, 1).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Ten seconds, and the first burst on top.
        assert!((999..=1050).contains(&answered), "{answered}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_api_key_is_limited_and_another_is_not() {
        let node = Node::new(LimitBy::ApiKey, 1, 3);
        assert_eq!(node.answered("192.0.2.1:1000", Some("ann"), 5).await, 3);
        assert_eq!(node.answered("192.0.2.2:1000", Some("ann"), 5).await, 0, "wherever it comes from");
        assert_eq!(node.answered("192.0.2.1:1000", Some("ben"), 5).await, 3);
        assert_eq!(node.answered("192.0.2.1:1000", None, 5).await, 3, "without a key it is the address");
        assert_eq!(node.answered("192.0.2.1:1000", Some(""), 5).await, 0, "an empty key is none");
        assert_eq!(node.answered("192.0.2.2:1000", None, 5).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_when_and_that_nothing_was_done() {
        let node = Node::new(LimitBy::Address, 2, 1);
        assert_eq!(node.ask("192.0.2.1:1000", None).await.status(), StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let refused = node.ask("192.0.2.1:1000", None).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()[RETRY_AFTER], "1", "less than a second, rounded up");
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["outcome"], "not_applied");
        let millis = problem["retry_after_ms"].as_u64().unwrap();
        assert_eq!(millis, 400, "half a second after the first");
        // ORDERING: Relaxed, as above.
        assert_eq!(node.reached.load(Ordering::Relaxed), 1, "nobody read it");
        tokio::time::sleep(Duration::from_millis(millis)).await;
        assert_eq!(node.ask("192.0.2.1:1000", None).await.status(), StatusCode::OK);
    }
}
