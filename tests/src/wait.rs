//! Waiting for something to become true, with a bound.

use std::time::Duration;

use tokio::time::Instant;

/// Between two looks.
const ROUND: Duration = Duration::from_millis(20);

/// Looks until `poll` gives a value, for at most `limit`.
///
/// # Panics
///
/// With what `poll` said last, when it did not come true in time.
pub async fn eventually<T>(what: &str, limit: Duration, mut poll: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match poll().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > limit => panic!("{what}: not within {limit:?}; at last: {last}"),
            Err(_) => tokio::time::sleep(ROUND).await,
        }
    }
}

/// Measures a stretch of real time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
