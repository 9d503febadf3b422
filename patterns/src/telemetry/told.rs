//! What the tests of a pattern ask of its metrics, the same of each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::thread;

use metrics::{Counter, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};
use tower::{Service, ServiceExt};

use crate::BoxError;

/// What this thread's recorder was told of the calls of one layer.
pub(crate) struct Told {
    recorder: &'static Recorder,
    _local: metrics::LocalRecorderGuard<'static>,
}

impl Told {
    pub(crate) fn new() -> Self {
        let recorder: &_ = Box::leak(Box::default());
        Self { recorder, _local: metrics::set_default_local_recorder(recorder) }
    }

    pub(crate) fn in_flight(&self) -> f64 {
        self.gauge(IN_FLIGHT)
    }

    /// What the gauge called `name` shows, whatever its labels.
    pub(crate) fn gauge(&self, name: &str) -> f64 {
        *self.recorder.gauge(name).0.lock().unwrap()
    }

    /// How many seconds calls took that have ended since this was asked last; `None` if nobody was to be told.
    pub(crate) fn durations(&self) -> Option<Vec<f64>> {
        self.recorder.durations.0.lock().unwrap().as_mut().map(std::mem::take)
    }
}

/// Lets other threads run at every step: a test with threads needs little luck then.
#[derive(Default)]
struct Recorder {
    gauges: Mutex<BTreeMap<String, Arc<Level>>>,
    durations: Arc<Durations>,
}

impl Recorder {
    fn gauge(&self, name: &str) -> Arc<Level> {
        Arc::clone(self.gauges.lock().unwrap().entry(name.to_owned()).or_default())
    }
}

const IN_FLIGHT: &str = "seawall_in_flight";

#[derive(Default)]
struct Level(Mutex<f64>);

#[derive(Default)]
struct Durations(Mutex<Option<Vec<f64>>>);

impl Level {
    fn change(&self, to: impl FnOnce(f64) -> f64) {
        others_run();
        {
            let mut value = self.0.lock().unwrap();
            *value = to(*value);
        }
        others_run();
    }
}

impl GaugeFn for Level {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }

    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }

    fn set(&self, to: f64) {
        self.change(|_| to);
    }
}

impl HistogramFn for Durations {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().get_or_insert_default().push(value);
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        others_run();
        Gauge::from_arc(self.gauge(key.name()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() != "seawall_call_duration_seconds" {
            return Histogram::noop();
        }
        self.durations.0.lock().unwrap().get_or_insert_default();
        Histogram::from_arc(self.durations.clone())
    }
}

/// Lets other threads run for a while, and not always the same: threads in lockstep would only ever meet in the same places.
fn others_run() {
    static STEPS: AtomicU64 = AtomicU64::new(0);
    // ORDERING: Relaxed, any number will do.
    let step = STEPS.fetch_add(1, Ordering::Relaxed);
    // The upper bits of multiples of the golden ratio are spread evenly (Knuth, vol. 3, section 6.4).
    (0..step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 62).for_each(|_| thread::yield_now());
}

/// How a call of the inner service ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Good,
    Bad,
    Dropped,
    DroppedUnpolled,
    PanicInCall,
    PanicInPoll,
}

/// The inner service.
pub(crate) fn inner(end: End) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> {
    match end {
        End::Good => Box::pin(ready(Ok(()))),
        End::Bad => Box::pin(ready(Err("bad".into()))),
        End::Dropped | End::DroppedUnpolled => Box::pin(pending()),
        End::PanicInCall => panic!("in call"),
        End::PanicInPoll => Box::pin(poll_fn(|_| panic!("in poll"))),
    }
}

/// The gauge goes up once for every call that starts and down once when it ends, whichever way it does.
pub(crate) async fn follows_every_end(told: &Told, mut service: impl Service<End, Response = (), Error = BoxError>) {
    for end in [End::Good, End::Bad, End::Dropped, End::DroppedUnpolled, End::PanicInCall, End::PanicInPoll, End::Good]
    {
        service.ready().await.unwrap();
        let Ok(mut call) = catch_unwind(AssertUnwindSafe(|| Box::pin(service.call(end)))) else {
            assert_eq!(told.in_flight(), 0.0, "{end:?}");
            continue;
        };
        assert_eq!(told.in_flight(), 1.0, "{end:?}");
        match end {
            End::Good | End::Bad => assert_eq!(call.as_mut().await.is_ok(), matches!(end, End::Good)),
            End::PanicInPoll => assert!(polled(call.as_mut()).await.is_err()),
            End::Dropped => {
                assert!(polled(call.as_mut()).await.is_ok_and(|poll| poll.is_pending()));
                assert_eq!(told.in_flight(), 1.0, "{end:?}");
            }
            End::DroppedUnpolled | End::PanicInCall => {}
        }
        drop(call);
        assert_eq!(told.in_flight(), 0.0, "{end:?}");
    }
}

async fn polled<F: Future>(mut call: Pin<&mut F>) -> thread::Result<Poll<F::Output>> {
    poll_fn(|cx| Poll::Ready(catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))))).await
}

/// The gauge is in step with `held` calls however often the metrics were bound again while others made calls.
pub(crate) fn stays_in_step(told: &Told, held: f64, call: impl Fn() + Sync, rebind: impl Fn()) {
    shows(told, IN_FLIGHT, held, call, rebind);
}

/// The gauge called `name` shows `held` however often the metrics were bound again while others changed it and changed it back.
pub(crate) fn shows(told: &Told, name: &str, held: f64, change: impl Fn() + Sync, rebind: impl Fn()) {
    // Each binding puts right what an earlier one got wrong: many rounds of few.
    for _ in 0..200 {
        let (started, bound) = (Barrier::new(3), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    started.wait();
                    // As long as there is a binding to disturb, and not for ever if that panics.
                    // ORDERING: Relaxed, nothing is read because of it.
                    (0..1000).take_while(|_| !bound.load(Ordering::Relaxed)).for_each(|_| change());
                });
            }
            started.wait();
            (0..4).for_each(|_| rebind());
            // ORDERING: as above.
            bound.store(true, Ordering::Relaxed);
        });
        assert_eq!(told.gauge(name), held, "{name}");
    }
}
