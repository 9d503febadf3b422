//! One request to one node over a pooled HTTP/1.1 connection, with its whole answer.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use seawall::BoxError;
use tower::Service;

use crate::consensus::MAX_VALUE_BYTES;

/// How long a node may take to accept a connection. Below any sensible deadline, so that a node that swallows packets
/// is "never reached", which can be retried, and not "no answer", which a write cannot.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An idle connection is closed after this: before a server or anything between would do it under a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer that is read. A value is at most [`MAX_VALUE_BYTES`]; a page of metrics may be larger.
const MAX_ANSWER_BYTES: usize = 4 * MAX_VALUE_BYTES;

/// The remaining time of a call, for the node's own deadline.
pub(super) const DEADLINE: HeaderName = HeaderName::from_static("x-seawall-deadline-ms");

/// A pool of connections; clones share it.
#[derive(Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

/// One call, whichever node will get it. Cloning it copies no body.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The node that gave it.
    pub(crate) node: Node,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Where a node is: scheme, host and port.
#[derive(Debug, Clone)]
pub(crate) struct Node(http::uri::Authority);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No connection was made: the node has not seen a byte.
    #[error("{node} cannot be reached")]
    NotSent { node: Node, source: BoxError },
    /// The connection broke before the answer was complete; the node may have done what was asked.
    #[error("the connection to {node} broke before its answer was complete")]
    Broken { node: Node, source: BoxError },
}

/// One node as a service.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    http: Http,
    node: Node,
}

impl Http {
    /// An empty pool.
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true); // requests are small, and each waits for its answer
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // The pool repeats a request on its own only if it is handed back unsent by a connection that closed while
        // idle. That is certain, so it holds for writes too.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .retry_canceled_requests(true)
            .build(connector);
        Self(client)
    }

    /// Sends `call` to `node` and reads the whole answer. Dropping the future closes the connection.
    pub(crate) async fn send(&self, node: &Node, call: Call) -> Result<Answer, CallError> {
        let broken = |source: BoxError| CallError::Broken { node: node.clone(), source };
        let not_sent = |source: BoxError| CallError::NotSent { node: node.clone(), source };

        let uri = Uri::builder().scheme("http").authority(node.0.clone()).path_and_query(call.path);
        let uri = uri.build().map_err(|error| not_sent(error.into()))?;
        let mut request = Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = call.headers;

        let response = match self.0.request(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Err(not_sent(error.into())),
            Err(error) => return Err(broken(error.into())),
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(broken)?.to_bytes();
        Ok(Answer { node: node.clone(), status: head.status, headers: head.headers, body })
    }
}

impl Call {
    /// A call without headers and body.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Whether it only reads, so that repeating it changes nothing.
    pub(super) fn is_read(&self) -> bool {
        self.method == Method::GET
    }
}

impl Node {
    /// The node at `url`: `http://HOST:PORT`, or `HOST:PORT`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let text = url.trim();
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(format!("`{text}`: the scheme {scheme} is not supported, only http")),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        match rest.parse::<http::uri::Authority>() {
            Ok(authority) if authority.port_u16().is_some() && !rest.contains('@') && !authority.host().is_empty() => {
                Ok(Self(authority))
            }
            _ => Err(format!("`{text}` is not http://HOST:PORT")),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl Transport {
    pub(super) fn new(http: Http, node: Node) -> Self {
        Self { http, node }
    }
}

impl Service<Call> for Transport {
    type Response = Answer;
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, CallError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        let Self { http, node } = self.clone();
        Box::pin(async move {
            if let Some(left) = seawall::Deadline::remaining() {
                // A little sooner than we stop listening, so that the node's own word on the outcome still arrives.
                let millis = u64::try_from(left.mul_f64(0.95).as_millis()).unwrap_or(u64::MAX);
                call.headers.insert(DEADLINE, HeaderValue::from(millis));
            }
            http.send(&node, call).await
        })
    }
}
