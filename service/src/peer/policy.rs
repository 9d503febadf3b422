//! What the peer stacks decide about messages and answers: what says a peer is ill, what may be sent again.

use std::error::Error;

use seawall::circuit_breaker::Outcome;
use seawall::retry::{Attempt, Decision, RetryPolicy};
use seawall::{BoxError, Elapsed, Limit, Rejected};

use super::{MessageKind, PeerError, PeerRequest, PeerResponse, RemoteCode};

/// What an answer says about the health of the peer, for its circuit breaker.
pub(super) fn health<T, E>(result: &Result<T, E>) -> Outcome
where
    E: AsError,
{
    match result {
        Ok(_) => Outcome::Success,
        Err(error) => health_of_error(error.as_error()),
    }
}

fn health_of_error(error: &(dyn Error + 'static)) -> Outcome {
    match seawall::find::<Elapsed>(error) {
        // The caller's patience is not the peer's health: `CancelPolicy` looks at how long it had.
        Some(elapsed) if elapsed.limit == Limit::Ambient => return Outcome::Cancelled,
        Some(_) => return Outcome::Failure,
        None => {}
    }
    match seawall::find::<PeerError>(error) {
        Some(PeerError::Unreachable(_) | PeerError::Elapsed(_) | PeerError::Broken(_)) => Outcome::Failure,
        Some(PeerError::Remote(remote)) => match remote.code {
            RemoteCode::Unavailable | RemoteCode::WrongPeer => Outcome::Failure,
            // It answered in time; what it could not do is between the two parts that speak.
            RemoteCode::BadMessage | RemoteCode::Internal => Outcome::Success,
        },
        Some(PeerError::Refused(_)) | None => Outcome::Neutral,
    }
}

/// Raft itself decides when these are sent, and an election must not wait for a breaker: they always pass, and their
/// answers close it.
pub(super) fn never_refused(kind: MessageKind) -> bool {
    matches!(kind, MessageKind::Heartbeat | MessageKind::Vote | MessageKind::PreVote | MessageKind::TransferLeader)
}

/// Whether a message may be sent again after `error`.
///
/// Pings and read indexes change nothing and may always be. A forwarded request may only when the peer certainly did
/// not see it, and nothing else is repeated: Raft repeats its own messages.
pub(super) fn may_repeat(kind: MessageKind, error: &(dyn Error + 'static)) -> bool {
    let idempotent = matches!(kind, MessageKind::Ping | MessageKind::ReadIndex);
    if seawall::find::<Rejected>(error).is_some() {
        return false; // the breaker is open: it will not have closed by the next try
    }
    match seawall::find::<PeerError>(error) {
        // Somebody else lives there; asking again changes nothing.
        Some(PeerError::Remote(remote)) if remote.code == RemoteCode::WrongPeer => false,
        Some(error) if kind == MessageKind::Forward => error.never_sent(),
        Some(_) | None => idempotent,
    }
}

/// Repeats what [`may_repeat`] allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repeat;

impl RetryPolicy<PeerRequest, PeerResponse, BoxError> for Repeat {
    fn clone_request(&self, request: &PeerRequest) -> Option<PeerRequest> {
        // A clone copies no bytes. What is never repeated is not kept.
        let kept = matches!(request.kind, MessageKind::Ping | MessageKind::ReadIndex | MessageKind::Forward);
        kept.then(|| request.clone())
    }

    fn decide(&self, request: &PeerRequest, result: &Result<PeerResponse, BoxError>, _: Attempt) -> Decision {
        match result {
            Ok(_) => Decision::Accept,
            Err(error) if may_repeat(request.kind, &**error) => Decision::retry(),
            Err(_) => Decision::GiveUp,
        }
    }
}

/// Errors of one kind or boxed, as one.
pub(super) trait AsError {
    fn as_error(&self) -> &(dyn Error + 'static);
}

impl AsError for PeerError {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl AsError for BoxError {
    fn as_error(&self) -> &(dyn Error + 'static) {
        &**self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::RemoteError;

    fn remote(code: RemoteCode) -> PeerError {
        PeerError::Remote(RemoteError::new(code, ""))
    }

    #[test]
    fn a_forwarded_request_is_repeated_only_when_it_was_never_sent() {
        assert!(may_repeat(MessageKind::Forward, &PeerError::Unreachable("".into())));
        assert!(may_repeat(MessageKind::Forward, &remote(RemoteCode::Unavailable)));
        assert!(!may_repeat(MessageKind::Forward, &PeerError::Broken("".into())));
        assert!(!may_repeat(MessageKind::Forward, &PeerError::Elapsed("".into())));
        assert!(!may_repeat(MessageKind::Forward, &remote(RemoteCode::Internal)));
        assert!(may_repeat(MessageKind::Ping, &PeerError::Broken("".into())));
        assert!(!may_repeat(MessageKind::Vote, &PeerError::Unreachable("".into())));
        assert!(!may_repeat(MessageKind::Ping, &remote(RemoteCode::WrongPeer)));
    }

    #[test]
    fn a_peer_that_answers_is_well_and_one_that_does_not_is_ill() {
        let ill = |error| health::<(), PeerError>(&Err(error)) == Outcome::Failure;
        assert!(ill(PeerError::Unreachable("".into())));
        assert!(ill(PeerError::Elapsed("".into())));
        assert!(ill(remote(RemoteCode::Unavailable)));
        assert!(!ill(remote(RemoteCode::BadMessage)));
        assert_eq!(health::<(), PeerError>(&Ok(())), Outcome::Success);
    }
}
