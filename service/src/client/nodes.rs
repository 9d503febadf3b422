//! Nodes take turns.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use seawall::{BoxError, Reason, Rejected};
use tower::{Service, ServiceExt};

use crate::client::transport::{Answer, Call};

/// Sends each call to the next node, passing over those whose breaker is open. Clones share the turn.
#[derive(Debug)]
pub(super) struct RoundRobin<S> {
    nodes: Arc<[S]>,
    next: Arc<AtomicUsize>,
}

impl<S> RoundRobin<S> {
    /// Over these nodes, beginning with the one at `first` (modulo their number), in turns shared through `next`.
    pub(super) fn new(nodes: impl IntoIterator<Item = S>, next: Arc<AtomicUsize>) -> Self {
        Self { nodes: nodes.into_iter().collect(), next }
    }
}

impl<S> Clone for RoundRobin<S> {
    fn clone(&self) -> Self {
        Self { nodes: self.nodes.clone(), next: self.next.clone() }
    }
}

impl<S> Service<Call> for RoundRobin<S>
where
    S: Service<Call, Response = Answer, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        // ORDERING: Relaxed, the number is the whole state; two calls that draw it at once differ, which is enough.
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let nodes = self.nodes.clone();
        Box::pin(async move {
            let mut refused: Option<BoxError> = None;
            for step in 0..nodes.len() {
                let index = turn.wrapping_add(step) % nodes.len();
                let Some(node) = nodes.get(index) else { break };
                match node.clone().oneshot(call.clone()).await {
                    // Nothing was sent, and no time has passed: the next node at once, without a retry.
                    Err(error) if is_open(&error) => {
                        // Of several refusals the one that ends first tells how long to wait.
                        if refused.as_ref().is_none_or(|other| wait(&error) < wait(other)) {
                            refused = Some(error);
                        }
                    }
                    result => return result,
                }
            }
            Err(refused.unwrap_or_else(|| "there are no nodes".into()))
        })
    }
}

fn is_open(error: &BoxError) -> bool {
    let reason = Rejected::find(&**error).map(|rejected| rejected.reason);
    matches!(reason, Some(Reason::Open | Reason::Probing | Reason::ForcedOpen))
}

/// What nobody knows is longer than anything.
fn wait(error: &BoxError) -> Duration {
    Rejected::find(&**error).and_then(|rejected| rejected.retry_after).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::{HeaderMap, Method, StatusCode};

    use super::*;
    use crate::client::transport::Node;

    fn answer() -> Answer {
        let node = Node::parse("127.0.0.1:1").unwrap();
        Answer { node, status: StatusCode::OK, headers: HeaderMap::new(), body: bytes::Bytes::new() }
    }

    /// Three nodes of which those in `open` refuse, and who was asked by six calls.
    async fn asked(open: &'static [usize]) -> (Vec<usize>, usize) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let nodes = (0..3).map(|id| {
            let asked = asked.clone();
            tower::service_fn(move |_: Call| {
                let result = if open.contains(&id) {
                    Err(BoxError::from(Rejected::new("circuit_breaker", "n", Reason::Open)))
                } else {
                    asked.lock().unwrap().push(id);
                    Ok(answer())
                };
                std::future::ready(result)
            })
        });
        let service = RoundRobin::new(nodes, Arc::default());
        let mut failed = 0;
        for _ in 0..6 {
            failed += usize::from(service.clone().oneshot(Call::new(Method::GET, "/")).await.is_err());
        }
        let asked = asked.lock().unwrap().clone();
        (asked, failed)
    }

    #[tokio::test]
    async fn clones_take_turns_over_all_nodes() {
        assert_eq!(asked(&[]).await, (vec![0, 1, 2, 0, 1, 2], 0));
    }

    #[tokio::test]
    async fn an_open_node_is_passed_over_and_all_open_is_a_refusal() {
        assert_eq!(asked(&[1]).await, (vec![0, 2, 2, 0, 2, 2], 0));
        assert_eq!(asked(&[0, 1, 2]).await, (vec![], 6));
    }
}
