//! The laws of a transport, over real sockets and over the simulated network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt};

use super::memory::{Faults, Network};
use super::{Http2, Inbound, Listener, Target, Transport, listen};
use crate::clock::Clock;
use crate::peer::{
    Lane, LocalNode, MessageKind, NodeId, PeerError, PeerRequest, PeerResponse, RemoteCode, RemoteError,
};

const SILENT: &[u8] = b"silent";
const FAIL: &[u8] = b"fail";

/// Answers with what it got, prefixed by the sender, and counts.
#[derive(Default)]
struct Echo {
    handled: AtomicU64,
}

async fn echo(from: NodeId, body: Bytes) -> Result<Bytes, RemoteError> {
    if body == SILENT {
        return std::future::pending().await;
    }
    if body == FAIL {
        return Err(RemoteError::new(RemoteCode::Internal, "as asked"));
    }
    Ok([&[u8::try_from(from).unwrap()], &body[..]].concat().into())
}

impl Inbound for Echo {
    fn handle(&self, from: NodeId, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, RemoteError>> {
        // ORDERING: Relaxed, a count read after everything is done.
        self.handled.fetch_add(1, Ordering::Relaxed);
        async move { echo(from, request.body).await.map(|body| PeerResponse { body }) }.boxed()
    }

    fn append(
        &self,
        from: NodeId,
        messages: BoxStream<'static, Bytes>,
    ) -> BoxStream<'static, Result<Bytes, RemoteError>> {
        messages.then(move |body| echo(from, body)).boxed()
    }
}

fn node(id: NodeId, cluster: Option<&str>) -> LocalNode {
    LocalNode::new(id, String::new(), String::new(), cluster.map(str::to_owned))
}

async fn listening(local: LocalNode) -> (Listener, String) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (listen(socket, local, Arc::new(Echo::default()), Clock::system()).unwrap(), address)
}

fn http2(local: LocalNode) -> Http2 {
    Http2::new(local, Clock::system(), Duration::from_millis(300))
}

fn to(node: NodeId, address: &str, lane: Lane) -> Target {
    Target { node, address: address.to_owned(), lane }
}

fn message(kind: MessageKind, body: &'static [u8]) -> PeerRequest {
    PeerRequest { kind, body: Bytes::from_static(body) }
}

async fn ask(transport: &impl Transport, target: Target, request: PeerRequest) -> Result<PeerResponse, PeerError> {
    transport.lane(target).ready().await?.call(request).await
}

#[tokio::test]
async fn every_lane_carries_messages_and_answers() {
    let (listener, address) = listening(node(2, Some("c"))).await;
    let transport = http2(node(1, Some("c")));
    for kind in [MessageKind::Vote, MessageKind::Forward, MessageKind::Snapshot, MessageKind::Append] {
        let answer = ask(&transport, to(2, &address, kind.lane()), message(kind, b"hi")).await.unwrap();
        assert_eq!(answer.body, &b"\x01hi"[..], "{kind}");
        let error = ask(&transport, to(2, &address, kind.lane()), message(kind, FAIL)).await.unwrap_err();
        assert!(
            matches!(&error, PeerError::Remote(remote) if remote.code == RemoteCode::Internal),
            "{kind}: {error:?}"
        );
        assert!(!error.never_sent());
    }
    listener.shutdown().await;
}

#[tokio::test]
async fn appends_are_answered_in_the_order_of_their_calls() {
    let (listener, address) = listening(node(2, Some("c"))).await;
    let mut lane = http2(node(1, Some("c"))).lane(to(2, &address, Lane::Append));
    let mut answers = Vec::new();
    for number in 0..60_u8 {
        let body = Bytes::copy_from_slice(&[number]);
        answers.push(lane.ready().await.unwrap().call(PeerRequest { kind: MessageKind::Append, body }));
    }
    let answers = join_all(answers).await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().body, &[1, u8::try_from(number).unwrap()][..]);
    }
    listener.shutdown().await;
}

#[tokio::test]
async fn a_silent_append_ends_the_stream_and_the_next_opens_another() {
    let (listener, address) = listening(node(2, Some("c"))).await;
    let mut lane = http2(node(1, Some("c"))).lane(to(2, &address, Lane::Append));
    let silent = lane.ready().await.unwrap().call(message(MessageKind::Append, SILENT));
    let behind = lane.ready().await.unwrap().call(message(MessageKind::Append, b"behind"));
    assert!(matches!(silent.await, Err(PeerError::Elapsed(_))));
    assert!(matches!(behind.await, Err(PeerError::Elapsed(_))), "what was sent behind it has no answer either");
    let next = lane.ready().await.unwrap().call(message(MessageKind::Append, b"next")).await.unwrap();
    assert_eq!(next.body, &b"\x01next"[..]);
    listener.shutdown().await;
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_nothing_was_sent() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let transport = http2(node(1, Some("c")));
    for kind in [MessageKind::Vote, MessageKind::Append] {
        let error = ask(&transport, to(2, &address, kind.lane()), message(kind, b"hi")).await.unwrap_err();
        assert!(matches!(error, PeerError::Unreachable(_)) && error.never_sent(), "{error:?}");
    }
}

#[tokio::test]
async fn a_listener_that_stopped_breaks_the_lane_and_a_new_one_mends_it() {
    let local = node(2, Some("c"));
    let (listener, address) = listening(local.clone()).await;
    let transport = http2(node(1, Some("c")));
    let mut data = transport.lane(to(2, &address, Lane::Data));
    let mut append = transport.lane(to(2, &address, Lane::Append));
    data.ready().await.unwrap().call(message(MessageKind::Forward, b"1")).await.unwrap();
    append.ready().await.unwrap().call(message(MessageKind::Append, b"1")).await.unwrap();
    listener.shutdown().await;
    assert!(data.ready().await.unwrap().call(message(MessageKind::Forward, b"2")).await.is_err());
    assert!(append.ready().await.unwrap().call(message(MessageKind::Append, b"2")).await.is_err());

    let socket = TcpListener::bind(&address).await.unwrap();
    let listener = listen(socket, local, Arc::new(Echo::default()), Clock::system()).unwrap();
    data.ready().await.unwrap().call(message(MessageKind::Forward, b"3")).await.unwrap();
    append.ready().await.unwrap().call(message(MessageKind::Append, b"3")).await.unwrap();
    listener.shutdown().await;
}

#[tokio::test]
async fn a_stranger_is_refused_by_both_ends() {
    let (listener, address) = listening(node(2, Some("c"))).await;
    let wrong = |error: PeerError| match error {
        PeerError::Remote(remote) if remote.code == RemoteCode::WrongPeer => remote.detail,
        other => panic!("{other:?}"),
    };
    let elsewhere =
        ask(&http2(node(1, Some("d"))), to(2, &address, Lane::Data), message(MessageKind::Forward, b"")).await;
    assert!(wrong(elsewhere.unwrap_err()).contains("cluster"));
    let somebody =
        ask(&http2(node(1, Some("c"))), to(3, &address, Lane::Data), message(MessageKind::Forward, b"")).await;
    assert!(wrong(somebody.unwrap_err()).contains("looked for node 3"));
    let newcomer = http2(node(1, None));
    ask(&newcomer, to(2, &address, Lane::Control), message(MessageKind::Ping, b"")).await.unwrap();
    for kind in [MessageKind::Vote, MessageKind::Append] {
        let refused = ask(&newcomer, to(2, &address, kind.lane()), message(kind, b"")).await.unwrap_err();
        assert!(wrong(refused).contains("one cluster"));
    }
    listener.shutdown().await;
}

#[tokio::test]
async fn a_node_that_joins_greets_again() {
    let (listener, address) = listening(node(2, Some("c"))).await;
    let local = node(1, None);
    let mut lane = http2(local.clone()).lane(to(2, &address, Lane::Control));
    lane.ready().await.unwrap().call(message(MessageKind::Ping, b"")).await.unwrap();
    assert!(lane.ready().await.unwrap().call(message(MessageKind::Vote, b"")).await.is_err());
    local.joined("c");
    lane.ready().await.unwrap().call(message(MessageKind::Vote, b"")).await.unwrap();
    listener.shutdown().await;
}

#[tokio::test]
async fn the_work_ends_with_the_callers_deadline() {
    let (listener, address) = listening(node(2, Some("c"))).await;
    let transport = http2(node(1, Some("c")));
    let call = ask(&transport, to(2, &address, Lane::Data), message(MessageKind::Forward, SILENT));
    let error = seawall::Deadline::after(Duration::from_millis(50)).scope(call).await.unwrap_err();
    assert!(matches!(&error, PeerError::Remote(remote) if remote.detail.contains("deadline")), "{error:?}");
    assert!(!error.never_sent());
    listener.shutdown().await;
}

fn network() -> (Network, Arc<Echo>) {
    let network = Network::new(7, Clock::system());
    let echo = Arc::new(Echo::default());
    network.attach(2, "two", Arc::clone(&echo) as Arc<dyn Inbound>);
    (network, echo)
}

#[tokio::test(start_paused = true)]
async fn a_simulated_link_drops_duplicates_and_delays() {
    let (network, echo) = network();
    let transport = network.transport(1);
    let send = || ask(&transport, to(2, "two", Lane::Data), message(MessageKind::Forward, b"x"));
    let clock = Clock::system();
    // ORDERING: Relaxed, read between two messages.
    let handled = || echo.handled.load(Ordering::Relaxed);

    send().await.unwrap();
    assert_eq!(handled(), 1);
    network.link(1, 2, Faults { duplicate: 1.0, ..Faults::default() });
    send().await.unwrap();
    assert_eq!(handled(), 3, "it arrived twice and was answered once");

    network.link(1, 2, Faults { drop: 1.0, ..Faults::default() });
    assert!(clock.timeout(Duration::from_secs(60), send()).await.is_none(), "nobody says that it was lost");
    assert_eq!(handled(), 3);
    network.link(1, 2, Faults::default());
    network.link(2, 1, Faults { drop: 1.0, ..Faults::default() });
    assert!(clock.timeout(Duration::from_secs(60), send()).await.is_none(), "the answer was lost");
    assert_eq!(handled(), 4, "but the message was not");

    network.heal();
    network.link(1, 2, Faults { delay_up_to: Duration::from_secs(1), ..Faults::default() });
    let start = clock.now();
    send().await.unwrap();
    let took = clock.now() - start;
    assert!(took > Duration::ZERO && took <= Duration::from_millis(1001), "{took:?}");
    assert_eq!(network.counts().duplicated, 1);
    assert_eq!(network.counts().dropped, 2);
}

#[tokio::test(start_paused = true)]
async fn simulated_appends_keep_their_order_under_delays() {
    let (network, _) = network();
    network.link(1, 2, Faults { delay_up_to: Duration::from_millis(50), duplicate: 0.3, ..Faults::default() });
    let mut lane = network.transport(1).lane(to(2, "two", Lane::Append));
    let mut answers = Vec::new();
    for number in 0..50_u8 {
        let body = Bytes::copy_from_slice(&[number]);
        answers.push(lane.ready().await.unwrap().call(PeerRequest { kind: MessageKind::Append, body }));
    }
    for (number, answer) in join_all(answers).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().body, &[1, u8::try_from(number).unwrap()][..]);
    }
    network.detach("two");
    let error = lane.ready().await.unwrap().call(message(MessageKind::Append, b"")).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable(_)));
}
