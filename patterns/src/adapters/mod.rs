//! Policies of other crates in the place of ours, each behind a feature of the crate's name, off by default.
//!
//! | crate | supplies | feature |
//! |---|---|---|
//! | `backoff` | the delays of [`retry`](mod@crate::retry) | `backoff` |
//! | `backon` | the delays of [`retry`](mod@crate::retry) | `backon` |
//! | `governor` | the decisions of [`token_bucket`](crate::token_bucket) or [`keyed`](crate::keyed) | `governor` |
//!
//! A foreign policy of a retry says only how long to wait. How often, until when and at whose cost stays with [`RetryConfig`] and the
//! [`RetryBudget`]; where the policy itself has no further delay, the call gives up with [`Stop::Exhausted`]. Every call gets a
//! sequence of its own.
//!
//! [`RetryConfig`]: crate::RetryConfig
//! [`RetryBudget`]: crate::RetryBudget
//! [`Stop::Exhausted`]: crate::Stop::Exhausted

#[cfg(feature = "backoff")]
pub mod backoff;
#[cfg(feature = "backon")]
pub mod backon;
#[cfg(feature = "governor")]
pub mod governor;

#[cfg(test)]
#[cfg(any(feature = "backoff", feature = "backon"))]
mod tests;
