//! One file against a vector of bytes, through random steps, kills of the daemon and crashes of the machine.
//!
//! In the end a byte is flipped on the disk, and is either found or was under no sum, which at rest none is.
//!
//! The vector is what a program would read. At every step: what is present equals it, what is absent is in the base,
//! and what differs from the base is called changed.

use proptest::prelude::*;

use super::*;
use crate::journal::{Change, Content, Desired};
use crate::store::Condition;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, u8),
    Fill(u64, u64),
    Truncate(u64),
    Zero(u64, u64, bool),
    BeginUpload,
    EndUpload,
    Sync,
    Seal,
    Kill,
    Crash,
    Unpin,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..SIZE * 2;
    prop_oneof![
        6 => (at(), 1..SIZE as usize, any::<u8>()).prop_map(|(at, length, byte)| Step::Write(at, length, byte)),
        4 => (at(), 1..SIZE).prop_map(|(at, length)| Step::Fill(at, length)),
        2 => at().prop_map(Step::Truncate),
        2 => (at(), 1..SIZE, any::<bool>()).prop_map(|(at, length, keep)| Step::Zero(at, length, keep)),
        2 => Just(Step::BeginUpload),
        2 => Just(Step::EndUpload),
        2 => Just(Step::Sync),
        2 => Just(Step::Seal),
        1 => Just(Step::Kill),
        1 => Just(Step::Crash),
        1 => Just(Step::Unpin),
    ]
}

/// Of the base at first, in bytes. Not a multiple of a block, neither of the disk nor of the sums.
const SIZE: u64 = 37_000;

struct Model {
    world: World,
    file: Arc<LocalFile>,
    pin: Option<Pin>,
    content: Vec<u8>,
    /// What the bucket holds under `file.base()`.
    base: Vec<u8>,
    dirty: bool,
    upload: Option<(Stamp, Vec<u8>)>,
    versions: u64,
}

impl Model {
    fn new() -> Self {
        let world = World::in_memory();
        let base: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8 + 1).collect();
        let file = world.cache().of_version(&named(0, SIZE)).unwrap();
        let pin = Some(file.pin());
        Self { world, file, pin, content: base.clone(), base, dirty: false, upload: None, versions: 0 }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Write(at, length, byte) => {
                self.make_dirty();
                let data = vec![byte; length];
                self.file.write_at(at, &data).unwrap();
                let end = at as usize + length;
                self.content.resize(self.content.len().max(end), 0);
                self.content[at as usize..end].copy_from_slice(&data);
            }
            Step::Fill(at, length) => {
                let (start, end) = (at.min(self.base.len() as u64), (at + length).min(self.base.len() as u64));
                let version = self.file.base().unwrap();
                assert!(self.file.fill(&version, start, &self.base[start as usize..end as usize]).unwrap());
            }
            Step::Truncate(size) => {
                self.make_dirty();
                self.file.truncate(size).unwrap();
                self.content.resize(size as usize, 0);
            }
            Step::Zero(at, length, keep_size) => {
                self.make_dirty();
                self.file.zero(at..at + length, keep_size).unwrap();
                let end = if keep_size { (at + length).min(self.content.len() as u64) } else { at + length };
                if at < end {
                    self.content.resize(self.content.len().max(end as usize), 0);
                    self.content[at as usize..end as usize].fill(0);
                }
            }
            Step::BeginUpload => self.upload = Some((self.file.stamp().unwrap(), self.content.clone())),
            Step::EndUpload => self.end_upload(),
            Step::Sync => {
                self.world.cache().sync().unwrap();
                self.world.journal().sync().unwrap();
            }
            Step::Seal => self.file.seal().unwrap(),
            Step::Kill => self.restart(true),
            // Nothing really gets lost here, so even a crash of the machine has to show what a sync made sure of.
            Step::Crash => {
                self.world.cache().sync().unwrap();
                self.restart(false);
            }
            Step::Unpin => {
                self.pin = None;
                self.pin = Some(self.file.pin());
            }
        }
    }

    /// As the writer does it: desired state and row in one transaction, then the mark.
    fn make_dirty(&mut self) {
        if self.file.is_dirty() {
            return;
        }
        let desired = Desired {
            content: Content::Staged(self.file.id()),
            headers: None,
            condition: Condition::Any,
            was_there: true,
            since: std::time::UNIX_EPOCH,
        };
        let row = self.file.row(true).unwrap();
        self.world.journal().apply(&[Change::SetDesired("k".into(), desired), Change::PutFile(row)]).unwrap();
        self.file.mark_dirty();
        self.dirty = true;
    }

    fn end_upload(&mut self) {
        let Some((stamp, sent)) = self.upload.take().filter(|_| self.dirty) else { return };
        self.versions += 1;
        let clean = self.file.settle(&stamp, &named(self.versions, sent.len() as u64)).unwrap();
        assert!(!clean || sent == self.content);
        let row = self.file.row(!clean).unwrap();
        let cleared = clean.then(|| Change::ClearDesired("k".into()));
        self.world.journal().apply(&cleared.into_iter().chain([Change::PutFile(row)]).collect::<Vec<_>>()).unwrap();
        self.base = sent;
        self.dirty = !clean;
    }

    fn restart(&mut self, trusted: bool) {
        let (id, base) = (self.file.id(), self.file.base().unwrap());
        self.upload = None;
        // A descriptor outlives the daemon's memory no longer than its process.
        (self.pin, self.file) = (None, self.world.cache().create().unwrap());
        self.world.kill(trusted);
        let cache = self.world.cache();
        assert!(cache.changed_behind().is_empty() && cache.unclaimed().is_empty());
        self.file = if self.dirty { cache.get(id).expect("dirty files stay") } else { cache.of_version(&base).unwrap() };
        assert_eq!((self.file.is_dirty(), self.file.base()), (self.dirty, Some(base)));
        self.pin = Some(self.file.pin());
    }

    fn check(&self) {
        let size = self.content.len() as u64;
        assert_eq!(self.file.size(), size);
        let missing: SpanSet = self.file.missing(0..u64::MAX).into_iter().collect();
        assert_eq!(self.file.is_complete(), missing.is_empty());
        for span in missing.iter() {
            let range = span.start as usize..span.end as usize;
            assert_eq!(self.base.get(range.clone()), self.content.get(range), "{span:?} is absent and not in the base");
        }
        for span in missing.missing(0..size) {
            assert!(read(&self.file, span.clone()).unwrap() == self.content[span.start as usize..span.end as usize], "{span:?}");
        }
        let changed: SpanSet = self.file.changed().into_iter().collect();
        for span in changed.missing(0..size) {
            let range = span.start as usize..span.end as usize;
            assert!(self.base.get(range.clone()) == self.content.get(range), "{span:?} changed and isn't called so");
        }
        let usage = self.world.cache().usage();
        assert!(usage.bytes <= size - missing.bytes(), "holes cost nothing, the rest once");
        assert_eq!(usage.dirty_bytes, if self.dirty { usage.bytes } else { 0 });
    }

    /// A byte changes behind the daemon's back, while it runs or between two runs.
    fn rot(&mut self, at: u64, down: bool) {
        if self.content.is_empty() {
            return;
        }
        let at = at % self.content.len() as u64;
        if !self.file.missing(at..at + 1).is_empty() {
            return;
        }
        let protected = {
            let mut state = self.file.state.lock();
            let below = state.zeros_below();
            let pieces = self.file.sums(&mut state).unwrap().touching(&(at..at + 1));
            // After a kill fetched bytes may be absent again that share a sum with changed ones.
            pieces.first().map_or(at < below, |piece| state.has(&piece.span))
        };
        let at_rest = self.file.state.lock().is_sealed();
        assert!(protected || !at_rest, "{at} is at rest and under no sum");
        let id = self.file.id();
        if down && at_rest {
            self.upload = None;
            (self.pin, self.file) = (None, self.world.cache().create().unwrap());
            self.world.stop();
        }
        super::rot::flip(&self.world, id, at, false);
        if down && at_rest {
            self.world.start(true).unwrap();
            let Some(file) = self.world.cache().get(id) else { return };
            self.file = file;
            assert!(self.world.cache().changed_behind().is_empty());
        }
        let found = self.file.read_at(at, &mut [0]);
        match found {
            Ok(Some(_)) => assert!(!protected, "{at} was flipped and is read"),
            Ok(None) => assert_eq!(self.base.get(at as usize), self.content.get(at as usize), "{at} is not in the base"),
            Err(error) => assert!(self.dirty && matches!(error, crate::error::Error::Damaged(_)), "{error}"),
        }
    }
}

fn named(number: u64, size: u64) -> Version {
    version(&format!("k{number}"), size)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_file_is_a_vector_of_bytes(steps in prop::collection::vec(step(), 1..40), at in any::<u64>(), down in any::<bool>(), rest in any::<bool>()) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.check();
        }
        if rest {
            model.run(&Step::Sync);
        }
        model.rot(at, down);
    }
}
