//! What the tests of a pattern ask of its metrics, the same of each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
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
        *self.recorder.in_flight.0.lock().unwrap()
    }

    /// How many seconds calls took that have ended since this was asked last; `None` if nobody was to be told.
    pub(crate) fn durations(&self) -> Option<Vec<f64>> {
        self.recorder.durations.0.lock().unwrap().as_mut().map(std::mem::take)
    }
}

/// Lets another thread run at every step: a test with threads needs no luck then.
#[derive(Default)]
struct Recorder {
    in_flight: Arc<InFlight>,
    durations: Arc<Durations>,
}

#[derive(Default)]
struct InFlight(Mutex<f64>);

#[derive(Default)]
struct Durations(Mutex<Option<Vec<f64>>>);

impl InFlight {
    fn change(&self, to: impl FnOnce(f64) -> f64) {
        thread::yield_now();
        {
            let mut value = self.0.lock().unwrap();
            *value = to(*value);
        }
        thread::yield_now();
    }
}

impl GaugeFn for InFlight {
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
        thread::yield_now();
        if key.name() == "seawall_in_flight" { Gauge::from_arc(self.in_flight.clone()) } else { Gauge::noop() }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        if key.name() != "seawall_call_duration_seconds" {
            return Histogram::noop();
        }
        self.durations.0.lock().unwrap().get_or_insert_default();
        Histogram::from_arc(self.durations.clone())
    }
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
    // Each binding puts right what an earlier one got wrong: many rounds of few.
    for _ in 0..200 {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..20).for_each(|_| call()));
            }
            (0..4).for_each(|_| rebind());
        });
        assert_eq!(told.in_flight(), held);
    }
}
