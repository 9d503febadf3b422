//! The settings of a bulkhead, their defaults and their check.

use std::time::Duration;

use crate::error::InvalidConfig;
use crate::mode::{Mode, Waiting};
use crate::semaphore::{self, Order, check_waiting};

/// Nobody waits: while a dependency is slow a queue before it is full, and helps nobody.
pub const DEFAULT_MAX_WAITING: u32 = 0;
/// Where callers may wait: long enough for a burst to drain, and short against the timeout of an attempt.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_millis(100);

/// The most calls that may be under way: as the permits of a semaphore.
pub const MAX_IN_FLIGHT: u32 = semaphore::MAX_LIMIT;
/// The most partitions: whoever is next is looked for in each of them.
pub const MAX_PARTITIONS: usize = 16;

/// A kind of request, and the room that is kept for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Partition {
    /// What [`PartitionBy`](super::PartitionBy) calls it. Not changed live.
    pub name: String,
    /// How many calls always have room, at least 1.
    pub share: u32,
}

/// The settings of one bulkhead; also their builder.
///
/// # Example
/// ```
/// use seawall::BulkheadConfig;
///
/// let config = BulkheadConfig::new("peer/2", 32).partition("reads", 8).partition("writes", 16);
/// assert!(config.check().is_ok());
/// assert_eq!(config.partition("scans", 9).check().unwrap_err().field, "partitions");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default = "BulkheadConfig::unset")
)]
#[non_exhaustive]
pub struct BulkheadConfig {
    /// Labels metrics, logs and refusals. Required, and bounded in number. Not changed live.
    pub name: String,
    /// How many calls may be under way, 1 to [`MAX_IN_FLIGHT`]. Required.
    pub max_in_flight: u32,
    /// How many more may wait; with 0, a call that finds no room is refused at once. At most
    /// [`MAX_WAITING`](crate::semaphore::MAX_WAITING) for all partitions, each of which has as many places. Default
    /// [`DEFAULT_MAX_WAITING`].
    pub max_waiting: u32,
    /// How long each may wait, above 0 up to [`MAX_WAIT`](crate::semaphore::MAX_WAIT); the ambient deadline may end it
    /// sooner. Default [`DEFAULT_MAX_WAIT`].
    pub max_wait: Duration,
    /// Which of those who wait is next. Default [`Order::Fifo`].
    pub order: Order,
    /// Kinds of requests with room of their own, in sum no more than `max_in_flight`, at most [`MAX_PARTITIONS`]. Where
    /// the shares are all there is, requests of no partition are refused as never. Default none. Their shares can be
    /// changed live.
    pub partitions: Vec<Partition>,
    /// Where callers of the layer wait; in readiness only without partitions. Default [`Waiting::InCall`]. Not changed
    /// live.
    pub waiting: Waiting,
    /// Whether refusals happen. Where they do not, nobody waits either. Default [`Mode::Enforce`].
    pub mode: Mode,
}

impl BulkheadConfig {
    /// Room for `max_in_flight` calls and the defaults, under `name`.
    pub fn new(name: impl Into<String>, max_in_flight: u32) -> Self {
        Self { name: name.into(), max_in_flight, ..Self::unset() }
    }

    /// The defaults without what a configuration file must give: an empty name and no room are refused.
    fn unset() -> Self {
        Self {
            name: String::new(),
            max_in_flight: 0,
            max_waiting: DEFAULT_MAX_WAITING,
            max_wait: DEFAULT_MAX_WAIT,
            order: Order::Fifo,
            partitions: Vec::new(),
            waiting: Waiting::InCall,
            mode: Mode::Enforce,
        }
    }

    /// Sets [`max_in_flight`](Self::max_in_flight).
    #[must_use]
    pub fn max_in_flight(self, max_in_flight: u32) -> Self {
        Self { max_in_flight, ..self }
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

    /// Sets [`order`](Self::order).
    #[must_use]
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// Sets the share of a [partition](Self::partitions), or adds it.
    #[must_use]
    pub fn partition(mut self, name: impl Into<String>, share: u32) -> Self {
        let name = name.into();
        match self.partitions.iter_mut().find(|partition| partition.name == name) {
            Some(partition) => partition.share = share,
            None => self.partitions.push(Partition { name, share }),
        }
        self
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
        if !(1..=MAX_IN_FLIGHT).contains(&self.max_in_flight) {
            return Err(InvalidConfig::new("max_in_flight", self.max_in_flight, "1 to 1073741823"));
        }
        self.check_partitions()?;
        let lines = if self.partitions.is_empty() { 1 } else { self.partitions.len() as u32 + 1 };
        if self.max_waiting > semaphore::MAX_WAITING / lines {
            return Err(InvalidConfig::new("max_waiting", self.max_waiting, "at most 1048576 for all partitions"));
        }
        check_waiting(self.max_waiting, self.max_wait, self.waiting)
    }

    fn check_partitions(&self) -> Result<(), InvalidConfig> {
        let bad = |bound| Err(InvalidConfig::new("partitions", &self.partitions, bound));
        if self.partitions.len() > MAX_PARTITIONS {
            return bad("at most 16");
        }
        if self.partitions.iter().any(|partition| partition.name.is_empty() || partition.share == 0) {
            return bad("named, with a share of at least 1");
        }
        let same_name = |(index, partition): (usize, &Partition)| {
            self.partitions.iter().take(index).any(|before| before.name == partition.name)
        };
        if self.partitions.iter().enumerate().any(same_name) {
            return bad("of different names");
        }
        if self.partitions.iter().map(|partition| u64::from(partition.share)).sum::<u64>() > self.max_in_flight.into() {
            return bad("in sum no more than max_in_flight");
        }
        if !self.partitions.is_empty() && self.waiting == Waiting::InReadiness {
            return Err(InvalidConfig::new("waiting", self.waiting, "in the call where there are partitions"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named() {
        let good = || BulkheadConfig::new("peer", 8);
        assert_eq!(good().partition("a", 4).partition("b", 4).check(), Ok(()));
        let twice = Partition { name: "a".to_owned(), share: 1 };
        let many = (0..17).fold(good().max_in_flight(99), |config, number| config.partition(number.to_string(), 1));
        for (field, bad) in [
            ("name", BulkheadConfig::new("", 8)),
            ("max_in_flight", good().max_in_flight(0)),
            ("max_in_flight", good().max_in_flight(MAX_IN_FLIGHT + 1)),
            ("max_waiting", good().max_waiting(semaphore::MAX_WAITING + 1)),
            ("max_waiting", good().partition("a", 1).max_waiting(semaphore::MAX_WAITING / 2 + 1)),
            ("max_waiting", good().waiting(Waiting::InReadiness)),
            ("max_wait", good().max_wait(Duration::ZERO)),
            ("max_wait", good().max_wait(semaphore::MAX_WAIT * 2)),
            ("partitions", good().partition("a", 0)),
            ("partitions", good().partition("", 1)),
            ("partitions", good().partition("a", 8).partition("b", 1)),
            ("partitions", good().partition("a", u32::MAX).partition("b", u32::MAX)),
            ("partitions", BulkheadConfig { partitions: vec![twice.clone(), twice], ..good() }),
            ("partitions", many),
            ("waiting", good().max_waiting(1).waiting(Waiting::InReadiness).partition("a", 1)),
        ] {
            assert_eq!(bad.check().unwrap_err().field, field, "{bad:?}");
        }
    }
}
