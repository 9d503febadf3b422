//! Configurations as files: what was written is read back, a misspelt field is refused.

#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, in its helpers too")]

use std::time::Duration;

use seawall::circuit_breaker::{CancelPolicy, OnOpen, Window};
use seawall::keyed::{KeyedConfig, Quota};
use seawall::semaphore::Order;
use seawall::sliding_window::Algorithm;
use seawall::token_bucket::Rate;
use seawall::{
    Backoff, BulkheadConfig, CircuitBreakerConfig, Jitter, Mode, RetryBudgetConfig, RetryConfig, SemaphoreConfig,
    SlidingWindowConfig, TimeoutConfig, TokenBucketConfig, Waiting,
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
            .durations(true)
            .mode(Mode::Observe),
    );
    survives(RetryConfig::new("peer").backoff(Backoff::decorrelated(second)).durations(true));
    survives(RetryBudgetConfig::new().ratio(0.5));
    survives(TimeoutConfig::total("peer", second).durations(true));
    survives(SemaphoreConfig::new("db", 8).order(Order::Lifo).waiting(Waiting::InReadiness).mode(Mode::Observe));
    survives(BulkheadConfig::new("peer", 8).partition("reads", 2).max_waiting(3).order(Order::Lifo));
    survives(SlidingWindowConfig::new("mail", 100, second));
    let quota = Quota::token_bucket(Rate::per_second(10), 20);
    survives(KeyedConfig::new("clients", quota).global(quota).max_keys(9));
    survives(KeyedConfig::new("clients", Quota::sliding_window(10, second)));
    survives(TokenBucketConfig::new("peer", Rate::per_second(3), 5).max_waiting(7).mode(Mode::Observe));
    #[cfg(feature = "governor")]
    survives(seawall::adapters::governor::GovernorConfig::new("peer").max_cost(5).mode(Mode::Observe));
    survives(SlidingWindowConfig::new("mail", 100, second).algorithm(Algorithm::Log).mode(Mode::Observe));
}

fn read<C: DeserializeOwned>(text: &str) -> C {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_a_file_leaves_out_has_its_default() {
    assert_eq!(read::<CircuitBreakerConfig>(r#"{"name":"peer"}"#), CircuitBreakerConfig::new("peer"));
    let breaker: CircuitBreakerConfig = read(r#"{"name":"peer","probes":5}"#);
    assert_eq!(breaker, CircuitBreakerConfig::new("peer").probes(5));
    assert_eq!(read::<RetryConfig>(r#"{"name":"peer"}"#), RetryConfig::new("peer"));
    assert_eq!(read::<RetryBudgetConfig>("{}"), RetryBudgetConfig::new());
    assert_eq!(read::<Backoff>("{}"), Backoff::default());
    let timeout: TimeoutConfig = read(r#"{"name":"peer","limit":{"secs":2,"nanos":0},"scope":"attempt"}"#);
    assert_eq!(timeout, TimeoutConfig::attempt("peer", Duration::from_secs(2)));
    assert_eq!(read::<SemaphoreConfig>(r#"{"name":"peer","limit":8}"#), SemaphoreConfig::new("peer", 8));
    assert_eq!(read::<BulkheadConfig>(r#"{"name":"peer","max_in_flight":8}"#), BulkheadConfig::new("peer", 8));
    assert_eq!(read::<SemaphoreConfig>(r#"{"name":"peer"}"#).check().unwrap_err().field, "limit");
    assert_eq!(read::<BulkheadConfig>(r#"{"name":"peer"}"#).check().unwrap_err().field, "max_in_flight");
    let bucket = r#"{"name":"peer","rate":{"tokens":3,"per":{"secs":1,"nanos":0}},"burst":5}"#;
    assert_eq!(read::<TokenBucketConfig>(bucket), TokenBucketConfig::new("peer", Rate::per_second(3), 5));
    let window: SlidingWindowConfig = read(r#"{"name":"mail","limit":9,"window":{"secs":60,"nanos":0}}"#);
    assert_eq!(window, SlidingWindowConfig::new("mail", 9, Duration::from_secs(60)));
    let text = r#"{"name":"clients","per_key":{"sliding_window":{"limit":9,"window":{"secs":60,"nanos":0}}}}"#;
    let quota = Quota::sliding_window(9, Duration::from_secs(60));
    assert_eq!(read::<KeyedConfig>(text), KeyedConfig::new("clients", quota));
}

#[test]
fn what_has_no_default_must_be_there() {
    let nameless: CircuitBreakerConfig = read("{}");
    assert_eq!(nameless.check().unwrap_err().field, "name");
    let missing = |text| serde_json::from_str::<RetryConfig>(text).unwrap_err().to_string();
    assert!(missing("{}").contains("missing field `name`"));
    let missing = |text| serde_json::from_str::<TimeoutConfig>(text).unwrap_err().to_string();
    assert!(missing(r#"{"name":"peer","scope":"total"}"#).contains("missing field `limit`"));
}

#[test]
fn a_file_spells_durations_and_choices_like_this() {
    let breaker: CircuitBreakerConfig = read(
        r#"{
            "name": "peer",
            "mode": "observe",
            "window": { "time": { "secs": 30, "nanos": 0 } },
            "failure_rate": null,
            "slow_after": { "secs": 0, "nanos": 500000000 },
            "on_open": "not_ready",
            "cancel": { "failure_after": { "secs": 1, "nanos": 0 } }
        }"#,
    );
    let spelled = CircuitBreakerConfig::new("peer")
        .mode(Mode::Observe)
        .window(Window::Time(Duration::from_secs(30)))
        .failure_rate(None)
        .slow_calls(Duration::from_millis(500), breaker.slow_rate)
        .on_open(OnOpen::NotReady)
        .cancel(CancelPolicy::FailureAfter(Duration::from_secs(1)));
    assert_eq!(breaker, spelled);

    let retry: RetryConfig = read(
        r#"{
            "name": "peer",
            "backoff": {
                "growth": { "exponential": { "factor": 1.5 } },
                "base": { "secs": 0, "nanos": 20000000 },
                "jitter": { "fraction": 0.5 }
            }
        }"#,
    );
    let backoff = Backoff::exponential(Duration::from_millis(20)).factor(1.5).jitter(Jitter::Fraction(0.5));
    assert_eq!(retry, RetryConfig::new("peer").backoff(backoff));
}

#[test]
fn a_misspelt_field_inside_of_another_is_refused() {
    let retry = serde_json::from_str::<RetryConfig>(r#"{"name":"peer","backoff":{"bse":1}}"#).unwrap_err();
    assert!(retry.to_string().contains("unknown field `bse`"), "{retry}");
}
