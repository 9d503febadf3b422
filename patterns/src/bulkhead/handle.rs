//! The plain value a user holds.

use std::fmt;
use std::future::Future;

use super::PATTERN;
use super::config::{BulkheadConfig, Partition};
use super::future::{Acquire, Permit};
use super::layer::BulkheadLayer;
use crate::admission::{CallStats, Core, Run};
use crate::error::{BoxError, InvalidConfig, Rejected};
use crate::semaphore::{Place, Room, Rules, Units};
use crate::sync::{Arc, Mutex};

/// A bulkhead without tower, and the control of the layer that shares its state. Clones are the same bulkhead.
///
/// # Example
/// ```
/// use seawall::{BulkheadConfig, BulkheadHandle, Reason};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let bulkhead = BulkheadHandle::new(BulkheadConfig::new("geocoder", 2))?;
/// let found = bulkhead.run(async { Ok::<_, std::io::Error>("there") }).await?;
/// assert_eq!((found, bulkhead.available()), ("there", 2));
///
/// let (_one, _two) = (bulkhead.acquire().await?, bulkhead.acquire().await?);
/// assert_eq!(bulkhead.acquire().await.unwrap_err().reason, Reason::Full);
/// # Ok::<_, seawall::BoxError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct BulkheadHandle {
    pub(super) room: Arc<Room>,
    /// What a call takes that belongs to no other partition.
    pub(super) unit: Units,
    /// The names of the partitions, which do not change.
    names: Arc<[String]>,
    /// Guards the configuration in force, and lets one change be made at a time.
    config: Arc<Mutex<BulkheadConfig>>,
}

/// What became of the calls of a bulkhead, and how full it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadStats {
    /// What became of the calls.
    pub calls: CallStats,
    /// How many may be under way.
    pub max_in_flight: u32,
    /// How much room is taken; more than there is after that has shrunk, until enough calls have ended.
    pub in_use: u32,
    /// How many calls wait.
    pub waiting: usize,
    /// The same of each partition, in the order of the configuration; what is in none is the difference.
    pub partitions: Vec<PartitionStats>,
}

/// How full a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStats {
    /// Its name.
    pub name: String,
    /// The room that is kept for it.
    pub share: u32,
    /// The room that it takes; above its share, borrowed.
    pub in_use: u32,
    /// How many of its calls wait.
    pub waiting: usize,
}

impl BulkheadHandle {
    /// An empty bulkhead.
    ///
    /// # Errors
    /// The first field of `config` that is out of its bound.
    pub fn new(config: BulkheadConfig) -> Result<Self, InvalidConfig> {
        config.check()?;
        let room = Room::new(PATTERN, &config.name, config.mode, config.waiting, &rules(&config), config.max_wait);
        let names: Arc<[String]> = config.partitions.iter().map(|partition| partition.name.clone()).collect();
        Ok(Self {
            room: Arc::new(room),
            // The last compartment is for those of no partition.
            unit: Units { count: 1, compartment: names.len() as u32 },
            names,
            config: Arc::new(Mutex::new(config)),
        })
    }

    /// A layer whose services share this bulkhead.
    pub fn layer(&self) -> BulkheadLayer {
        BulkheadLayer::from(self.clone())
    }

    /// The same bulkhead, for calls of the partition called `name`; `None` if there is none.
    #[must_use]
    pub fn partition(&self, name: &str) -> Option<Self> {
        Some(Self { unit: self.unit_in(name)?, ..self.clone() })
    }

    /// What a call of `partition` takes.
    pub(super) fn unit_of(&self, partition: &str) -> Units {
        self.unit_in(partition).unwrap_or(self.unit)
    }

    fn unit_in(&self, partition: &str) -> Option<Units> {
        (0..)
            .zip(self.names.iter())
            .find(|(_, name)| *name == partition)
            .map(|(compartment, _)| Units { count: 1, compartment })
    }

    /// Takes room for one call if there is some and nobody waits for it.
    ///
    /// # Errors
    /// [`Rejected`]: full, closed, or never where all room is kept for others.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit, Rejected> {
        Permit::ask(&self.room, |room| room.try_take(self.unit))
    }

    /// Takes room for one call, or waits for it as far as it may, in line from the first poll on.
    ///
    /// # Errors
    /// [`Rejected`] with any reason named in the [module](super).
    ///
    /// # Cancellation
    /// Dropped, it leaves the line, and what it was granted in that moment goes to the next.
    pub fn acquire(&self) -> Acquire {
        Acquire::new(self.room.acquire(self.unit))
    }

    /// Runs `future` when there is room.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and `future` was not polled; else those of `future`.
    pub fn run<F, T, E>(&self, future: F) -> Run<F, Place>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        Run::new(self.room.acquire(self.unit), future)
    }

    /// How many calls would be admitted now, one after the other; 0 while others wait for the same room.
    pub fn available(&self) -> u32 {
        self.room.permits.available(self.unit.compartment)
    }

    /// What became of the calls, and how full it is.
    pub fn stats(&self) -> BulkheadStats {
        let permits = &self.room.permits;
        let partitions = (0..).zip(self.config.lock().partitions.clone());
        let full = |(compartment, Partition { name, share })| {
            let (in_use, waiting) = permits.compartment(compartment).unwrap_or_default();
            PartitionStats { name, share, in_use, waiting }
        };
        BulkheadStats {
            calls: self.room.account().stats(),
            max_in_flight: permits.limit(),
            in_use: permits.in_use(),
            waiting: permits.waiting(),
            partitions: partitions.map(full).collect(),
        }
    }

    /// The name that labels metrics, logs and refusals.
    pub fn name(&self) -> &str {
        self.room.account().name()
    }

    /// The configuration in force.
    pub fn config(&self) -> BulkheadConfig {
        self.config.lock().clone()
    }

    /// Changes the configuration whole, without waiting. After the room has shrunk nobody is admitted until enough calls
    /// have ended. A share that has grown is there as soon as room becomes free. Who stands in line stays
    /// there, with the wait it came for; where the mode refuses nobody any more it is let through.
    ///
    /// # Errors
    /// A field out of its bound, or a changed `name`, `waiting` or set of partitions; nothing was changed then.
    pub fn update(&self, config: BulkheadConfig) -> Result<(), InvalidConfig> {
        let mut current = self.config.lock();
        config.check()?;
        if config.name != current.name {
            return Err(InvalidConfig::new("name", config.name, "the name it was made with"));
        }
        if config.waiting != current.waiting {
            return Err(InvalidConfig::new("waiting", config.waiting, "what it was made with"));
        }
        if !config.partitions.iter().map(|partition| &partition.name).eq(self.names.iter()) {
            return Err(InvalidConfig::new("partitions", config.partitions, "named and ordered as it was made with"));
        }
        let before = self.room.set(config.mode, &rules(&config), config.max_wait);
        *current = config;
        // Not under the lock: whom this wakes may ask for the configuration.
        drop(current);
        self.room.settle(before);
        Ok(())
    }

    /// Refuses everybody from now on, those who wait included. Calls under way end as ever. There is no way back.
    pub fn close(&self) {
        self.room.close();
    }

    /// Whether it was [closed](Self::close).
    pub fn is_closed(&self) -> bool {
        self.room.permits.is_closed()
    }

    /// Resolves the metric handles again: for a recorder that was installed after the bulkhead was made.
    pub fn rebind_metrics(&self) {
        self.room.rebind_metrics();
    }
}

fn rules(config: &BulkheadConfig) -> Rules {
    let shares: Vec<_> = config.partitions.iter().map(|partition| partition.share).collect();
    Rules {
        limit: config.max_in_flight,
        max_waiting: config.max_waiting as usize,
        order: config.order,
        shares: if shares.is_empty() { shares } else { [shares, vec![0]].concat() },
    }
}

impl fmt::Debug for BulkheadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadHandle").field("name", &self.name()).field("available", &self.available()).finish()
    }
}
