//! The core of the circuit breaker.

#[path = "../../../patterns/src/circuit_breaker/breaker.rs"]
pub mod breaker;
#[path = "../../../patterns/src/circuit_breaker/config.rs"]
pub mod config;
#[path = "../../../patterns/src/circuit_breaker/machine.rs"]
pub mod machine;
#[path = "../../../patterns/src/circuit_breaker/shortcut.rs"]
pub mod shortcut;
#[path = "../../../patterns/src/circuit_breaker/state.rs"]
pub mod state;
#[path = "../../../patterns/src/circuit_breaker/window.rs"]
pub mod window;
