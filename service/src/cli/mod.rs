//! The command line: one file per command.

mod exit;
mod serve;

pub use exit::Exit;
pub use serve::{Founder, LogFormat, ServeArgs};
