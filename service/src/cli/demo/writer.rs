//! Writes one key after another while the cluster suffers, and remembers what was promised.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, ClientError};

/// Between two writes: a few hundred each second are enough to see every gap.
const PAUSE: Duration = Duration::from_millis(4);

/// A task that writes until it is stopped.
#[derive(Debug)]
pub(super) struct Writer {
    log: Arc<Mutex<Log>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What became of the writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    /// Acknowledged: these must be there ever after.
    pub(super) acked: Vec<Write>,
    /// These may be there.
    pub(super) unknown: u64,
    /// These are not there.
    pub(super) not_applied: u64,
}

/// A write that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) key: String,
    pub(super) value: String,
    /// When it was sent.
    sent: Instant,
    /// When its acknowledgement came.
    acked: Instant,
}

impl Writer {
    /// Begins to write through `client`.
    pub(super) fn start(client: Client) -> Self {
        let log = Arc::<Mutex<Log>>::default();
        let stop = CancellationToken::new();
        let task = tokio::spawn(write(client, log.clone(), stop.clone()));
        Self { log, stop, task }
    }

    /// What became of the writes so far.
    pub(super) fn log(&self) -> Log {
        lock(&self.log).clone()
    }

    /// How long after `instant` the first write that was sent after it was acknowledged.
    pub(super) fn first_ack_after(&self, instant: Instant) -> Option<Duration> {
        first_ack_after(&lock(&self.log).acked, instant)
    }

    /// Stops after the write that is under way.
    pub(super) async fn stop(self) -> Log {
        self.stop.cancel();
        // The task neither panics nor is it aborted.
        let _ = self.task.await;
        lock(&self.log).clone()
    }
}

async fn write(client: Client, log: Arc<Mutex<Log>>, stop: CancellationToken) {
    for number in 0_u64.. {
        if stop.is_cancelled() {
            return;
        }
        let (key, value) = (format!("tour/{number:06}"), format!("written as number {number}"));
        let sent = Instant::now();
        let outcome = client.put(&key, value.clone()).await;
        match outcome {
            Ok(_) => lock(&log).acked.push(Write { key, value, sent, acked: Instant::now() }),
            Err(ClientError::Unknown { .. }) => lock(&log).unknown += 1,
            Err(_) => lock(&log).not_applied += 1,
        }
        sleep(PAUSE).await;
    }
}

/// An acknowledgement that was on its way already says nothing about what came after.
fn first_ack_after(acked: &[Write], instant: Instant) -> Option<Duration> {
    acked.iter().find(|write| write.sent > instant).map(|write| write.acked - instant)
}

/// Every change of the log is one push or one addition: a poisoned one is whole.
fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_on_its_way_is_not_the_next_write() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let write = |sent, acked| Write { key: String::new(), value: String::new(), sent: at(sent), acked: at(acked) };
        let acked = [write(0, 4), write(8, 11), write(15, 900)];
        assert_eq!(
            first_ack_after(&acked, at(10)),
            Some(Duration::from_millis(890)),
            "not the 1 ms of the second write"
        );
        assert_eq!(first_ack_after(&acked, at(20)), None);
    }
}
