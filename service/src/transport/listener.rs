//! An HTTP listener that stops for good: every connection is a tracked task with an end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::http2::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use crate::clock::Clock;

/// Connections at one time, each a few kilobytes and a file descriptor; more are closed at once.
const MAX_CONNECTIONS: usize = 4096;
/// How long a connection may finish what it is doing when the listener stops.
const DRAIN: Duration = Duration::from_secs(1);
/// How long to wait after a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests at one time on one HTTP/2 connection, and of those how many the client may have given up: a peer whose
/// deadlines pass gives up all that it has under way, and that is no attack.
pub(crate) const MAX_STREAMS: u32 = 1024;
/// How long the head of an HTTP/1.1 request may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A running listener, HTTP/1.1 and HTTP/2.
#[derive(Debug)]
pub struct Listener {
    stop: CancellationToken,
    tasks: TaskTracker,
    address: SocketAddr,
}

impl Listener {
    /// Serves each connection with a router that `make` builds for it and for the address at its other end, until
    /// [`Listener::shutdown`].
    ///
    /// `stop` is cancelled when the listener stops, for handlers that would not end by themselves.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn start(
        socket: TcpListener,
        stop: CancellationToken,
        clock: Clock,
        make: impl Fn(SocketAddr) -> Router + Send + 'static,
    ) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let tasks = TaskTracker::new();
        tasks.spawn(accept(socket, stop.clone(), tasks.clone(), clock, make));
        Ok(Self { stop, tasks, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets requests finish for a second, then closes every connection. No task is left.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(
    socket: TcpListener,
    stop: CancellationToken,
    tasks: TaskTracker,
    clock: Clock,
    make: impl Fn(SocketAddr) -> Router,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            // One of the tasks is this loop.
            Ok(_) if tasks.len() > MAX_CONNECTIONS => {
                tracing::warn!(limit = MAX_CONNECTIONS, "too many connections, one was closed");
            }
            Ok((stream, from)) => {
                tasks.spawn(serve(stream, make(from), stop.clone(), clock.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router, stop: CancellationToken, clock: Clock) {
    let _ = stream.set_nodelay(true); // without it answers are late, not wrong
    let router = router.map_request(|request: Request<hyper::body::Incoming>| request.map(Body::new));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(Some(MAX_STREAMS as usize));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return, // how a connection ended is its client's business
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = clock.timeout(DRAIN, connection).await;
}
