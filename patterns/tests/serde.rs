//! Configurations as files: what was written is read back, a misspelt field is refused.

#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, in its helpers too")]

use std::time::Duration;

use seawall::circuit_breaker::{CancelPolicy, OnOpen, Window};
use seawall::sliding_window::Algorithm;
use seawall::{
    Backoff, CircuitBreakerConfig, Mode, RetryBudgetConfig, RetryConfig, SlidingWindowConfig, TimeoutConfig,
};
use serde::{Serialize, de::DeserializeOwned};

fn survives<C: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(config: C) {
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<C>(&text).unwrap(), config, "{text}");
    let misspelt = text.replacen('{', r#"{"misspelt":1,"#, 1);
    assert!(serde_json::from_str::<C>(&misspelt).is_err());
}

#[test]
fn a_configuration_survives_its_file() {
    let second = Duration::from_secs(1);
    survives(CircuitBreakerConfig::new("peer"));
    survives(
        CircuitBreakerConfig::new("peer")
            .window(Window::Calls(50))
            .failure_rate(None)
            .slow_calls(second, 0.25)
            .on_open(OnOpen::NotReady)
            .cancel(CancelPolicy::FailureAfter(second))
            .mode(Mode::Observe),
    );
    survives(RetryConfig::new("peer").backoff(Backoff::decorrelated(second)));
    survives(RetryBudgetConfig::new().ratio(0.5));
    survives(TimeoutConfig::total("peer", second));
    survives(SlidingWindowConfig::new("mail", 100, second));
    survives(SlidingWindowConfig::new("mail", 100, second).algorithm(Algorithm::Log).mode(Mode::Observe));
}

#[test]
fn what_a_file_leaves_out_has_its_default() {
    let breaker: CircuitBreakerConfig = serde_json::from_str(r#"{"name":"peer","probes":5}"#).unwrap();
    assert_eq!(breaker, CircuitBreakerConfig::new("peer").probes(5));
    let nameless: CircuitBreakerConfig = serde_json::from_str("{}").unwrap();
    assert_eq!(nameless.check().unwrap_err().field, "name");
    let text = r#"{"name":"mail","limit":9,"window":{"secs":60,"nanos":0}}"#;
    let window: SlidingWindowConfig = serde_json::from_str(text).unwrap();
    assert_eq!(window, SlidingWindowConfig::new("mail", 9, Duration::from_secs(60)));
    let retry: RetryConfig = serde_json::from_str(r#"{"name":"peer"}"#).unwrap();
    assert_eq!(retry, RetryConfig::new("peer"));
}
