//! What `/metrics` gives is what Prometheus takes. Skipped, loudly, where Prometheus is not installed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use seawall_tests::{Cluster, Process, Request, eventually, free_port, say};

/// Whether the program is installed; says so if not.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        say(&format!("SKIPPED: {program} is not installed, so its test did not run"));
    }
    found
}

/// Reads, writes and mistakes at every node, so that most series exist.
async fn traffic(cluster: &Cluster) {
    for place in cluster.places() {
        for index in 0..5 {
            let path = format!("/v1/strong/k{index}");
            assert_eq!(cluster.answer(place, &Request::put(&path, "v")).await.status, 200);
            assert_eq!(cluster.answer(place, &Request::get(&path)).await.status, 200);
            let failed = cluster.answer(place, &Request::put(&path, "v").header("If-None-Match", "*")).await;
            assert_eq!(failed.status, 412);
        }
        assert_eq!(cluster.answer(place, &Request::get("/nothing")).await.status, 404);
    }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    if !installed("promtool") {
        return;
    }
    let cluster = Cluster::founded(3).await;
    traffic(&cluster).await;
    for place in cluster.places() {
        let metrics = cluster.answer(place, &Request::get("/metrics")).await.text();
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = promtool.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), metrics.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.trim().is_empty(), "node {place}: {said}");
    }
}

/// The instances for which Prometheus has the series.
async fn instances(prometheus: SocketAddr, series: &str) -> Result<BTreeSet<String>, String> {
    let answer = Request::get(format!("/api/v1/query?query={series}")).send(prometheus).await;
    let answer = answer.map_err(|error| format!("{error:?}"))?;
    if answer.status != 200 {
        return Err(answer.text());
    }
    let results = answer.json()["data"]["result"].as_array().cloned().unwrap_or_default();
    Ok(results.iter().filter_map(|result| result["metric"]["instance"].as_str().map(str::to_owned)).collect())
}

#[tokio::test]
async fn prometheus_scrapes_every_node() {
    if !installed("prometheus") {
        return;
    }
    let cluster = Cluster::founded(3).await;
    traffic(&cluster).await;
    let targets: BTreeSet<_> = cluster.places().iter().map(|place| cluster.api(*place).to_string()).collect();

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    let list: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
    let scrape = "global: {scrape_interval: 500ms, scrape_timeout: 500ms}";
    let job =
        format!("scrape_configs: [{{job_name: seawall-kv, static_configs: [{{targets: [{}]}}]}}]", list.join(", "));
    std::fs::write(&config, format!("{scrape}\n{job}\n")).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut prometheus = Process::new("prometheus", dir.path(), "prometheus");
    prometheus.args = vec![
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        format!("--web.listen-address={address}"),
    ];
    prometheus.spawn();

    for series in [
        "up==1",
        "seawall_circuit_breaker_state",
        "seawall_kv_requests_total",
        "seawall_kv_raft_term",
        "seawall_kv_peer_rpcs_total",
        "seawall_kv_build_info",
    ] {
        let query = series.replace("==", "%3D%3D");
        eventually(&format!("{series} of every node"), Duration::from_secs(30), async || {
            let found = instances(address, &query).await?;
            if found == targets { Ok(()) } else { Err(format!("{found:?}\n{}", prometheus.log())) }
        })
        .await;
    }
}
