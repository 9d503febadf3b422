//! The client against small servers on loopback that answer as they are told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::*;

/// A server, and what it was asked.
struct Stub {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Debug)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Stub {
    /// Answers every request as `answer` says.
    async fn new(answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = seen.clone();
        let handler = move |request: Request| {
            let (answer, log) = (answer.clone(), log.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let path = head.uri.path_and_query().unwrap().to_string();
                let seen = Seen { method: head.method, path, headers: head.headers, body };
                let response = answer(&seen);
                log.lock().unwrap().push(seen);
                if response.status() == HANGS {
                    std::future::pending::<()>().await;
                }
                response
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, seen }
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// A status that stands for no answer at all.
const HANGS: StatusCode = StatusCode::IM_A_TEAPOT;

fn hang() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = HANGS;
    response
}

fn problem(status: u16, mut body: Json) -> Response {
    body["type"] = "urn:seawall-kv:problem:test".into();
    let response = Response::builder().status(status).header("content-type", "application/problem+json");
    response.body(body.to_string().into()).unwrap()
}

fn not_applied() -> Response {
    problem(503, json!({ "detail": "no leader", "outcome": "not_applied", "retry_after_ms": 5 }))
}

/// As a node that holds `value` under every key, at revision 7.
fn healthy(seen: &Seen) -> Response {
    let response = Response::builder().header("etag", "\"7\"");
    let body = match seen.method {
        Method::PUT => json!({ "revision": 7 }).to_string(),
        Method::DELETE => json!({ "revision": 7, "deleted": true }).to_string(),
        _ => "value".to_owned(),
    };
    response.body(body.into()).unwrap()
}

/// An address where nobody listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A server that reads one request of each connection, says `words` and hangs up.
async fn rude(words: &'static str) -> Stub {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<Vec<Seen>>>::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let nothing = (Method::GET, String::new(), HeaderMap::new(), Bytes::new());
            let (method, path, headers, body) = nothing;
            log.lock().unwrap().push(Seen { method, path, headers, body });
            let _ = stream.write_all(words.as_bytes()).await;
        }
    });
    Stub { url, seen }
}

fn client<const N: usize>(nodes: [&str; N]) -> Client {
    Client::builder().nodes(nodes).deadline(Duration::from_secs(2)).build().unwrap()
}

#[tokio::test]
async fn calls_are_sent_as_the_interface_says() {
    let stub = Stub::new(healthy).await;
    let client = client([&stub.url]);
    let value = client.get("a/ü b").await.unwrap().unwrap();
    assert_eq!((value.value, value.revision), (Bytes::from("value"), 7));
    assert_eq!(client.put("k", "v").await.unwrap(), PutOutcome { revision: 7 });
    assert_eq!(client.delete("k").await.unwrap(), DeleteOutcome { revision: 7, deleted: true });
    client.get_with("k", GetOptions { consistency: Consistency::Stale }).await.unwrap();

    let seen = stub.seen.lock().unwrap();
    let lines: Vec<_> = seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    let expected = [
        "GET /v1/strong/a%2F%C3%BC%20b",
        "PUT /v1/strong/k",
        "DELETE /v1/strong/k",
        "GET /v1/strong/k?consistency=stale",
    ];
    assert_eq!(lines, expected);
    assert_eq!(seen[1].body, "v");
    for seen in seen.iter() {
        let left: u64 = seen.headers["x-seawall-deadline-ms"].to_str().unwrap().parse().unwrap();
        assert!((1..=2000).contains(&left), "{left}");
    }
    assert_ne!(seen[0].headers["x-request-id"], seen[1].headers["x-request-id"]);
}

#[tokio::test]
async fn conditions_become_headers() {
    let stub = Stub::new(healthy).await;
    let client = client([&stub.url]);
    let table = [
        (Precondition::Exists, "if-match", "*"),
        (Precondition::Absent, "if-none-match", "*"),
        (Precondition::RevisionIs(vec![5]), "if-match", "\"5\""),
        (Precondition::RevisionIs(vec![5, 6]), "if-match", "\"5\", \"6\""),
        (Precondition::RevisionIsNot(vec![5]), "if-none-match", "\"5\""),
    ];
    for (condition, name, value) in table {
        client.put_if("k", "v", condition.clone()).await.unwrap();
        client.delete_if("k", condition).await.unwrap();
        let seen = std::mem::take(&mut *stub.seen.lock().unwrap());
        assert!(seen.iter().all(|seen| seen.headers[name] == value), "{seen:?}");
    }
    assert!(matches!(
        client.put_if("k", "v", Precondition::RevisionIs(vec![])).await,
        Err(ClientError::Invalid { field, .. }) if field == "condition"
    ));
}

#[tokio::test]
async fn a_write_that_was_not_applied_is_tried_on_the_next_node() {
    let busy = Stub::new(|_| not_applied()).await;
    let good = Stub::new(healthy).await;
    let client = client([&busy.url, &good.url]);
    assert_eq!(client.put("k", "v").await.unwrap().revision, 7);
    assert_eq!((busy.asked(), good.asked()), (1, 1));
    let ids: Vec<_> = [&busy, &good].map(|stub| stub.seen.lock().unwrap()[0].headers["x-request-id"].clone()).into();
    assert_eq!(ids[0], ids[1], "one call keeps one id");
}

#[tokio::test]
async fn a_refused_connection_is_not_applied_and_the_next_node_is_tried() {
    let (dead, good) = (nobody().await, Stub::new(healthy).await);
    let client = client([&dead, &good.url]);
    for _ in 0..4 {
        client.put("k", "v").await.unwrap();
    }
    assert_eq!(good.asked(), 4);
    let alone = self::client([&dead]);
    let error = alone.put("k", "v").await.unwrap_err();
    assert!(matches!(&error, ClientError::Unavailable { source: Some(_), .. }), "{error:?}");
    assert!(error.to_string().contains(&dead), "the node is named: {error}");
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_never_repeated() {
    let other = Stub::new(healthy).await;
    let answers: [fn(&Seen) -> Response; 4] = [
        |_| problem(503, json!({ "detail": "deadline", "outcome": "unknown" })),
        |_| problem(503, json!({ "detail": "a word of a later version", "outcome": "perhaps" })),
        |_| problem(500, json!({ "detail": "broken" })),
        |_| Response::builder().status(503).body("some proxy".into()).unwrap(),
    ];
    for answer in answers {
        let stub = Stub::new(answer).await;
        let client = client([&stub.url, &other.url]);
        let error = client.put("k", "v").await.unwrap_err();
        assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
        assert_eq!(stub.asked(), 1);
    }
    assert_eq!(other.asked(), 0);
}

#[tokio::test]
async fn a_read_has_no_unknown_outcome_and_goes_to_the_next_node() {
    let ill = Stub::new(|_| problem(500, json!({ "detail": "broken" }))).await;
    let good = Stub::new(healthy).await;
    assert!(client([&ill.url, &good.url]).get("k").await.unwrap().is_some());
    assert_eq!((ill.asked(), good.asked()), (1, 1));
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_a_write_unknown_and_a_read_to_the_next_node() {
    let good = Stub::new(healthy).await;
    for words in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\netag: \"7\"\r\n\r\nhalf of it"] {
        let rude = rude(words).await;
        let before = good.asked();
        assert_eq!(client([&rude.url, &good.url]).get("k").await.unwrap().unwrap().value, "value");
        assert_eq!((rude.asked(), good.asked()), (1, before + 1));

        let error = client([&rude.url, &good.url]).put("k", "v").await.unwrap_err();
        assert!(matches!(&error, ClientError::Unknown { source: Some(_), .. }), "{error:?}");
        assert_eq!((rude.asked(), good.asked()), (2, before + 1));
    }
}

#[tokio::test]
async fn a_failed_condition_tells_the_current_revision() {
    for current in [Some(5_u64), None] {
        let stub = Stub::new(move |_| problem(412, json!({ "detail": "no", "current_revision": current }))).await;
        match client([&stub.url]).put_if("k", "v", Precondition::RevisionIs(vec![4])).await {
            Err(ClientError::ConditionFailed { current: told }) => assert_eq!(told, current),
            other => panic!("{other:?}"),
        }
        assert_eq!(stub.asked(), 1);
    }
}

#[tokio::test]
async fn a_refused_request_names_the_field_and_is_not_repeated() {
    for status in [400, 413] {
        let stub = Stub::new(move |_| problem(status, json!({ "detail": "too odd", "field": "ttl" }))).await;
        match client([&stub.url]).put("k", "v").await {
            Err(ClientError::Invalid { field, detail }) => {
                assert_eq!(field, "ttl");
                assert!(detail.contains("too odd"), "{detail}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(stub.asked(), 1);
    }
}

#[tokio::test]
async fn bad_input_is_refused_before_it_is_sent() {
    let stub = Stub::new(healthy).await;
    let client = client([&stub.url]);
    let field = |error| match error {
        ClientError::Invalid { field, .. } => field,
        other => panic!("{other:?}"),
    };
    for key in ["", "a\u{7}", &"k".repeat(1025)] {
        assert_eq!(field(client.get(key).await.unwrap_err()), "key");
        assert_eq!(field(client.put(key, "v").await.unwrap_err()), "key");
        assert_eq!(field(client.delete(key).await.unwrap_err()), "key");
    }
    let large = vec![0; crate::consensus::MAX_VALUE_BYTES + 1];
    assert_eq!(field(client.put("k", large).await.unwrap_err()), "value");
    assert_eq!(stub.asked(), 0);
}

#[tokio::test]
async fn a_missing_key_is_no_error_but_a_missing_path_is() {
    let stub = Stub::new(|_| problem(404, json!({ "detail": "no key" }))).await;
    assert_eq!(client([&stub.url]).get("k").await.unwrap(), None);
    let foreign = Stub::new(|_| Response::builder().status(404).body("<html>".into()).unwrap()).await;
    let error = client([&foreign.url]).get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_unknown_for_a_write() {
    let stub = Stub::new(|_| Response::new("OK".into())).await;
    let client = client([&stub.url]);
    assert!(matches!(client.get("k").await, Err(ClientError::Protocol { .. })), "there is no ETag");
    assert!(matches!(client.put("k", "v").await, Err(ClientError::Unknown { .. })));
}

#[tokio::test]
async fn the_deadline_ends_a_call_that_hangs() {
    let stub = Stub::new(|_| hang()).await;
    let deadline = Duration::from_millis(200);
    let client = Client::builder().nodes([&stub.url]).deadline(deadline).build().unwrap();
    let start = Instant::now();
    assert!(matches!(client.get("k").await, Err(ClientError::Unavailable { .. })));
    assert!(matches!(client.put("k", "v").await, Err(ClientError::Unknown { .. })));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_hint_beyond_the_deadline_ends_the_call_at_once_and_is_handed_on() {
    let answer = || problem(503, json!({ "detail": "full", "outcome": "not_applied", "retry_after_ms": 30_000 }));
    let stub = Stub::new(move |_| answer()).await;
    let start = Instant::now();
    match client([&stub.url]).put("k", "v").await {
        Err(ClientError::Unavailable { retry_after, detail, .. }) => {
            assert_eq!(retry_after, Some(Duration::from_secs(30)));
            assert!(detail.contains("full"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn with_other_nodes_a_hint_of_one_is_not_waited_for() {
    let busy = json!({ "detail": "no leader", "outcome": "not_applied", "retry_after_ms": 30_000 });
    let busy = Stub::new(move |_| problem(503, busy.clone())).await;
    let good = Stub::new(healthy).await;
    let start = Instant::now();
    client([&busy.url, &good.url]).put("k", "v").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_read_from_a_node_that_hangs_goes_to_the_next_one() {
    let (stuck, good) = (Stub::new(|_| hang()).await, Stub::new(healthy).await);
    let client = Client::builder().nodes([&stuck.url, &good.url]).deadline(Duration::from_secs(1)).build().unwrap();
    assert!(client.get("k").await.unwrap().is_some());
    assert_eq!((stuck.asked(), good.asked()), (1, 1));
}

#[tokio::test]
async fn a_node_whose_connections_break_is_left_alone_after_a_few() {
    let (rude, good) = (rude("").await, Stub::new(healthy).await);
    let client = client([&rude.url, &good.url]);
    for _ in 0..40 {
        client.get("k").await.unwrap();
    }
    assert_eq!(good.asked(), 40);
    assert!((5..10).contains(&rude.asked()), "its breaker opened: {}", rude.asked());
    for _ in 0..10 {
        client.put("k", "v").await.unwrap();
    }
    assert_eq!(good.asked(), 50, "reads and writes share what they learn");
}

#[tokio::test]
async fn an_election_of_half_a_second_fails_no_call() {
    let start = Instant::now();
    let answer =
        move |seen: &Seen| if start.elapsed() < Duration::from_millis(500) { not_applied() } else { healthy(seen) };
    let stubs = [Stub::new(answer).await, Stub::new(answer).await, Stub::new(answer).await];
    let client = client([&stubs[0].url, &stubs[1].url, &stubs[2].url]);
    let calls = (0..16).map(|number| {
        let client = client.clone();
        async move { client.put(&format!("k{number}"), "v").await.map(|_| ()) }
    });
    assert_eq!(futures_util::future::join_all(calls).await.into_iter().filter(Result::is_err).count(), 0);
}

#[tokio::test]
async fn nodes_take_turns() {
    let stubs = [Stub::new(healthy).await, Stub::new(healthy).await, Stub::new(healthy).await];
    let client = client([&stubs[0].url, &stubs[1].url, &stubs[2].url]);
    for _ in 0..3 {
        client.get("k").await.unwrap();
        client.put("k", "v").await.unwrap();
    }
    assert_eq!(stubs.each_ref().map(Stub::asked), [2, 2, 2]);
}

#[tokio::test]
async fn every_node_is_asked_for_its_status() {
    let status = json!({ "cluster_id": "c", "leader": 1, "term": 2, "revision": 3, "node_id": 1, "nodes": [] });
    let stub = Stub::new(move |_| Response::new(status.to_string().into())).await;
    let dead = nobody().await;
    let client = Client::builder().nodes([&dead, &stub.url]).deadline(Duration::from_millis(300)).build().unwrap();
    let reports = client.status().await;
    assert!(matches!(reports[0].status, Err(ClientError::Unavailable { .. })), "{reports:?}");
    assert_eq!(reports[1].status.as_ref().unwrap().leader, Some(1));
    assert_eq!(reports[1].url, stub.url);
}

#[test]
fn a_wrong_setting_is_named() {
    let field = |builder: ClientBuilder| match builder.build() {
        Err(ClientError::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Client::builder()), "nodes");
    for url in ["", "https://a:1", "a", "http://a", "http://a:1/path", "http://u@a:1", "http://:1"] {
        assert_eq!(field(Client::builder().nodes([url])), "nodes", "{url}");
    }
    assert_eq!(field(Client::builder().nodes(["a:1"]).deadline(Duration::ZERO)), "deadline");
}
