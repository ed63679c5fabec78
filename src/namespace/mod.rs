//! What the mount knows of names: inodes, directory entries, negative entries, listings.
//!
//! Nothing here does I/O, awaits or reads a clock; the file system passes the time in. What is *pending* (wanted and
//! not yet in the bucket) is not kept here: the writer is its one owner, and the file system lays it over what this
//! module remembers of the bucket.
//!
//! Invariants: an inode number is never reused; every linked inode other than the root hangs under exactly one name; a
//! directory's children are only removed together with their link; what a remote answer says of a name is dropped when
//! that name changed locally while the question was under way (`Watch`).

mod ahead;
pub mod attributes;
mod crowd;
mod inode;
pub mod keys;
mod numbers;
mod positions;
mod remote;
mod times;
mod tree;
mod watch;
pub mod xattrs;

#[cfg(test)]
mod tests;

pub use crowd::Known;
pub use inode::{Child, Directory, File, Ino, Inode, Modified, Node, ROOT, Symlink, Tail};
pub use remote::{Absorbed, Seen};
pub use times::AccessNote;
pub use tree::{Namespace, Owner};
pub use watch::WatchId;
