//! How seriously a layer takes its own decisions.

/// What a layer that may refuse does with its decisions.
///
/// # Example
/// ```
/// use seawall::Mode;
///
/// assert_eq!(Mode::default(), Mode::Enforce);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Mode {
    /// Decide and refuse. The default: a layer that was added should act.
    #[default]
    Enforce,
    /// Decide, count and log as if enforcing, but let every call through: to try limits on live traffic.
    Observe,
    /// Let every call through and decide nothing.
    Disabled,
}

impl Mode {
    /// The word in metrics, logs and configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Disabled => "disabled",
        }
    }
}
