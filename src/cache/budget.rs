//! How many bytes the data files may hold, and how many they do.
//!
//! Room is reserved before a byte is written and given back after it is gone, so the sum is never passed, not even for
//! a moment. The disk's free space is asked for once in a while and counted down in between.
//!
//! Must not: evict. It says how much is lacking; `shared` makes room.

use std::io;

use parking_lot::Mutex;

use super::Limits;

/// The disk is asked again after so many bytes: what other programs write meanwhile can take that much of the floor.
const ASK_EVERY_BYTES: u64 = 16 << 20;

pub struct Budget {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub bytes: u64,
    pub dirty_bytes: u64,
    /// Free on the disk by our reckoning.
    available: u64,
    /// Reserved since the disk was asked.
    unasked: u64,
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub enum Lack {
    /// So many bytes have to go first.
    Bytes(u64),
    /// Nothing that could be evicted would help.
    Hopeless,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        Self { limits, counts: Mutex::new(Counts { unasked: ASK_EVERY_BYTES, ..Counts::default() }) }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// Counts `bytes` as used, or says what is lacking and counts nothing. `available` asks the disk.
    pub fn reserve(&self, bytes: u64, dirty: bool, available: impl Fn() -> io::Result<u64>) -> Result<(), Lack> {
        if bytes == 0 {
            return Ok(());
        }
        let mut counts = self.counts.lock();
        if counts.dirty_bytes.saturating_add(bytes) > self.limits.size_bytes {
            return Err(Lack::Hopeless);
        }
        let over = counts.bytes.saturating_add(bytes).saturating_sub(self.limits.size_bytes);
        if over > 0 {
            return Err(Lack::Bytes(over));
        }
        let wanted = self.limits.free_floor_bytes.saturating_add(bytes);
        // The nearer the floor, the more often: at it, each time.
        let ask_after = (counts.available.saturating_sub(self.limits.free_floor_bytes) / 4).min(ASK_EVERY_BYTES);
        if counts.unasked.saturating_add(bytes) > ask_after || counts.available < wanted {
            // A disk that can't be asked is taken as full of room: writing to it will say more.
            counts.available = available().unwrap_or(u64::MAX);
            counts.unasked = 0;
        }
        if counts.available < wanted {
            return Err(Lack::Bytes(wanted - counts.available));
        }
        counts.available -= bytes;
        counts.unasked += bytes;
        counts.add(bytes, dirty);
        Ok(())
    }

    /// How much the data files may hold together, as far as limit, floor and disk allow.
    pub fn capacity(&self, available: impl Fn() -> io::Result<u64>) -> u64 {
        let free = available().unwrap_or(u64::MAX).saturating_sub(self.limits.free_floor_bytes);
        self.limits.size_bytes.min(self.counts.lock().bytes.saturating_add(free))
    }

    /// Counts bytes that are on the disk already.
    pub fn force(&self, bytes: u64, dirty: bool) {
        self.counts.lock().add(bytes, dirty);
    }

    pub fn release(&self, bytes: u64, dirty: bool) {
        let mut counts = self.counts.lock();
        debug_assert!(counts.bytes >= bytes && (!dirty || counts.dirty_bytes >= bytes));
        counts.bytes = counts.bytes.saturating_sub(bytes);
        if dirty {
            counts.dirty_bytes = counts.dirty_bytes.saturating_sub(bytes);
        }
        counts.available = counts.available.saturating_add(bytes);
    }

    /// Bytes of a file that became dirty, or clean.
    pub fn move_to(&self, bytes: u64, dirty: bool) {
        let mut counts = self.counts.lock();
        counts.dirty_bytes = if dirty { counts.dirty_bytes + bytes } else { counts.dirty_bytes.saturating_sub(bytes) };
    }
}

impl Counts {
    fn add(&mut self, bytes: u64, dirty: bool) {
        self.bytes += bytes;
        if dirty {
            self.dirty_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn budget(size_bytes: u64, free_floor_bytes: u64) -> Budget {
        Budget::new(Limits { size_bytes, free_floor_bytes })
    }

    #[test]
    fn the_limit_is_reached_and_not_passed() {
        let budget = budget(100, 0);
        let plenty = || Ok(u64::MAX);
        budget.reserve(60, false, plenty).unwrap();
        budget.reserve(40, true, plenty).unwrap();
        assert_eq!(budget.reserve(1, false, plenty), Err(Lack::Bytes(1)));
        assert_eq!(budget.reserve(61, false, plenty), Err(Lack::Hopeless));
        budget.release(30, false);
        assert_eq!(budget.reserve(31, true, plenty), Err(Lack::Bytes(1)));
        budget.reserve(30, true, plenty).unwrap();
        assert_eq!((budget.counts().bytes, budget.counts().dirty_bytes), (100, 70));
        budget.move_to(70, false);
        assert_eq!((budget.counts().bytes, budget.counts().dirty_bytes), (100, 0));
    }

    #[test]
    fn the_floor_holds_and_the_disk_is_asked_seldom() {
        let mib = 1 << 20;
        let (free, asked) = (Cell::new(100 * mib), Cell::new(0));
        let available = || {
            asked.set(asked.get() + 1);
            Ok(free.get())
        };
        let budget = budget(u64::MAX, 10 * mib);
        for _ in 0..90 {
            budget.reserve(mib, false, available).unwrap();
            free.set(free.get() - mib);
        }
        assert!(asked.get() <= 30, "{}", asked.get());
        assert_eq!(budget.reserve(mib, false, available), Err(Lack::Bytes(mib)));
        free.set(50 * mib);
        budget.reserve(mib, false, available).unwrap();
    }
}
