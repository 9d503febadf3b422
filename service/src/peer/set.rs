//! The clients of all other nodes: one stack per node and lane, made once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tower::{Service, ServiceExt};

use super::stack::{Timing, stack};
use super::{Lane, NodeId, PeerClient, PeerError, PeerRequest, PeerResponse, Peers, RemoteCode, RemoteError};
use crate::clock::Clock;
use crate::telemetry::metrics::{self, Direction};
use crate::transport::{Target, Transport};

/// Makes and keeps the clients of other nodes.
pub struct PeerSet {
    transport: Arc<dyn Transport>,
    clock: Clock,
    timing: Timing,
    /// Guards the table of clients; held for a look-up or the making of one stack.
    clients: Mutex<Clients>,
}

/// By node and lane, with the address the client was made for.
type Clients = BTreeMap<(NodeId, Lane), (String, PeerClient)>;

impl PeerSet {
    /// Clients over `transport`; nothing is dialled before the first message.
    pub fn new(transport: Arc<dyn Transport>, clock: Clock, timing: Timing) -> Self {
        Self { transport, clock, timing, clients: Mutex::default() }
    }

    /// Lets go of every client; connections end when nobody else holds one.
    pub fn close(&self) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn make(&self, node: NodeId, address: &str, lane: Lane) -> PeerClient {
        let transport = self.transport.lane(Target { node, address: address.to_owned(), lane });
        match stack(node, lane, self.timing, transport) {
            Ok(client) => PeerClient::new(self.observed(node, lane, client)),
            Err(error) => {
                // The settings are constants and a checked election timeout: a test builds every lane with them.
                tracing::error!(peer = node, %lane, %error, "a peer stack cannot be built");
                let refused = RemoteError::new(RemoteCode::Unavailable, error.to_string());
                PeerClient::new(tower::service_fn(move |_| std::future::ready(Err(PeerError::Remote(refused.clone())))))
            }
        }
    }

    /// Counts, times and logs what goes through a stack, whatever its layers do.
    fn observed(
        &self,
        node: NodeId,
        lane: Lane,
        client: PeerClient,
    ) -> impl Service<PeerRequest, Response = PeerResponse, Error = PeerError, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static {
        let clock = self.clock.clone();
        client
            .map_future(move |answer| {
                let (clock, start) = (clock.clone(), clock.now());
                async move {
                    let answer = answer.await;
                    let outcome = answer.as_ref().err().map_or("ok", PeerError::outcome);
                    metrics::peer_rpc(node, lane, outcome, clock.now() - start);
                    if let Err(error) = &answer {
                        tracing::debug!(peer = node, %lane, action = "fail", error = crate::coordinator::chain(error));
                    }
                    answer
                }
            })
            .map_request(move |request: PeerRequest| {
                metrics::peer_message(Direction::Sent, request.kind);
                tracing::trace!(peer = node, message_type = %request.kind, action = "send");
                request
            })
    }
}

impl Peers for PeerSet {
    fn client(&self, node: NodeId, address: &str, lane: Lane) -> PeerClient {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, client)) = clients.get(&(node, lane))
            && known == address
        {
            return client.clone();
        }
        let client = self.make(node, address, lane);
        clients.insert((node, lane), (address.to_owned(), client.clone()));
        client
    }
}
