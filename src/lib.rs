//! mediafs: an S3 or R2 bucket as a local media directory. This is the map of the crate, from the top down.
//!
//! ```text
//! cli        the command line: one file a subcommand
//! config     options from flags, -o, environment and file, checked
//! doctor     whether a mount would work, and what to change if not
//! recover    a cache directory without its daemon: what waits in it, saved or sent
//! daemon     one mount from its beginning to its end
//! fuse       the edge to the kernel: mounting, requests, errno
//! fs         POSIX semantics over what lies below; runs without FUSE
//! namespace  inodes, names and listings in memory, paths and keys; no I/O
//! reader     fetches the bytes that are read, once, ahead of need
//! writer     brings the bucket to what was written: uploads, copies, deletes, conflicts
//! cache      local data files: clean versions and staged changes
//! journal    what must survive a crash, in SQLite
//! error      what can go wrong above the store
//! store      the one seam to the bucket: the trait, S3, memory, decorators
//! metrics    the text format of Prometheus
//! media      Content-Type by name and first bytes
//! clock      the time of day
//! simulation the seam of the simulated world that tests run in
//! types      the words that all share
//!
//! emulator   S3 over HTTP for the demo and the tests; stands beside the layers
//! ```
//!
//! A module names only what stands below it, and `namespace`, `reader` and `writer` don't name each other. Why it is so,
//! and what always holds, is in ARCHITECTURE.md; `tests/tidy.rs` enforces the directions.

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod emulator;
pub mod error;
pub mod fs;
pub mod fuse;
pub mod journal;
pub mod media;
pub mod metrics;
pub mod namespace;
pub mod reader;
pub mod recover;
pub mod simulation;
pub mod store;
pub mod types;
pub mod writer;
