//! What the end of an attempt says: was it answered, was it certainly not done, or does nobody know?

use std::time::Duration;

use http::StatusCode;
use seawall::{Attempt, BoxError, Decision, Rejected, RetryPolicy};

use crate::client::ClientError;
use crate::client::answer::Outcome;
use crate::client::transport::{Answer, Call, CallError};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A node answered for good: done, no such key, condition failed, bad request.
    Answered,
    /// Certainly not done.
    NotApplied {
        /// Whether another node, or the same one later, may do it.
        again: bool,
        /// When, if somebody knows.
        retry_after: Option<Duration>,
    },
    /// It may have been done.
    Unknown,
}

/// Judges an attempt. Unsure is unknown for a write; a read changes nothing, so for it nothing is ever unknown.
pub(super) fn judge(is_read: bool, result: Result<&Answer, &BoxError>) -> Verdict {
    let verdict = match result {
        Ok(answer) => judge_answer(answer),
        Err(error) => match Rejected::find(&**error) {
            // One of our own layers refused, before the transport.
            Some(rejected) => Verdict::NotApplied { again: true, retry_after: rejected.retry_after },
            None => match seawall::find::<CallError>(&**error) {
                Some(CallError::NotSent { .. }) => Verdict::NotApplied { again: true, retry_after: None },
                // Broken, or a timer of ours fired while the node was at work.
                Some(CallError::Broken { .. }) | None => Verdict::Unknown,
            },
        },
    };
    match verdict {
        Verdict::Unknown if is_read => Verdict::NotApplied { again: true, retry_after: None },
        verdict => verdict,
    }
}

fn judge_answer(answer: &Answer) -> Verdict {
    let busy = matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if !busy && !answer.status.is_server_error() {
        return Verdict::Answered;
    }
    let problem = answer.problem();
    match problem.outcome {
        // 507 and its like will be answered again by every node.
        Some(Outcome::NotApplied) => Verdict::NotApplied { again: busy, retry_after: answer.retry_after(&problem) },
        Some(Outcome::Unknown) | None => Verdict::Unknown,
    }
}

/// Repeats what was certainly not done, and nothing else.
#[derive(Debug, Clone, Copy)]
pub(super) struct SafeRetry {
    /// Whether there is one node only.
    pub(super) alone: bool,
}

impl RetryPolicy<Call, Answer, BoxError> for SafeRetry {
    fn clone_request(&self, call: &Call) -> Option<Call> {
        Some(call.clone())
    }

    fn decide(&self, call: &Call, result: &Result<Answer, BoxError>, _: Attempt) -> Decision {
        let wait = match judge(call.is_read(), result.as_ref()) {
            Verdict::Answered => return Decision::Accept,
            Verdict::Unknown | Verdict::NotApplied { again: false, .. } => return Decision::GiveUp,
            Verdict::NotApplied { again: true, retry_after } => retry_after,
        };
        let decision = match (wait, result) {
            // A node without a leader speaks for itself: the next one may know more, after the ordinary pause.
            (Some(_), Ok(answer)) if !self.alone && answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                Decision::retry()
            }
            (Some(wait), _) => Decision::retry_after(wait),
            (None, _) => Decision::retry(),
        };
        // What never reached a node costs the cluster nothing.
        if never_sent(result) { decision.cost(0) } else { decision }
    }
}

fn never_sent(result: &Result<Answer, BoxError>) -> bool {
    let Err(error) = result else { return false };
    let not_sent = || matches!(seawall::find::<CallError>(&**error), Some(CallError::NotSent { .. }));
    Rejected::find(&**error).is_some() || not_sent()
}

/// The last word on a call: its answer, or the error for the caller.
pub(super) fn conclude(is_read: bool, result: Result<Answer, BoxError>) -> Result<Answer, ClientError> {
    let (detail, retry_after, source) = match (judge(is_read, result.as_ref()), result) {
        (Verdict::Answered, Ok(answer)) => return Ok(answer),
        (Verdict::Unknown, result) => {
            let (detail, _, source) = explain(result);
            return Err(ClientError::Unknown { detail, source });
        }
        (Verdict::NotApplied { .. } | Verdict::Answered, result) => explain(result),
    };
    Err(ClientError::Unavailable { detail, retry_after, source })
}

fn explain(result: Result<Answer, BoxError>) -> (String, Option<Duration>, Option<BoxError>) {
    match result {
        Ok(answer) => {
            let problem = answer.problem();
            (answer.describe(&problem), answer.retry_after(&problem), None)
        }
        Err(error) => {
            let retry_after = Rejected::find(&*error).and_then(|rejected| rejected.retry_after);
            (root_first(&*error), retry_after, Some(error))
        }
    }
}

/// The error and its causes in one line, without repeating what a wrapper already says.
fn root_first(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}
