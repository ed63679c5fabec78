//! Did the last session end in good order, and is the machine still the one boot that it ran under?
//!
//! A killed daemon loses nothing that reached the kernel. A machine that went down may have lost any block that was
//! not synced: then clean cache files can't be trusted. The boot's id, kept in the journal, tells the two apart.

use crate::error::Result;

use super::Journal;

/// Linux's name for this boot, new at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Journal {
    /// Starts a session: what lies on the disk can be trusted (true), or the machine went down under the last one.
    /// Call it once, after `open` and before `Cache::open`. fsyncs.
    pub fn begin_session(&self) -> Result<bool> {
        let boot = std::fs::read_to_string(BOOT_ID).ok();
        self.begin_session_under(boot.as_deref().map(str::trim))
    }

    pub(super) fn begin_session_under(&self, boot: Option<&str>) -> Result<bool> {
        let ended = self.meta("session")?;
        let trusted = match ended.as_deref() {
            None | Some("ended") => true,
            Some(_) => boot.is_some() && self.meta("boot")?.as_deref() == boot,
        };
        if trusted {
            self.set_meta("boot", boot.unwrap_or("unknown"))?;
        }
        self.set_meta("session", "running")?;
        // A power cut must not bring "ended" back.
        self.sync()?;
        Ok(trusted)
    }

    /// What can't be trusted was thrown away: from now on this boot counts. Killed before, the next start does it again.
    pub fn recovered(&self) -> Result<()> {
        let boot = std::fs::read_to_string(BOOT_ID).ok();
        self.set_meta("boot", boot.as_deref().map_or("unknown", str::trim))?;
        self.sync()
    }

    /// Ends the session in good order. Call it after the last `Cache::sync`, when nothing is written any more. fsyncs.
    pub fn end_session(&self) -> Result<()> {
        self.sync()?;
        self.set_meta("session", "ended")?;
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_crash_of_the_machine_loses_trust() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), "b").unwrap();
        assert!(journal.begin_session_under(Some("one")).unwrap(), "a new directory");
        assert!(journal.begin_session_under(Some("one")).unwrap(), "the daemon was killed");
        assert!(!journal.begin_session_under(Some("two")).unwrap(), "the machine went down");
        assert!(!journal.begin_session_under(Some("two")).unwrap(), "the daemon was killed before it had dealt with that");
        journal.recovered().unwrap();
        assert!(journal.begin_session().unwrap(), "it has");
        journal.end_session().unwrap();
        assert!(journal.begin_session_under(Some("three")).unwrap(), "an orderly end before a restart of the machine");
        assert!(!journal.begin_session_under(None).unwrap(), "nothing is known of the boot");
        assert!(!journal.begin_session_under(None).unwrap(), "two unknown boots are not the same");
    }

    #[test]
    fn this_machine_has_a_boot_id() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path(), "b").unwrap();
        assert!(journal.begin_session().unwrap());
        assert!(journal.begin_session().unwrap());
    }
}
