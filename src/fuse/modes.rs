//! How each inode is open in the kernel: through its page cache, past it, or straight on the cache file.
//!
//! The kernel refuses (EIO) an open whose mode doesn't fit those that an inode has already, and it counts an open as gone
//! only when its RELEASE was answered, which may be long after close(). So the next open's mode is decided here, from
//! counts of our own. Pure bookkeeping: no lock, no I/O.
//!
//! INVARIANT: an inode never has opens that go to the daemon and opens with a backing file at once.

use std::collections::HashMap;

use crate::fs::Ino;

/// The mode of one open, as the reply to OPEN or CREATE sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Through the kernel's page cache, with the daemon behind it.
    Cached,
    /// Every read and write goes to the daemon.
    Direct,
    /// Reads, writes and mmap go to the backing file.
    Passthrough,
    /// Reads and writes go to the daemon, mmap to the backing file: what may stand beside `Passthrough`.
    PassthroughDirect,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    cached: u32,
    direct: u32,
    backed: u32,
}

impl Counts {
    fn of(&mut self, mode: Mode) -> &mut u32 {
        match mode {
            Mode::Cached => &mut self.cached,
            Mode::Direct => &mut self.direct,
            Mode::Passthrough | Mode::PassthroughDirect => &mut self.backed,
        }
    }
}

/// All opens that the kernel has not released yet.
#[derive(Debug, Default)]
pub struct Modes {
    inodes: HashMap<Ino, Counts>,
    handles: HashMap<u64, (Ino, Mode)>,
}

impl Modes {
    /// The mode nearest to `wanted` that the kernel will accept for another open of this inode.
    pub fn choose(&self, ino: Ino, wanted: Mode) -> Mode {
        let counts = self.inodes.get(&ino).copied().unwrap_or_default();
        match wanted {
            Mode::Cached | Mode::Direct if counts.backed > 0 => Mode::PassthroughDirect,
            // Beside a writer that goes to the daemon the kernel would take it, but the file is no more what was found right.
            Mode::Passthrough | Mode::PassthroughDirect if counts.cached + counts.direct > 0 => Mode::Cached,
            wanted => wanted,
        }
    }

    /// Counts an open, before its reply is sent.
    pub fn opened(&mut self, ino: Ino, handle: u64, mode: Mode) {
        let counts = self.inodes.entry(ino).or_default();
        *counts.of(mode) += 1;
        debug_assert!(counts.cached + counts.direct == 0 || counts.backed == 0, "inode {ino}: {counts:?}");
        self.handles.insert(handle, (ino, mode));
    }

    /// Uncounts an open, when its RELEASE arrives. The mode that it had; None for a handle that isn't open.
    pub fn released(&mut self, handle: u64) -> Option<(Ino, Mode)> {
        let (ino, mode) = self.handles.remove(&handle)?;
        if let Some(counts) = self.inodes.get_mut(&ino) {
            let count = counts.of(mode);
            *count = count.saturating_sub(1);
            if *counts == Counts::default() {
                self.inodes.remove(&ino);
            }
        }
        Some((ino, mode))
    }

    /// True while an open of this inode uses its backing file, which therefore must stay the same file.
    pub fn has_backing(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|counts| counts.backed > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_backing(mode: Mode) -> bool {
        matches!(mode, Mode::Passthrough | Mode::PassthroughDirect)
    }

    /// What the kernel does with a second open, as measured on 6.18.
    fn kernel_accepts(first: Mode, second: Mode) -> bool {
        match first {
            Mode::Passthrough | Mode::PassthroughDirect => has_backing(second),
            Mode::Cached => !has_backing(second),
            Mode::Direct => true,
        }
    }

    const ALL: [Mode; 4] = [Mode::Cached, Mode::Direct, Mode::Passthrough, Mode::PassthroughDirect];

    #[test]
    fn every_choice_is_one_that_the_kernel_accepts() {
        for first in ALL {
            for wanted in ALL {
                let mut modes = Modes::default();
                modes.opened(7, 1, first);
                let chosen = modes.choose(7, wanted);
                assert!(kernel_accepts(first, chosen), "{first:?} then {wanted:?} gave {chosen:?}");
                if kernel_accepts(first, wanted) && !(first == Mode::Direct && has_backing(wanted)) {
                    assert_eq!(chosen, wanted, "after {first:?}");
                }
            }
        }
    }

    #[test]
    fn other_inodes_dont_matter() {
        let mut modes = Modes::default();
        modes.opened(7, 1, Mode::Cached);
        assert_eq!(modes.choose(8, Mode::Passthrough), Mode::Passthrough);
    }

    #[test]
    fn an_inode_is_free_again_when_its_last_open_is_released() {
        let mut modes = Modes::default();
        modes.opened(7, 1, Mode::Passthrough);
        modes.opened(7, 2, Mode::PassthroughDirect);
        assert_eq!(modes.released(1), Some((7, Mode::Passthrough)));
        assert!(modes.has_backing(7));
        assert_eq!(modes.choose(7, Mode::Cached), Mode::PassthroughDirect);
        assert_eq!(modes.released(2), Some((7, Mode::PassthroughDirect)));
        assert_eq!(modes.choose(7, Mode::Cached), Mode::Cached);
        assert_eq!(modes.released(2), None, "a handle is released once");
        assert!(modes.inodes.is_empty() && modes.handles.is_empty());
    }
}
