//! The file system's semantics on the in-memory store, without FUSE.

mod across;
mod away;
mod basics;
mod costs;
mod model;
mod renames;
mod rot;
mod small_cache;
mod strangers;
mod world;
mod xattrs;
