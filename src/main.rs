//! The binary; the command line comes with the daemon.

fn main() {}
