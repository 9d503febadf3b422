//! The guided tour: what the service promises, shown while nodes die. It takes well under a minute, or fails.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::console::{Console, time};
use super::eventually::eventually;
use super::writer::{Log, Writer};
use super::{metrics, steps};
use crate::cli::load::{Kind, Source, write};
use crate::cli::{CliError, Exit};
use crate::peer::NodeId;

/// Something to load: countries (ISO 3166) and time zones as the public-domain tz database lists them, TCP service ports
/// as IANA assigns them, HTTP status codes and chemical elements.
const FACTS: &str = include_str!("../../../data/facts.jsonl");

/// However slow the machine: a tour that takes longer has got stuck.
const LIMIT: Duration = Duration::from_secs(58);

/// The deadline of each call of the tour. It outlasts an election.
const DEADLINE: Duration = Duration::from_secs(5);

/// Writes that must be acknowledged with a node missing before the tour goes on.
const WRITES_WITHOUT: u64 = 200;

/// Writes under way at once while loading.
const LOAD_CONCURRENCY: usize = 16;

/// Runs the tour: done if everything is as promised.
pub(super) async fn run(cluster: &mut Cluster, console: &mut Console) -> Result<Exit, CliError> {
    let start = Instant::now();
    let mut tour = Tour { cluster, console, step: start, facts: Vec::new() };
    let outcome = match timeout(LIMIT, tour.all()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("the tour is not over after {}", time(LIMIT))),
    };
    let Tour { step, .. } = tour;
    match outcome {
        Ok(summary) => {
            console.heading("Summary");
            for line in summary {
                console.note(&line);
            }
            console.good("everything is as promised", start.elapsed());
            Ok(Exit::Done)
        }
        Err(reason) => {
            console.bad(&reason, step.elapsed());
            cluster.keep_folder();
            console.note(&format!("data and logs are left in {}", cluster.folder().display()));
            Ok(Exit::Failed)
        }
    }
}

struct Tour<'a> {
    cluster: &'a mut Cluster,
    console: &'a mut Console,
    /// When the step began.
    step: Instant,
    facts: Vec<(String, Bytes)>,
}

impl Tour<'_> {
    /// Every step in order; the first that fails ends it with the reason. Otherwise the summary, by lines.
    async fn all(&mut self) -> Result<Vec<String>, String> {
        let leader = self.start().await?;
        self.load().await?;
        self.read_everywhere().await?;
        let leader = self.gemini(leader).await?;

        let client = self.cluster.client(self.cluster.ids(), DEADLINE).map_err(|error| error.to_string())?;
        let writer = Writer::start(client);
        let (new_leader, gap) = self.kill_leader(leader, &writer).await?;
        self.breaker(leader).await?;
        let without = self.writes_go_on(&writer).await?;
        self.catch_up(leader, new_leader).await?;
        let log = writer.stop().await;
        self.verify(&log).await?;

        Ok(vec![
            format!("{} facts loaded and read back from {} nodes", self.facts.len(), self.cluster.size()),
            format!("node {leader} killed as the leader; node {new_leader} took over, next write after {}", time(gap)),
            format!("{without} writes acknowledged while node {leader} was away"),
            format!(
                "{} writes acknowledged in all, none lost ({} not applied, {} unknown)",
                log.acked.len(),
                log.not_applied,
                log.unknown
            ),
        ])
    }

    fn begin(&mut self, title: &str, what: &str) {
        self.console.heading(title);
        self.console.note(what);
        self.step = Instant::now();
    }

    async fn start(&mut self) -> Result<NodeId, String> {
        let size = self.cluster.size();
        self.begin("Start", &format!("{size} processes of this program form a cluster and elect a leader."));
        self.cluster.start_all().map_err(|error| error.to_string())?;
        let (leader, after) = steps::all_ready(self.cluster).await?;
        for id in self.cluster.ids() {
            let pid = self.cluster.pid(id).map_or("-".to_owned(), |pid| pid.to_string());
            self.console.note(&format!("node {id}  {}  process {pid}", self.cluster.url(id)));
        }
        self.console.good(&format!("all nodes are ready, node {leader} leads"), after);
        Ok(leader)
    }

    async fn load(&mut self) -> Result<(), String> {
        let lines = FACTS.lines().count();
        self.begin(
            "Load",
            &format!("{lines} lines of a file are written through the client, {LOAD_CONCURRENCY} at a time."),
        );
        let path = self.cluster.folder().join("facts.jsonl");
        tokio::fs::write(&path, FACTS).await.map_err(|error| format!("{}: {error}", path.display()))?;
        let source = Source::new(path, Some(Kind::Jsonl)).map_err(|error| error.to_string())?;
        let facts = &mut self.facts;
        let read = source.for_each(|record| {
            facts.push((record.key.to_string(), record.value));
            true
        });
        let total = read.map_err(|error| error.to_string())?;

        let client = self.cluster.client(self.cluster.ids(), DEADLINE).map_err(|error| error.to_string())?;
        let mut complaint = None;
        let never = CancellationToken::new();
        let report = write(&client, source, LOAD_CONCURRENCY, &never, |outcome| {
            if let Err((line, error)) = outcome {
                complaint.get_or_insert(format!("line {line}: {error}"));
            }
        });
        let report = report.await.map_err(|error| error.to_string())?;
        if let Some(complaint) = complaint {
            return Err(format!("{}; first {complaint}", report.text(total)));
        }
        self.console.good(&report.text(total), self.step.elapsed());
        Ok(())
    }

    async fn read_everywhere(&mut self) -> Result<(), String> {
        self.begin("Read back", "Every node is asked for every key, with linearizable reads.");
        for id in self.cluster.ids() {
            let begun = Instant::now();
            let read = self.read_facts(id).await?;
            self.console.good(&format!("node {id}: {read} of {read} values are right"), begun.elapsed());
        }
        Ok(())
    }

    async fn read_facts(&self, id: NodeId) -> Result<u64, String> {
        let client = self.cluster.client([id], DEADLINE).map_err(|error| error.to_string())?;
        let pairs = self.facts.iter().map(|(key, value)| (key.as_str(), &value[..]));
        steps::read_back(&client, pairs).await.map_err(|error| format!("node {id}: {error}"))
    }

    /// The classic: a write commits on the answer of a majority, and whoever was away catches up alone.
    async fn gemini(&mut self, leader: NodeId) -> Result<NodeId, String> {
        let followers: Vec<_> = self.cluster.ids().filter(|id| *id != leader).collect();
        let (Some(second), Some(third)) = (followers.first().copied(), followers.last().copied()) else {
            return Err("there are too few nodes".to_owned());
        };
        self.begin(
            "SET name \"Gemini\"",
            &format!("Node {third} is off. Node {leader} leads, and needs the answer of node {second} to commit."),
        );
        self.cluster.kill(third).await.map_err(|error| error.to_string())?;
        let begun = Instant::now();
        let answer = steps::set(&self.cluster.url(leader), "name", "Gemini").await?;
        self.console.good(&format!("POST /set at node {leader} is committed: {answer}"), begun.elapsed());
        let begun = Instant::now();
        let value = steps::get(&self.cluster.url(second), "name").await?;
        if value != "Gemini" {
            return Err(format!("GET /get/name at node {second} gives {value}"));
        }
        self.console.good(&format!("GET /get/name at node {second} gives {value}"), begun.elapsed());

        self.cluster.start(third).map_err(|error| error.to_string())?;
        let caught_up = eventually("the third node's catching up", steps::PATIENCE, async || {
            let goal = steps::applied(self.cluster, leader).await?;
            let applied = steps::applied(self.cluster, third).await?;
            if applied < goal {
                return Err(format!("applied {applied} of {goal}"));
            }
            let value = steps::get(&self.cluster.url(third), "name").await?;
            if value == "Gemini" { Ok(()) } else { Err(format!("name is {value}")) }
        });
        let ((), after) = caught_up.await?;
        self.console.good(&format!("node {third} is back and has caught up by itself"), after);
        let (leader, _) = steps::all_ready(self.cluster).await?;
        Ok(leader)
    }

    async fn kill_leader(&mut self, leader: NodeId, writer: &Writer) -> Result<(NodeId, Duration), String> {
        let pid = self.cluster.pid(leader).map_or("-".to_owned(), |pid| pid.to_string());
        self.begin(
            "Kill the leader",
            &format!(
                "One write after another is sent to all nodes in turns. kill -9 {pid} ends node {leader}, which leads."
            ),
        );
        eventually("the first writes", steps::PATIENCE, async || match writer.log().acked.len() {
            50.. => Ok(()),
            count => Err(format!("{count} writes")),
        })
        .await?;
        self.cluster.kill(leader).await.map_err(|error| error.to_string())?;
        // The process is gone: no write that is sent from now on can be its work.
        let killed = Instant::now();
        let elected =
            eventually("a new leader", steps::PATIENCE, async || steps::leader(self.cluster, Some(leader)).await);
        let (new_leader, after) = elected.await?;
        self.console.good(&format!("node {new_leader} leads"), after);
        let written = eventually("the next write", steps::PATIENCE, async || {
            writer.first_ack_after(killed).ok_or_else(|| "none yet".to_owned())
        });
        let (gap, _) = written.await?;
        self.console.good("the next write is acknowledged", gap);
        Ok((new_leader, gap))
    }

    async fn breaker(&mut self, dead: NodeId) -> Result<(), String> {
        let Some(survivor) = self.cluster.running().first().copied() else {
            return Err("no node runs".to_owned());
        };
        self.begin(
            "Circuit breaker",
            &format!(
                "Node {survivor} stops calling node {dead}: its /metrics show the breaker of the peer client open."
            ),
        );
        let url = self.cluster.url(survivor);
        let opened = eventually("an open breaker", steps::PATIENCE, async || {
            let page = steps::page(&url, "/metrics").await?;
            let open = metrics::open_breakers(&page, dead);
            open.first().cloned().ok_or_else(|| format!("no breaker named peer/{dead}/… is open"))
        });
        let (name, after) = opened.await?;
        self.console.note(&format!("seawall_circuit_breaker_state{{name=\"{name}\",state=\"open\"}} 1"));
        self.console.good("the breaker is open", after);
        Ok(())
    }

    async fn writes_go_on(&mut self, writer: &Writer) -> Result<u64, String> {
        let left = self.cluster.running().len();
        self.begin("Writes go on", &format!("{left} nodes are a majority."));
        let before = writer.log().acked.len() as u64;
        let written =
            eventually("more writes", steps::PATIENCE, async || match writer.log().acked.len() as u64 - before {
                count @ WRITES_WITHOUT.. => Ok(count),
                count => Err(format!("{count} writes")),
            });
        let (count, after) = written.await?;
        self.console.good(&format!("{count} more writes are acknowledged"), after);
        Ok(count)
    }

    async fn catch_up(&mut self, back: NodeId, leader: NodeId) -> Result<(), String> {
        self.begin("Catch up", &format!("Node {back} is started again while writes go on."));
        self.cluster.start(back).map_err(|error| error.to_string())?;
        let caught_up = eventually("catching up", steps::PATIENCE, async || {
            // The leader is asked first: what it had applied then, the other must have applied afterwards.
            let goal = steps::applied(self.cluster, leader).await?;
            let applied = steps::applied(self.cluster, back).await?;
            if applied >= goal { Ok((applied, goal)) } else { Err(format!("applied {applied} of {goal}")) }
        });
        let ((applied, goal), after) = caught_up.await?;
        self.console.good(&format!("node {back} has applied entry {applied}, the leader {goal}"), after);
        Ok(())
    }

    async fn verify(&mut self, log: &Log) -> Result<(), String> {
        self.begin(
            "Verify",
            &format!("Every fact and all {} acknowledged writes are read from every node.", log.acked.len()),
        );
        for id in self.cluster.ids() {
            let begun = Instant::now();
            let facts = self.read_facts(id).await?;
            let client = self.cluster.client([id], DEADLINE).map_err(|error| error.to_string())?;
            let pairs = log.acked.iter().map(|write| (write.key.as_str(), write.value.as_bytes()));
            let writes = steps::read_back(&client, pairs).await.map_err(|error| format!("node {id}: {error}"))?;
            self.console.good(&format!("node {id}: {facts} facts and {writes} writes, none lost"), begun.elapsed());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_thousand_facts_and_each_is_a_good_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.jsonl");
        std::fs::write(&path, FACTS).unwrap();
        let mut keys = std::collections::HashSet::new();
        let source = Source::new(path, None).unwrap();
        let lines = source.for_each(|record| keys.insert(record.key.to_string())).unwrap();
        assert!(lines >= 1000, "{lines}");
        assert_eq!(keys.len() as u64, lines, "no key twice: all of them are read back");
    }
}
