//! An inode's times when it is read or changed. The access time moves as on a disk with Linux' `relatime`: at the first
//! read after a change, and else once a day.
//!
//! Reads of present bytes take no lock, so whether the time has to move is in a note that an inode shares with its open
//! handles. INVARIANT: whatever moves an inode's other times, or sets its access time, clears the note.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::Inode;

/// An access time older than this moves at the next read in any case.
const ACCESS_TIME_AGE: Duration = Duration::from_secs(86_400);

/// When the access time moved last, in seconds since 1970; 0: the next read has to look.
#[derive(Clone, Debug, Default)]
pub struct AccessNote(Arc<AtomicU64>);

impl AccessNote {
    /// Whether a read at `now` has to look at the inode's times.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let noted = self.0.load(Ordering::Relaxed);
        noted == 0 || seconds(now).abs_diff(noted) >= ACCESS_TIME_AGE.as_secs()
    }

    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Inode {
    /// Its bytes, or the names in it, changed.
    pub fn changed(&mut self, now: SystemTime) {
        self.mtime = now;
        self.status_changed(now);
    }

    /// Its attributes or its own name changed.
    pub fn status_changed(&mut self, now: SystemTime) {
        self.ctime = now;
        if let Some(note) = &self.access_note {
            note.clear();
        }
    }

    /// For a handle that is opened.
    pub fn share_access_note(&mut self) -> AccessNote {
        self.access_note.get_or_insert_default().clone()
    }

    /// One handle less. True: it was the last one.
    pub fn close(&mut self) -> bool {
        self.opens = self.opens.saturating_sub(1);
        if self.opens == 0 {
            self.access_note = None;
        }
        self.opens == 0
    }

    /// Somebody reads it. True where the access time moved.
    pub fn access(&mut self, now: SystemTime) -> bool {
        if let Some(note) = &self.access_note {
            if !note.is_due(now) {
                return false;
            }
            note.0.store(seconds(now), Ordering::Relaxed);
        }
        let is_old = now.duration_since(self.atime).is_ok_and(|age| age >= ACCESS_TIME_AGE);
        let moves = is_old || self.atime <= self.mtime.max(self.ctime);
        if moves {
            self.atime = now;
        }
        moves
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{File, Namespace, Node, Owner};
    use crate::types::ObjectHeaders;

    #[test]
    fn the_access_time_moves_at_the_first_read_after_a_change_and_once_a_day() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let owner = Owner { uid: 1, gid: 1, file_mode: 0o644, directory_mode: 0o755 };
        let mut names = Namespace::new(owner, at(1_000));
        let ino = names.insert(Node::File(File::default()), at(1_000));
        let inode = names.get_mut(ino).unwrap();
        let shared = inode.share_access_note();
        for (now, moves) in [(1_001, true), (1_002, false), (87_400, false), (87_401, true), (87_402, false)] {
            assert_eq!((shared.is_due(at(now)), inode.access(at(now))), (moves, moves), "at {now}");
        }
        inode.changed(at(87_403));
        assert!(shared.is_due(at(87_404)), "an open handle hears of the change");
        assert!(inode.access(at(87_404)) && !inode.access(at(87_405)));
        inode.status_changed(at(87_406));
        assert!(inode.access(at(87_407)));
        assert_eq!((inode.atime, inode.mtime, inode.ctime), (at(87_407), at(87_403), at(87_406)));
    }

    #[test]
    fn what_nobody_read_since_it_was_written_is_as_old_as_its_bytes() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let owner = Owner { uid: 1, gid: 1, file_mode: 0o644, directory_mode: 0o755 };
        let mut names = Namespace::new(owner, at(1_000));
        let ino = names.insert(Node::File(File::default()), at(1_000));
        let inode = names.get_mut(ino).unwrap();
        let written_at =
            |seconds: u64| ObjectHeaders { metadata: [("mtime".into(), seconds.to_string())].into(), ..ObjectHeaders::default() };
        inode.take_headers(written_at(5));
        assert_eq!((inode.atime, inode.mtime), (at(5), at(5)));
        assert!(inode.access(at(2_000)));
        inode.take_headers(written_at(6));
        assert_eq!((inode.atime, inode.mtime), (at(2_000), at(6)));
    }
}
