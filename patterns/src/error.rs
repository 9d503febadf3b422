//! The errors every pattern shares: a refusal, a timer that fired, a bad configuration.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The error of every layer that may wait or refuse.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// A layer refused the call: **the inner service was never called**.
///
/// # Example
/// ```
/// use seawall::{Reason, Rejected};
///
/// let error: seawall::BoxError = Rejected::new("circuit_breaker", "peer/2", Reason::Open).into();
/// let rejected = Rejected::find(&*error).unwrap();
/// assert_eq!(rejected.reason, Reason::Open);
/// assert_eq!(rejected.to_string(), "circuit_breaker \"peer/2\" refused the call: open");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The pattern that refused, as in the metrics: `circuit_breaker`, `timeout`.
    pub pattern: &'static str,
    /// The name given to the layer.
    pub name: std::sync::Arc<str>,
    /// Why.
    pub reason: Reason,
    /// How long until a call may be admitted; exact where the core knows it, `None` where nobody does.
    pub retry_after: Option<Duration>,
}

/// Why a call was refused. "Not now" and "never" are different reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The circuit breaker is open.
    Open,
    /// The circuit breaker is half-open and all its probes are under way.
    Probing,
    /// The circuit breaker was forced open by hand.
    ForcedOpen,
    /// The wait would not end before the deadline, or the deadline has passed already.
    Deadline,
    /// As many calls are under way as may be, and this one may not wait.
    Full,
    /// As many calls are under way as may be, and as many wait as may.
    QueueFull,
    /// The call waited for its turn as long as it may.
    MaxWait,
    /// The rate is used up for now.
    Limited,
    /// The rate of all clients together is used up for now; that of this one is not.
    LimitedGlobally,
    /// There is no place for another client while those that are known have calls to account for.
    TooManyKeys,
    /// The call asks for more than there is even when nobody else calls: no wait helps.
    Never,
    /// Closed by hand: nothing is admitted any more.
    Closed,
}

impl Reason {
    /// The word in metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Probing => "probing",
            Self::ForcedOpen => "forced_open",
            Self::Deadline => "deadline",
            Self::Full => "full",
            Self::QueueFull => "queue_full",
            Self::MaxWait => "max_wait",
            Self::Limited => "limited",
            Self::LimitedGlobally => "limited_globally",
            Self::TooManyKeys => "too_many_keys",
            Self::Never => "never",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a limit says no, before the pattern and its name are added: what the core of a limit answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// How long until the call may be admitted, where the core knows it.
    pub retry_after: Option<Duration>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None }
    }
}

impl Rejected {
    /// A refusal by `pattern`, in the layer called `name`, without a hint when to come back.
    pub fn new(pattern: &'static str, name: impl Into<std::sync::Arc<str>>, reason: Reason) -> Self {
        Self { pattern, name: name.into(), reason, retry_after: None }
    }

    /// Says when a call may be admitted.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The refusal in `error` or among its sources.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        find(error)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\" refused the call: {}", self.pattern, self.name, self.reason)?;
        match self.retry_after {
            Some(after) => write!(f, ", retry after {after:?}"),
            None => Ok(()),
        }
    }
}

impl Error for Rejected {}

/// A timer fired after the inner service had been called: **the outcome of the call is unknown**.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elapsed {
    /// Whose limit it was.
    pub limit: Limit,
    /// How long the call had been running.
    pub after: Duration,
    /// The name given to the layer.
    pub name: std::sync::Arc<str>,
}

/// Which limit a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// The timeout of one attempt.
    Attempt,
    /// The timeout of the whole call, retries included.
    Total,
    /// The deadline of whoever called us.
    Ambient,
}

impl Limit {
    /// The word in metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Total => "total",
            Self::Ambient => "ambient",
        }
    }
}

impl Elapsed {
    /// The timer of `limit` fired in the layer called `name` when the call had run `after`.
    pub fn new(limit: Limit, after: Duration, name: impl Into<std::sync::Arc<str>>) -> Self {
        Self { limit, after, name: name.into() }
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timeout \"{}\": {} limit reached after {:?}", self.name, self.limit.as_str(), self.after)
    }
}

impl Error for Elapsed {}

/// A configuration was refused, whole: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidConfig {
    /// The field, as it is spelled in the configuration struct.
    pub field: &'static str,
    /// The value that was given.
    pub value: String,
    /// What would have been accepted.
    pub bound: &'static str,
}

impl InvalidConfig {
    /// `field` was `value`, which is not within `bound`.
    pub fn new(field: &'static str, value: impl fmt::Debug, bound: &'static str) -> Self {
        Self { field, value: format!("{value:?}"), bound }
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, but must be {}", self.field, self.value, self.bound)
    }
}

impl Error for InvalidConfig {}

/// The first error of type `E` in `error` or among its sources.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
