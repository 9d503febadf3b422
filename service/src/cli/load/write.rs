//! Writes the lines of a file side by side and counts how each ended.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::records::{Record, Source};
use crate::cli::{CliError, Exit};
use crate::client::{Client, ClientError};

/// Lines read ahead for each writer. Enough that none waits for the file, few enough that stopping leaves little.
const READ_AHEAD: usize = 8;

/// So many failed lines end the load: the cluster is not there, and each further line would wait for its deadline.
const MAX_FAILURES: u64 = 100;

/// How many lines ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) struct Report {
    /// Written.
    pub(in crate::cli) done: u64,
    /// Certainly not written.
    pub(in crate::cli) not_applied: u64,
    /// Perhaps written.
    pub(in crate::cli) unknown: u64,
    /// Whether it was stopped from outside.
    pub(in crate::cli) interrupted: bool,
}

impl Report {
    /// Lines that were never sent.
    pub(in crate::cli) fn not_sent(&self, total: u64) -> u64 {
        total.saturating_sub(self.done + self.not_applied + self.unknown)
    }

    /// One line for a person.
    pub(in crate::cli) fn text(&self, total: u64) -> String {
        let Self { done, not_applied, unknown, .. } = self;
        let start = if self.interrupted { "interrupted: " } else { "" };
        let end = match self.not_sent(total) {
            0 => String::new(),
            lines => format!(", {lines} not sent"),
        };
        format!("{start}{done} of {total} lines written, {not_applied} not applied, {unknown} unknown{end}")
    }

    /// How the command ends: as its worst line.
    pub(in crate::cli) fn exit(&self, total: u64) -> Exit {
        match self {
            Self { unknown: 1.., .. } => Exit::Unknown,
            report if report.done == total => Exit::Done,
            _ => Exit::Unavailable,
        }
    }

    fn count(&mut self, outcome: &Result<(), (u64, ClientError)>) {
        match outcome {
            Ok(()) => self.done += 1,
            Err((_, ClientError::Unknown { .. })) => self.unknown += 1,
            Err(_) => self.not_applied += 1,
        }
    }
}

/// Writes every line with `writers` calls under way at most, telling `each` how it ended: the line and its error, if any.
///
/// When `stop` is cancelled no further line is sent, and those under way are awaited, so that their outcome is known.
///
/// # Errors
///
/// The file cannot be read any more; lines sent by then are lost to the count.
pub(in crate::cli) async fn write(
    client: &Client,
    source: Source,
    writers: usize,
    stop: &CancellationToken,
    mut each: impl FnMut(&Result<(), (u64, ClientError)>),
) -> Result<Report, CliError> {
    let (ended, mut outcomes) = mpsc::channel(writers.max(1));
    // Too many failures stop the load like an interrupt, but are none.
    let halt = stop.child_token();
    let mut lanes = Vec::with_capacity(writers.max(1));
    for _ in 0..writers.max(1) {
        let (lane, lines) = mpsc::channel(READ_AHEAD);
        lanes.push(lane);
        tokio::spawn(writer(client.clone(), lines, ended.clone(), halt.clone()));
    }
    drop(ended);

    let reader = tokio::task::spawn_blocking({
        let halt = halt.clone();
        move || source.for_each(|record| !halt.is_cancelled() && send(&lanes, record))
    });
    let mut report = Report::default();
    while let Some(outcome) = outcomes.recv().await {
        report.count(&outcome);
        each(&outcome);
        if report.not_applied + report.unknown >= MAX_FAILURES {
            halt.cancel();
        }
    }
    // Every writer has ended, and with them every lane, so the reader ends too.
    reader.await.map_err(|error| CliError::Input(format!("cannot read: {error}")))??;
    report.interrupted = stop.is_cancelled();
    Ok(report)
}

/// Always the same lane for the same key: two lines of one key must not overtake each other.
fn send(lanes: &[mpsc::Sender<Record>], record: Record) -> bool {
    let mut hasher = DefaultHasher::new();
    record.key.hash(&mut hasher);
    let lane = hasher.finish() % u64::try_from(lanes.len()).unwrap_or(1).max(1);
    let lane = usize::try_from(lane).ok().and_then(|lane| lanes.get(lane));
    lane.is_some_and(|lane| lane.blocking_send(record).is_ok())
}

async fn writer(
    client: Client,
    mut lines: mpsc::Receiver<Record>,
    ended: mpsc::Sender<Result<(), (u64, ClientError)>>,
    halt: CancellationToken,
) {
    while let Some(Record { line, key, value }) = lines.recv().await {
        if halt.is_cancelled() {
            return;
        }
        let outcome = client.put(key.as_str(), value).await.map(|_| ()).map_err(|error| (line, error));
        if ended.send(outcome).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::fake::FakeNode;

    /// A node, a client of it and a file of these lines.
    async fn given(lines: impl IntoIterator<Item = (String, String)>) -> (FakeNode, Client, Source, tempfile::TempDir) {
        let node = FakeNode::new().await;
        let client = Client::builder().nodes([&node.url]).deadline(Duration::from_secs(2)).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.csv");
        let text: String = lines.into_iter().map(|(key, value)| format!("{key},{value}\n")).collect();
        std::fs::write(&path, text).unwrap();
        (node, client, Source::new(path, None).unwrap(), folder)
    }

    #[tokio::test]
    async fn every_line_is_written_and_the_last_of_a_key_wins() {
        let lines = (0..300).map(|number| (format!("k{}", number % 7), format!("v{number}")));
        let (node, client, source, _folder) = given(lines).await;
        assert_eq!(source.check().await.unwrap(), 300);
        let mut heard = 0;
        let report = write(&client, source, 8, &CancellationToken::new(), |_| heard += 1).await.unwrap();
        assert_eq!((report, heard), (Report { done: 300, ..Report::default() }, 300));
        let values = node.values();
        assert_eq!(values.len(), 7);
        assert_eq!(values["k5"], "v299", "299 = 42 · 7 + 5");
    }

    #[tokio::test]
    async fn a_stopped_load_counts_what_it_wrote() {
        let lines = (0..5000).map(|number| (format!("k{number}"), "v".to_owned()));
        let (node, client, source, _folder) = given(lines).await;
        let stop = CancellationToken::new();
        let mut heard = 0;
        let report = write(&client, source, 4, &stop, |_| {
            heard += 1;
            if heard == 10 {
                stop.cancel();
            }
        });
        let report = report.await.unwrap();
        assert!(report.interrupted);
        assert!((10..100).contains(&report.done), "{report:?}");
        assert_eq!(node.values().len() as u64, report.done, "what is there is what was counted");
        assert_eq!(report.exit(5000), Exit::Unavailable);
    }

    #[tokio::test]
    async fn failures_are_told_apart_and_bounded() {
        for (outcome, exit) in [("not_applied", Exit::Unavailable), ("unknown", Exit::Unknown)] {
            let (node, client, source, _folder) = given((0..500).map(|n| (format!("k{n}"), String::new()))).await;
            node.refuse(outcome);
            let mut lines = Vec::new();
            let never = CancellationToken::new();
            let report = write(&client, source, 4, &never, |outcome| {
                lines.extend(outcome.as_ref().err().map(|(line, _)| *line));
            });
            let report = report.await.unwrap();
            let failed = report.not_applied + report.unknown;
            assert!((MAX_FAILURES..MAX_FAILURES + 8).contains(&failed), "{report:?}");
            assert_eq!(lines.len() as u64, failed, "each is told with its line");
            assert_eq!(report.exit(500), exit);
            assert!(!report.interrupted);
        }
    }

    #[test]
    fn a_load_ends_as_its_worst_line() {
        let report = |done, not_applied, unknown| Report { done, not_applied, unknown, interrupted: false };
        assert_eq!(report(3, 0, 0).exit(3), Exit::Done);
        assert_eq!(report(2, 0, 0).exit(3), Exit::Unavailable);
        assert_eq!(report(2, 1, 0).exit(3), Exit::Unavailable);
        assert_eq!(report(1, 1, 1).exit(3), Exit::Unknown);
    }

    #[test]
    fn an_interrupted_load_says_how_far_it_came() {
        let report = Report { done: 7, not_applied: 1, unknown: 0, interrupted: true };
        assert_eq!(report.text(10), "interrupted: 7 of 10 lines written, 1 not applied, 0 unknown, 2 not sent");
    }
}
