//! The file system's semantics on the in-memory store, without FUSE.

mod across;
mod away;
mod basics;
mod copies;
mod costs;
mod crowd;
mod fleet;
mod gzip;
mod hostile;
mod idle;
mod links;
mod model;
mod passthrough;
mod peeks;
mod posix;
mod renames;
mod restarts;
mod rot;
mod small_cache;
mod strangers;
mod world;
mod xattrs;
