//! A layer over a probe, its types erased, so that one suite runs over all of them.

use std::any::Any;
use std::cell::RefCell;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use seawall::{BoxError, Deadline, Rejected, Waiting};
use seawall_tests::probe::{Answer, Probe, Site};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

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
    /// Of the calls that wait, the newest is the first to be let in.
    pub newest_first: bool,
    another: Box<dyn Fn() -> Boxed>,
    in_flight: Option<Box<dyn Fn() -> u64>>,
    late: bool,
    line: Option<Line>,
}

/// What calls wait for before they are admitted.
struct Line {
    /// Where they wait.
    at: Waiting,
    /// How long after one turn the next one comes; zero where it is given back.
    period: Duration,
    /// Takes the only turn.
    occupy: Box<dyn Fn() -> Result<Box<dyn Any>, Rejected>>,
    occupied: RefCell<Option<Occupied>>,
}

/// Gives the turn back when it is dropped.
struct Occupied {
    _turn: Box<dyn Any>,
    /// How many calls in flight it is counted as.
    counted: u64,
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
            newest_first: false,
            another: Box::new(another),
            in_flight: None,
            late: false,
            line: None,
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

    /// The newest of the calls that wait is the first to be let in.
    pub fn newest_first(self) -> Self {
        Self { newest_first: true, ..self }
    }

    /// Calls are made when their deadline has passed.
    pub fn late(self) -> Self {
        Self { late: true, ..self }
    }

    /// Each call waits for its turn, of which there is one, and then it is admitted. `occupy` takes it until what it gave is
    /// dropped; the next comes after `period`, which is zero where a turn is given back.
    pub fn waits<T: 'static>(
        self,
        at: Waiting,
        period: Duration,
        occupy: impl Fn() -> Result<T, Rejected> + 'static,
    ) -> Self {
        let occupy = move || occupy().map(|turn| Box::new(turn) as Box<dyn Any>);
        let line = Line { at, period, occupy: Box::new(occupy), occupied: RefCell::default() };
        Self { line: Some(line), ..self }
    }

    /// Where calls wait for their turn, if they do.
    pub fn waits_at(&self) -> Option<Waiting> {
        self.line.as_ref().map(|line| line.at)
    }

    /// How long after one turn the next one comes; zero where it is given back, and where nobody waits.
    pub fn period(&self) -> Duration {
        self.line.as_ref().map_or(Duration::ZERO, |line| line.period)
    }

    /// From now on calls wait, until [`vacate`](Self::vacate).
    ///
    /// # Errors
    /// The turn is not there to be taken: a call has not given it back.
    pub fn occupy(&self) -> Result<(), Rejected> {
        let Some(line) = &self.line else { return Ok(()) };
        if line.occupied.borrow().is_none() {
            let before = self.in_flight();
            let turn = (line.occupy)()?;
            let counted = self.in_flight() - before;
            *line.occupied.borrow_mut() = Some(Occupied { _turn: turn, counted });
        }
        Ok(())
    }

    /// The turn is for whoever is the first in line.
    pub fn vacate(&self) {
        let occupied = self.line.as_ref().and_then(|line| line.occupied.take());
        // Whoever is woken by this may look at the subject.
        drop(occupied);
    }

    /// Another service of the same layer, over an instance of the same probe.
    pub fn another(&self) -> Boxed {
        (self.another)()
    }

    /// Calls `service`, which is ready; the last attempt gives `answer`.
    pub fn call(&self, service: &mut Boxed, request: u64, answer: Answer) -> Call {
        self.answers(answer);
        if self.late {
            return Deadline::after(Duration::ZERO).enter(|| service.call(request));
        }
        service.call(request)
    }

    /// A service of its own made ready and called, all within one future; the last attempt gives `answer`.
    pub fn oneshot(&self, request: u64, answer: Answer) -> Call {
        self.answers(answer);
        Box::pin(self.service.clone().oneshot(request))
    }

    fn answers(&self, answer: Answer) {
        self.site.answers(std::iter::repeat_n(Answer::Fleeting, self.attempts - 1).chain([answer]));
    }

    /// The calls that the layer counts as under way; 0 if it counts nothing.
    pub fn in_flight(&self) -> u64 {
        let occupied = self.line.as_ref().map_or(0, |line| line.occupied.borrow().as_ref().map_or(0, |by| by.counted));
        self.in_flight.as_ref().map_or(0, |count| count()) - occupied
    }

    /// Whether [`in_flight`](Self::in_flight) says anything.
    pub fn counts(&self) -> bool {
        self.in_flight.is_some()
    }
}
