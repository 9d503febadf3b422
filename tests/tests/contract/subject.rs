//! A layer over a probe, its types erased, so that one suite runs over all of them.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use seawall::{BoxError, Deadline};
use seawall_tests::probe::{Answer, Probe, Site};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};

/// Boxed once more than the layer does; readiness, clones, calls and drops go through unchanged.
pub type Boxed = BoxCloneSyncService<u64, u64, BoxError>;

/// A call through the layer.
pub type Call = Pin<Box<dyn Future<Output = Result<u64, BoxError>> + Send>>;

/// A layer in one of its states, over a probe of its own.
pub struct Subject {
    /// The probe below.
    pub site: Site,
    /// A service that the layer has made.
    pub service: Boxed,
    /// Refuses every call.
    pub refuses: bool,
    /// How often the probe is called for a request; all but the last call fail for a moment.
    pub attempts: usize,
    /// Time that must pass before the layer is in its state.
    pub after: Duration,
    another: Box<dyn Fn() -> Boxed>,
    in_flight: Option<Box<dyn Fn() -> u64>>,
    late: bool,
}

impl Subject {
    /// `layer`, whose calls in flight `in_flight` counts. That its services and calls can be shown in a log is part of the
    /// contract, which the compiler checks here.
    pub fn of<L>(layer: L, in_flight: impl Fn(&L) -> u64 + 'static) -> Self
    where
        L: Layer<Probe> + Clone + 'static,
        L::Service: Service<u64, Response = u64, Error = BoxError, Future: Debug + Send + 'static>,
        L::Service: Clone + Debug + Send + Sync + 'static,
    {
        let counted = layer.clone();
        Self::uncounted(layer).counted(move || in_flight(&counted))
    }

    /// A layer that counts nothing, and that may break the rest of the contract too.
    pub fn uncounted<L>(layer: L) -> Self
    where
        L: Layer<Probe> + 'static,
        L::Service: Service<u64, Response = u64, Error = BoxError, Future: Send + 'static>,
        L::Service: Clone + Send + Sync + 'static,
    {
        let site = Site::default();
        let below = site.clone();
        let another = move || Boxed::new(layer.layer(below.probe()));
        Self {
            site,
            service: another(),
            refuses: false,
            attempts: 1,
            after: Duration::ZERO,
            another: Box::new(another),
            in_flight: None,
            late: false,
        }
    }

    /// `in_flight` counts the calls in flight.
    pub fn counted(self, in_flight: impl Fn() -> u64 + 'static) -> Self {
        Self { in_flight: Some(Box::new(in_flight)), ..self }
    }

    /// The layer refuses every call.
    pub fn refuses(self) -> Self {
        Self { refuses: true, ..self }
    }

    /// The layer calls the probe so often, as long as it fails for a moment.
    pub fn attempts(self, attempts: usize) -> Self {
        Self { attempts, ..self }
    }

    /// The layer is in its state after this time.
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// Calls are made when their deadline has passed.
    pub fn late(self) -> Self {
        Self { late: true, ..self }
    }

    /// Another service of the same layer, over an instance of the same probe.
    pub fn another(&self) -> Boxed {
        (self.another)()
    }

    /// Calls `service`, which is ready; the last attempt gives `answer`.
    pub fn call(&self, service: &mut Boxed, request: u64, answer: Answer) -> Call {
        self.site.answers(std::iter::repeat_n(Answer::Fleeting, self.attempts - 1).chain([answer]));
        if self.late {
            return Deadline::after(Duration::ZERO).enter(|| service.call(request));
        }
        service.call(request)
    }

    /// The calls that the layer counts as under way; 0 if it counts nothing.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.as_ref().map_or(0, |count| count())
    }

    /// Whether [`in_flight`](Self::in_flight) says anything.
    pub fn counts(&self) -> bool {
        self.in_flight.is_some()
    }
}
