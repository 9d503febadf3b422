//! Ports for processes that must know each other's before any of them listens.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which systems give outgoing connections their ports (32768 and up on Linux, 49152 elsewhere):
/// while a node is down, nobody else's connection takes its port by chance, or connects to itself.
const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback port on which nobody listens now. Somebody may by the time it is used: who starts a node tries again.
///
/// # Panics
///
/// When there is none.
pub fn free_port() -> u16 {
    // Test programs that run at once begin in different places.
    let start = (std::process::id().wrapping_mul(211) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        // ORDERING: Relaxed, the number is the whole state; two callers only need to draw different ones.
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT - 1);
}
