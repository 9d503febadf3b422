//! The settings of a semaphore, their defaults and their check.

use std::time::Duration;

use crate::error::InvalidConfig;
use crate::mode::{Mode, Waiting};

/// Who waits longest is next: nobody starves.
pub const DEFAULT_ORDER: Order = Order::Fifo;
/// Enough for a burst; beyond it the wait would be longer than most callers have patience.
pub const DEFAULT_MAX_WAITING: u32 = 1_024;
/// A second is longer than a healthy queue takes, and shorter than most timeouts of a caller.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(1);

/// The largest limit: 2³⁰ − 1, so that limit and use fit one word.
pub const MAX_LIMIT: u32 = (1 << 30) - 1;
/// The longest queue, 2²⁰: its places are allocated from the start, some 80 bytes each.
pub const MAX_WAITING: u32 = 1 << 20;
/// The longest wait: 30 days; sums of time stay far from overflow.
pub const MAX_WAIT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Which of those who wait is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Order {
    /// Who came first. The default: fair, and right while queues are short.
    #[default]
    Fifo,
    /// Who came last. For overload: when all cannot be served in time, serve those whose callers still wait, and let the
    /// oldest run into [`max_wait`](SemaphoreConfig::max_wait).
    Lifo,
}

/// The settings of one semaphore; also their builder.
///
/// # Example
/// ```
/// use seawall::semaphore::{Order, SemaphoreConfig};
/// use std::time::Duration;
///
/// let config = SemaphoreConfig::new("thumbnails", 8).max_waiting(100).max_wait(Duration::from_millis(200));
/// assert!(config.check().is_ok());
/// assert_eq!(config.limit(0).check().unwrap_err().field, "limit");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default = "SemaphoreConfig::unset")
)]
#[non_exhaustive]
pub struct SemaphoreConfig {
    /// Labels metrics, logs and refusals. Required, and bounded in number. Not changed live.
    pub name: String,
    /// How many permits there are, 1 to [`MAX_LIMIT`]. Required: only the owner knows what is behind it.
    pub limit: u32,
    /// Who is next. Default [`DEFAULT_ORDER`].
    pub order: Order,
    /// How many may wait, up to [`MAX_WAITING`]; with 0, who finds no permit is refused at once. Default
    /// [`DEFAULT_MAX_WAITING`].
    pub max_waiting: u32,
    /// How long each may wait, above 0 up to [`MAX_WAIT`]; the ambient deadline may end it sooner. Default
    /// [`DEFAULT_MAX_WAIT`].
    pub max_wait: Duration,
    /// Where callers of the layer wait. Default [`Waiting::InCall`]. Not changed live.
    pub waiting: Waiting,
    /// Whether refusals happen. Where they do not, nobody waits either. Default [`Mode::Enforce`].
    pub mode: Mode,
}

impl SemaphoreConfig {
    /// `limit` permits and the defaults, under `name`.
    pub fn new(name: impl Into<String>, limit: u32) -> Self {
        Self { name: name.into(), limit, ..Self::unset() }
    }

    /// The defaults without what a configuration file must give: an empty name and no permits are refused.
    fn unset() -> Self {
        Self {
            name: String::new(),
            limit: 0,
            order: DEFAULT_ORDER,
            max_waiting: DEFAULT_MAX_WAITING,
            max_wait: DEFAULT_MAX_WAIT,
            waiting: Waiting::InCall,
            mode: Mode::Enforce,
        }
    }

    /// Sets [`limit`](Self::limit).
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit, ..self }
    }

    /// Sets [`order`](Self::order).
    #[must_use]
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// Sets [`max_waiting`](Self::max_waiting).
    #[must_use]
    pub fn max_waiting(self, max_waiting: u32) -> Self {
        Self { max_waiting, ..self }
    }

    /// Sets [`max_wait`](Self::max_wait).
    #[must_use]
    pub fn max_wait(self, max_wait: Duration) -> Self {
        Self { max_wait, ..self }
    }

    /// Sets [`waiting`](Self::waiting).
    #[must_use]
    pub fn waiting(self, waiting: Waiting) -> Self {
        Self { waiting, ..self }
    }

    /// Sets [`mode`](Self::mode).
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its bound.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", &self.name, "a non-empty name"));
        }
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            return Err(InvalidConfig::new("limit", self.limit, "1 to 1073741823"));
        }
        check_waiting(self.max_waiting, self.max_wait, self.waiting)
    }
}

/// Checks how many wait, how long and where.
pub(crate) fn check_waiting(max_waiting: u32, max_wait: Duration, waiting: Waiting) -> Result<(), InvalidConfig> {
    if max_waiting > MAX_WAITING {
        return Err(InvalidConfig::new("max_waiting", max_waiting, "at most 1048576"));
    }
    if max_waiting == 0 && waiting == Waiting::InReadiness {
        return Err(InvalidConfig::new("max_waiting", max_waiting, "at least 1 where callers wait in readiness"));
    }
    if max_wait.is_zero() || max_wait > MAX_WAIT {
        return Err(InvalidConfig::new("max_wait", max_wait, "above 0 and at most 30 days"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named() {
        let good = || SemaphoreConfig::new("db", 1);
        assert_eq!(good().check(), Ok(()));
        for (field, bad) in [
            ("name", SemaphoreConfig::new("", 1)),
            ("limit", good().limit(0)),
            ("limit", good().limit(MAX_LIMIT + 1)),
            ("max_waiting", good().max_waiting(MAX_WAITING + 1)),
            ("max_waiting", good().max_waiting(0).waiting(Waiting::InReadiness)),
            ("max_wait", good().max_wait(Duration::ZERO)),
            ("max_wait", good().max_wait(MAX_WAIT + Duration::from_nanos(1))),
        ] {
            assert_eq!(bad.check().unwrap_err().field, field);
        }
        assert!(good().limit(MAX_LIMIT).max_waiting(MAX_WAITING).max_wait(MAX_WAIT).check().is_ok());
    }
}
