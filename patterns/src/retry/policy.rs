//! What belongs to the caller: which results are worth another attempt, and which requests may be sent twice.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::backoff::Stop;
use crate::clock;
use crate::error::{BoxError, Elapsed, Limit, Rejected, find};
use crate::sync::Arc;

/// What a retry after a timeout costs, in ordinary retries: the peer may still be at work on the attempt before, so the
/// next one comes on top of it (as in the AWS SDKs, where a timeout costs twice).
pub const TIMEOUT_COST: u32 = 2;

/// Decides which results are tried again.
///
/// Every function `Fn(&Request, &Result<Response, Error>, Attempt) -> Decision` is a policy for requests that can be cloned.
/// [`RetryErrors`] is a ready-made one. Each call has a clone of its own: keep what is large, or counts across calls, in an
/// [`Arc`](std::sync::Arc).
///
/// # Example
/// ```
/// use seawall::{Attempt, Decision, RetryPolicy};
///
/// #[derive(Clone)]
/// struct OnBusy;
///
/// impl RetryPolicy<String, u16, std::io::Error> for OnBusy {
///     fn clone_request(&self, request: &String) -> Option<String> {
///         (request.len() < 1024).then(|| request.clone())
///     }
///     fn decide(&self, _: &String, result: &Result<u16, std::io::Error>, _: Attempt) -> Decision {
///         match result {
///             Ok(503) => Decision::retry(),
///             Ok(_) => Decision::Accept,
///             Err(_) => Decision::GiveUp,
///         }
///     }
/// }
/// assert_eq!(OnBusy.decide(&String::new(), &Ok(503), Attempt::first()), Decision::retry());
/// ```
pub trait RetryPolicy<Request, Response, Error> {
    /// A copy to send again, or `None` if the request must not be sent twice or is too large to keep. Without a copy there
    /// is one attempt and [`decide`](Self::decide) is not asked.
    fn clone_request(&self, request: &Request) -> Option<Request>;

    /// Whether this result stands. Asked after every attempt, the last one included, whose result goes to the caller in any
    /// case.
    fn decide(&self, request: &Request, result: &Result<Response, Error>, attempt: Attempt) -> Decision;
}

impl<F, Request, Response, Error> RetryPolicy<Request, Response, Error> for F
where
    F: Fn(&Request, &Result<Response, Error>, Attempt) -> Decision,
    Request: Clone,
{
    fn clone_request(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }

    fn decide(&self, request: &Request, result: &Result<Response, Error>, attempt: Attempt) -> Decision {
        self(request, result, attempt)
    }
}

/// The attempt whose result a policy judges.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    number: u32,
    started: Duration,
}

impl Attempt {
    /// The first attempt of a call that starts now; to try a policy out.
    pub fn first() -> Self {
        Self::new(1, clock::now())
    }

    pub(crate) const fn new(number: u32, started: Duration) -> Self {
        Self { number, started }
    }

    /// Which attempt it was, from 1.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// How long the call has taken so far, all attempts and waits included. Reads the clock.
    pub fn elapsed(self) -> Duration {
        clock::read().saturating_sub(self.started)
    }
}

/// What a policy makes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The result is the answer: a success, or a "not found" that would be found no better by asking again.
    Accept,
    /// A failure that another attempt would not change, or must not follow.
    GiveUp,
    /// A failure that another attempt may change.
    #[non_exhaustive]
    Retry {
        /// How long the server asked us to stay away. The retry is never sooner.
        after: Option<Duration>,
        /// What the retry takes from the budget, in ordinary retries. A retry of cost 0 is always afforded.
        cost: u32,
    },
}

impl Decision {
    /// An ordinary retry: no hint, cost 1.
    pub const fn retry() -> Self {
        Self::Retry { after: None, cost: 1 }
    }

    /// A retry not before `wait`, which the server has asked for.
    pub const fn retry_after(wait: Duration) -> Self {
        Self::Retry { after: Some(wait), cost: 1 }
    }

    /// The retry, if it is one, takes as much from the budget as `cost` ordinary ones.
    #[must_use]
    pub const fn cost(self, cost: u32) -> Self {
        match self {
            Self::Retry { after, .. } => Self::Retry { after, cost },
            other => other,
        }
    }

    /// What an error says by itself, or by what is among its sources. `idempotent` tells whether the request may be applied
    /// twice.
    ///
    /// - [`Rejected`], [`GaveUp`] and [`Permanent`]: give up. A refusal by an open breaker or a full bulkhead is not cured by
    ///   asking again, and retries around retries multiply.
    /// - [`Elapsed`] of the caller's deadline: give up. Of one of our own limits: retry at [`TIMEOUT_COST`], if idempotent.
    /// - [`Transient`]: retry after its hint, if idempotent or [unsent](Transient::unsent).
    /// - Anything else: retry, if idempotent.
    ///
    /// # Example
    /// ```
    /// use seawall::{Decision, Permanent, Reason, Rejected};
    ///
    /// let open = Rejected::new("circuit_breaker", "peer", Reason::Open);
    /// assert_eq!(Decision::of_error(&open, true), Decision::GiveUp);
    /// let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    /// assert_eq!(Decision::of_error(&reset, true), Decision::retry());
    /// assert_eq!(Decision::of_error(&reset, false), Decision::GiveUp);
    /// ```
    pub fn of_error(error: &(dyn Error + 'static), idempotent: bool) -> Self {
        if find::<Rejected>(error).is_some() || find::<GaveUp>(error).is_some() || find::<Permanent>(error).is_some() {
            return Self::GiveUp;
        }
        if let Some(transient) = find::<Transient>(error) {
            let safe = idempotent || transient.unsent;
            return if safe { Self::Retry { after: transient.retry_after, cost: 1 } } else { Self::GiveUp };
        }
        match find::<Elapsed>(error) {
            _ if !idempotent => Self::GiveUp,
            Some(elapsed) if elapsed.limit == Limit::Ambient => Self::GiveUp,
            Some(_) => Self::retry().cost(TIMEOUT_COST),
            None => Self::retry(),
        }
    }
}

/// Retries errors by what they say of themselves; see [`Decision::of_error`]. Every `Ok` is accepted.
///
/// For services whose error is [`BoxError`], which is every service above another layer of this crate. For other error types
/// write a function and call [`Decision::of_error`].
///
/// # Example
/// ```
/// use seawall::{Attempt, BoxError, Decision, RetryErrors, RetryPolicy};
///
/// #[derive(Clone)]
/// enum Request { Get, Increment }
///
/// let policy = RetryErrors::if_idempotent(|request: &Request| matches!(request, Request::Get));
/// let failed = Err::<(), BoxError>("connection reset".into());
/// assert_eq!(policy.decide(&Request::Get, &failed, Attempt::first()), Decision::retry());
/// assert_eq!(policy.decide(&Request::Increment, &failed, Attempt::first()), Decision::GiveUp);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RetryErrors<F> {
    idempotent: F,
}

impl RetryErrors<()> {
    /// For services all of whose requests may be applied twice.
    pub const fn all_idempotent() -> Self {
        Self { idempotent: () }
    }
}

impl<F> RetryErrors<F> {
    /// Requests for which `idempotent` is false are sent again only where the error says that they were never sent.
    pub const fn if_idempotent(idempotent: F) -> Self {
        Self { idempotent }
    }
}

impl<Request: Clone, Response> RetryPolicy<Request, Response, BoxError> for RetryErrors<()> {
    fn clone_request(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }

    fn decide(&self, _: &Request, result: &Result<Response, BoxError>, _: Attempt) -> Decision {
        result.as_ref().map_or_else(|error| Decision::of_error(&**error, true), |_| Decision::Accept)
    }
}

impl<F, Request, Response> RetryPolicy<Request, Response, BoxError> for RetryErrors<F>
where
    F: Fn(&Request) -> bool,
    Request: Clone,
{
    fn clone_request(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }

    fn decide(&self, request: &Request, result: &Result<Response, BoxError>, _: Attempt) -> Decision {
        let judge = |error: &BoxError| Decision::of_error(&**error, (self.idempotent)(request));
        result.as_ref().map_or_else(judge, |_| Decision::Accept)
    }
}

/// Marks an error that no further attempt would change.
///
/// # Example
/// ```
/// use seawall::{Decision, Permanent};
///
/// assert_eq!(Decision::of_error(&Permanent::new("no such account"), true), Decision::GiveUp);
/// ```
#[derive(Debug)]
pub struct Permanent(BoxError);

impl Permanent {
    /// Marks `error`.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }

    /// The error without its mark.
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "permanent: {}", self.0)
    }
}

impl Error for Permanent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// Marks an error that another attempt may change.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use seawall::{Decision, Transient};
///
/// let busy = Transient::new("busy").retry_after(Duration::from_secs(2));
/// assert_eq!(Decision::of_error(&busy, true), Decision::retry_after(Duration::from_secs(2)));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Transient {
    /// How long the server asked us to stay away. Default: `None`, it did not say.
    pub retry_after: Option<Duration>,
    /// No byte of the request was sent, so another attempt is safe though the request is not idempotent. Default: false.
    pub unsent: bool,
    error: BoxError,
}

impl Transient {
    /// Marks `error`.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { retry_after: None, unsent: false, error: error.into() }
    }

    /// The server asked us to stay away for `wait`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// No byte of the request was sent.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.unsent = true;
        self
    }

    /// The error without its mark.
    pub fn into_inner(self) -> BoxError {
        self.error
    }
}

impl fmt::Display for Transient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transient: {}", self.error)
    }
}

impl Error for Transient {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}

/// The last error of a call that was worth a retry, or had one, and why there is no further one.
///
/// The [`source`](Error::source) is the last error itself. An error which the policy gives up at the first attempt is not
/// wrapped: it never was a matter of retries.
#[derive(Debug)]
#[non_exhaustive]
pub struct GaveUp {
    /// The name given to the layer.
    pub name: Arc<str>,
    /// Why there is no further attempt.
    pub stop: Stop,
    /// Attempts that were made.
    pub attempts: u32,
    /// How long the call took, all attempts and waits included.
    pub elapsed: Duration,
    source: BoxError,
}

impl GaveUp {
    pub(super) fn new(name: Arc<str>, stop: Stop, attempts: u32, elapsed: Duration, source: BoxError) -> Self {
        Self { name, stop, attempts, elapsed, source }
    }

    /// The last error itself.
    pub fn into_source(self) -> BoxError {
        self.source
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, stop, attempts, elapsed, source } = self;
        write!(f, "retry \"{name}\" gave up after {attempts} attempts in {elapsed:?} ({stop}): {source}")
    }
}

impl Error for GaveUp {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    fn of(error: impl Error + 'static) -> Decision {
        Decision::of_error(&error, true)
    }

    #[test]
    fn a_refusal_is_not_retried_wherever_it_is_in_the_chain() {
        let open = || Rejected::new("circuit_breaker", "peer", Reason::Open);
        assert_eq!(of(open()), Decision::GiveUp);
        assert_eq!(of(Transient::new(open())), Decision::GiveUp);
    }

    #[test]
    fn retries_around_retries_do_not_multiply() {
        assert_eq!(
            of(GaveUp::new("inner".into(), Stop::Attempts, 3, Duration::ZERO, "reset".into())),
            Decision::GiveUp
        );
    }

    #[test]
    fn a_timeout_costs_more_and_a_callers_deadline_ends_it() {
        let elapsed = |limit| Elapsed::new(limit, Duration::ZERO, "peer");
        assert_eq!(of(elapsed(Limit::Attempt)), Decision::retry().cost(2));
        assert_eq!(of(elapsed(Limit::Ambient)), Decision::GiveUp);
    }

    #[test]
    fn what_is_not_idempotent_is_sent_again_only_if_it_was_never_sent() {
        let once = |error: Transient| Decision::of_error(&error, false);
        assert_eq!(once(Transient::new("reset")), Decision::GiveUp);
        assert_eq!(once(Transient::new("connection refused").unsent()), Decision::retry());
    }

    #[test]
    fn marks_keep_their_error() {
        assert_eq!(of(Permanent::new("no")), Decision::GiveUp);
        assert_eq!(Permanent::new("no").to_string(), "permanent: no");
        assert_eq!(Permanent::new("no").into_inner().to_string(), "no");
        assert_eq!(Transient::new("busy").source().unwrap().to_string(), "busy");
        assert_eq!(Transient::new("busy").to_string(), "transient: busy");
        assert_eq!(Transient::new("busy").into_inner().to_string(), "busy");
    }

    #[test]
    fn only_a_retry_has_a_cost() {
        assert_eq!(Decision::Accept.cost(5), Decision::Accept);
        assert_eq!(Decision::retry().cost(5), Decision::Retry { after: None, cost: 5 });
    }
}
