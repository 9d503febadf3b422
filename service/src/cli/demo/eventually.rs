//! Waiting for something to become true, never without a limit.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks. Short against an election, long against a request.
const PAUSE: Duration = Duration::from_millis(25);

/// Calls `poll` until it gives something, and returns that and the time it took.
///
/// # Errors
///
/// After `limit`: `what`, and what the last look saw. A look that takes longer is cut off.
pub(super) async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut poll: impl AsyncFnMut() -> Result<T, String>,
) -> Result<(T, Duration), String> {
    let start = Instant::now();
    let end = start + limit;
    let mut seen = "no answer".to_owned();
    loop {
        match timeout_at(end, poll()).await {
            Ok(Ok(value)) => return Ok((value, start.elapsed())),
            Ok(Err(other)) => seen = other,
            Err(_) => return Err(format!("{what}: not within {limit:?}, last seen: {seen}")),
        }
        if Instant::now() >= end {
            return Err(format!("{what}: not within {limit:?}, last seen: {seen}"));
        }
        // With the last pause the limit may pass; one more look decides, and is cut off at once if it has to wait.
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_with_the_first_look_that_succeeds() {
        let mut looks = 0;
        let poll = async || {
            looks += 1;
            if looks == 3 { Ok("there") } else { Err("not there".to_owned()) }
        };
        let (value, after) = eventually("it", Duration::from_secs(1), poll).await.unwrap();
        assert_eq!((value, after), ("there", 2 * PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn ends_at_the_limit_with_what_was_seen() {
        let start = Instant::now();
        let limit = Duration::from_secs(1);
        let poll = async || -> Result<(), String> { Err("a wall".to_owned()) };
        let error = eventually("it", limit, poll).await.unwrap_err();
        assert!(error.contains("it: not within 1s, last seen: a wall"), "{error}");
        assert!(start.elapsed() <= limit + PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_cut_off() {
        let poll = async || std::future::pending::<Result<(), String>>().await;
        assert!(eventually("it", Duration::from_secs(1), poll).await.is_err());
    }
}
