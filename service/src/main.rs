//! The `seawall-kv` binary; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    seawall_kv::cli::main()
}
