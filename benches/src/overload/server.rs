//! The server that is overloaded.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use tower::Service;

use crate::BoxError;

/// Requests that the server works on without one slowing down another.
pub const CORES: u32 = 8;

/// The work in a request: how long it takes a core that has nothing else to do. The mean; requests differ.
pub const MEAN_WORK: Duration = Duration::from_millis(80);

/// What each request above [`CORES`] adds to the work of all that are under way, as a share of it. The price of switching
/// between them, of cold caches and of locks; a fifth of a percent is gentle.
pub const DRAG: f64 = 0.002;

/// Requests per second that the server can finish.
pub fn capacity() -> f64 {
    f64::from(CORES) / MEAN_WORK.as_secs_f64()
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// How long it takes a core that has nothing else to do.
    pub work: Duration,
}

/// The service of the server: takes whatever comes, at once, and finishes what it took. A caller that goes away is not
/// noticed, and its work is done all the same.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Guards the requests under way; held for the length of one step.
    machine: Mutex<Machine<oneshot::Sender<()>>>,
    /// There is a new request, so the next end may be another one.
    changed: Notify,
    started: Instant,
}

impl Server {
    /// Starts it on the current runtime, with which it ends.
    pub fn start() -> Self {
        let shared = Arc::new(Shared { machine: Mutex::default(), changed: Notify::new(), started: Instant::now() });
        let server = Self { shared };
        tokio::spawn(server.clone().work());
        server
    }

    /// Answers each request when its work is done.
    async fn work(self) {
        loop {
            let next = self.machine().next_end();
            let end = async {
                match next {
                    Some(at) => sleep_until(self.shared.started + at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = end => {}
                () = self.shared.changed.notified() => {}
            }
            let done = self.machine().advance(self.shared.started.elapsed());
            answer(done);
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine<oneshot::Sender<()>>> {
        self.shared.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To callers that have gone away, an answer is nothing.
fn answer(done: Vec<oneshot::Sender<()>>) {
    for caller in done {
        let _ = caller.send(());
    }
}

impl Service<Job> for Server {
    type Response = ();
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, job: Job) -> Answer {
        let (caller, answered) = oneshot::channel();
        let done = self.machine().start(self.shared.started.elapsed(), job.work, caller);
        answer(done);
        self.shared.changed.notify_one();
        Answer { answered }
    }
}

/// The answer to a request, once its work is done.
#[derive(Debug)]
pub struct Answer {
    answered: oneshot::Receiver<()>,
}

impl Future for Answer {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answered).poll(cx).map_err(Into::into)
    }
}

/// All requests under way share the cores evenly, and hinder each other.
///
/// Every one of them has got the same work done since it came, so it is enough to count what any request has got since the
/// start: one ends when that count has grown by its work. Ends are exact, however late the machine is asked.
#[derive(Debug)]
struct Machine<T> {
    now: Duration,
    /// The work that a request under way since the start would have got done, in femtoseconds: integers, for a total order
    /// and sums that do not drift. A `u128` lasts longer than any run.
    each_got: u128,
    /// By the count at which they end, and then by their number.
    under_way: BTreeMap<(u128, u64), T>,
    started: u64,
}

const FEMTOS_PER_NANO: f64 = 1e6;

impl<T> Default for Machine<T> {
    fn default() -> Self {
        Self { now: Duration::ZERO, each_got: 0, under_way: BTreeMap::new(), started: 0 }
    }
}

impl<T> Machine<T> {
    /// Takes a request in at `now`; gives back those that have ended by then.
    fn start(&mut self, now: Duration, work: Duration, caller: T) -> Vec<T> {
        let done = self.advance(now);
        let end = self.each_got + work.as_nanos() * FEMTOS_PER_NANO as u128;
        self.started += 1;
        self.under_way.insert((end, self.started), caller);
        done
    }

    /// Works until `now`; gives back the requests that have ended by then, in that order.
    fn advance(&mut self, now: Duration) -> Vec<T> {
        let mut done = Vec::new();
        while let Some(end) = self.next_end().filter(|end| *end <= now) {
            if let Some(((got, _), caller)) = self.under_way.pop_first() {
                self.each_got = got;
                self.now = end;
                done.push(caller);
            }
        }
        let nanos = now.saturating_sub(self.now).as_nanos() as f64;
        self.each_got += (nanos * FEMTOS_PER_NANO * speed(self.under_way.len())) as u128;
        self.now = self.now.max(now);
        done
    }

    /// When the next request ends, if no other one comes before.
    fn next_end(&self) -> Option<Duration> {
        let ((end, _), _) = self.under_way.first_key_value()?;
        let femtos = end.saturating_sub(self.each_got) as f64 / speed(self.under_way.len());
        Some(self.now + Duration::from_nanos((femtos / FEMTOS_PER_NANO).ceil() as u64))
    }
}

/// The work that each of `under_way` requests gets done in a second, in seconds.
fn speed(under_way: usize) -> f64 {
    let (cores, under_way) = (f64::from(CORES), under_way as f64);
    let share = (cores / under_way).min(1.0);
    share / (1.0 + DRAG * (under_way - cores).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Starts `count` requests of 80 ms at once and tells when the last of them ends.
    fn last_end(count: u32) -> Duration {
        let mut machine = Machine::default();
        for number in 0..count {
            machine.start(Duration::ZERO, ms(80), number);
        }
        let end = machine.next_end().unwrap();
        assert_eq!(machine.advance(end), (0..count).collect::<Vec<_>>(), "equal work ends at once, first come first");
        assert_eq!(machine.next_end(), None);
        end
    }

    #[test]
    fn up_to_one_request_a_core_takes_as_long_as_its_work() {
        assert_eq!(last_end(1), ms(80));
        assert_eq!(last_end(CORES), ms(80));
    }

    #[test]
    fn more_requests_share_the_cores_and_hinder_each_other() {
        // Twice the cores: half the speed, and 8 requests too many at 0.2 % each.
        assert_eq!(last_end(2 * CORES), Duration::from_micros(162_560));
        // 1000 requests on 8 cores: 10 s of work, times 1 + 992 × 0.002.
        assert_eq!(last_end(1000), ms(29_840));
    }

    #[test]
    fn ends_are_exact_however_late_the_machine_is_asked() {
        // Nine on eight cores until the first ends, then eight: asked at each end, and once at the very end.
        let start = |machine: &mut Machine<u64>| {
            for number in 0..9 {
                machine.start(Duration::ZERO, ms(40 + 10 * number), number);
            }
        };
        let mut asked = Machine::default();
        start(&mut asked);
        let mut last = Duration::ZERO;
        while let Some(end) = asked.next_end() {
            assert_eq!(asked.advance(end).len(), 1);
            last = end;
        }
        let mut left_alone = Machine::default();
        start(&mut left_alone);
        assert_eq!(left_alone.advance(last), (0..9).collect::<Vec<_>>());
        assert_eq!(left_alone.now, asked.now);
    }

    #[test]
    fn a_request_that_comes_later_ends_later() {
        let mut machine = Machine::default();
        machine.start(Duration::ZERO, ms(80), "first");
        assert!(machine.start(ms(30), ms(20), "second").is_empty());
        assert_eq!(machine.advance(ms(50)), ["second"]);
        assert_eq!(machine.next_end(), Some(ms(80)));
        assert_eq!(machine.start(ms(90), ms(10), "third"), ["first"]);
        assert_eq!(machine.next_end(), Some(ms(100)));
    }

    #[test]
    fn the_capacity_is_what_the_cores_finish() {
        assert_eq!(capacity(), 100.0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_work_of_a_caller_that_went_away_is_done_all_the_same() {
        let mut server = Server::start();
        let job = Job { work: ms(80) };
        for _ in 0..CORES {
            drop(server.call(job));
        }
        let before = Instant::now();
        server.call(job).await.unwrap();
        assert!(before.elapsed() > ms(80), "it shared the cores with what nobody waits for: {:?}", before.elapsed());
    }
}
