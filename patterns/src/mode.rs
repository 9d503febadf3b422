//! How seriously a layer takes its own decisions, and where its callers wait.

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

/// Where the callers of a limiting layer wait for their turn.
///
/// # Example
/// ```
/// use seawall::Waiting;
///
/// assert_eq!(Waiting::default(), Waiting::InCall);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Waiting {
    /// In the future of the call, which is refused where it may not wait. The service is as ready as the one below it.
    /// The default: whoever has a request in hand wants an answer within a bound.
    #[default]
    InCall,
    /// In readiness, for use under a balancer: the service is ready when it has reserved one unit for its next call, so
    /// that the balancer picks another endpoint meanwhile. Such a wait has no bound but the patience of its caller. Where
    /// there is no place to wait, or the limit is closed, the service is ready and the call is refused. A service that
    /// has asked, and is then neither polled nor called nor dropped, keeps the unit that it was granted from all others.
    InReadiness,
}
