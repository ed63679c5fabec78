//! The program: hands the command line over, and its exit code back.

use std::process::ExitCode;

fn main() -> ExitCode {
    mediafs::cli::run(std::env::args_os())
}
