//! Did the last session end in good order, and is the machine still the one boot that it ran under?
//!
//! A killed daemon loses nothing that reached the kernel. A machine that went down may have lost any block that was
//! not synced: then clean cache files can't be trusted. The boot's id, kept in the journal, tells the two apart.

use crate::error::Result;
use crate::simulation;

use super::Journal;

/// Linux's name for this boot, new at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

const RUNNING: &str = "running";
/// The machine went down, and nobody has finished looking at what that left.
const DOUBTED: &str = "doubted";

pub(super) fn boot_id() -> Option<String> {
    simulation::boot().or_else(|| std::fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned()))
}

/// `session` and `then` as the journal has them, `now` the present boot.
pub(super) fn is_trusted(session: Option<&str>, then: Option<&str>, now: Option<&str>) -> bool {
    match session {
        None | Some("ended") => true,
        Some(DOUBTED) => false,
        Some(_) => now.is_some() && then == now,
    }
}

impl Journal {
    /// Starts a session: what lies on the disk can be trusted (true), or the machine went down under the last one.
    /// Call it once, after `open` and before `Cache::open`. fsyncs.
    pub fn begin_session(&self) -> Result<bool> {
        self.begin_session_under(boot_id().as_deref())
    }

    /// The same under a boot of this name; for tests.
    #[doc(hidden)]
    pub fn begin_session_under(&self, boot: Option<&str>) -> Result<bool> {
        let trusted = is_trusted(self.meta("session")?.as_deref(), self.meta("boot")?.as_deref(), boot);
        self.begin(trusted, boot)
    }

    /// For a directory that was copied from a machine that had not gone down, whatever this one's boot is.
    pub fn begin_session_trusted(&self) -> Result<bool> {
        self.begin(true, boot_id().as_deref())
    }

    fn begin(&self, trusted: bool, boot: Option<&str>) -> Result<bool> {
        if !trusted {
            self.learned.doubt()?;
        }
        // In this order: a daemon that is killed between the two must leave no less doubt than it found.
        self.set_meta("session", if trusted { RUNNING } else { DOUBTED })?;
        self.set_meta("boot", boot.unwrap_or("unknown"))?;
        // A power cut must not bring "ended" back.
        self.sync()?;
        Ok(trusted)
    }

    /// What a crash of the machine left has been sorted out: from now on a killed daemon is no more than that. Call it
    /// after `Cache::open` and `Writer::open`; who dies in them starts them again with the same doubt.
    pub fn believe(&self) -> Result<()> {
        if self.meta("session")?.as_deref() == Some(DOUBTED) { self.set_meta("session", RUNNING) } else { Ok(()) }
    }

    /// Ends the session in good order. Call it after the last `Cache::sync`, when nothing is written any more. fsyncs.
    pub fn end_session(&self) -> Result<()> {
        self.sync()?;
        self.set_meta("session", "ended")?;
        self.sync()?;
        // Whoever copies the database alone has everything.
        self.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")?;
        let main = self.main.lock();
        let commits = main.total.commits;
        self.note_synced(main, commits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Event;
    use crate::simulation::tests::Witness;
    use crate::types::{ETag, Key, ObjectHeaders};

    #[test]
    fn only_a_crash_of_the_machine_loses_trust() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), "b").unwrap();
        assert!(journal.begin_session_under(Some("one")).unwrap(), "a new directory");
        assert!(journal.begin_session_under(Some("one")).unwrap(), "the daemon was killed");
        assert!(!journal.begin_session_under(Some("two")).unwrap(), "the machine went down");
        assert!(!journal.begin_session_under(Some("two")).unwrap(), "and the daemon was killed while it looked at that");
        journal.believe().unwrap();
        assert!(journal.begin_session_under(Some("two")).unwrap(), "it was killed later");
        journal.end_session().unwrap();
        assert!(journal.begin_session_under(Some("three")).unwrap(), "an orderly end before a restart of the machine");
        assert!(!journal.begin_session_under(None).unwrap(), "nothing is known of the boot");
        assert!(!journal.begin_session_under(None).unwrap(), "two unknown boots are not the same");
    }

    /// Else a power cut brings back that the last one ended in good order, and what lies there is trusted.
    #[test]
    fn a_session_is_on_the_disk_before_it_begins() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), "b").unwrap();
        for trusted in [true, false] {
            let (witness, _installed) = Witness::install();
            assert_eq!(journal.begin_session_under(Some(if trusted { "one" } else { "two" })).unwrap(), trusted);
            assert!(witness.all_is_on_the_disk());
            assert_eq!(witness.take().last(), Some(&Event::TailSynced), "and how far the journal reaches by then");
        }
    }

    #[test]
    fn what_was_learned_last_is_not_believed_after_the_machine_went_down() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), "b").unwrap();
        let (key, etag, time) = (Key::from("a"), ETag::new("e"), crate::clock::now());
        journal.begin_session_under(Some("one")).unwrap();
        journal.learn(&key, &etag, time, &ObjectHeaders::default()).unwrap();
        journal.sync().unwrap();
        for (boot, believed) in [("one", true), ("two", false)] {
            journal.begin_session_under(Some(boot)).unwrap();
            assert_eq!(journal.headers(&key, &etag, time).unwrap().is_some(), believed, "{boot}");
        }
    }

    #[test]
    fn this_machine_has_a_boot_id() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), "b").unwrap();
        assert!(journal.begin_session().unwrap());
        assert!(journal.begin_session().unwrap());
    }
}
