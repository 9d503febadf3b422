//! The contract of the layers: the same rules for each of them, and layers that break each rule.
//!
//! A layer joins with one line in [`contract!`]. A layer that has several states stands there once for each.
//!
//! Where calls wait and are then admitted, the line says so with [`Subject::waits`]: every rule then lets each call stand in
//! line first. The rules of the line itself have nothing to say of a layer that admits or refuses at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod faults;
mod queue;
mod rules;
mod subject;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ::governor::RateLimiter;
use ::governor::state::keyed::HashMapStateStore;
use queue::Queue;
use rules::{Kept, Make, RULES};
use seawall::adapters::governor::{
    Clock, Direct, DirectLimiter, GovernorConfig, GovernorHandle, GovernorLayer, Keyed, KeyedLimiter, OneForAll,
    keyed_limiter,
};
use seawall::circuit_breaker::{CircuitBreakerConfig, CircuitBreakerLayer, OnOpen, Outcome};
use seawall::keyed::{KeyedConfig, KeyedLayer, Quota};
use seawall::semaphore::Order;
use seawall::sliding_window::{Algorithm, DEFAULT_ALGORITHM};
use seawall::token_bucket::Rate;
use seawall::{
    Backoff, BulkheadConfig, BulkheadLayer, Mode, RetryConfig, RetryErrors, RetryLayer, SemaphoreConfig,
    SemaphoreLayer, SlidingWindowConfig, SlidingWindowLayer, TimeoutConfig, TimeoutLayer, TokenBucketConfig,
    TokenBucketLayer, Waiting,
};
use seawall_tests::say;
use subject::Subject;
use tower::ServiceBuilder;

const MS: Duration = Duration::from_millis(1);

macro_rules! contract {
    ($($layer:ident: $subject:expr,)*) => {
        $(
            #[test]
            fn $layer() {
                keeps_the_contract(stringify!($layer), &|| $subject);
            }
        )*
    };
}

contract! {
    timeout: Subject::of(timeout_layer(), |layer| layer.handle().stats().in_flight),
    timeout_after_the_deadline: Subject::of(timeout_layer(), |l| l.handle().stats().in_flight).late().refuses(),
    breaker_closed: Subject::of(breaker(config()), |layer| layer.handle().stats().in_flight),
    breaker_open: Subject::of(opened(config().open_for(HOUR)), |l| l.handle().stats().in_flight).refuses(),
    breaker_half_open: Subject::of(opened(config()), |layer| layer.handle().stats().in_flight).after(MS),
    breaker_closed_under_a_balancer: Subject::of(breaker(balanced()), |layer| layer.handle().stats().in_flight),
    breaker_half_open_under_a_balancer: Subject::of(opened(balanced()), |l| l.handle().stats().in_flight).after(MS),
    breaker_waits_in_readiness_then_admits: {
        let layer = breaker(balanced().consecutive_failures(1));
        let breaker = layer.handle();
        Subject::of(layer, |layer| layer.handle().stats().in_flight)
            .waits(Waiting::InReadiness, MS, move || breaker.admit().map(|probe| probe.finish(Outcome::Failure)))
    },
    retry: Subject::of(retry_layer(), |layer| layer.handle().stats().in_flight),
    retry_of_a_failure: Subject::of(retry_layer(), |layer| layer.handle().stats().in_flight).attempts(2),
    semaphore: Subject::of(semaphore_layer(permits(4)), |layer| layer.handle().stats().calls.in_flight),
    semaphore_full: full(permits(1).max_waiting(0)),
    semaphore_waiting: full(permits(1).max_wait(20 * MS)),
    semaphore_waits_then_admits: one_permit(permits(1).max_wait(DAY)),
    semaphore_waits_for_the_newest_then_admits: one_permit(permits(1).max_wait(DAY).order(Order::Lifo)).newest_first(),
    semaphore_waits_in_readiness_then_admits: one_permit(permits(1).waiting(Waiting::InReadiness)),
    semaphore_waits_for_most_permits: {
        let layer = semaphore_layer(permits(4).max_wait(DAY)).cost(|_: &u64| 3_u32).unwrap();
        let semaphore = layer.handle();
        Subject::of(layer, |layer| layer.handle().stats().calls.in_flight)
            .waits(Waiting::InCall, Duration::ZERO, move || semaphore.try_acquire_many(3))
    },
    semaphore_closed: {
        let layer = semaphore_layer(permits(4));
        layer.handle().close();
        Subject::of(layer, |layer| layer.handle().stats().calls.in_flight).refuses()
    },
    semaphore_full_observed: Subject::of(
        held(permits(1).mode(Mode::Observe)),
        |layer| layer.handle().stats().calls.in_flight - 1,
    ),
    semaphore_in_readiness: Subject::of(
        semaphore_layer(permits(4).waiting(Waiting::InReadiness)),
        |layer| layer.handle().stats().calls.in_flight,
    ),
    token_bucket: Subject::of(bucket_layer(tokens(100)), |layer| layer.handle().stats().calls.in_flight),
    token_bucket_empty: drained(tokens(1)).refuses(),
    token_bucket_empty_observed: drained(tokens(1).mode(Mode::Observe)),
    token_bucket_waiting_too_long: drained(tokens(1).max_waiting(4).max_wait(20 * MS)).refuses(),
    token_bucket_waits_then_admits: one_token(frequent().max_wait(DAY)),
    token_bucket_waits_in_readiness_then_admits: one_token(frequent().waiting(Waiting::InReadiness)),
    token_bucket_in_readiness: Subject::of(
        bucket_layer(tokens(200).max_waiting(4).waiting(Waiting::InReadiness)),
        |layer| layer.handle().stats().calls.in_flight
    ),
    sliding_window: Subject::of(window_layer(100, DEFAULT_ALGORITHM), |l| l.handle().stats().calls.in_flight),
    sliding_window_log: Subject::of(window_layer(100, Algorithm::Log), |l| l.handle().stats().calls.in_flight),
    sliding_window_used_up: Subject::of(used_up(), |layer| layer.handle().stats().calls.in_flight).refuses(),
    bulkhead: Subject::of(bulkhead_layer(room(4)), |layer| layer.handle().stats().calls.in_flight),
    bulkhead_partition: Subject::of(
        bulkhead_layer(room(4).partition("writes", 3)).partition(|_: &u64| "writes").unwrap(),
        |layer| layer.handle().stats().calls.in_flight,
    ),
    bulkhead_full: Subject::of(occupied(room(1)), |l| l.handle().stats().calls.in_flight - 1).refuses(),
    bulkhead_closed: {
        let layer = bulkhead_layer(room(4));
        layer.handle().close();
        Subject::of(layer, |layer| layer.handle().stats().calls.in_flight).refuses()
    },
    bulkhead_waiting: {
        let layer = occupied(room(1).max_waiting(99).max_wait(20 * MS));
        Subject::of(layer, |layer| layer.handle().stats().calls.in_flight - 1).refuses()
    },
    bulkhead_partition_waits_then_admits: {
        let layer = bulkhead_layer(room(2).partition("reads", 1).partition("writes", 1).max_waiting(99).max_wait(DAY));
        let writes = layer.handle().partition("writes").unwrap();
        Subject::of(layer.partition(|_: &u64| "writes").unwrap(), |layer| layer.handle().stats().calls.in_flight)
            .waits(Waiting::InCall, Duration::ZERO, move || writes.try_acquire())
    },
    bulkhead_waits_then_admits: one_place(room(1).max_waiting(99).max_wait(DAY)),
    bulkhead_waits_in_readiness_then_admits: one_place(room(1).max_waiting(99).waiting(Waiting::InReadiness)),
    bulkhead_in_readiness: Subject::of(
        bulkhead_layer(room(4).max_waiting(99).waiting(Waiting::InReadiness)),
        |layer| layer.handle().stats().calls.in_flight,
    ),
    keyed: Subject::of(keyed_layer(100), |layer| layer.handle().stats().calls.in_flight),
    keyed_used_up: Subject::of(key_used_up(), |layer| layer.handle().stats().calls.in_flight).refuses(),
    governor: Subject::of(governor_layer(100), |layer| layer.handle().stats().calls.in_flight),
    governor_used_up: Subject::of(governor_without_tokens(), |layer| layer.handle().stats().calls.in_flight).refuses(),
    governor_keyed: Subject::of(governor_keyed_layer(100), |layer| layer.handle().stats().calls.in_flight),
    governor_keyed_used_up: {
        let layer = governor_keyed_layer(1);
        layer.handle().try_acquire(&7).unwrap().succeeded();
        Subject::of(layer, |layer| layer.handle().stats().calls.in_flight).refuses()
    },
    stack: peer_stack(),
    stack_with_a_retry: peer_stack().attempts(2),
    stack_waits_then_admits: stack_around_one_place(),
}

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than any rule takes: where this is the longest wait, nobody's patience ends.
const DAY: Duration = Duration::from_secs(24 * 3600);

fn permits(limit: u32) -> SemaphoreConfig {
    SemaphoreConfig::new("peer", limit)
}

fn semaphore_layer(config: SemaphoreConfig) -> SemaphoreLayer {
    SemaphoreLayer::new(config).unwrap()
}

/// A semaphore whose one permit never comes back; it is no call of the layer.
fn held(config: SemaphoreConfig) -> SemaphoreLayer {
    let layer = semaphore_layer(config);
    std::mem::forget(layer.handle().try_acquire().unwrap());
    layer
}

fn full(config: SemaphoreConfig) -> Subject {
    Subject::of(held(config), |layer| layer.handle().stats().calls.in_flight - 1).refuses()
}

/// Calls wait for the one permit.
fn one_permit(config: SemaphoreConfig) -> Subject {
    let (at, layer) = (config.waiting, semaphore_layer(config));
    let semaphore = layer.handle();
    Subject::of(layer, |layer| layer.handle().stats().calls.in_flight)
        .waits(at, Duration::ZERO, move || semaphore.try_acquire())
}

/// So many at once, and one more in three hours: later than any rule waits.
fn tokens(burst: u32) -> TokenBucketConfig {
    TokenBucketConfig::new("peer", Rate::every(3 * HOUR), burst)
}

fn bucket_layer(config: TokenBucketConfig) -> TokenBucketLayer {
    TokenBucketLayer::new(config).unwrap()
}

/// A bucket without tokens.
fn drained(config: TokenBucketConfig) -> Subject {
    let layer = bucket_layer(config);
    layer.handle().drain();
    Subject::of(layer, |layer| layer.handle().stats().calls.in_flight)
}

/// One at once, and one more soon, for many calls to wait for.
fn frequent() -> TokenBucketConfig {
    TokenBucketConfig::new("peer", Rate::every(MS), 1).max_waiting(99)
}

/// Calls wait for the next token.
fn one_token(config: TokenBucketConfig) -> Subject {
    let (at, period, layer) = (config.waiting, config.rate.per, bucket_layer(config));
    let bucket = layer.handle();
    Subject::of(layer, |layer| layer.handle().stats().calls.in_flight).waits(at, period, move || {
        bucket.drain();
        Ok(())
    })
}

fn window_layer(limit: u32, algorithm: Algorithm) -> SlidingWindowLayer {
    SlidingWindowLayer::new(SlidingWindowConfig::new("peer", limit, HOUR).algorithm(algorithm)).unwrap()
}

/// A window that admits no more for an hour.
fn used_up() -> SlidingWindowLayer {
    let layer = window_layer(1, Algorithm::Log);
    layer.handle().try_acquire().unwrap().succeeded();
    layer
}

fn room(max_in_flight: u32) -> BulkheadConfig {
    BulkheadConfig::new("peer", max_in_flight)
}

fn bulkhead_layer(config: BulkheadConfig) -> BulkheadLayer {
    BulkheadLayer::new(config).unwrap()
}

/// A bulkhead with one call that never ends; it is no call of the layer.
fn occupied(config: BulkheadConfig) -> BulkheadLayer {
    let layer = bulkhead_layer(config);
    std::mem::forget(layer.handle().try_acquire().unwrap());
    layer
}

/// Calls wait for the one place of a bulkhead.
fn one_place(config: BulkheadConfig) -> Subject {
    let (at, layer) = (config.waiting, bulkhead_layer(config));
    let bulkhead = layer.handle();
    Subject::of(layer, |layer| layer.handle().stats().calls.in_flight)
        .waits(at, Duration::ZERO, move || bulkhead.try_acquire())
}

/// Every request has the same key: the clones of a rule's service share its limit.
fn keyed_layer(limit: u32) -> KeyedLayer<u32, fn(&u64) -> u32> {
    let quota = Quota::sliding_window(limit, HOUR);
    KeyedLayer::new(KeyedConfig::new("peer", quota).global(quota), (|_| 7) as fn(&u64) -> u32).unwrap()
}

/// The key of every request has no calls left for an hour.
fn key_used_up() -> KeyedLayer<u32, fn(&u64) -> u32> {
    let layer = keyed_layer(1);
    layer.handle().try_acquire(7).unwrap().succeeded();
    layer
}

/// So many at once, and one more in an hour.
fn hourly(burst: u32) -> ::governor::Quota {
    ::governor::Quota::with_period(HOUR).unwrap().allow_burst(NonZeroU32::new(burst).unwrap())
}

fn governor_layer(burst: u32) -> GovernorLayer<Direct<DirectLimiter>, OneForAll> {
    let limiter = RateLimiter::direct_with_clock(hourly(burst), Clock);
    GovernorHandle::direct(GovernorConfig::new("peer"), Arc::new(limiter)).unwrap().layer()
}

/// No more for an hour.
fn governor_without_tokens() -> GovernorLayer<Direct<DirectLimiter>, OneForAll> {
    let layer = governor_layer(1);
    layer.handle().try_acquire().unwrap().succeeded();
    layer
}

type KeyedInMap = Keyed<KeyedLimiter<u32, HashMapStateStore<u32>>>;

/// Every request has the same key.
fn governor_keyed_layer(burst: u32) -> GovernorLayer<KeyedInMap, fn(&u64) -> u32> {
    let limiter = keyed_limiter(hourly(burst), HashMapStateStore::<u32>::default(), 4);
    let handle = GovernorHandle::keyed(GovernorConfig::new("peer"), Arc::new(limiter)).unwrap();
    handle.layer((|_| 7) as fn(&u64) -> u32)
}

fn timeout_layer() -> TimeoutLayer {
    TimeoutLayer::new(TimeoutConfig::attempt("peer", HOUR)).unwrap()
}

/// One probe, and an open time that is over at once.
fn config() -> CircuitBreakerConfig {
    CircuitBreakerConfig::new("peer").probes(1).open_for(Duration::from_micros(1)).open_max(HOUR).jitter(0.0)
}

/// Not ready while open, for use under a balancer.
fn balanced() -> CircuitBreakerConfig {
    config().on_open(OnOpen::NotReady)
}

fn breaker(config: CircuitBreakerConfig) -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(config).unwrap()
}

fn opened(config: CircuitBreakerConfig) -> CircuitBreakerLayer {
    let layer = breaker(config.consecutive_failures(1));
    layer.handle().admit().unwrap().finish(Outcome::Failure);
    layer
}

fn retry_layer() -> RetryLayer<RetryErrors<()>> {
    let config = RetryConfig::new("peer").backoff(Backoff::constant(20 * MS));
    RetryLayer::new(config, RetryErrors::all_idempotent()).unwrap()
}

/// The layers together, in the order that the crate documents.
fn peer_stack() -> Subject {
    let (retry, breaker) = (retry_layer(), breaker(config()));
    let (calls, attempts) = (retry.handle(), breaker.handle());
    let total = TimeoutLayer::new(TimeoutConfig::total("peer", HOUR)).unwrap();
    let stack = ServiceBuilder::new().layer(total).layer(retry).layer(breaker).layer(timeout_layer()).into_inner();
    Subject::of(stack, move |_| calls.stats().in_flight.max(attempts.stats().in_flight))
}

/// Calls wait for the one place of a bulkhead amid the stack.
fn stack_around_one_place() -> Subject {
    let bulkhead = bulkhead_layer(room(1).max_waiting(99).max_wait(DAY));
    let (calls, place) = (bulkhead.handle(), bulkhead.handle());
    let total = TimeoutLayer::new(TimeoutConfig::total("peer", DAY)).unwrap();
    let stack = ServiceBuilder::new().layer(total).layer(retry_layer()).layer(breaker(config())).layer(bulkhead);
    Subject::of(stack.layer(timeout_layer()).into_inner(), move |_| calls.stats().calls.in_flight).waits(
        Waiting::InCall,
        Duration::ZERO,
        move || place.try_acquire(),
    )
}

fn keeps_the_contract(layer: &str, make: Make<'_>) {
    let broken: Vec<_> = RULES.iter().filter_map(|rule| rule.keep(make).err()).collect();
    say(&format!("contract: {layer} keeps {} of {} rules", RULES.len() - broken.len(), RULES.len()));
    assert!(broken.is_empty(), "{layer} breaks\n{}", broken.join("\n"));
}

#[test]
fn every_rule_finds_the_layer_that_breaks_it() {
    let at_once = faults::FOUND_BY.iter().map(|(fault, rule)| finds(rule, fault, &|| fault.subject()));
    let in_line = queue::FOUND_BY.iter().map(|(fault, rule)| finds(rule, fault, &|| fault.subject()));
    let found: Vec<_> = at_once.chain(in_line).collect();
    let (rules, covered): (BTreeSet<_>, BTreeSet<_>) =
        (RULES.iter().map(|rule| rule.name).collect(), found.iter().copied().collect());
    assert_eq!(covered, rules, "every rule is shown to find something");
    say(&format!("contract: {} breaches by bad layers, found by {} rules", found.len(), RULES.len()));
}

/// The rule of this name finds the fault.
fn finds(name: &'static str, fault: &dyn Debug, make: Make<'_>) -> &'static str {
    let rule = RULES.iter().find(|rule| rule.name == name).unwrap();
    let kept: Kept = rule.keep(make);
    let message = kept.expect_err(&format!("{name} does not find {fault:?}"));
    assert!(message.starts_with(name), "{message}");
    name
}

#[test]
fn no_rule_finds_fault_with_a_layer_that_has_none() {
    keeps_the_contract("a layer that does nothing", &|| faults::Fault::Nothing.subject());
    keeps_the_contract("a layer that only refuses", &|| faults::Fault::OnlyRefuses.subject());
    for at in [Waiting::InCall, Waiting::InReadiness] {
        keeps_the_contract(&format!("a layer that waits {at:?}"), &|| Queue::subject(queue::Fault::Nothing, at));
    }
}
