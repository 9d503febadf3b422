//! What the binary says and how it ends when something is wrong, and what the interface says to bad requests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use seawall_tests::{Cluster, Output, Process, Request, binary, eventually, free_port, run, snapshot_of};

/// `serve` with ports of its own and these further words.
fn serve(data: &Path, words: &str) -> Vec<String> {
    let mut args = vec!["serve".to_owned(), "--data-dir".to_owned(), data.display().to_string()];
    for flag in ["--listen", "--peer-listen"] {
        if !words.split(' ').any(|word| word == flag) {
            args.extend([flag.to_owned(), format!("127.0.0.1:{}", free_port())]);
        }
    }
    args.extend(words.split_whitespace().map(str::to_owned));
    args
}

/// The one line that says what is wrong.
fn only_line(output: &Output) -> &str {
    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one line says what is wrong: {}", output.stderr);
    assert!(lines[0].starts_with("seawall-kv: "), "{}", lines[0]);
    assert_eq!(output.stdout, "", "errors go to standard error");
    lines[0]
}

/// Starts a node that must refuse with `code`, one line that holds every part, and no change to `data`.
async fn refused(data: &Path, words: &str, code: i32, parts: &[&str]) {
    let before = snapshot_of(data);
    let output = run(serve(data, words)).await;
    let line = only_line(&output);
    assert_eq!(output.code, code, "{words}: {line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} in {line}");
    }
    let after = snapshot_of(data);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{words}: files came or went");
    assert!(before == after, "{words}: a file has changed");
}

/// A directory in which node `id` formed a cluster of its own, and stopped.
async fn formed(data: &Path, id: u64) {
    let logs = tempfile::tempdir().unwrap();
    let mut node = Process::new("former", logs.path(), binary());
    let port = free_port();
    let words = format!("--node-id {id} --bootstrap --listen 127.0.0.1:{port}");
    node.args = serve(data, &words);
    node.spawn();
    let put = Request::put("/v1/strong/k", "v");
    eventually("it has formed", Duration::from_secs(20), async || {
        match put.send(([127, 0, 0, 1], port).into()).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?} {}", node.log())),
        }
    })
    .await;
    node.signal(rustix::process::Signal::TERM);
    let status = node.ended_within(Duration::from_secs(5)).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_bad_flag_is_a_usage_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (words, part) in [
        ("--node-id 1 --bootstrap --frobnicate", "--frobnicate"),
        ("--node-id zero --bootstrap", "--node-id"),
        ("--node-id 0 --bootstrap", "--node-id"),
        ("--node-id 1 --bootstrap --heartbeat-interval soon", "--heartbeat-interval"),
        ("--node-id 1 --bootstrap --heartbeat-interval 300ms", "--election-timeout-min"),
        ("--node-id 1 --bootstrap --log-level nonsense=nonsense=", "--log-level"),
        ("--node-id 1 --nodes 127.0.0.1:7201", "--nodes"),
        ("--node-id 1 --nodes 2=127.0.0.1:7202,3=127.0.0.1:7203", "does not name node 1"),
        ("--node-id 1 --nodes 1=127.0.0.1:7201,1=127.0.0.1:7202", "twice"),
        ("--node-id 1 --bootstrap --join http://127.0.0.1:7101", "--join"),
        ("--node-id 1 --join http://127.0.0.1:7101", "--node-id"),
        ("--bootstrap", "--node-id"),
        ("--node-id 1 --bootstrap --listen nowhere", "--listen"),
        ("--node-id 1 --bootstrap --client-limit-by colour --client-rate 1", "--client-limit-by"),
        ("--node-id 1 --bootstrap --client-limit-by address", "--client-rate"),
        ("--node-id 1 --bootstrap --client-rate 5", "--client-limit-by"),
        ("--node-id 1 --bootstrap --client-limit-by address --client-rate 0", "--client-rate"),
        ("--node-id 1 --bootstrap --client-limit-by address --client-rate many", "--client-rate"),
        ("--node-id 1 --bootstrap --client-limit-by api-key --client-rate 5 --client-burst 0", "--client-burst"),
    ] {
        refused(&data, words, 2, &[part]).await;
    }
    assert!(!data.exists(), "nothing was made for a line that cannot be understood");
}

#[tokio::test]
async fn only_loopback_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for flag in ["--listen", "--peer-listen"] {
        let words = format!("--node-id 1 --bootstrap {flag} 0.0.0.0:{}", free_port());
        refused(&data, &words, 2, &[flag, "loopback", "127.0.0.1"]).await;
    }
    refused(&data, "--node-id 1 --bootstrap --advertise example.org:80", 2, &["--advertise", "loopback"]).await;
    assert!(!data.exists());
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_flag() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--peer-listen"] {
        let words = format!("--node-id 1 --bootstrap {flag} {address}");
        refused(&dir.path().join("data"), &words, 3, &[flag, &address, "choose another port"]).await;
    }
}

#[tokio::test]
async fn an_empty_directory_needs_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    refused(dir.path(), "--node-id 1", 2, &["holds no data", "--bootstrap", "--nodes", "--join"]).await;
}

#[tokio::test]
async fn the_directory_of_another_node_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    formed(dir.path(), 7).await;
    refused(dir.path(), "--node-id 2 --bootstrap", 2, &["belongs to node 7", "not to node 2", "another directory"])
        .await;
    refused(dir.path(), "--node-id 2", 2, &["belongs to node 7"]).await;
}

#[tokio::test]
async fn the_directory_of_another_cluster_is_refused_and_kept() {
    let cluster = Cluster::alone().await;
    let dir = tempfile::tempdir().unwrap();
    formed(dir.path(), 7).await;
    let words = format!("--join http://{}", cluster.api(1));
    let theirs = cluster.status(1).await.unwrap().0["cluster_id"].as_str().unwrap().to_owned();
    refused(dir.path(), &words, 2, &["belongs to cluster", &theirs, "empty directory"]).await;
}

#[tokio::test]
async fn a_directory_in_use_is_left_alone() {
    let cluster = Cluster::alone().await;
    let output = run(serve(cluster.data(1), "--node-id 1 --bootstrap")).await;
    assert_eq!(output.code, 3, "{output:?}");
    assert!(only_line(&output).contains("in use by another process"), "{output:?}");
    assert_eq!(cluster.answer(1, &Request::put("/v1/strong/k", "v")).await.status, 200, "the first goes on");
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    refused(&file, "--node-id 1 --bootstrap", 3, &[&file.display().to_string()]).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "not a directory");

    let damaged = dir.path().join("damaged");
    formed(&damaged, 1).await;
    std::fs::write(damaged.join("identity"), "{").unwrap();
    refused(&damaged, "--node-id 1 --bootstrap", 2, &["identity", "is damaged", "restore"]).await;

    // A log without an identity: guessing whose it is could give two nodes one vote.
    let lost = dir.path().join("lost");
    formed(&lost, 1).await;
    std::fs::remove_file(lost.join("identity")).unwrap();
    refused(&lost, "--node-id 1 --bootstrap", 2, &[&lost.display().to_string(), "no identity", "restore"]).await;

    let newer = dir.path().join("newer");
    formed(&newer, 1).await;
    let identity = std::fs::read_to_string(newer.join("identity")).unwrap();
    std::fs::write(newer.join("identity"), identity.replace("\"format\": 1", "\"format\": 99")).unwrap();
    refused(&newer, "--node-id 1 --bootstrap", 2, &["format 99", "newer program"]).await;
}

#[tokio::test]
async fn joining_nobody_or_something_else_ends_with_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    refused(&data, "--join nonsense", 2, &["nonsense", "http://HOST:PORT"]).await;
}

#[tokio::test]
async fn commands_end_with_their_codes() {
    let cluster = Cluster::alone().await;
    let url = format!("http://{}", cluster.api(1));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for (line, code, stdout) in [
        ("get k --target URL", 1, None),
        ("delete k --target URL", 1, None),
        ("put k first --target URL --if-present", 1, None),
        ("put k first --target URL", 0, None),
        ("put k second --target URL --if-absent", 1, None),
        ("get k --target URL", 0, Some("first")),
        ("get k --nodes NOBODY,URL", 0, Some("first")),
        ("get k --target URL --consistency stale", 0, Some("first")),
        ("status --target URL", 0, None),
        ("delete k --target URL", 0, None),
        ("get k --target URL", 1, None),
        ("get k --target NOBODY --deadline 300ms", 3, None),
        ("put k v --target NOBODY --deadline 300ms", 3, None),
        ("status --target NOBODY --deadline 300ms", 3, None),
        ("get k --target nonsense", 2, None),
        ("get", 2, None),
        ("fly", 2, None),
    ] {
        let words = line.split(' ').map(|word| word.replace("URL", &url).replace("NOBODY", &nobody));
        let output = run(words).await;
        assert_eq!(output.code, code, "{line}: {output:?}");
        if let Some(stdout) = stdout {
            assert_eq!(output.stdout.trim_end(), stdout, "{line}");
        }
        if code > 1 && !line.starts_with("status") {
            only_line(&output);
        }
    }
    let status = run(["status", "--output", "json", "--target", &url]).await;
    assert_eq!(status.code, 0, "{status:?}");
    assert!(serde_json::from_str::<serde_json::Value>(&status.stdout).is_ok(), "{}", status.stdout);
    assert_eq!(run(["--version"]).await.code, 0);
}

#[tokio::test]
async fn bad_requests_name_the_field_and_change_nothing() {
    const MIB: usize = 1024 * 1024;
    let cluster = Cluster::alone().await;
    assert_eq!(cluster.answer(1, &Request::put("/v1/strong/k", "v")).await.status, 200);
    let revision = cluster.status(1).await.unwrap().revision();
    let put = || Request::put("/v1/strong/k", "w");
    let set = |body: &str| Request::new("POST", "/set").body(body);
    let long = "k".repeat(1025);
    for (request, status, field) in [
        (Request::put(format!("/v1/strong/{long}"), "w"), 400, "key"),
        (Request::get(format!("/v1/strong/{long}")), 400, "key"),
        (Request::put("/v1/strong/a%00b", "w"), 400, "key"),
        (Request::put("/v1/strong/%ff", "w"), 400, "key"),
        (Request::put("/v1/strong/", "w"), 400, "key"),
        (Request::put("/v1/strong/k", vec![b'w'; MIB + 1]), 413, "value"),
        (put().header("If-Match", "42"), 400, "If-Match"),
        (put().header("If-Match", "\"x\""), 400, "If-Match"),
        (put().header("If-Match", ""), 400, "If-Match"),
        (put().header("If-Match", format!("W/\"{revision}\"")), 400, "If-Match"),
        (put().header("If-None-Match", "W/\"1\""), 400, "If-None-Match"),
        (put().header("If-Match", "*").header("If-None-Match", "*"), 400, "If-None-Match"),
        (Request::put("/v1/strong/k?tll=30s", "w"), 400, "tll"),
        (Request::get("/v1/strong/k?consistency=roughly"), 400, "consistency"),
        (Request::get("/v1/strong/k?consistency=stale&consistency=stale"), 400, "consistency"),
        (Request::get("/v1/strong/k?min_revison=1"), 400, "min_revison"),
        (put().header("X-Seawall-Deadline-Ms", "soon"), 400, "x-seawall-deadline-ms"),
        (put().header("X-Seawall-Deadline-Ms", "0"), 400, "x-seawall-deadline-ms"),
        (put().header("X-Seawall-Deadline-Ms", "-5"), 400, "x-seawall-deadline-ms"),
        (set("{"), 400, "body"),
        (set("{\"key\":\"k\"}"), 400, "value"),
        (set("{\"key\":1,\"value\":1}"), 400, "key"),
        (set("{\"key\":\"k\",\"value\":1,\"vlaue\":2}"), 400, "vlaue"),
        (Request::get("/health/ready?verbose"), 400, "verbose"),
        (set("{\"key\":\"\",\"value\":1}"), 400, "key"),
        (set(&format!("{{\"key\":\"k\",\"value\":\"{}\"}}", "v".repeat(MIB))), 413, "value"),
    ] {
        let answer = cluster.answer(1, &request).await;
        assert_eq!(answer.status, status, "{field}: {}", answer.text());
        let problem = answer.problem();
        assert_eq!(problem["field"], field, "{problem}");
    }
    for (request, status) in [
        (Request::get("/nothing/here"), 404),
        (Request::new("PATCH", "/v1/strong/k"), 405),
        (Request::get("/set"), 405),
        (Request::get("/v1/strong/absent"), 404),
    ] {
        let answer = cluster.answer(1, &request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        answer.problem();
    }
    assert_eq!(cluster.status(1).await.unwrap().revision(), revision, "something was written");
    let kept = cluster.answer(1, &Request::get("/v1/strong/k")).await;
    assert_eq!((kept.text().as_str(), kept.revision()), ("v", revision));

    // The bounds themselves are allowed.
    let longest = format!("/v1/strong/{}", "k".repeat(1024));
    assert_eq!(cluster.answer(1, &Request::put(longest, vec![b'w'; MIB])).await.status, 200);
}

#[tokio::test]
async fn conditions_hold_over_http() {
    let cluster = Cluster::alone().await;
    let put = || Request::put("/v1/strong/k", "v");
    let absent = cluster.answer(1, &put().header("If-Match", "*")).await;
    assert_eq!(absent.status, 412, "{}", absent.text());
    let problem = absent.problem();
    assert!(problem.as_object().unwrap().contains_key("current_revision"), "{problem}");
    assert_eq!(problem["current_revision"], serde_json::Value::Null);

    let first = cluster.answer(1, &put().header("If-None-Match", "*")).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let revision = first.revision();
    assert_eq!(first.json()["revision"], revision);
    let again = cluster.answer(1, &put().header("If-None-Match", "*")).await;
    assert_eq!((again.status, again.problem()["current_revision"].as_u64()), (412, Some(revision)));
    let stale = cluster.answer(1, &put().header("If-Match", format!("\"{}\"", revision + 100))).await;
    assert_eq!(stale.status, 412);
    let next = cluster.answer(1, &put().header("If-Match", format!("\"{revision}\""))).await;
    assert_eq!(next.status, 200);
    assert!(next.revision() > revision);

    let get = || Request::get("/v1/strong/k");
    let tag = format!("\"{}\"", next.revision());
    let same = cluster.answer(1, &get().header("If-None-Match", &tag)).await;
    assert_eq!((same.status, same.header("etag"), same.body.len()), (304, Some(tag.as_str()), 0));
    assert_eq!(cluster.answer(1, &get().header("If-Match", &tag)).await.status, 200);
    assert_eq!(cluster.answer(1, &get().header("If-Match", "\"1000\"")).await.status, 412);
    let malformed = cluster.answer(1, &get().header("If-Match", "nonsense")).await;
    assert_eq!((malformed.status, malformed.problem()["field"].as_str()), (400, Some("If-Match")));

    let delete = cluster.answer(1, &Request::new("DELETE", "/v1/strong/k")).await.json();
    assert_eq!(delete["deleted"], true);
    let again = cluster.answer(1, &Request::new("DELETE", "/v1/strong/k")).await.json();
    assert_eq!((again["deleted"].clone(), again["revision"].clone()), (false.into(), delete["revision"].clone()));

    let set = cluster.answer(1, &Request::new("POST", "/set").body(r#"{"key":"j","value":{"a":[1,2]}}"#)).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let got = cluster.answer(1, &Request::get("/get/j")).await.json();
    assert_eq!(got["value"], serde_json::json!({"a": [1, 2]}));
    assert_eq!(got["revision"], set.json()["revision"]);
    assert_eq!(cluster.answer(1, &Request::get("/get/absent")).await.status, 404);
}

/// The nodes of a demo used to stop by themselves after a few seconds, because waiting for them closed their input.
#[tokio::test]
async fn a_demo_runs_until_it_is_told_to_stop() {
    let logs = tempfile::tempdir().unwrap();
    let mut demo = Process::new("demo", logs.path(), binary());
    demo.args = vec!["demo".to_owned()];
    demo.spawn();
    let folder = eventually("it says how to talk to its nodes", Duration::from_secs(30), async || {
        let said = format!("{}{}", demo.stdout(), demo.log());
        let folder = said.split_whitespace().find(|word| word.contains("seawall-demo-"));
        match folder {
            Some(folder) if said.contains("Ctrl-C") => Ok(folder.to_owned()),
            _ => Err(said),
        }
    })
    .await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let said = format!("{}{}", demo.stdout(), demo.log());
        assert!(!said.contains(" ended ("), "{said}");
    }
    demo.signal(Signal::INT);
    let status = demo.ended_within(Duration::from_secs(15)).await;
    assert!(status.success(), "{status}");
    assert!(!Path::new(&folder).exists(), "{folder} is left behind");
}
