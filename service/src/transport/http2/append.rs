//! The append lane: one HTTP/2 stream of frames, answered in order.
//!
//! One request per message has no order (HTTP/2 streams overtake each other) and costs more. Here a task owns the
//! stream: callers hand it messages in the order of their calls, it writes frames and matches the answers to the
//! oldest question. Whatever goes wrong ends the stream and fails everything on it; the next message opens a new one.
//! The task ends with the last clone of its lane.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Either, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tower::Service;

use super::client::{Dialer, unreachable};
use crate::peer::{MessageKind, PeerError, PeerRequest, PeerResponse, RemoteError};
use crate::transport::frame::{Decoder, encode};

/// Frames without an answer at one time; more wait here, unsent.
const MAX_IN_FLIGHT: usize = 16;
/// Messages that may wait to be written. Consensus itself keeps at most `MAX_IN_FLIGHT` under way, so a full queue means
/// a caller that does not wait for answers.
const QUEUE: usize = 64;

struct Message {
    body: Bytes,
    answer: oneshot::Sender<Result<PeerResponse, PeerError>>,
}

#[derive(Clone)]
pub(super) struct AppendLane {
    queue: mpsc::Sender<Message>,
}

impl AppendLane {
    pub(super) fn new(dialer: Dialer, answer_within: Duration) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        tokio::spawn(Session { dialer, answer_within, messages, waiting: VecDeque::new() }.run());
        Self { queue }
    }
}

impl Service<PeerRequest> for AppendLane {
    type Response = PeerResponse;
    type Error = PeerError;
    type Future = BoxFuture<'static, Result<PeerResponse, PeerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), PeerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: PeerRequest) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        // Queued here and not in the future, so that the order of calls is the order on the wire.
        let queued = self.queue.try_send(Message { body: message.body, answer });
        Box::pin(async move {
            if queued.is_err() {
                return Err(PeerError::Unreachable("the append lane is full".into()));
            }
            answered.await.unwrap_or_else(|_| Err(PeerError::Broken("the append lane stopped".into())))
        })
    }
}

/// Owns the stream.
struct Session {
    dialer: Dialer,
    answer_within: Duration,
    messages: mpsc::Receiver<Message>,
    /// Sent and not answered, oldest first.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    id: u64,
    sent: Instant,
    answer: oneshot::Sender<Result<PeerResponse, PeerError>>,
}

/// Why a stream ended.
enum End {
    /// The last clone of the lane is gone.
    Closed,
    /// The stream cannot be used any more.
    Broken(String),
    /// The oldest message was not answered in time.
    Silent,
}

impl Session {
    async fn run(mut self) {
        while let Some(first) = self.messages.recv().await {
            // Nobody waits for it any more: not worth a connection.
            if first.answer.is_closed() {
                continue;
            }
            match self.open().await {
                Ok((frames, answers)) => {
                    let end = self.stream(first, frames, answers).await;
                    self.fail_waiting(&end);
                    if matches!(end, End::Closed) {
                        return;
                    }
                }
                Err(error) => {
                    // Those that queued up meanwhile share the failure, unsent.
                    while let Ok(message) = self.messages.try_recv() {
                        let _ = message.answer.send(Err(unreachable(error.to_string())));
                    }
                    let _ = first.answer.send(Err(error));
                }
            }
        }
    }

    async fn open(
        &self,
    ) -> Result<(mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>, Incoming), PeerError> {
        let mut connection = self.dialer.connect().await?;
        self.dialer.check(MessageKind::Append, &connection)?;
        let (frames, body) = mpsc::channel(MAX_IN_FLIGHT);
        let body = Either::Right(StreamBody::new(ReceiverStream::new(body)));
        let request = self.dialer.append_request(body).map_err(unreachable)?;
        let opened = self.dialer.clock.timeout(self.answer_within, connection.sender.send_request(request)).await;
        match opened {
            Some(Ok(response)) if response.status() == http::StatusCode::OK => Ok((frames, response.into_body())),
            Some(Ok(response)) => Err(unreachable(format!("the peer answered {}", response.status()))),
            Some(Err(error)) => Err(unreachable(error)),
            None => Err(unreachable("the append stream was not opened in time")),
        }
    }

    async fn stream(
        &mut self,
        first: Message,
        frames: mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>,
        mut answers: Incoming,
    ) -> End {
        let mut decoder = Decoder::default();
        let mut next_id = 0;
        let mut next = Some(first);
        loop {
            // At most `MAX_IN_FLIGHT` frames are unanswered and the channel holds as many: this never finds it full.
            if let Some(message) = next.take() {
                if frames.try_send(Ok(Frame::data(encode(next_id, &message.body)))).is_err() {
                    let _ = message.answer.send(Err(unreachable("the append stream is closed")));
                    return End::Broken("the append stream does not take frames".to_owned());
                }
                let sent = self.dialer.clock.now();
                self.waiting.push_back(Waiting { id: next_id, sent, answer: message.answer });
                next_id += 1;
            }
            let silent = self.waiting.front().map(|oldest| oldest.sent + self.answer_within);
            tokio::select! {
                biased;
                frame = answers.frame() => match frame {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            decoder.push(&data);
                            if let Err(end) = self.deliver(&mut decoder) {
                                return end;
                            }
                        }
                    }
                    Some(Err(error)) => return End::Broken(error.to_string()),
                    None => return End::Broken("the peer ended the append stream".to_owned()),
                },
                message = self.messages.recv(), if self.waiting.len() < MAX_IN_FLIGHT => match message {
                    Some(message) => next = Some(message),
                    None => return End::Closed,
                },
                () = sleep_until(&self.dialer, silent) => return End::Silent,
            }
        }
    }

    /// Hands out the answers that are complete.
    fn deliver(&mut self, decoder: &mut Decoder) -> Result<(), End> {
        while let Some((id, body)) = decoder.next().map_err(|error| End::Broken(error.to_string()))? {
            let Some(oldest) = self.waiting.pop_front().filter(|oldest| oldest.id == id) else {
                return Err(End::Broken(format!("answer {id} to a question that was not asked")));
            };
            let answer = match decode_answer(&body) {
                Some(Ok(body)) => Ok(PeerResponse { body }),
                Some(Err(error)) => Err(PeerError::Remote(error)),
                None => Err(PeerError::Broken("an append answer that cannot be read".into())),
            };
            let _ = oldest.answer.send(answer); // a caller that is gone no longer cares
        }
        Ok(())
    }

    fn fail_waiting(&mut self, end: &End) {
        for message in self.waiting.drain(..) {
            let error = match end {
                End::Silent => PeerError::Elapsed(format!("no answer within {:?}", self.answer_within).into()),
                End::Broken(reason) => PeerError::Broken(reason.clone().into()),
                End::Closed => PeerError::Broken("the append lane was closed".into()),
            };
            let _ = message.answer.send(Err(error));
        }
    }
}

async fn sleep_until(dialer: &Dialer, at: Option<Instant>) {
    match at {
        Some(at) => dialer.clock.sleep(at.saturating_duration_since(dialer.clock.now())).await,
        None => std::future::pending().await,
    }
}

/// An answer on the stream: one byte that says which, then the body or the error.
pub(super) fn encode_answer(id: u64, answer: Result<&[u8], &RemoteError>) -> Bytes {
    let mut message = Vec::new();
    match answer {
        Ok(body) => {
            message.reserve_exact(1 + body.len());
            message.push(0);
            message.extend_from_slice(body);
        }
        Err(error) => {
            message.push(1);
            // A struct of an enum and a string always encodes; an empty body would read as a broken answer.
            message.extend(postcard::to_stdvec(error).unwrap_or_default());
        }
    }
    encode(id, &message)
}

fn decode_answer(message: &Bytes) -> Option<Result<Bytes, RemoteError>> {
    match *message.first()? {
        0 => Some(Ok(message.slice(1..))),
        1 => postcard::from_bytes(&message[1..]).ok().map(Err),
        _ => None,
    }
}
