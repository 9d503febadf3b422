//! The lines that the README gives for three terminals form a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use seawall_tests::{Process, Request, binary, eventually, free_port};

/// The words after `serve`, one list per block of the README that starts a node.
fn serve_lines() -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.map(|block| block.replace("\\\n", " "));
    lines
        .filter_map(|line| {
            let line = line.trim();
            let rest = line.strip_prefix("cargo run --release -- serve ").or(line.strip_prefix("seawall-kv serve "))?;
            Some(rest.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

/// Gives every port of the README a free one; the same each time.
fn with_free_ports(word: &str, ports: &mut BTreeMap<String, u16>) -> String {
    let mut pieces = word.split("127.0.0.1:");
    let mut text = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let digits = piece.find(|char: char| !char.is_ascii_digit()).unwrap_or(piece.len());
        let (port, rest) = piece.split_at(digits);
        let port = ports.entry(port.to_owned()).or_insert_with(free_port);
        text.push_str(&format!("127.0.0.1:{port}{rest}"));
    }
    text
}

#[tokio::test]
async fn three_terminals_make_a_cluster() {
    let lines = serve_lines();
    assert_eq!(lines.len(), 3, "the README has three lines, a block each: {lines:?}");
    let dir = tempfile::tempdir().unwrap();
    let mut ports = BTreeMap::new();
    let mut nodes = Vec::new();
    let mut apis: Vec<SocketAddr> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let mut node = Process::new(&format!("terminal-{index}"), dir.path(), binary());
        node.args.push("serve".to_owned());
        let mut flag = "";
        for word in line {
            let word_here = with_free_ports(word, &mut ports);
            match flag {
                "--data-dir" => node.args.push(dir.path().join(word).display().to_string()),
                "--listen" => {
                    apis.push(word_here.parse().unwrap());
                    node.args.push(word_here);
                }
                _ => node.args.push(word_here),
            }
            flag = word;
        }
        node.spawn();
        nodes.push(node);
    }
    assert_eq!(apis.len(), 3, "every line says where it listens");
    for (index, api) in apis.iter().enumerate() {
        eventually("the node is ready", Duration::from_secs(30), async || {
            match Request::get("/health/ready").send(*api).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}\n{}", nodes[index].log())),
            }
        })
        .await;
    }
    // What the README does next: write through the first, read through the third, look at the second.
    let put = Request::put("/v1/strong/greeting", "hello").send(apis[0]).await.unwrap();
    assert_eq!(put.status, 200, "{}", put.text());
    let got = Request::get("/v1/strong/greeting").send(apis[2]).await.unwrap();
    assert_eq!(got.text(), "hello");
    let status = Request::get("/cluster/status").send(apis[1]).await.unwrap().json();
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3), "{status}");
}
