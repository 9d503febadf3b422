//! Peers over HTTP/2: postcard headers and raw values in the bodies of `POST /peer/{kind}`.
//!
//! Every lane is a connection of its own. The first request on a connection is a [`Hello`](crate::peer::Hello), checked
//! by both ends; the append lane is one stream of frames ([`super::frame`]), the others are one request per message.

mod append;
mod client;
mod server;

pub use client::Http2;
pub use server::listen;

/// The path of the greeting.
const HELLO_PATH: &str = "/peer/hello";
/// The path of the append stream.
const APPEND_PATH: &str = "/peer/append";
/// How long the sender still waits, in milliseconds; the receiver stops working when it is over.
const DEADLINE_HEADER: &str = "x-seawall-deadline-ms";
/// The largest message outside the append stream, in bytes: a value of 1 MiB or a snapshot chunk, with room.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Flow-control windows. The protocol's 64 KiB would make a snapshot wait for a round trip every 64 KiB.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// As above, for a whole connection.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
