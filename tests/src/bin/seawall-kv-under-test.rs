//! The `seawall-kv` binary, as the service has it, for the tests of this package to run.

use std::process::ExitCode;

fn main() -> ExitCode {
    seawall_kv::cli::main()
}
