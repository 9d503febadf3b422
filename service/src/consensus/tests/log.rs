//! The log under damage.
