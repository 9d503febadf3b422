//! The answering end: greets, hands messages to the node.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use http_body_util::BodyExt;
use seawall::Deadline;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::append::encode_answer;
use super::{APPEND_PATH, DEADLINE_HEADER, HELLO_PATH, MAX_BODY_BYTES};
use crate::clock::Clock;
use crate::peer::{Hello, LocalNode, MessageKind, NodeId, PeerRequest, RemoteCode, RemoteError};
use crate::transport::frame::Decoder;
use crate::transport::{Inbound, Listener};

/// Listens for the peers of `local` on `socket` and hands their messages to `inbound`.
///
/// # Errors
/// The socket has no address.
pub fn listen(socket: TcpListener, local: LocalNode, inbound: Arc<dyn Inbound>, clock: Clock) -> io::Result<Listener> {
    let stop = CancellationToken::new();
    let shared = Shared { local, inbound, clock: clock.clone(), stop: stop.clone() };
    Listener::start(socket, stop, clock, move |_| {
        Router::new()
            .route(HELLO_PATH, post(hello))
            .route(APPEND_PATH, post(append))
            .route("/peer/{kind}", post(message))
            .with_state(Connection { shared: shared.clone(), hello: Arc::default() })
    })
}

#[derive(Clone)]
struct Shared {
    local: LocalNode,
    inbound: Arc<dyn Inbound>,
    clock: Clock,
    stop: CancellationToken,
}

/// One connection: what its greeting said.
#[derive(Clone)]
struct Connection {
    shared: Shared,
    hello: Arc<OnceLock<Hello>>,
}

async fn hello(State(connection): State<Connection>, request: Request) -> Result<Bytes, Refusal> {
    let hello: Hello = postcard::from_bytes(&body(request).await?).map_err(bad_message)?;
    let local = &connection.shared.local;
    if let Err(error) = local.check(&hello) {
        tracing::warn!(from = hello.node, lane = %hello.lane, reason = error.detail, "refused a peer connection");
        return Err(Refusal(error));
    }
    tracing::debug!(from = hello.node, lane = %hello.lane, "peer connected");
    let ours = local.hello(hello.node, hello.lane);
    let answer = postcard::to_stdvec(&ours).map_err(bad_message)?;
    let _ = connection.hello.set(hello); // a second greeting changes nothing
    Ok(answer.into())
}

async fn message(
    State(connection): State<Connection>,
    Path(kind): Path<String>,
    request: Request,
) -> Result<Bytes, Refusal> {
    let kind = MessageKind::from_name(&kind)
        .ok_or_else(|| RemoteError::new(RemoteCode::BadMessage, format!("no message is called {kind:?}")))?;
    let from = connection.from(kind)?;
    let limit = deadline(&request)?;
    let message = PeerRequest { kind, body: body(request).await? };
    let answer = connection.shared.inbound.handle(from, message);
    let answer = match limit {
        // The caller no longer waits when its time is over, so neither does the work.
        Some(limit) => {
            let answer = Deadline::after(limit).scope(answer);
            connection.shared.clock.timeout(limit, answer).await.unwrap_or_else(|| {
                Err(RemoteError::new(RemoteCode::Internal, "the caller's deadline passed while it was worked on"))
            })
        }
        None => answer.await,
    };
    Ok(answer?.body)
}

async fn append(State(connection): State<Connection>, request: Request) -> Result<Response, Refusal> {
    let from = connection.from(MessageKind::Append)?;
    let answers = connection.shared.inbound.append(from, messages(request.into_body()).boxed());
    let frames = answers.enumerate().map(|(id, answer)| {
        let answer = answer.as_ref().map(|body| &body[..]);
        Ok::<_, io::Error>(encode_answer(id as u64, answer))
    });
    let stop = connection.shared.stop.clone();
    Ok(Body::from_stream(frames.take_until(stop.cancelled_owned())).into_response())
}

/// The messages of an append stream. A frame out of order or beyond the bound ends it: the client then fails what it
/// has under way and opens a new stream.
fn messages(body: Body) -> impl Stream<Item = Bytes> + Send {
    let start = (body, Decoder::default(), 0);
    futures_util::stream::unfold(start, |(mut body, mut decoder, expected)| async move {
        loop {
            match decoder.next() {
                Ok(Some((id, message))) if id == expected => return Some((message, (body, decoder, expected + 1))),
                Ok(Some(_)) | Err(_) => return None,
                Ok(None) => {}
            }
            let frame = body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                decoder.push(&data);
            }
        }
    })
}

impl Connection {
    /// Who is at the other end, if it may send messages of `kind`; before the greeting nothing is taken.
    fn from(&self, kind: MessageKind) -> Result<NodeId, RemoteError> {
        let Some(hello) = self.hello.get() else {
            return Err(RemoteError::new(RemoteCode::WrongPeer, "a connection starts with a greeting"));
        };
        self.shared.local.check_message(kind, hello.cluster.as_deref())?;
        Ok(hello.node)
    }
}

async fn body(request: Request) -> Result<Bytes, RemoteError> {
    to_bytes(request.into_body(), MAX_BODY_BYTES).await.map_err(bad_message)
}

fn deadline(request: &Request) -> Result<Option<Duration>, RemoteError> {
    let Some(value) = request.headers().get(DEADLINE_HEADER) else { return Ok(None) };
    let millis = value.to_str().map_err(bad_message)?.parse().map_err(bad_message)?;
    Ok(Some(Duration::from_millis(millis)))
}

fn bad_message(error: impl std::fmt::Display) -> RemoteError {
    RemoteError::new(RemoteCode::BadMessage, error.to_string())
}

/// A [`RemoteError`] as an answer.
struct Refusal(RemoteError);

impl From<RemoteError> for Refusal {
    fn from(error: RemoteError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            RemoteCode::WrongPeer => StatusCode::MISDIRECTED_REQUEST,
            RemoteCode::BadMessage => StatusCode::BAD_REQUEST,
            RemoteCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            RemoteCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        // A struct of an enum and a string always encodes.
        (status, postcard::to_stdvec(&self.0).unwrap_or_default()).into_response()
    }
}
