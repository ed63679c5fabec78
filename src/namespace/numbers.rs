//! Inode numbers: never given twice, and given back to a name whose inode was forgotten to save memory.
//!
//! Programs compare them while the mount lives: tar and rsync to find links, find to stay out of loops, tail to see that
//! a log was replaced. A forgotten inode costs its name's hash and its number, a tenth of what it did.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Ino, ROOT};

/// Numbers kept for forgotten inodes, about 10 MB; past that, names get new ones.
const KEPT: usize = 250_000;

#[derive(Debug)]
pub(super) struct Numbers {
    next: Ino,
    /// By directory and the hash of the name in it.
    kept: HashMap<(Ino, u64), Ino>,
}

impl Numbers {
    pub fn new() -> Self {
        Self { next: ROOT, kept: HashMap::new() }
    }

    pub fn fresh(&mut self) -> Ino {
        let ino = self.next;
        self.next += 1;
        ino
    }

    /// The inode that hung there is forgotten, and the name isn't free.
    pub fn keep(&mut self, directory: Ino, name: &str, ino: Ino) {
        if self.kept.len() < KEPT {
            self.kept.insert((directory, hash(name)), ino);
        }
    }

    /// The number of what hung there before it was forgotten, which is given this once.
    pub fn give_back(&mut self, directory: Ino, name: &str) -> Option<Ino> {
        self.kept.remove(&(directory, hash(name)))
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
