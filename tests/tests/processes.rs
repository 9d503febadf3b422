//! Three real processes on loopback: `kill -9`, restarts, contention, joining, coming back after a long time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use seawall_kv::Client;
use seawall_kv::client::{ClientError, Consistency, GetOptions, Precondition};
use seawall_tests::{Answer, Cluster, Request, SendError, Stopwatch, Write, eventually, say};
use tokio::task::JoinSet;

const STALE: GetOptions = GetOptions { consistency: Consistency::Stale };

/// Writers of a storm; half through the client, half straight at one node each.
const WRITERS: u64 = 6;

/// Keys that nobody else writes, one after the other, and how each write ended.
#[derive(Default)]
struct Storm {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: JoinSet<Vec<(String, Write)>>,
}

impl Storm {
    fn start(cluster: &Cluster) -> Self {
        let mut storm = Self::default();
        for writer in 0..WRITERS {
            let (stop, acknowledged) = (Arc::clone(&storm.stop), Arc::clone(&storm.acknowledged));
            let places = cluster.places();
            let place = places[writer as usize % places.len()];
            let (client, api) = (cluster.client(), cluster.api(place));
            storm.writers.spawn(async move {
                let mut ends = Vec::new();
                // ORDERING: Relaxed, the flag is the whole message.
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("storm-{writer}-{}", ends.len());
                    let end = if writer % 2 == 0 {
                        client_write(client.put(&key, key.clone()).await)
                    } else {
                        let put = Request::put(format!("/v1/strong/{key}"), key.clone());
                        let end = Write::from_answer(&put.deadline(Duration::from_secs(2)).send(api).await);
                        if end == Write::NotApplied {
                            tokio::time::sleep(Duration::from_millis(10)).await; // the node is down; do not spin
                        }
                        end
                    };
                    if let Write::Done(_) = end {
                        // ORDERING: Relaxed, a count and nothing else.
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    ends.push((key, end));
                }
                ends
            });
        }
        storm
    }

    /// Waits until so many more writes were acknowledged.
    async fn more(&self, count: u64) {
        // ORDERING: Relaxed, a count and nothing else.
        let target = self.acknowledged.load(Ordering::Relaxed) + count;
        eventually(&format!("{count} more writes are acknowledged"), Duration::from_secs(60), async || {
            // ORDERING: Relaxed, as above.
            let now = self.acknowledged.load(Ordering::Relaxed);
            if now >= target { Ok(()) } else { Err(format!("{now} of {target}")) }
        })
        .await;
    }

    /// Ends the writers and checks that every write is what was said of it, at every node.
    async fn check(self, cluster: &Cluster) {
        // ORDERING: Relaxed, the flag is the whole message.
        self.stop.store(true, Ordering::Relaxed);
        let ends: Vec<_> = self.writers.join_all().await.into_iter().flatten().collect();
        let revisions: BTreeSet<_> = ends.iter().filter_map(|(_, end)| done(*end)).collect();
        let acknowledged = ends.iter().filter(|(_, end)| done(*end).is_some()).count();
        assert_eq!(revisions.len(), acknowledged, "a revision was given twice");

        let places = cluster.places();
        for place in &places {
            cluster.ready(*place).await;
            // One linearizable read brings the node up to date; after it, its own state must hold everything.
            let read = cluster.client_of(&[*place]).get("storm-0-0").await;
            assert!(read.is_ok(), "{read:?}");
        }
        let mut counts = [0_u64; 4];
        for place in &places {
            let client = cluster.client_of(&[*place]);
            for (key, end) in &ends {
                let found = client.get_with(key, STALE).await.unwrap();
                let found = found.map(|value| (value.revision, value.value));
                match end {
                    Write::Done(revision) => {
                        assert_eq!(found, Some((*revision, key.clone().into())), "acknowledged, node {place}");
                        counts[0] += 1;
                    }
                    Write::NotApplied => {
                        assert_eq!(found, None, "{key} was said to be not applied, node {place}");
                        counts[1] += 1;
                    }
                    Write::Unknown if found.is_some() => counts[2] += 1,
                    Write::Unknown => counts[3] += 1,
                    Write::ConditionFailed => panic!("{key} had no condition"),
                }
            }
        }
        let [done, not_applied, happened, did_not] = counts.map(|count| count / places.len() as u64);
        say(&format!("storm: {done} done, {not_applied} not applied, unknown: {happened} happened, {did_not} did not"));
    }
}

fn done(write: Write) -> Option<u64> {
    if let Write::Done(revision) = write { Some(revision) } else { None }
}

fn client_write(result: Result<seawall_kv::client::PutOutcome, ClientError>) -> Write {
    match result {
        Ok(outcome) => Write::Done(outcome.revision),
        Err(ClientError::Unknown { .. }) => Write::Unknown,
        Err(ClientError::Unavailable { .. }) => Write::NotApplied,
        Err(ClientError::ConditionFailed { .. }) => Write::ConditionFailed,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_of_the_leader() {
    let mut cluster = Cluster::founded(3).await;
    let storm = Storm::start(&cluster);
    for _ in 0..3 {
        storm.more(50).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        storm.more(50).await; // by the two that are left
        cluster.start(leader);
        cluster.ready(leader).await;
    }
    storm.check(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_of_all_nodes() {
    let mut cluster = Cluster::founded(3).await;
    let storm = Storm::start(&cluster);
    for _ in 0..2 {
        storm.more(50).await;
        for place in cluster.places() {
            cluster.kill(place);
        }
        for place in cluster.places() {
            cluster.start(place);
        }
    }
    storm.more(50).await;
    storm.check(&cluster).await;
}

/// Reads at one node until it answers; the value it gives.
async fn first_linearizable_answer(api: std::net::SocketAddr) -> u64 {
    let read = Request::get("/v1/strong/round").deadline(Duration::from_secs(2));
    eventually("a linearizable read is answered", Duration::from_secs(30), async || match read.send(api).await {
        Ok(answer) if answer.status == 200 => Ok(answer.text().parse().unwrap()),
        Ok(answer) if answer.status == 503 => Err(answer.text()),
        Ok(answer) => panic!("{}: {}", answer.status, answer.text()),
        Err(error) => Err(format!("{error:?}")),
    })
    .await
}

/// A leader that comes back at once must not lead, or answer, with what it had: it may have missed nothing, but it
/// cannot know. `SEAWALL_RESTARTS` sets the number of rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_stale_when_the_leader_is_restarted_at_once() {
    let rounds = std::env::var("SEAWALL_RESTARTS").map_or(10, |text| text.parse().unwrap());
    let mut cluster = Cluster::founded(3).await;
    let took = Stopwatch::start();
    let (mut slowest, mut at_once) = (Duration::ZERO, 0);
    for round in 1..=rounds {
        let leader = cluster.leader().await;
        let put = Request::put("/v1/strong/round", round.to_string());
        eventually("a write is acknowledged", Duration::from_secs(30), async || {
            // The leader may have changed since it was asked for; its successor gets the write then.
            match Write::from_answer(&cluster.ask(leader, &put).await) {
                Write::Done(_) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let down = Stopwatch::start();
        cluster.kill(leader);
        cluster.start(leader);
        at_once += u64::from(down.elapsed() < Duration::from_millis(50));

        let places = cluster.places();
        let reads = places.iter().map(|place| first_linearizable_answer(cluster.api(*place)));
        for (place, value) in places.iter().zip(join_all(reads).await) {
            assert_eq!(value, round, "node {place} answered an older write, node {leader} was restarted");
        }
        slowest = slowest.max(down.elapsed());
    }
    assert!(at_once > rounds / 2, "only {at_once} of {rounds} leaders were back within 50 ms; the machine is too slow");
    let took = took.elapsed();
    say(&format!("{rounds} restarts of the leader in {took:.1?}, {at_once} within 50 ms, slowest round {slowest:.1?}"));
}

/// A leader that was stopped (as by a long pause of its machine) and goes on must not answer from what it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_stale_when_the_leader_wakes_up() {
    let mut cluster = Cluster::founded(3).await;
    let sleeper = cluster.leader().await;
    cluster.client().put("round", "1").await.unwrap();
    cluster.process(sleeper).signal(Signal::STOP);
    let others: Vec<_> = cluster.places().into_iter().filter(|place| *place != sleeper).collect();
    let put = Request::put("/v1/strong/round", "2");
    eventually("the others go on", Duration::from_secs(30), async || {
        match Write::from_answer(&cluster.ask(others[0], &put).await) {
            Write::Done(_) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Its connections accept while it sleeps: these reads are the first thing it sees when it wakes.
    let api = cluster.api(sleeper);
    let reads = join_all((0..8).map(|_| first_linearizable_answer(api)));
    let wake = async {
        tokio::time::sleep(Duration::from_millis(50)).await; // only makes the test sharper: the reads are in its sockets
        cluster.process(sleeper).signal(Signal::CONT);
    };
    assert_eq!(tokio::join!(reads, wake).0, [2; 8]);
}

const CLIENTS: u64 = 64;
const TRIES_EACH: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_64_clients_are_ordered_and_a_counter_ends_exactly() {
    let cluster = Cluster::founded(3).await;
    let all = cluster.client();
    all.put("counter", "0").await.unwrap();
    let mut clients = JoinSet::new();
    for id in 0..CLIENTS {
        let client = cluster.client_of(&[1 + id % 3]);
        clients.spawn(contend(id, client));
    }
    let mut revisions = Vec::new();
    let mut raised = 0;
    let mut last_shared = (0, String::new());
    for (done, successes, shared) in clients.join_all().await {
        revisions.extend(done);
        raised += successes;
        last_shared = last_shared.max(shared);
    }
    let unique: BTreeSet<_> = revisions.iter().collect();
    assert_eq!(unique.len(), revisions.len(), "two writes were acknowledged with one revision");
    assert!(raised >= TRIES_EACH, "only {raised} raised the counter");
    for place in cluster.places() {
        let client = cluster.client_of(&[place]);
        let counter = client.get("counter").await.unwrap().unwrap();
        assert_eq!(counter.value, raised.to_string(), "node {place}: raises were lost or done twice");
        let shared = client.get("shared").await.unwrap().unwrap();
        assert_eq!((shared.revision, shared.value.to_vec()), (last_shared.0, last_shared.1.clone().into_bytes()));
        for id in 0..CLIENTS {
            let own = client.get(&format!("own/{id}")).await.unwrap().unwrap();
            assert_eq!(own.value, (TRIES_EACH - 1).to_string(), "node {place}, client {id}");
        }
    }
    say(&format!("{} writes by {CLIENTS} clients, the counter was raised {raised} times", revisions.len()));
}

/// What one client wrote: all revisions, how often it raised the counter, its last write to the shared key.
async fn contend(id: u64, client: Client) -> (Vec<u64>, u64, (u64, String)) {
    let (mut revisions, mut raised, mut shared) = (Vec::new(), 0, (0, String::new()));
    for round in 0..TRIES_EACH {
        let own = client.put(&format!("own/{id}"), round.to_string()).await.unwrap();
        let text = format!("{id}/{round}");
        let outcome = client.put("shared", text.clone()).await.unwrap();
        assert!(outcome.revision > own.revision, "a later write has an earlier revision");
        shared = (outcome.revision, text);
        revisions.extend([own.revision, outcome.revision]);

        let seen = client.get("counter").await.unwrap().unwrap();
        let next = std::str::from_utf8(&seen.value).unwrap().parse::<u64>().unwrap() + 1;
        let condition = Precondition::RevisionIs(vec![seen.revision]);
        match client.put_if("counter", next.to_string(), condition).await {
            Ok(outcome) => {
                revisions.push(outcome.revision);
                raised += 1;
            }
            Err(ClientError::ConditionFailed { current }) => {
                assert!(current.is_some_and(|current| current > seen.revision), "{current:?} after {}", seen.revision);
            }
            Err(error) => panic!("{error}"),
        }
    }
    (revisions, raised, shared)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_told_to_stop_hands_over_first() {
    // With elections this slow, a new leader within them was made by the old one.
    let slow = ["--election-timeout-min", "8s", "--election-timeout-max", "9s"];
    let mut cluster = Cluster::founded_with(3, &slow).await;
    let leader = cluster.leader().await;
    let acknowledged = cluster.client().put("k", "before").await.unwrap();

    let told = Stopwatch::start();
    let status = cluster.terminate(leader, Duration::from_secs(5)).await;
    assert!(status.success(), "{status}");
    let successor = cluster.leader().await;
    let took = told.elapsed();
    assert_ne!(successor, leader);
    assert!(took < Duration::from_secs(5), "a new leader took {took:?}");
    let others: Vec<_> = cluster.places().into_iter().filter(|place| *place != leader).collect();
    let next = cluster.client_of(&others).put("k", "after").await.unwrap();
    assert!(next.revision > acknowledged.revision);
    say(&format!("hand-over and stop of the leader in {took:.2?}"));

    cluster.start(leader);
    cluster.ready(leader).await;
    assert_eq!(cluster.client_of(&[leader]).get("k").await.unwrap().unwrap().value, "after");
    // A follower ends as well, and so does the last one, which has nobody to hand over to.
    for place in cluster.places() {
        let status = cluster.terminate(place, Duration::from_secs(5)).await;
        assert!(status.success(), "node {place}: {status}");
    }
}

/// Sends with a deadline of one second; the answer must come by then, give or take the machine.
async fn within_a_second(cluster: &Cluster, place: u64, request: Request) -> Answer {
    let start = Stopwatch::start();
    let answer = cluster.answer(place, &request.deadline(Duration::from_secs(1))).await;
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?} for {answer:?}");
    answer
}

async fn assert_without_quorum(cluster: &Cluster, place: u64, outcomes: &[&str]) {
    for request in [
        Request::put("/v1/strong/k", "new"),
        Request::new("DELETE", "/v1/strong/k"),
        Request::new("POST", "/set").body(r#"{"key":"k","value":"new"}"#),
    ] {
        let answer = within_a_second(cluster, place, request).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let problem = answer.problem();
        let outcome = problem["outcome"].as_str().unwrap_or_default();
        assert!(outcomes.contains(&outcome), "{problem}");
    }
    for path in ["/v1/strong/k", "/get/k"] {
        let answer = within_a_second(cluster, place, Request::get(path)).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.problem()["outcome"], serde_json::Value::Null, "reads have no outcome");
    }
    let stale = within_a_second(cluster, place, Request::get("/v1/strong/k?consistency=stale")).await;
    assert_eq!((stale.status, stale.text().as_str()), (200, "old"));
    let live = within_a_second(cluster, place, Request::get("/health/live")).await;
    assert_eq!(live.status, 200, "a node without a quorum is alive");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_every_answer_comes_in_time() {
    let mut cluster = Cluster::founded(3).await;
    cluster.client().put("k", "old").await.unwrap();
    let leader = cluster.leader().await;
    let followers: Vec<_> = cluster.places().into_iter().filter(|place| *place != leader).collect();
    for place in &followers {
        cluster.client_of(&[*place]).get("k").await.unwrap(); // so that each has it
    }

    // A leader alone may have put a write into its log.
    followers.iter().for_each(|place| cluster.kill(*place));
    assert_without_quorum(&cluster, leader, &["unknown", "not_applied"]).await;
    eventually("a leader that nobody follows is not ready", Duration::from_secs(20), async || {
        let ready = cluster.answer(leader, &Request::get("/health/ready")).await;
        if ready.status == 503 { Ok(()) } else { Err(ready.text()) }
    })
    .await;

    followers.iter().for_each(|place| cluster.start(*place));
    for place in cluster.places() {
        cluster.ready(place).await;
    }
    cluster.client().put("k", "old").await.unwrap();
    let leader = cluster.leader().await;
    let (follower, other) = match cluster.places()[..] {
        [first, second, third] if first == leader => (second, third),
        [first, second, third] if second == leader => (first, third),
        [first, second, _] => (first, second),
        _ => unreachable!("there are three"),
    };
    cluster.client_of(&[follower]).get("k").await.unwrap();
    cluster.kill(leader);
    cluster.kill(other);
    assert_without_quorum(&cluster, follower, &["unknown", "not_applied"]).await;
    eventually("it is not ready any more", Duration::from_secs(20), async || {
        let ready = cluster.answer(follower, &Request::get("/health/ready")).await;
        if ready.status == 503 { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    // Nobody leads, so nothing can have been proposed.
    assert_without_quorum(&cluster, follower, &["not_applied"]).await;
    cluster.start(leader);
    eventually("writes go on with two of three", Duration::from_secs(30), async || {
        cluster.client_of(&[follower]).put("k", "newer").await.map_err(|error| error.to_string())
    })
    .await;
}

/// Waits until the node at `place` says that it votes, and returns its id.
async fn voter(cluster: &Cluster, place: u64) -> u64 {
    eventually("the joined node votes", Duration::from_secs(30), async || {
        let status = cluster.status(place).await.map_err(|error| format!("{error}\n{}", cluster.log(place)))?;
        let id = status.node_id();
        if status.voters().contains(&id) { Ok(id) } else { Err(format!("{status:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_through_any_node_under_ids_of_their_own() {
    let mut cluster = Cluster::founded(3).await;
    for index in 0..300 {
        cluster.client().put(&format!("k{index}"), index.to_string()).await.unwrap();
    }
    let leader = cluster.leader().await;
    let follower = cluster.places().into_iter().find(|place| *place != leader).unwrap();
    let fourth = cluster.join(follower);
    let fourth_id = voter(&cluster, fourth).await;
    assert!(fourth_id > 3, "an id that a founder has");
    cluster.ready(fourth).await;
    assert_eq!(cluster.client_of(&[fourth]).get("k299").await.unwrap().unwrap().value, "299");
    for index in 0..300 {
        let value = cluster.client_of(&[fourth]).get_with(&format!("k{index}"), STALE).await.unwrap();
        assert_eq!(value.unwrap().value, index.to_string());
    }

    // Through the node that has just joined.
    let fifth = cluster.join(fourth);
    let fifth_id = voter(&cluster, fifth).await;
    assert!(fifth_id > fourth_id, "{fifth_id} after {fourth_id}");

    // The same flags after a crash: it comes back as who it was.
    cluster.kill(fourth);
    let put = cluster.client_of(&[1, 2, 3]).put("later", "yes").await.unwrap();
    cluster.start(fourth);
    cluster.ready(fourth).await;
    assert_eq!(cluster.status(fourth).await.unwrap().node_id(), fourth_id);
    assert_eq!(cluster.client_of(&[fourth]).get("later").await.unwrap().unwrap().revision, put.revision);

    // It votes: with two founders down, three of five go on, and these two are needed.
    let down: Vec<_> = (1..=3).filter(|place| *place != follower).collect();
    down.iter().for_each(|place| cluster.kill(*place));
    let client = cluster.client_of(&[fourth, fifth, follower]);
    eventually("three of five go on", Duration::from_secs(30), async || {
        client.put("last", "yes").await.map_err(|error| error.to_string())
    })
    .await;

    // A sixth gets another id again, and no vote: five is enough.
    down.iter().for_each(|place| cluster.start(*place));
    let sixth = cluster.join(follower);
    eventually("the sixth is a member", Duration::from_secs(30), async || {
        let status = cluster.status(sixth).await?;
        let id = status.node_id();
        assert!(id > fifth_id, "{id} after {fifth_id}");
        let member = status.0["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).cloned();
        match member {
            Some(member) if member["voter"] == false => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_lost_its_data_is_refused_while_the_cluster_lives() {
    let mut cluster = Cluster::founded(3).await;
    cluster.client().put("k", "v").await.unwrap();
    // The lowest id forms clusters, the others follow: both must notice.
    for place in [1, 3] {
        cluster.kill(place);
        let data = cluster.data(place).to_owned();
        let kept = data.with_extension("kept");
        std::fs::rename(&data, &kept).unwrap();
        let before = cluster.log(place).len();
        cluster.start(place);
        let status = cluster.process(place).ended_within(Duration::from_secs(20)).await;
        assert_eq!(status.code(), Some(2), "{}", cluster.log(place));
        let log = cluster.log(place)[before..].to_owned();
        let lines: Vec<_> = log.lines().filter(|line| line.starts_with("seawall-kv:")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        for part in ["belongs to cluster", "data directory is empty", "--join"] {
            assert!(lines[0].contains(part), "{part} in {log}");
        }
        let others: Vec<_> = cluster.places().into_iter().filter(|other| *other != place).collect();
        cluster.client_of(&others).put("k", format!("without {place}")).await.unwrap();

        // With its data it is welcome.
        if data.exists() {
            std::fs::remove_dir_all(&data).unwrap();
        }
        std::fs::rename(&kept, &data).unwrap();
        cluster.start(place);
        cluster.ready(place).await;
        assert_eq!(cluster.client_of(&[place]).get("k").await.unwrap().unwrap().value, format!("without {place}"));
    }
}

/// A founder that restarted used to tell the cluster's id to one that had lost its data. The two then elected one of
/// them, and a write that the third had acknowledged was gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_lost_its_data_is_not_taken_back_by_one_that_restarts() {
    let mut cluster = Cluster::founded(3).await;
    cluster.client().put("k", "first").await.unwrap();
    cluster.kill(1);
    cluster.client_of(&[2, 3]).put("k", "without 1").await.unwrap();
    cluster.kill(2);
    cluster.kill(3);
    std::fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.start(2);
    cluster.start(1);
    let status = cluster.process(2).ended_within(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(2), "{}", cluster.log(2));
    let alone = cluster.status(1).await.unwrap();
    assert_eq!(alone.leader(), None, "one of three elects nobody");

    cluster.start(3);
    cluster.ready(3).await;
    let value = cluster.client_of(&[1, 3]).get("k").await.unwrap().unwrap();
    assert_eq!(value.value, "without 1");
}

/// Only ids that were given out are taken: the same id given to two nodes would be two votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_was_never_given_out_joins_nothing() {
    let cluster = Cluster::founded(3).await;
    let join = |id: u64, port: u16| {
        let body = format!(r#"{{"id":{id},"peer_addr":"127.0.0.1:{port}","api_addr":"127.0.0.1:{}"}}"#, port + 1);
        Request::new("POST", "/cluster/members").body(body)
    };
    let refused = cluster.answer(1, &join(5000, 1)).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let taken = cluster.answer(1, &join(2, 1)).await;
    assert_eq!(taken.status, 409, "the id of a member at another address: {taken:?}");
    assert_eq!(cluster.status(1).await.unwrap().voters(), [1, 2, 3]);
}

/// The sum of the series of a metric whose labels hold `label`.
async fn metric(cluster: &Cluster, place: u64, name: &str, label: &str) -> f64 {
    let text = cluster.answer(place, &Request::get("/metrics")).await.text();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_too_long_catches_up_by_snapshot() {
    const WRITERS: usize = 8;
    // A leader keeps what it is about to send again, so its log is cut only after the next failed attempt.
    const AWAY: Duration = Duration::from_secs(5);
    let mut cluster = Cluster::founded_with(3, &["--snapshot-every", "50"]).await;
    cluster.client().put("k", "before").await.unwrap();
    let leader = cluster.leader().await;
    let away = cluster.places().into_iter().find(|place| *place != leader).unwrap();
    cluster.kill(away);
    let others: Vec<_> = cluster.places().into_iter().filter(|place| *place != away).collect();
    let start = Stopwatch::start();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = cluster.client_of(&others);
        writers.spawn(async move {
            let mut count = 0;
            while start.elapsed() < AWAY {
                client.put(&format!("k{writer}/{count}"), format!("{count}").repeat(100)).await.unwrap();
                count += 1;
                tokio::time::sleep(Duration::from_millis(50)).await; // spreads the entries over the time
            }
            (writer, count)
        });
    }
    let written = writers.join_all().await;
    let entries: usize = written.iter().map(|(_, count)| count).sum();
    assert!(entries > 200, "only {entries} entries, the log need not have been cut");

    cluster.start(away);
    cluster.ready(away).await;
    let client = cluster.client_of(&[away]);
    client.get("k").await.unwrap();
    for (writer, count) in written {
        for index in 0..count {
            let value = client.get_with(&format!("k{writer}/{index}"), STALE).await.unwrap();
            assert_eq!(value.unwrap().value, format!("{index}").repeat(100), "k{writer}/{index}");
        }
    }
    // Had it got the entries one by one, it would have applied every one of them in this life.
    let applied = metric(&cluster, away, "seawall_kv_commands_applied_total", "").await;
    say(&format!("{applied} of {entries} entries were applied one by one, the rest came as a snapshot"));
    assert!(applied < entries as f64 / 2.0, "{applied} of {entries} entries were applied one by one");

    // And it is a full member again.
    cluster.kill(leader);
    eventually("writes go on", Duration::from_secs(30), async || {
        client.put("k", "after").await.map_err(|error| error.to_string())
    })
    .await;
}

/// A node that is not there any more is an answer that says so, not a wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_forward_is_answered_with_the_leader() {
    let cluster = Cluster::founded(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.places().into_iter().find(|place| *place != leader).unwrap();
    let put = Request::put("/v1/strong/k", "v").header("X-Seawall-No-Forward", "1");
    let answer = cluster.answer(follower, &put).await;
    assert_eq!(answer.status, 421, "{}", answer.text());
    let problem = answer.problem();
    assert_eq!(problem["outcome"], "not_applied");
    assert!(problem.to_string().contains(&cluster.api(leader).to_string()), "{problem}");
    assert_eq!(cluster.answer(leader, &put).await.status, 200);
    let gone = Request::get("/health/live").send(([127, 0, 0, 1], seawall_tests::free_port()).into()).await;
    assert!(matches!(gone, Err(SendError::NotSent(_))), "{gone:?}");
}
