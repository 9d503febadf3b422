//! Drives calls and measures them: time on one thread and on two, and allocations.

use std::fmt::Debug;
use std::future::{Future, Ready, poll_fn, ready};
use std::hint::{self, black_box};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use allocation_counter::opt_out;
use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tower::Service;

use crate::BoxError;

/// What is sent: carries a number, which comes back as the answer.
pub trait Request: Clone + Debug + Send + Sync + 'static {
    /// What the rows with this request have after the name of the case.
    const SUFFIX: &'static str;

    /// The request that is answered with `number`.
    fn numbered(number: u64) -> Self;

    /// The number.
    fn number(&self) -> u64;
}

impl Request for u64 {
    const SUFFIX: &'static str = "";

    fn numbered(number: u64) -> Self {
        number
    }

    fn number(&self) -> u64 {
        *self
    }
}

/// A request of 256 bytes, as large as that of a typical client: layers that move it about pay for that.
#[derive(Debug, Clone)]
pub struct Wide {
    number: u64,
    _rest: [u8; 248],
}

impl Request for Wide {
    const SUFFIX: &'static str = " 256 B";

    fn numbered(number: u64) -> Self {
        Self { number, _rest: [0; 248] }
    }

    fn number(&self) -> u64 {
        self.number
    }
}

/// The service below every layer: always ready, answers at once with the number of the request.
#[derive(Debug, Clone, Copy)]
pub struct Echo;

impl<R: Request> Service<R> for Echo {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Whole: else the compiler would leave out the bytes that nobody reads.
        ready(Ok(black_box(&request).number()))
    }
}

/// Something to do many times.
pub(crate) trait Work: Clone + Send + 'static {
    /// Does it once with each of the numbers.
    fn run(&mut self, numbers: Range<u64>) -> impl Future<Output = ()> + Send;
}

/// Calls through a service.
pub(crate) struct Calls<S, R, C> {
    service: S,
    /// Whether the answer to the request with this number is the expected one.
    check: C,
    request: PhantomData<fn() -> R>,
}

impl<S, R, C> Calls<S, R, C> {
    pub(crate) fn new(service: S, check: C) -> Self {
        Self { service, check, request: PhantomData }
    }
}

impl<S: Clone, R, C: Clone> Clone for Calls<S, R, C> {
    fn clone(&self) -> Self {
        Self::new(self.service.clone(), self.check.clone())
    }
}

impl<S, R, C> Work for Calls<S, R, C>
where
    S: Service<R, Response = u64> + Clone + Send + 'static,
    S::Error: Send,
    S::Future: Send,
    R: Request,
    C: Fn(u64, &Result<u64, S::Error>) -> bool + Clone + Send + Sync + 'static,
{
    async fn run(&mut self, numbers: Range<u64>) {
        for number in numbers {
            let answer = match poll_fn(|cx| self.service.poll_ready(cx)).await {
                Ok(()) => self.service.call(R::numbered(number)).await,
                Err(error) => Err(error),
            };
            assert!((self.check)(number, &answer), "the layer changed the outcome of call {number}");
        }
    }
}

/// Readings of the clock, for comparison.
#[derive(Clone)]
pub(crate) struct Readings;

impl Work for Readings {
    async fn run(&mut self, numbers: Range<u64>) {
        for _ in numbers {
            black_box(now());
        }
    }
}

/// Checks of governor's rate limiter, which is a value and no service.
#[derive(Clone)]
pub(crate) struct Checks(pub(crate) Arc<governor::DefaultDirectRateLimiter>);

impl Work for Checks {
    async fn run(&mut self, numbers: Range<u64>) {
        for number in numbers {
            assert!(self.0.check().is_ok(), "governor refused call {number}");
        }
    }
}

/// Checks of governor's rate limiter for each key, which is a value and no service.
#[derive(Clone)]
pub(crate) struct KeyChecks {
    pub(crate) limiter: Arc<governor::DefaultKeyedRateLimiter<u64>>,
    /// The key of each number, modulo their count.
    pub(crate) keys: Arc<[u64]>,
}

impl Work for KeyChecks {
    async fn run(&mut self, numbers: Range<u64>) {
        for number in numbers {
            let key = &self.keys[number as usize % self.keys.len()];
            assert!(self.limiter.check_key(key).is_ok(), "governor refused call {number}");
        }
    }
}

/// The runtimes on which everything is measured.
#[derive(Debug)]
pub struct Runtimes {
    one: Runtime,
    two: Runtime,
}

impl Runtimes {
    /// One of the calling thread and one of two workers, both with a timer.
    ///
    /// # Errors
    /// The operating system grants no thread.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            one: Builder::new_current_thread().enable_time().build()?,
            two: Builder::new_multi_thread().worker_threads(2).enable_time().build()?,
        })
    }

    /// Nanoseconds per call.
    pub(crate) fn time(&self, mut work: impl Work, calls: u64) -> f64 {
        without_counting(|| {
            self.one.block_on(async {
                work.run(0..calls / 10).await;
                let start = now();
                work.run(0..calls).await;
                nanos_per_call(start, calls)
            })
        })
    }

    /// Nanoseconds per call in each of two tasks that run at the same time; none where they never did, or never ended.
    pub(crate) fn time_two(&self, work: &impl Work, calls: u64) -> Result<Option<f64>, BoxError> {
        /// On a busy machine a worker waits for its processor now and then; so often in a row it hardly does.
        const TRIES: u32 = 5;
        /// Ten times what the slowest case takes. A peer that loses a wake-up must not stop the whole run.
        const LIMIT: Duration = Duration::from_secs(5);
        /// Of two tasks that took turns for longer, the figure would be mostly what one of them costs alone.
        const LEAST_OVERLAP: f64 = 0.5;
        /// As good as it gets.
        const ENOUGH: f64 = 0.9;
        let (mut overlap, mut nanos) = (LEAST_OVERLAP, None);
        for _ in 0..TRIES {
            let together = Arc::new(Together::default());
            // Half a round apart: else each call of one would follow the same call of the other.
            let tasks = [0, calls / 2].map(|first| {
                let mut task = Box::pin(Arc::clone(&together).run(work.clone(), first..first + calls));
                self.two.spawn(poll_fn(move |cx| without_counting(|| task.as_mut().poll(cx))))
            });
            let stop = tasks.each_ref().map(|task| task.abort_handle());
            let [first, second] = tasks;
            let both = async { Ok::<_, BoxError>((first.await?, second.await?)) };
            let Ok(shares) = self.one.block_on(async { timeout(LIMIT, both).await }) else {
                stop.iter().for_each(AbortHandle::abort);
                break;
            };
            let (first, second) = shares?;
            if first.overlap(&second) >= overlap {
                overlap = first.overlap(&second);
                nanos = Some(first.nanos_per_call(&second));
            }
            if overlap > ENOUGH {
                break;
            }
        }
        Ok(nanos)
    }

    /// Allocations per call, once warm; of 1,000 calls, or `calls` if those are fewer.
    pub(crate) fn allocations(&self, mut work: impl Work, calls: u64) -> f64 {
        let calls = calls.min(1000);
        self.one.block_on(work.run(0..calls));
        let mut count = |calls| allocation_counter::measure(|| self.one.block_on(work.run(0..calls))).count_total;
        // The runtime's own work for a `block_on` is the same whatever runs in it.
        let idle = count(0);
        count(calls).saturating_sub(idle) as f64 / calls as f64
    }
}

/// The bytes that what `make` makes holds.
pub(crate) fn bytes<T>(make: impl FnOnce() -> Result<T, BoxError>) -> Result<i64, BoxError> {
    let mut made = None;
    let held = allocation_counter::measure(|| made = Some(make())).bytes_current;
    made.transpose()?;
    Ok(held)
}

/// What two tasks share to start and to stop at the same time.
#[derive(Debug, Default)]
struct Together {
    present: AtomicU32,
    over: AtomicBool,
}

/// What one of two tasks did.
struct Share {
    calls: u64,
    start: Instant,
    end: Instant,
}

impl Share {
    fn took(&self) -> Duration {
        self.end - self.start
    }

    /// How much of the time from the first start to the last end both were at work.
    fn overlap(&self, other: &Self) -> f64 {
        let both = self.end.min(other.end).saturating_duration_since(self.start.max(other.start));
        let whole = self.end.max(other.end) - self.start.min(other.start);
        both.as_secs_f64() / whole.as_secs_f64()
    }

    /// Over the calls of both: a lock that prefers whoever had it last lets one task make more of them.
    fn nanos_per_call(&self, other: &Self) -> f64 {
        (self.took() + other.took()).as_secs_f64() * 1e9 / (self.calls + other.calls) as f64
    }
}

impl Together {
    async fn run(self: Arc<Self>, mut work: impl Work, numbers: Range<u64>) -> Share {
        /// Calls between two looks at whether the other task has come to its end.
        const CHUNK: u64 = 50;
        let warm_up = (numbers.end - numbers.start) / 10;
        work.run(numbers.start..numbers.start + warm_up).await;
        while !self.meet() {
            tokio::task::yield_now().await;
        }
        let (start, mut next) = (now(), numbers.start);
        // ORDERING: Relaxed (both), a hint to stop: nothing else is read because of it.
        while next < numbers.end && !self.over.load(Ordering::Relaxed) {
            let chunk = next..numbers.end.min(next + CHUNK);
            next = chunk.end;
            work.run(chunk).await;
        }
        let end = now();
        self.over.store(true, Ordering::Relaxed);
        Share { calls: next - numbers.start, start, end }
    }

    /// Waits a moment, without letting go of the worker, for the other task to be there at the same time; whether it was.
    /// A task that only yielded would be found by no other worker while the two take turns on one.
    fn meet(&self) -> bool {
        let patience = Duration::from_micros(200);
        // ORDERING: Relaxed (all), the word is the whole agreement: nothing else is read because of it.
        self.present.fetch_add(1, Ordering::Relaxed);
        let since = now();
        while self.present.load(Ordering::Relaxed) < 2 {
            let left_alone = since.elapsed() > patience
                // ORDERING: as above. It fails if the other one has come meanwhile.
                && self.present.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if left_alone {
                return false;
            }
            hint::spin_loop();
        }
        true
    }
}

/// Runs `timed` while the allocator does not count, so that it hardly shows in what peers pay for their allocations.
fn without_counting<T>(timed: impl FnOnce() -> T) -> T {
    let mut result = None;
    opt_out(|| result = Some(timed()));
    match result {
        Some(result) => result,
        None => unreachable!("`opt_out` runs what it is given"),
    }
}

fn nanos_per_call(start: Instant, calls: u64) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / calls as f64
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
