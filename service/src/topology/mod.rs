//! Who is there: joining through the log, liveness by our own pings.
//!
//! Liveness only steers and informs; who is a member is decided in the log.

mod formation;
mod heartbeat;
mod join;

pub use formation::FormationError;
pub(crate) use formation::Founding;
pub use heartbeat::{
    DOWN_AFTER_MISSES, Detector, Heartbeats, PING_INTERVAL, PeerHealth, Ping, Pong, UP_AFTER_ANSWERS, ping,
};
pub(crate) use join::admit;
pub use join::{JoinAnswer, JoinRequest, MAX_VOTERS, Standing};
