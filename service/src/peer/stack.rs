//! The layers between a message and the network: one stack per node and lane, outermost first, a reason on each line.

use std::time::Duration;

use seawall::admission::Cost;
use seawall::bulkhead::{BulkheadConfig, BulkheadLayer};
use seawall::circuit_breaker::{CancelPolicy, CircuitBreakerConfig, CircuitBreakerLayer};
use seawall::retry::{Backoff, GaveUp, RetryConfig, RetryLayer};
use seawall::semaphore::{MAX_LIMIT, SemaphoreConfig, SemaphoreLayer};
use seawall::sliding_window::{SlidingWindowConfig, SlidingWindowLayer};
use seawall::token_bucket::{Rate, TokenBucketConfig, TokenBucketLayer};
use seawall::{BoxError, Elapsed, InvalidConfig, Rejected, TimeoutConfig, TimeoutLayer};
use tower::{ServiceBuilder, ServiceExt};

use super::only_before::only_before;
use super::policy::{Repeat, health, never_refused};
use super::{Lane, MessageKind, NodeId, PeerClient, PeerError, PeerRequest};
use crate::transport::MAX_STREAMS;

/// The longest a forwarded request may take; its client's own deadline is nearly always tighter.
const FORWARD_WITHIN: Duration = Duration::from_secs(60);
/// The longest one attempt to forward may take: what a leader does not commit within an election, it may never commit.
const FORWARD_ATTEMPT_WITHIN: Duration = Duration::from_secs(5);
/// The longest one chunk of a snapshot may take to be stored and answered.
const CHUNK_WITHIN: Duration = Duration::from_secs(10);
/// The first pause before a message is sent again: about a round trip in one site, so that a restart is not hammered.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// So many messages in a row without an answer open the breaker. Three, as for the heartbeats: one is chance.
const FAILURES_TO_OPEN: u32 = 3;
/// How long a breaker first stays open at most: about half an election, so that a restarted node is soon found.
const OPEN_FOR: Duration = Duration::from_millis(200);
/// How long it stays open at most after many failed probes. A node that comes back waits no longer for its entries.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// Requests forwarded to one peer in a second, on average and at once after a pause. No leader commits as many: what is
/// beyond could only queue up there.
const FORWARDS_PER_SECOND: u32 = 100_000;
const FORWARDS_BURST: u32 = 10_000;
/// Requests forwarded to one peer at one time: as many as its listener takes on a connection. More would wait where
/// nobody sees them, unbounded.
const FORWARDS_IN_FLIGHT: u32 = MAX_STREAMS;
/// Requests that wait for those, and how long: a leader that is well commits a thousand in far less.
const FORWARDS_WAITING: u32 = 1024;
const FORWARD_WAITS: Duration = Duration::from_secs(1);
/// Streams of entries to one peer at a time, while Raft drops one and begins the next.
const APPEND_STREAMS: u32 = 2;
/// Messages on their way on the bulk lane: one stream sends one at a time, so another is of another stream.
const BULK_IN_FLIGHT: u32 = 1;
/// Messages that wait for those: each keeps a chunk in memory.
const BULK_WAITING: u32 = 8;

/// Kilobytes a second on the bulk lane, and at once after a pause: 1 GiB, which few disks at the other end take, so that a
/// peer that comes back is not kept waiting; and 16 MiB, many messages of the default size.
const BULK_KIB_PER_SECOND: u32 = 1 << 20;
const BULK_BURST_KIB: u32 = 16 << 10;
/// Snapshots that may begin in any minute. A peer that is away costs up to about two a second, by the probes of its breaker,
/// and must find room when it is back. One whose transfers break off again and again, which Raft repeats at once ten
/// times and then five times a second, costs more.
const SNAPSHOT_STARTS: u32 = 240;
/// The window they are counted in.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// What the limits of the stacks are derived from.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A peer that is silent for this long is as good as gone: a follower would stand for election.
    pub election_timeout_min: Duration,
    /// Frames of entries that Raft sends to one follower before the first is answered.
    pub max_appends_in_flight: usize,
}

/// Builds the stack of one lane to one node.
pub(super) fn stack(
    node: NodeId,
    lane: Lane,
    timing: Timing,
    transport: PeerClient,
) -> Result<PeerClient, InvalidConfig> {
    let name = format!("peer/{node}/{lane}");
    let silence = timing.election_timeout_min;
    let total = |limit| TimeoutLayer::new(TimeoutConfig::total(&name, limit));
    let attempt = |limit| TimeoutLayer::new(TimeoutConfig::attempt(&name, limit));
    let client = match lane {
        Lane::Append => PeerClient::new(
            ServiceBuilder::new()
                .layer(total(silence * 2)?) // the transport gives a silent stream up by itself, and says so, after half of it
                .layer(breaker(&name, silence)?.classify(health)) // counts frames; open is "unreachable" for Raft
                .layer(appends(&name, timing)?) // below the breaker, which a sender that does not wait for answers says nothing to
                .service(transport)
                .map_err(PeerError::from_stack),
        ),
        Lane::Control => PeerClient::new(
            ServiceBuilder::new()
                .layer(total(silence * 2)?) // the whole call, pauses included
                .layer(retry(&name)?) // pings and read indexes only; outside the breaker, whose refusal is not repeated
                .layer(breaker(&name, silence)?.classify(health).never_refuse(raft_decides)) // an election must not wait for it
                .layer(attempt(silence)?) // inside the breaker, which counts it as a failure
                .service(transport)
                .map_err(PeerError::from_stack),
        ),
        Lane::Data => PeerClient::new(
            ServiceBuilder::new()
                .layer(total(FORWARD_WITHIN)?) // the client's deadline is ambient and tighter
                .layer(forwards_per_second(&name)?) // what is too much altogether need not wait first
                .layer(forwards_in_flight(&name)?) // outside the retry: who pauses keeps its place, and no queue forms behind it
                .layer(retry(&name)?) // only what certainly never left
                .layer(breaker(&name, silence)?.classify(health)) // a dead leader costs nothing until the next one is known
                .layer(attempt(FORWARD_ATTEMPT_WITHIN)?) // one attempt
                .service(transport)
                .map_err(PeerError::from_stack),
        ),
        Lane::Bulk => PeerClient::new(
            ServiceBuilder::new()
                .layer(total(CHUNK_WITHIN * 2)?) // one chunk, not the whole snapshot: Raft bounds that
                .layer(one_stream(&name)?) // who waits here has taken nothing yet from what is below
                .layer(bytes_per_second(&name)?) // the one message that may go waits for its bytes
                .layer(breaker(&name, silence)?.classify(health)) // Raft repeats snapshots by itself
                .layer(only_before(MessageKind::SnapshotBegin, starts(&name)?)) // below the breaker: what it refuses has not begun
                .layer(attempt(CHUNK_WITHIN)?)
                .service(transport)
                .map_err(PeerError::from_stack),
        ),
    };
    Ok(client)
}

fn breaker(name: &str, silence: Duration) -> Result<CircuitBreakerLayer, InvalidConfig> {
    CircuitBreakerLayer::new(
        CircuitBreakerConfig::new(name)
            .consecutive_failures(FAILURES_TO_OPEN)
            .open_for(OPEN_FOR)
            .open_max(OPEN_MAX)
            .probe_timeout(silence.max(CHUNK_WITHIN))
            .cancel(CancelPolicy::FailureAfter(silence)), // a caller that gave up sooner says nothing about the peer
    )
}

/// As many frames as two streams keep under way, so that a healthy follower never meets it. What is beyond has a sender
/// that does not wait for answers; it is refused at once, because frames that waited could overtake each other.
fn appends(name: &str, timing: Timing) -> Result<SemaphoreLayer, InvalidConfig> {
    let per_stream = u32::try_from(timing.max_appends_in_flight).unwrap_or(u32::MAX);
    let limit = per_stream.saturating_mul(APPEND_STREAMS).min(MAX_LIMIT);
    SemaphoreLayer::new(SemaphoreConfig::new(name, limit).max_waiting(0))
}

fn forwards_per_second(name: &str) -> Result<TokenBucketLayer, InvalidConfig> {
    TokenBucketLayer::new(TokenBucketConfig::new(name, Rate::per_second(FORWARDS_PER_SECOND), FORWARDS_BURST))
}

fn forwards_in_flight(name: &str) -> Result<BulkheadLayer, InvalidConfig> {
    let config = BulkheadConfig::new(name, FORWARDS_IN_FLIGHT);
    BulkheadLayer::new(config.max_waiting(FORWARDS_WAITING).max_wait(FORWARD_WAITS))
}

fn bytes_per_second(name: &str) -> Result<TokenBucketLayer<Kib>, InvalidConfig> {
    let config = TokenBucketConfig::new(name, Rate::per_second(BULK_KIB_PER_SECOND), BULK_BURST_KIB);
    TokenBucketLayer::new(config.max_waiting(BULK_IN_FLIGHT).max_wait(CHUNK_WITHIN))?.cost(Kib)
}

/// Weighs a message of the bulk lane in kilobytes. One larger than the burst takes all of it, instead of never being sent.
#[derive(Debug, Clone, Copy)]
struct Kib;

impl Cost<PeerRequest> for Kib {
    fn cost(&self, message: &PeerRequest) -> u32 {
        u32::try_from(message.body.len().div_ceil(1024)).unwrap_or(u32::MAX).min(BULK_BURST_KIB)
    }
}

fn one_stream(name: &str) -> Result<SemaphoreLayer, InvalidConfig> {
    let config = SemaphoreConfig::new(name, BULK_IN_FLIGHT);
    SemaphoreLayer::new(config.max_waiting(BULK_WAITING).max_wait(CHUNK_WITHIN)) // the chunk before it
}

fn starts(name: &str) -> Result<SlidingWindowLayer, InvalidConfig> {
    SlidingWindowLayer::new(SlidingWindowConfig::new(name, SNAPSHOT_STARTS, STARTS_WITHIN))
}

fn retry(name: &str) -> Result<RetryLayer<Repeat>, InvalidConfig> {
    let backoff = Backoff::exponential(FIRST_PAUSE).cap(LONGEST_PAUSE);
    RetryLayer::new(RetryConfig::new(name).backoff(backoff), Repeat)
}

fn raft_decides(request: &PeerRequest) -> bool {
    never_refused(request.kind)
}

impl PeerError {
    /// What a stack's boxed error is: a refusal of one of its layers, one of its timers, or the transport's own.
    fn from_stack(error: BoxError) -> Self {
        let error = match error.downcast::<GaveUp>() {
            Ok(gave_up) => return Self::from_stack(gave_up.into_source()),
            Err(error) => error,
        };
        let error = match error.downcast::<Self>() {
            Ok(transport) => return *transport,
            Err(error) => error,
        };
        if let Some(rejected) = Rejected::find(&*error) {
            return Self::Refused(rejected.clone());
        }
        if seawall::find::<Elapsed>(&*error).is_some() {
            return Self::Elapsed(error);
        }
        Self::Broken(error) // nothing is certain about an error that nobody knows
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use bytes::Bytes;
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tower::Service;

    use super::*;
    use crate::peer::PeerResponse;

    const TIMING: Timing = Timing { election_timeout_min: Duration::from_millis(300), max_appends_in_flight: 16 };

    /// A stack over a peer that answers a message `after` it came.
    fn answering(lane: Lane, after: Duration) -> PeerClient {
        let transport = tower::service_fn(move |_: PeerRequest| async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            Ok::<_, PeerError>(PeerResponse { body: Bytes::new() })
        });
        stack(2, lane, TIMING, PeerClient::new(transport)).unwrap()
    }

    /// Calls of `kind` made at once, none of them polled yet.
    async fn calls(client: &mut PeerClient, kind: MessageKind, count: usize) -> Vec<Answer> {
        let mut calls = Vec::new();
        for _ in 0..count {
            calls.push(client.ready().await.unwrap().call(PeerRequest { kind, body: Bytes::new() }));
        }
        calls
    }

    type Answer = <PeerClient as Service<PeerRequest>>::Future;

    /// How many were refused by the pattern, each certainly unsent.
    fn refused(answers: &[Result<PeerResponse, PeerError>], by: &str) -> usize {
        let refused = |answer: &&Result<PeerResponse, PeerError>| match answer {
            Err(error @ PeerError::Refused(rejected)) if rejected.pattern == by => error.never_sent(),
            _ => false,
        };
        answers.iter().filter(refused).count()
    }

    #[tokio::test(start_paused = true)]
    async fn appends_under_way_are_bounded_well_above_what_raft_keeps() {
        let mut client = answering(Lane::Append, Duration::from_millis(10));
        let answers = join_all(calls(&mut client, MessageKind::Append, 16).await).await;
        assert!(answers.iter().all(Result::is_ok), "one stream");
        let answers = join_all(calls(&mut client, MessageKind::Append, 40).await).await;
        assert_eq!(refused(&answers, "semaphore"), 8);
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 32);
        assert!(send(&mut client, MessageKind::Append).await.is_ok(), "it is no fault of the peer");
    }

    /// A stream that Raft drops gives its places back, answered or not.
    #[tokio::test(start_paused = true)]
    async fn appends_that_are_dropped_make_room() {
        let mut client = answering(Lane::Append, Duration::from_millis(10));
        for _ in 0..10 {
            let stream = calls(&mut client, MessageKind::Append, 16).await;
            drop(join_all(stream).now_or_never());
        }
        let answers = join_all(calls(&mut client, MessageKind::Append, 32).await).await;
        assert!(answers.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn one_chunk_of_a_snapshot_is_under_way_and_a_few_wait() {
        let chunk = Duration::from_millis(100);
        let mut client = answering(Lane::Bulk, chunk);
        let start = tokio::time::Instant::now();
        let answers = join_all(calls(&mut client, MessageKind::Snapshot, 12).await).await;
        assert_eq!(refused(&answers, "semaphore"), 3);
        assert_eq!(start.elapsed(), chunk * 9, "one after the other");
    }

    /// A stack over a transport that gives `answer` to every message, and how many reached it.
    fn over(lane: Lane, answer: fn() -> Result<PeerResponse, PeerError>) -> (PeerClient, Arc<AtomicU32>) {
        let sent = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&sent);
        let transport = tower::service_fn(move |_: PeerRequest| {
            // ORDERING: Relaxed, a count read when all is done.
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(answer())
        });
        (stack(2, lane, TIMING, PeerClient::new(transport)).unwrap(), sent)
    }

    async fn send(client: &mut PeerClient, kind: MessageKind) -> Result<PeerResponse, PeerError> {
        client.ready().await?.call(PeerRequest { kind, body: Bytes::new() }).await
    }

    fn unreachable() -> Result<PeerResponse, PeerError> {
        Err(PeerError::Unreachable("refused".into()))
    }

    fn broken() -> Result<PeerResponse, PeerError> {
        Err(PeerError::Broken("reset".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_sent_no_faster_than_its_rate_and_whatever_its_chunks() {
        let mut client = answering(Lane::Bulk, Duration::ZERO);
        let start = tokio::time::Instant::now();
        for _ in 0..64 {
            let body = Bytes::from(vec![0; 1 << 20]);
            let message = PeerRequest { kind: MessageKind::Snapshot, body };
            client.ready().await.unwrap().call(message).await.unwrap();
        }
        // 16 MiB at once, 48 MiB at 1 GiB/s; timers of a millisecond.
        let took = start.elapsed();
        assert!((Duration::from_millis(46)..Duration::from_millis(60)).contains(&took), "{took:?}");
        let huge = PeerRequest { kind: MessageKind::Snapshot, body: Bytes::from(vec![0; 17 << 20]) };
        assert!(client.ready().await.unwrap().call(huge).await.is_ok(), "a chunk above the burst takes longer");
    }

    #[tokio::test(start_paused = true)]
    async fn forwarded_requests_have_a_rate_far_above_what_a_leader_commits() {
        let mut client = answering(Lane::Data, Duration::ZERO);
        for _ in 0..FORWARDS_BURST {
            assert!(send(&mut client, MessageKind::Forward).await.is_ok());
        }
        let error = send(&mut client, MessageKind::Forward).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1) / FORWARDS_PER_SECOND));
        assert!(error.is_overload());
        assert_eq!(refused(&[Err(error)], "token_bucket"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn forwarded_requests_wait_for_room_in_a_bounded_line() {
        let mut client = answering(Lane::Data, Duration::from_millis(10));
        let all = FORWARDS_IN_FLIGHT + FORWARDS_WAITING;
        let answers = join_all(calls(&mut client, MessageKind::Forward, all as usize + 50).await).await;
        assert_eq!(refused(&answers, "bulkhead"), 50);
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), all as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn forwarded_requests_do_not_wait_long_for_a_leader_that_hangs() {
        let mut client = answering(Lane::Data, FORWARD_ATTEMPT_WITHIN * 2);
        let start = tokio::time::Instant::now();
        let held = tokio::spawn(join_all(calls(&mut client, MessageKind::Forward, FORWARDS_IN_FLIGHT as usize).await));
        let answers = join_all(calls(&mut client, MessageKind::Forward, 50).await).await;
        assert_eq!((refused(&answers, "bulkhead"), start.elapsed()), (50, FORWARD_WAITS));
        assert!(held.await.unwrap().iter().all(|answer| matches!(answer, Err(PeerError::Elapsed(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_and_votes_pass_whatever_is_full() {
        let hours = Duration::from_secs(3600);
        let mut held = Vec::new();
        for (lane, kind) in [
            (Lane::Append, MessageKind::Append),
            (Lane::Data, MessageKind::Forward),
            (Lane::Bulk, MessageKind::SnapshotBegin),
            (Lane::Control, MessageKind::Ping),
        ] {
            held.push(join_all(calls(&mut answering(lane, hours), kind, 3000).await));
        }
        for calls in &mut held {
            assert!(calls.now_or_never().is_none(), "each lane holds what its peer does not answer");
        }
        let mut client = answering(Lane::Control, Duration::from_millis(1));
        for kind in [MessageKind::Heartbeat, MessageKind::Vote, MessageKind::PreVote, MessageKind::TransferLeader] {
            let answers = join_all(calls(&mut client, kind, 2_000).await).await;
            assert!(answers.iter().all(Result::is_ok), "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn snapshots_begin_a_bounded_number_of_times_a_minute_and_go_on_freely() {
        let mut client = answering(Lane::Bulk, Duration::from_millis(1));
        for _ in 0..SNAPSHOT_STARTS {
            assert!(send(&mut client, MessageKind::SnapshotBegin).await.is_ok());
            for _ in 0..3 {
                assert!(send(&mut client, MessageKind::Snapshot).await.is_ok());
            }
        }
        let error = send(&mut client, MessageKind::SnapshotBegin).await.unwrap_err();
        let wait = error.retry_after().expect("the window knows");
        assert_eq!(refused(&[Err(error)], "sliding_window"), 1);
        assert!(send(&mut client, MessageKind::Snapshot).await.is_ok(), "one that has begun goes on");
        tokio::time::sleep(wait).await;
        assert!(send(&mut client, MessageKind::SnapshotBegin).await.is_ok(), "it is no fault of the peer");
    }

    /// The breaker's probes of a peer that is away must leave room for the snapshot that it needs when it is back.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_was_away_gets_its_snapshot_at_once() {
        let away = Arc::new(AtomicBool::new(true));
        let gone = Arc::clone(&away);
        let transport = tower::service_fn(move |_: PeerRequest| {
            // ORDERING: Relaxed, one thread.
            let gone = gone.load(Ordering::Relaxed);
            std::future::ready(if gone { unreachable() } else { Ok(PeerResponse { body: Bytes::new() }) })
        });
        let mut client = stack(2, Lane::Bulk, TIMING, PeerClient::new(transport)).unwrap();
        for _ in 0..5 * 300 {
            let error = send(&mut client, MessageKind::SnapshotBegin).await.unwrap_err();
            assert_eq!(refused(&[Err(error)], "sliding_window"), 0);
            tokio::time::sleep(Duration::from_millis(200)).await; // what Raft waits between two tries
        }
        // ORDERING: Relaxed, as above.
        away.store(false, Ordering::Relaxed);
        tokio::time::sleep(OPEN_MAX).await;
        assert!(send(&mut client, MessageKind::SnapshotBegin).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn every_lane_opens_after_three_failures_and_refuses_unsent() {
        for (lane, kind) in [
            (Lane::Append, MessageKind::Append),
            (Lane::Control, MessageKind::ReadIndex),
            (Lane::Data, MessageKind::Forward),
            (Lane::Bulk, MessageKind::Snapshot),
        ] {
            let (mut client, sent) = over(lane, broken);
            for _ in 0..3 {
                assert!(send(&mut client, kind).await.is_err());
            }
            let error = send(&mut client, kind).await.unwrap_err();
            assert!(
                matches!(&error, PeerError::Refused(rejected) if rejected.pattern == "circuit_breaker"),
                "{lane}: {error:?}"
            );
            assert!(error.never_sent());
            // ORDERING: Relaxed, as above.
            assert_eq!(sent.load(Ordering::Relaxed), 3, "{lane}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_and_votes_pass_an_open_breaker() {
        let (mut client, sent) = over(Lane::Control, broken);
        for kind in [MessageKind::Heartbeat, MessageKind::Vote, MessageKind::PreVote].into_iter().cycle().take(9) {
            assert!(matches!(send(&mut client, kind).await, Err(PeerError::Broken(_))), "{kind}");
        }
        // ORDERING: Relaxed, as above.
        assert_eq!(sent.load(Ordering::Relaxed), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_forwarded_request_is_repeated_only_if_it_never_left() {
        let (mut client, sent) = over(Lane::Data, unreachable);
        assert!(matches!(send(&mut client, MessageKind::Forward).await, Err(PeerError::Unreachable(_))));
        // ORDERING: Relaxed, as above.
        assert_eq!(sent.swap(0, Ordering::Relaxed), 3);
        let (mut client, sent) = over(Lane::Data, broken);
        assert!(matches!(send(&mut client, MessageKind::Forward).await, Err(PeerError::Broken(_))));
        // ORDERING: Relaxed, as above.
        assert_eq!(sent.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_costs_an_attempt_and_not_for_ever() {
        let transport = tower::service_fn(|_: PeerRequest| std::future::pending::<Result<PeerResponse, PeerError>>());
        for (lane, kind) in [
            (Lane::Append, MessageKind::Append),
            (Lane::Control, MessageKind::Vote),
            (Lane::Data, MessageKind::Forward),
            (Lane::Bulk, MessageKind::Snapshot),
        ] {
            let mut client = stack(2, lane, TIMING, PeerClient::new(transport)).unwrap();
            let error = send(&mut client, kind).await.unwrap_err();
            assert!(matches!(error, PeerError::Elapsed(_)), "{lane}: {error:?}");
            assert!(!error.never_sent(), "{lane}");
        }
    }

    /// Short deadlines of clients used to open the breaker against a leader that was well, for everybody.
    #[tokio::test(start_paused = true)]
    async fn impatient_callers_do_not_open_the_breaker() {
        let transport = tower::service_fn(|_: PeerRequest| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, PeerError>(PeerResponse { body: Bytes::new() })
        });
        let mut client = stack(2, Lane::Data, TIMING, PeerClient::new(transport)).unwrap();
        for _ in 0..10 {
            let call = send(&mut client, MessageKind::Forward);
            let impatient = seawall::Deadline::after(Duration::from_millis(20)).scope(call).await;
            assert!(matches!(impatient, Err(PeerError::Elapsed(_))), "{impatient:?}");
        }
        assert!(send(&mut client, MessageKind::Forward).await.is_ok());
    }
}
