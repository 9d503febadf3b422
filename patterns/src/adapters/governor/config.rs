//! The settings around a limiter of governor, their defaults and their check.

use crate::error::InvalidConfig;
use crate::mode::Mode;

/// Every call costs the same unless somebody has said what the costliest may.
pub const DEFAULT_MAX_COST: u32 = 1;

/// The settings around a limiter of governor; also their builder. The quota is the limiter's own.
///
/// # Example
/// ```
/// use seawall::adapters::governor::GovernorConfig;
///
/// let config = GovernorConfig::new("search").max_cost(50);
/// assert!(config.check().is_ok());
/// assert_eq!(config.max_cost(0).check().unwrap_err().field, "max_cost");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct GovernorConfig {
    /// Labels metrics and refusals. Required, and bounded in number. Not changed live.
    pub name: String,
    /// What one call may cost; one that costs more is refused as never, and governor is not asked. At least 1, and no more
    /// than the burst of the quota, which only its owner can check. Default [`DEFAULT_MAX_COST`].
    #[cfg_attr(feature = "serde", serde(default = "default_max_cost"))]
    pub max_cost: u32,
    /// Whether refusals happen. Default [`Mode::Enforce`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub mode: Mode,
}

#[cfg(feature = "serde")]
const fn default_max_cost() -> u32 {
    DEFAULT_MAX_COST
}

impl GovernorConfig {
    /// Every field at its default, under `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), max_cost: DEFAULT_MAX_COST, mode: Mode::Enforce }
    }

    /// Sets [`max_cost`](Self::max_cost).
    #[must_use]
    pub fn max_cost(self, max_cost: u32) -> Self {
        Self { max_cost, ..self }
    }

    /// Sets [`mode`](Self::mode).
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// [`InvalidConfig`] with the first field that is not.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.name.is_empty() {
            return Err(InvalidConfig::new("name", &self.name, "not empty"));
        }
        if self.max_cost == 0 {
            return Err(InvalidConfig::new("max_cost", self.max_cost, "at least 1"));
        }
        Ok(())
    }
}
