//! mediafs: an S3 or R2 bucket as a local media directory.
//!
//! Direction: `main → cli → config → daemon → fuse → fs → {namespace, reader, writer} → {cache, journal} → store → types`.

pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod emulator;
pub mod error;
pub mod fs;
pub mod fuse;
pub mod journal;
pub mod media;
pub mod namespace;
pub mod reader;
pub mod store;
pub mod types;
pub mod writer;
