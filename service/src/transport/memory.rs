//! A simulated network: whole clusters inside one test, on one clock, with links that misbehave on demand.
//!
//! Every message goes over a directed link `(from, to)`, and so does its answer, over the link back. A link drops,
//! duplicates and delays what it carries, each by its own probability from one seeded source, so that a run repeats.
//! Delays drawn per message reorder unary lanes. The append lane keeps its order, as a stream does: messages queue at
//! the receiver, and a dropped one is simply never answered.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tower::Service;

use super::{Inbound, Target, Transport};
use crate::clock::Clock;
use crate::peer::{Lane, NodeId, PeerClient, PeerError, PeerRequest, PeerResponse, RemoteCode, RemoteError};

/// What a link does to the messages it carries. The default carries each once, at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults {
    /// The share of messages that vanish, 0 to 1.
    pub drop: f64,
    /// The share of messages that arrive twice, 0 to 1. The second answer goes nowhere.
    pub duplicate: f64,
    /// Each message is delayed by a draw from zero to this.
    pub delay_up_to: Duration,
}

/// The network: who is attached, and how its links behave.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    /// Guards everything that changes; held for a lookup or a draw, never while a message is under way.
    state: Mutex<State>,
}

struct State {
    nodes: BTreeMap<String, (NodeId, Arc<dyn Inbound>)>,
    links: BTreeMap<(NodeId, NodeId), Faults>,
    draws: StdRng,
    counts: Counts,
}

/// What the network has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages and answers carried, duplicates not counted.
    pub carried: u64,
    /// Messages and answers that vanished.
    pub dropped: u64,
    /// Messages that arrived twice.
    pub duplicated: u64,
}

/// What becomes of one message on one link.
struct Fate {
    delay: Duration,
    copies: u8,
}

impl Network {
    /// An empty network whose links draw from `seed`.
    pub fn new(seed: u64, clock: Clock) -> Self {
        let state = State {
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            draws: StdRng::seed_from_u64(seed),
            counts: Counts::default(),
        };
        Self { shared: Arc::new(Shared { clock, state: Mutex::new(state) }) }
    }

    /// `node` answers at `address` from now on.
    pub fn attach(&self, node: NodeId, address: &str, inbound: Arc<dyn Inbound>) {
        self.state().nodes.insert(address.to_owned(), (node, inbound));
    }

    /// Nobody answers at `address` any more, as after a crash.
    pub fn detach(&self, address: &str) {
        self.state().nodes.remove(address);
    }

    /// Sets how messages from one node to another fare; the way back is a link of its own.
    pub fn link(&self, from: NodeId, to: NodeId, faults: Faults) {
        self.state().links.insert((from, to), faults);
    }

    /// Cuts both ways between `node` and each of `others`: messages vanish.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others {
            self.link(node, other, Faults { drop: 1.0, ..Faults::default() });
            self.link(other, node, Faults { drop: 1.0, ..Faults::default() });
        }
    }

    /// Every link carries everything again.
    pub fn heal(&self) {
        self.state().links.clear();
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The network as `node` sees it.
    pub fn transport(&self, node: NodeId) -> MemoryTransport {
        MemoryTransport { network: self.clone(), node }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws what becomes of a message.
    fn fate(&self, from: NodeId, to: NodeId) -> Fate {
        let mut state = self.state();
        let faults = state.links.get(&(from, to)).cloned().unwrap_or_default();
        // Three draws in all cases: a link that changes does not shift the draws of the others.
        let (drop, duplicate, delay) = (state.draws.random::<f64>(), state.draws.random::<f64>(), state.draws.random());
        let delay = faults.delay_up_to.mul_f64(delay);
        if drop < faults.drop {
            state.counts.dropped += 1;
            return Fate { delay, copies: 0 };
        }
        state.counts.carried += 1;
        if duplicate < faults.duplicate {
            state.counts.duplicated += 1;
            return Fate { delay, copies: 2 };
        }
        Fate { delay, copies: 1 }
    }

    /// Carries an answer back; a dropped one never arrives.
    async fn carry_back<T>(&self, from: NodeId, to: NodeId, answer: T) -> T {
        let fate = self.fate(from, to);
        if fate.copies == 0 {
            return std::future::pending().await;
        }
        self.wait(fate.delay).await;
        answer
    }

    async fn wait(&self, delay: Duration) {
        // Tokio's timer rounds up to its next millisecond, also from zero.
        if !delay.is_zero() {
            self.shared.clock.sleep(delay).await;
        }
    }

    fn find(&self, target: &Target) -> Result<(NodeId, Arc<dyn Inbound>), PeerError> {
        let (node, inbound) = self
            .state()
            .nodes
            .get(&target.address)
            .cloned()
            .ok_or_else(|| PeerError::Unreachable(format!("nobody answers at {}", target.address).into()))?;
        if target.node != node {
            let detail = format!("node {node} answers at {}", target.address);
            return Err(PeerError::Remote(RemoteError::new(RemoteCode::WrongPeer, detail)));
        }
        Ok((node, inbound))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// One node's view of a [`Network`].
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    network: Network,
    node: NodeId,
}

impl Transport for MemoryTransport {
    fn lane(&self, target: Target) -> PeerClient {
        let (network, from) = (self.network.clone(), self.node);
        match target.lane {
            Lane::Append => PeerClient::new(OrderedLink { network, from, target, stream: Arc::default() }),
            Lane::Control | Lane::Data | Lane::Bulk => PeerClient::new(UnaryLink { network, from, target }),
        }
    }
}

#[derive(Clone)]
struct UnaryLink {
    network: Network,
    from: NodeId,
    target: Target,
}

impl UnaryLink {
    async fn send(self, message: PeerRequest) -> Result<PeerResponse, PeerError> {
        let Self { network, from, target } = self;
        let (to, inbound) = network.find(&target)?;
        let fate = network.fate(from, to);
        if fate.copies == 0 {
            return std::future::pending().await; // a lost message has no answer; the caller's own limit ends the wait
        }
        network.wait(fate.delay).await;
        if fate.copies == 2 {
            let _ = inbound.handle(from, message.clone()).await;
        }
        let answer = inbound.handle(from, message).await.map_err(PeerError::Remote);
        network.carry_back(to, from, answer).await
    }
}

impl Service<PeerRequest> for UnaryLink {
    type Response = PeerResponse;
    type Error = PeerError;
    type Future = BoxFuture<'static, Result<PeerResponse, PeerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: PeerRequest) -> Self::Future {
        Box::pin(self.clone().send(message))
    }
}

/// A message on an ordered link.
struct Queued {
    message: Bytes,
    delay: Duration,
    /// Who waits for the answer; nobody waits for that of a copy.
    wait: Option<Answer>,
}

type Answer = oneshot::Sender<Result<Bytes, RemoteError>>;
type Answered = oneshot::Receiver<Result<Bytes, RemoteError>>;

/// The append lane: a queue into one stream of the receiver, opened by the first message and again after it ended.
#[derive(Clone)]
struct OrderedLink {
    network: Network,
    from: NodeId,
    target: Target,
    /// Guards the queue's sender while a message is put in; never held while one is under way.
    stream: Arc<Mutex<Option<mpsc::UnboundedSender<Queued>>>>,
}

impl OrderedLink {
    /// Puts a message into the stream, in the order of the calls; `None` when the link lost it.
    fn queue(&self, message: &Bytes) -> Result<Option<(NodeId, Answered)>, PeerError> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let (to, inbound) = self.network.find(&self.target).inspect_err(|_| *stream = None)?;
        let Fate { delay, copies } = self.network.fate(self.from, to);
        if copies == 0 {
            return Ok(None);
        }
        let queue = match stream.take().filter(|queue| !queue.is_closed()) {
            Some(queue) => stream.insert(queue),
            None => stream.insert(open(self.network.clone(), self.from, &*inbound)),
        };
        let (answer, answered) = oneshot::channel();
        let mut wait = Some(answer);
        for _ in 0..copies {
            let _ = queue.send(Queued { message: message.clone(), delay, wait: wait.take() });
        }
        Ok(Some((to, answered)))
    }
}

/// Feeds one stream of `inbound` and hands out its answers, until the sender is dropped or the stream ends.
fn open(network: Network, from: NodeId, inbound: &dyn Inbound) -> mpsc::UnboundedSender<Queued> {
    let (queue, queued) = mpsc::unbounded_channel::<Queued>();
    let (waiting, mut waits) = mpsc::unbounded_channel();
    let messages = UnboundedReceiverStream::new(queued).then(move |Queued { message, delay, wait }| {
        let _ = waiting.send(wait);
        let network = network.clone();
        async move {
            network.wait(delay).await;
            message
        }
    });
    let mut answers = inbound.append(from, messages.boxed());
    tokio::spawn(async move {
        while let Some(answer) = answers.next().await {
            let failed = answer.is_err();
            if let Some(Some(wait)) = waits.recv().await {
                let _ = wait.send(answer);
            }
            if failed {
                return;
            }
        }
    });
    queue
}

impl Service<PeerRequest> for OrderedLink {
    type Response = PeerResponse;
    type Error = PeerError;
    type Future = BoxFuture<'static, Result<PeerResponse, PeerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: PeerRequest) -> Self::Future {
        let queued = self.queue(&message.body);
        let (network, from) = (self.network.clone(), self.from);
        Box::pin(async move {
            let Some((to, answered)) = queued? else {
                return std::future::pending().await; // lost; the caller's own limit ends the wait
            };
            let answer = match answered.await {
                Ok(answer) => answer.map(|body| PeerResponse { body }).map_err(PeerError::Remote),
                Err(_) => Err(PeerError::Broken("the append stream ended".into())),
            };
            network.carry_back(to, from, answer).await
        })
    }
}
