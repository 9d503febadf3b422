//! Foreign delays on a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::{BoxError, Deadline, GaveUp, RetryBudget, RetryBudgetConfig, RetryConfig, RetryHandle, Stop, find};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Ten attempts and a budget that affords them.
fn retries() -> RetryHandle {
    let ample = RetryBudget::new(RetryBudgetConfig::new().floor_per_second(100.0)).unwrap();
    RetryHandle::with_budget(RetryConfig::new("peer").max_attempts(10), ample).unwrap()
}

/// When the attempts of a call that always fails are made, in milliseconds from its start, and what ends it.
async fn failing(retries: &RetryHandle) -> (Vec<u128>, Stop) {
    let started = Instant::now();
    let at = Arc::new(Mutex::new(Vec::new()));
    let noted = at.clone();
    let error = retries
        .call(move || {
            noted.lock().unwrap().push(started.elapsed().as_millis());
            async { Err::<(), BoxError>("down".into()) }
        })
        .await
        .unwrap_err();
    let at = at.lock().unwrap().clone();
    (at, find::<GaveUp>(&*error).unwrap().stop)
}

#[cfg(feature = "backoff")]
mod of_backoff {
    use ::backoff::backoff::{Backoff, Constant};
    use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

    use super::*;
    use crate::adapters::backoff::{Delays, delays};

    /// 100 ms and doubling, without jitter.
    fn doubling() -> ExponentialBackoff {
        ExponentialBackoffBuilder::new()
            .with_initial_interval(ms(100))
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .build()
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_starts_from_the_first_delay() {
        let mut advanced = doubling();
        advanced.next_backoff();
        let retries = retries().delays(delays(advanced));
        retries.update(retries.config().max_attempts(4)).unwrap();
        for _ in 0..2 {
            assert_eq!(failing(&retries).await, (vec![0, 100, 300, 700], Stop::Attempts));
        }
        assert_eq!((retries.stats().stopped.attempts, retries.stats().retries), (2, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_that_stops_ends_the_call() {
        let retries = retries().delays(|| Delays::new(::backoff::backoff::Stop {}));
        assert_eq!(failing(&retries).await, (vec![0], Stop::Exhausted));
        assert_eq!(retries.stats().stopped.exhausted, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_elapsed_time_and_budget_hold_besides() {
        let minutes = || Delays::new(Constant::new(ms(60_000)));
        let foreign = retries().delays(minutes);
        assert_eq!(failing(&foreign).await, (vec![0], Stop::Elapsed), "30 s by default");

        let deadline = Deadline::after(ms(250)).scope(async { failing(&retries().delays(delays(doubling()))).await });
        assert_eq!(deadline.await, (vec![0, 100], Stop::Deadline));

        let broke = RetryBudget::new(RetryBudgetConfig::new().ratio(0.0).floor_per_second(0.0)).unwrap();
        let broke = RetryHandle::with_budget(RetryConfig::new("peer"), broke).unwrap().delays(delays(doubling()));
        assert_eq!(failing(&broke).await, (vec![0], Stop::Budget));
    }
}

#[cfg(feature = "backon")]
mod of_backon {
    use ::backon::{ConstantBuilder, FibonacciBuilder};

    use super::*;
    use crate::adapters::backon::delays;

    #[tokio::test(start_paused = true)]
    async fn every_call_has_a_sequence_of_its_own_until_it_ends() {
        let builder = FibonacciBuilder::default().with_min_delay(ms(100)).with_max_times(3);
        let retries = retries().delays(delays(builder));
        for _ in 0..2 {
            assert_eq!(failing(&retries).await, (vec![0, 100, 200, 400], Stop::Exhausted));
        }
        assert_eq!(retries.stats().stopped.exhausted, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sequence_without_an_end_is_ended_by_our_limits() {
        let endless = || delays(ConstantBuilder::default().with_delay(ms(100)).without_max_times());
        assert_eq!(failing(&retries().delays(endless())).await.1, Stop::Attempts);

        let deadline = Deadline::after(ms(250)).scope(async { failing(&retries().delays(endless())).await });
        assert_eq!(deadline.await, (vec![0, 100, 200], Stop::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sequence_is_a_builder_of_itself() {
        let retries = retries().delays(delays([ms(70), ms(30)].into_iter()));
        assert_eq!(failing(&retries).await, (vec![0, 70, 100], Stop::Exhausted));
    }
}
