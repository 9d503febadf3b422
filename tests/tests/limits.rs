//! The limits of real nodes: of each client, and of what they ask of each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use futures_util::future::join_all;
use seawall_tests::{Answer, Cluster, Request};

/// Many more than the bursts below: all of them are sent in far less time than it takes to earn as many.
const AT_ONCE: usize = 40;

/// The flags for five requests of one client at once, and one a second.
fn limited_by(what: &str) -> [&str; 6] {
    ["--client-limit-by", what, "--client-rate", "1", "--client-burst", "5"]
}

/// The answers to the same request, sent many times at once.
async fn flood(cluster: &Cluster, place: u64, request: &Request) -> Vec<Answer> {
    join_all((0..AT_ONCE).map(|_| cluster.answer(place, request))).await
}

/// Some were answered and the others refused, as a client must hear it.
fn assert_limited(answers: &[Answer]) {
    let (answered, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(answered.len() >= 5, "the burst is answered: {}", answered.len());
    assert!(!refused.is_empty(), "so many are too many");
    for answer in refused {
        assert_eq!(answer.status, 429, "{}", answer.text());
        assert_eq!(answer.problem()["outcome"], "not_applied");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        let millis = answer.problem()["retry_after_ms"].as_u64().unwrap();
        assert!(seconds == millis.div_ceil(1000) && seconds > 0, "{millis} ms and {seconds} s");
    }
}

#[tokio::test]
async fn one_api_key_is_limited_where_it_connects_and_others_are_not() {
    let cluster = Cluster::founded_with(3, &limited_by("api-key")).await;
    let put = |key: &str| Request::put("/v1/strong/k", "v").header("X-Api-Key", key);
    assert_limited(&flood(&cluster, 1, &put("key-of-ann")).await);
    assert_eq!(cluster.answer(1, &put("key-of-ben")).await.status, 200, "another client");
    assert_eq!(cluster.answer(2, &put("key-of-ann")).await.status, 200, "another node");
    for place in cluster.places() {
        for path in ["/health/live", "/health/startup", "/health/ready", "/metrics"] {
            let answers = flood(&cluster, place, &Request::get(path).header("X-Api-Key", "key-of-ann")).await;
            assert!(answers.iter().all(|answer| answer.status == 200), "{path} is nobody's client");
        }
        assert!(!cluster.log(place).contains("key-of-ann"), "a key is not logged");
    }
}

#[tokio::test]
async fn one_address_is_limited_whatever_key_it_sends() {
    let cluster = Cluster::founded_with(1, &limited_by("address")).await;
    let requests: Vec<_> =
        (0..AT_ONCE).map(|key| Request::get("/cluster/status").header("X-Api-Key", key.to_string())).collect();
    let answers = join_all(requests.iter().map(|request| cluster.answer(1, request))).await;
    assert_limited(&answers);
}

/// A client of ours waits as long as it is told, and its call succeeds.
#[tokio::test]
async fn a_client_comes_back_when_it_may() {
    let cluster = Cluster::founded_with(1, &["--client-limit-by", "address", "--client-rate", "5"]).await;
    let client = cluster.client();
    for index in 0..12 {
        client.put(&format!("k{index}"), "v").await.unwrap();
    }
}

#[tokio::test]
async fn every_limit_between_nodes_is_in_the_metrics() {
    let cluster = Cluster::founded(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.places().into_iter().find(|place| *place != leader).unwrap();
    assert_eq!(cluster.answer(follower, &Request::put("/v1/strong/k", "v")).await.status, 200);
    for (place, peer, lane, patterns) in [
        (leader, follower, "append", &["circuit_breaker", "semaphore"][..]),
        (follower, leader, "data", &["token_bucket", "bulkhead", "circuit_breaker"][..]),
    ] {
        let page = cluster.answer(place, &Request::get("/metrics")).await.text();
        let named = format!("name=\"peer/{peer}/{lane}\"");
        let has = |metric: &str, pattern: &str| {
            let pattern = format!("pattern=\"{pattern}\"");
            page.lines().any(|line| line.starts_with(metric) && line.contains(&named) && line.contains(&pattern))
        };
        for pattern in patterns {
            for metric in ["seawall_calls_total", "seawall_in_flight"] {
                assert!(has(metric, pattern), "{metric} of {pattern} of {named} in\n{page}");
            }
        }
        let bound = if lane == "append" { "semaphore" } else { "bulkhead" };
        for metric in ["seawall_limit", "seawall_queue_depth"] {
            assert!(has(metric, bound), "{metric} of {named} in\n{page}");
        }
    }
}
