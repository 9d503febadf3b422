//! The calling end: connects on demand, greets, sends one request per message.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use seawall::{BoxError, Deadline};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tower::Service;

use super::append::AppendLane;
use super::{APPEND_PATH, CONNECTION_WINDOW_BYTES, DEADLINE_HEADER, HELLO_PATH, MAX_BODY_BYTES, STREAM_WINDOW_BYTES};
use crate::clock::Clock;
use crate::peer::{
    Hello, Lane, LocalNode, MessageKind, PeerClient, PeerError, PeerRequest, PeerResponse, RemoteCode, RemoteError,
};
use crate::transport::{Target, Transport};

/// How long a connection may take, greeting included. A peer in the same site answers in milliseconds; a second leaves
/// room for one lost SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// An idle connection is checked this often, so that a silently dead one is replaced.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the check may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What we send: one message, or the frames of the append stream.
pub(super) type Outgoing = Either<Full<Bytes>, StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>>;

/// HTTP/2 to other processes.
#[derive(Debug, Clone)]
pub struct Http2 {
    local: LocalNode,
    clock: Clock,
    append_answer_within: Duration,
}

impl Http2 {
    /// Peers of `local`. When an append is not answered `append_answer_within` (the election minimum), its stream is
    /// given up: a follower that slow would start an election anyway.
    pub fn new(local: LocalNode, clock: Clock, append_answer_within: Duration) -> Self {
        Self { local, clock, append_answer_within }
    }
}

impl Transport for Http2 {
    fn lane(&self, target: Target) -> PeerClient {
        let lane = target.lane;
        let dialer = Dialer { target, local: self.local.clone(), clock: self.clock.clone() };
        match lane {
            Lane::Append => PeerClient::new(AppendLane::new(dialer, self.append_answer_within)),
            Lane::Control | Lane::Data | Lane::Bulk => PeerClient::new(UnaryLane {
                shared: Arc::new(Shared { dialer, connection: Mutex::new(Connection::default()) }),
            }),
        }
    }
}

/// Opens connections to one target.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    target: Target,
    local: LocalNode,
    pub(super) clock: Clock,
}

impl Dialer {
    /// A greeted connection.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`], or [`PeerError::Remote`] when somebody else lives there. Neither sent a message.
    pub(super) async fn connect(&self) -> Result<Greeted, PeerError> {
        match self.clock.timeout(CONNECT_TIMEOUT, self.connect_and_greet()).await {
            Some(result) => result,
            None => Err(PeerError::Unreachable(format!("no connection within {CONNECT_TIMEOUT:?}").into())),
        }
    }

    async fn connect_and_greet(&self) -> Result<Greeted, PeerError> {
        let stream = TcpStream::connect(&self.target.address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        // Ends by itself when the last `SendRequest` is dropped or the connection breaks; both are seen by the senders.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let ours = self.local.cluster().map(str::to_owned);
        let theirs = self.greet(&mut sender).await?.cluster;
        Ok(Greeted { sender, ours, theirs })
    }

    async fn greet(&self, sender: &mut SendRequest<Outgoing>) -> Result<Hello, PeerError> {
        let hello = self.local.hello(self.target.node, self.target.lane);
        let body = postcard::to_stdvec(&hello).map_err(unreachable)?;
        let request = self.request(HELLO_PATH, Either::Left(Full::new(body.into()))).map_err(unreachable)?;
        let response = sender.send_request(request).await.map_err(unreachable)?;
        // Whatever the greeting broke on, no message was sent yet.
        let answer = match read(response).await {
            Ok(answer) => answer,
            Err(error @ PeerError::Remote(_)) => return Err(error),
            Err(error) => return Err(unreachable(error)),
        };
        let theirs: Hello = postcard::from_bytes(&answer).map_err(unreachable)?;
        if self.target.node != theirs.node {
            let detail = format!("node {} answers at {}", theirs.node, self.target.address);
            return Err(PeerError::Remote(RemoteError::new(RemoteCode::WrongPeer, detail)));
        }
        Ok(theirs)
    }

    /// Whether the connection may carry messages of `kind`.
    pub(super) fn check(&self, kind: MessageKind, connection: &Greeted) -> Result<(), PeerError> {
        self.local.check_message(kind, connection.theirs.as_deref()).map_err(PeerError::Remote)
    }

    /// Whether the connection is still good: open, and greeted as what this node is now.
    fn is_current(&self, connection: &Greeted) -> bool {
        let whole = connection.ours.is_some() && connection.theirs.is_some();
        !connection.sender.is_closed() && (whole || connection.ours.as_deref() == self.local.cluster())
    }

    /// A request for the append stream.
    pub(super) fn append_request(&self, body: Outgoing) -> Result<http::Request<Outgoing>, http::Error> {
        self.request(APPEND_PATH, body)
    }

    fn request(&self, path: &str, body: Outgoing) -> Result<http::Request<Outgoing>, http::Error> {
        let mut request = http::Request::post(format!("http://{}{path}", self.target.address));
        if let Some(remaining) = Deadline::remaining() {
            request = request.header(DEADLINE_HEADER, remaining.as_millis().to_string());
        }
        request.body(body)
    }
}

/// A connection, and the clusters the two ends said they belong to.
#[derive(Clone)]
pub(super) struct Greeted {
    pub(super) sender: SendRequest<Outgoing>,
    ours: Option<String>,
    theirs: Option<String>,
}

/// One request per message.
#[derive(Clone)]
struct UnaryLane {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    open: Option<Greeted>,
    /// The last failed attempt to connect: those who waited for it share its failure and do not dial in turn.
    failure: Option<(Instant, String)>,
}

impl Shared {
    async fn connection(&self, kind: MessageKind) -> Result<Greeted, PeerError> {
        let arrived = self.dialer.clock.now();
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.open.as_ref().filter(|open| self.dialer.is_current(open)) {
            match self.dialer.check(kind, open) {
                Ok(()) => return Ok(open.clone()),
                // The peer may have joined since: greet again, and believe the second answer.
                Err(_) => connection.open = None,
            }
        }
        if let Some((at, failure)) = &connection.failure
            && *at > arrived
        {
            return Err(PeerError::Unreachable(failure.clone().into()));
        }
        match self.dialer.connect().await {
            Ok(open) => {
                *connection = Connection { open: Some(open.clone()), failure: None };
                self.dialer.check(kind, &open)?;
                Ok(open)
            }
            Err(error) => {
                let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                *connection = Connection { open: None, failure: Some((self.dialer.clock.now(), reason)) };
                Err(error)
            }
        }
    }

    async fn send(&self, message: PeerRequest) -> Result<PeerResponse, PeerError> {
        let Greeted { mut sender, .. } = self.connection(message.kind).await?;
        let path = format!("/peer/{}", message.kind);
        let request = self.dialer.request(&path, Either::Left(Full::new(message.body))).map_err(unreachable)?;
        match sender.try_send_request(request).await {
            Ok(response) => read(response).await.map(|body| PeerResponse { body }),
            Err(mut error) => {
                // hyper hands the request back exactly when it was never sent.
                let never_sent = error.take_message().is_some();
                let error = error.into_error();
                Err(if never_sent { unreachable(error) } else { PeerError::Broken(error.into()) })
            }
        }
    }
}

impl Service<PeerRequest> for UnaryLane {
    type Response = PeerResponse;
    type Error = PeerError;
    type Future = BoxFuture<'static, Result<PeerResponse, PeerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        Poll::Ready(Ok(())) // connecting is part of the call: a broken link is an answer, not a reason to wait
    }

    fn call(&mut self, message: PeerRequest) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        // The deadline header is read when the request is made, inside the scope of the layers above.
        Box::pin(async move { shared.send(message).await })
    }
}

/// The body of a good answer, or the peer's error.
async fn read(response: http::Response<Incoming>) -> Result<Bytes, PeerError> {
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.map_err(PeerError::Broken)?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    Err(match postcard::from_bytes(&body) {
        Ok(error) => PeerError::Remote(error),
        Err(_) => PeerError::Broken(format!("the peer answered {status}").into()),
    })
}

pub(super) fn unreachable(error: impl Into<BoxError>) -> PeerError {
    PeerError::Unreachable(error.into())
}
