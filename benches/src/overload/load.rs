//! The load, and what became of it.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use seawall::Rejected;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;

use crate::BoxError;
use crate::overload::limits::{LIMITS, Limit, Protected};
use crate::overload::server::{Job, MEAN_WORK, Server, capacity};

/// How long a caller waits for its answer. The server does not learn that it has gone.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Load before anything is counted, so that a queue that grows has begun to.
const WARM_UP: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The offered loads, as multiples of the capacity.
    pub loads: Vec<f64>,
    /// How long requests are counted at each load, in virtual time.
    pub counted: Duration,
    /// Decides when requests come and how much work they are: the same ones for every limit.
    pub seed: u64,
}

impl Plan {
    /// Eleven loads, a minute each.
    pub fn full() -> Self {
        let loads = vec![0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0];
        Self { loads, counted: Duration::from_secs(60), seed: 1 }
    }

    /// Four loads, 20 seconds each: coarse curves.
    pub fn quick() -> Self {
        Self { loads: vec![0.5, 1.0, 2.0, 3.0], counted: Duration::from_secs(20), ..Self::full() }
    }

    /// Measures each limit at each load, and hands each point to `progress` as soon as it is there. `None` if `stop` was set
    /// meanwhile.
    ///
    /// # Errors
    /// A runtime or a layer cannot be made, or a call failed that was not refused.
    pub fn run(&self, stop: &AtomicBool, mut progress: impl FnMut(&Point)) -> Result<Option<Vec<Point>>, BoxError> {
        let mut points = Vec::new();
        for limit in &LIMITS {
            for &load in &self.loads {
                let Some(point) = self.measure(limit, load, stop)? else { return Ok(None) };
                progress(&point);
                points.push(point);
            }
        }
        Ok(Some(points))
    }

    /// How many points [`run`](Self::run) measures.
    pub fn points(&self) -> usize {
        LIMITS.len() * self.loads.len()
    }

    /// One point, on a runtime, a clock, a server and a stack of its own.
    fn measure(&self, limit: &Limit, load: f64, stop: &AtomicBool) -> Result<Option<Point>, BoxError> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        // What is still under way afterwards ends with the runtime, without an answer.
        runtime.block_on(async {
            let service = limit.protect(Server::start())?;
            let start = Instant::now();
            let Some(tally) = self.drive(&service, load, start, stop).await else { return Ok(None) };
            let counting = start + WARM_UP..start + WARM_UP + self.counted;
            tally.point(limit, load, &counting).map(Some)
        })
    }

    /// Sends requests when they are due, however many have no answer yet. `None` if `stop` was set meanwhile.
    async fn drive(&self, service: &Protected, load: f64, start: Instant, stop: &AtomicBool) -> Option<Tally> {
        // The load stays until the last request that counts has had its time.
        let end = WARM_UP + self.counted + PATIENCE;
        let tally = Arc::new(Mutex::new(Tally::default()));
        for (due, job) in Arrivals::new(self.seed, load).take_while(|(due, _)| *due < end) {
            // ORDERING: Relaxed, a wish to stop: nothing else is read because of it.
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            sleep_until(start + due).await;
            let (service, tally) = (service.clone(), Arc::clone(&tally));
            let number = lock(&tally).sent(start + due);
            tokio::spawn(async move {
                let answer = service.oneshot(job).await;
                lock(&tally).ended(number, answer);
            });
        }
        sleep_until(start + end).await;
        let tally = mem::take(&mut *lock(&tally));
        Some(tally)
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When requests come, since the start, and what they are: a Poisson process, and exponentially distributed work.
struct Arrivals {
    rng: StdRng,
    mean_gap: Duration,
    due: Duration,
}

impl Arrivals {
    fn new(seed: u64, load: f64) -> Self {
        let mean_gap = Duration::from_secs(1).div_f64(load * capacity());
        Self { rng: StdRng::seed_from_u64(seed), mean_gap, due: Duration::ZERO }
    }

    /// An exponentially distributed duration, by inversion.
    fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.rng.random::<f64>()).ln())
    }
}

impl Iterator for Arrivals {
    type Item = (Duration, Job);

    fn next(&mut self) -> Option<Self::Item> {
        let gap = self.exponential(self.mean_gap);
        self.due += gap;
        Some((self.due, Job { work: self.exponential(MEAN_WORK) }))
    }
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Tally {
    /// Each with when it was due.
    requests: Vec<(Instant, Outcome)>,
    /// An error that was no refusal.
    failure: Option<BoxError>,
}

#[derive(Debug)]
enum Outcome {
    Waiting,
    Answered(Duration),
    Refused(&'static str),
}

impl Tally {
    /// A request is on its way; its number.
    fn sent(&mut self, due: Instant) -> usize {
        self.requests.push((due, Outcome::Waiting));
        self.requests.len() - 1
    }

    /// Counts from when the request was due: one that was sent late has been waited for, too.
    fn ended(&mut self, number: usize, answer: Result<(), BoxError>) {
        let Some((due, outcome)) = self.requests.get_mut(number) else { return };
        match answer {
            Ok(()) => *outcome = Outcome::Answered(due.elapsed()),
            Err(error) => match Rejected::find(&*error) {
                Some(rejected) => *outcome = Outcome::Refused(rejected.reason.as_str()),
                None => self.failure = Some(error),
            },
        }
    }

    /// What became of those that were due while `counting`.
    fn point(self, limit: &Limit, load: f64, counting: &Range<Instant>) -> Result<Point, BoxError> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let end = counting.end + PATIENCE;
        let (mut times, mut reasons) = (Vec::new(), BTreeMap::new());
        for (due, outcome) in self.requests.iter().filter(|(due, _)| counting.contains(due)) {
            match outcome {
                Outcome::Answered(after) => times.push((*after, false)),
                Outcome::Waiting => times.push((end - *due, true)),
                Outcome::Refused(reason) => *reasons.entry(*reason).or_insert(0) += 1,
            }
        }
        times.sort_unstable();
        let refused = reasons.values().sum();
        let sent = times.len() + refused;
        let in_time = times.iter().filter(|(time, unanswered)| !unanswered && *time <= PATIENCE).count();
        let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
        let per_s = |count: usize| count as f64 / (counting.end - counting.start).as_secs_f64();
        Ok(Point {
            limit: limit.name,
            load,
            offered_per_s: per_s(sent),
            goodput_per_s: per_s(in_time),
            p50_s: p50.map(|(time, _)| time.as_secs_f64()),
            p50_at_least: p50.is_some_and(|(_, unanswered)| unanswered),
            p99_s: p99.map(|(time, _)| time.as_secs_f64()),
            p99_at_least: p99.is_some_and(|(_, unanswered)| unanswered),
            sent,
            in_time,
            late: sent - in_time - refused,
            unanswered: times.iter().filter(|(_, unanswered)| *unanswered).count(),
            refused,
            reasons: reasons.iter().map(|(reason, count)| format!("{reason}:{count}")).collect::<Vec<_>>().join(" "),
        })
    }
}

/// By nearest rank.
fn quantile(sorted: &[(Duration, bool)], q: f64) -> Option<(Duration, bool)> {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// One point of the curves, and one row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The [name](Limit::name) of the limit.
    pub limit: &'static str,
    /// The offered load, as a multiple of the capacity.
    pub load: f64,
    /// Requests that came, per second.
    pub offered_per_s: f64,
    /// Requests that were answered in time, per second.
    pub goodput_per_s: f64,
    /// The median time of the requests that were let in, in seconds; `None` if none was.
    pub p50_s: Option<f64>,
    /// That is a lower bound.
    pub p50_at_least: bool,
    /// The time, in seconds, that 99 % of the requests that were let in did not exceed; `None` if none was.
    pub p99_s: Option<f64>,
    /// That is a lower bound.
    pub p99_at_least: bool,
    /// Requests that came. Each of them was in time, late or refused.
    pub sent: usize,
    /// Requests answered while their callers waited.
    pub in_time: usize,
    /// Requests let in, but not answered in time.
    pub late: usize,
    /// Those of the late ones that had no answer at the end.
    pub unanswered: usize,
    /// Requests refused.
    pub refused: usize,
    /// How many of them for which reason: `full:12 deadline:3`.
    pub reasons: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn arrivals_have_the_rate_and_the_work_that_were_asked_for() {
        let arrivals: Vec<_> = Arrivals::new(7, 2.0).take_while(|(due, _)| *due < 1000 * SECOND).collect();
        let rate = arrivals.len() as f64 / 1000.0;
        assert!((rate - 2.0 * capacity()).abs() < 0.02 * rate, "{rate}/s");
        let work = arrivals.iter().map(|(_, job)| job.work.as_secs_f64()).sum::<f64>() / arrivals.len() as f64;
        assert!((work - MEAN_WORK.as_secs_f64()).abs() < 0.02 * work, "{work} s");
    }

    #[test]
    fn every_request_counts_once_and_from_when_it_was_due() {
        let start = Instant::now();
        let requests = vec![
            (start, Outcome::Answered(SECOND / 10)),
            (start, Outcome::Answered(PATIENCE)),
            (start, Outcome::Answered(PATIENCE + Duration::from_nanos(1))),
            (start + SECOND, Outcome::Waiting),
            (start + 2 * SECOND, Outcome::Waiting), // too late to count
            (start, Outcome::Refused("full")),
            (start, Outcome::Refused("full")),
        ];
        let tally = Tally { requests, failure: None };
        let point = tally.point(&LIMITS[0], 1.5, &(start..start + 2 * SECOND)).unwrap();
        assert_eq!((point.sent, point.in_time, point.late, point.unanswered, point.refused), (6, 2, 2, 1, 2));
        assert_eq!((point.offered_per_s, point.goodput_per_s), (3.0, 1.0));
        assert_eq!((point.p50_s, point.p50_at_least), (Some(1.0), false));
        assert_eq!(
            (point.p99_s, point.p99_at_least),
            (Some(2.0), true),
            "the one without an answer is 2 s old at the end"
        );
        assert_eq!(point.reasons, "full:2");
    }

    #[test]
    fn the_quantile_is_the_nearest_rank() {
        let times: Vec<_> = (1..=200).map(|number| (number * SECOND, false)).collect();
        assert_eq!(quantile(&times, 0.99), Some((198 * SECOND, false)));
        assert_eq!(quantile(&times, 0.5), Some((100 * SECOND, false)));
        assert_eq!(quantile(&[], 0.99), None);
    }
}
