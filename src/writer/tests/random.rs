//! Random histories of a small tree, with faults and kills, against a model of what the files hold.
//!
//! The mount is the only writer, so in the end the bucket has to equal the model, with nothing left in the journal, no
//! unfinished upload and no conflict. The same seed gives the same history.
//!
//! A history has lost answers or kills, not both: a process that is killed before it could find out whether a write had
//! worked, whose file was changed before the next one could, stores that change as a conflict copy. Nothing is lost by it.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::store::ErrorKind;
use crate::store::fault::{Fault, Rule, When};

const NAMES: [&str; 6] = ["a", "b", "c", "d/x", "d/y", "e/z"];

struct Host {
    world: World,
    /// What each name holds, as programs see it.
    model: BTreeMap<&'static str, Vec<u8>>,
    random: StdRng,
    kills: bool,
}

impl Host {
    fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { world: World::new(), model: BTreeMap::new(), random, kills: seed.is_multiple_of(2) }
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.random.random_range(0..NAMES.len())]
    }

    fn existing(&mut self) -> Option<&'static str> {
        let names: Vec<_> = self.model.keys().copied().collect();
        (!names.is_empty()).then(|| names[self.random.random_range(0..names.len())])
    }

    fn in_bucket(&self, name: &str) -> Option<Version> {
        self.world.memory.object(&name.into()).is_some().then(|| self.world.version(name))
    }

    /// What the name's bytes are made of, as the file system knows it.
    fn content(&self, name: &str) -> Content {
        match self.world.writer.pending(&name.into()) {
            Some(desired) => desired.content,
            None => copy_of(&self.in_bucket(name).expect("a clean file is in the bucket")),
        }
    }

    fn absent(&self, name: &str) -> Option<Desired> {
        Some(desired(Content::Absent, Condition::Any, self.in_bucket(name).is_some()))
    }

    fn apply(&self, changes: Vec<(&str, Option<Desired>)>) {
        let changes = changes.into_iter().map(|(name, desired)| (name.into(), desired)).collect();
        self.world.writer.apply(changes, &[]).unwrap();
    }

    fn create(&mut self) {
        let name = self.name();
        let size = [0, 5, 3_000, 40 * KIB, 100 * KIB][self.random.random_range(0..5)];
        let content = bytes(size, self.random.random());
        let condition = if self.model.contains_key(name) { Condition::Any } else { Condition::IfAbsent };
        let file = self.world.cache.create().unwrap();
        self.apply(vec![(name, Some(desired(Content::Staged(file.id()), condition, self.in_bucket(name).is_some())))]);
        file.write_at(0, &content).unwrap();
        self.model.insert(name, content);
    }

    fn change(&mut self) {
        let Some(name) = self.existing() else { return };
        let (file, condition) = match self.content(name) {
            Content::Staged(id) => {
                (self.world.cache.get(id).unwrap(), self.world.writer.pending(&name.into()).map_or(Condition::Any, |d| d.condition))
            }
            Content::CopyOf(version) => {
                let condition = if version.key.as_str() == name { if_match(&version) } else { Condition::Any };
                (self.world.cache.of_version(&version).unwrap(), condition)
            }
            other => panic!("{other:?}"),
        };
        let _pin = file.pin();
        self.apply(vec![(name, Some(desired(Content::Staged(file.id()), condition, self.in_bucket(name).is_some())))]);
        let at = self.random.random_range(0..=file.size());
        let data = bytes(self.random.random_range(1..200), self.random.random());
        file.write_at(at, &data).unwrap();
        let content = self.model.get_mut(name).unwrap();
        let end = at as usize + data.len();
        content.resize(content.len().max(end), 0);
        content[at as usize..end].copy_from_slice(&data);
    }

    fn remove(&mut self) {
        let Some(name) = self.existing() else { return };
        self.apply(vec![(name, self.absent(name))]);
        self.model.remove(name);
    }

    fn rename(&mut self) {
        let (Some(from), to) = (self.existing(), self.name()) else { return };
        if from == to {
            return;
        }
        let moved = desired(self.content(from), Condition::Any, self.in_bucket(to).is_some());
        self.apply(vec![(to, Some(moved)), (from, self.absent(from))]);
        let content = self.model.remove(from).unwrap();
        self.model.insert(to, content);
    }

    fn exchange(&mut self) {
        let (Some(one), Some(two)) = (self.existing(), self.existing()) else { return };
        if one == two {
            return;
        }
        let moved = |from: &str, to: &str| Some(desired(self.content(from), Condition::Any, self.in_bucket(to).is_some()));
        self.apply(vec![(one, moved(two, one)), (two, moved(one, two))]);
        let (first, second) = (self.model.remove(one).unwrap(), self.model.remove(two).unwrap());
        self.model.insert(one, second);
        self.model.insert(two, first);
    }

    fn chmod(&mut self) {
        let Some(name) = self.existing() else { return };
        let pending = self.world.writer.pending(&name.into());
        let was = pending.unwrap_or_else(|| desired(self.content(name), Condition::Any, true));
        let changed = Desired { headers: Some(headers(&format!("x/{}", self.random.random::<u8>())).into()), ..was };
        self.apply(vec![(name, Some(changed))]);
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(1..400))).await;
    }

    fn set_faults(&mut self) {
        self.world.faults.clear();
        let chance = self.random.random_range(0.0..0.3);
        let lost = if self.kills { Fault::Error(ErrorKind::Unreachable) } else { Fault::ReplyLost };
        for fault in [Fault::Error(ErrorKind::Unavailable), lost, Fault::Latency(Duration::from_millis(self.random.random_range(1..3_000)))]
        {
            self.world.faults.add(Rule::any().when(When::Probability(chance)).fault(fault));
        }
    }

    /// kill -9 now, and a new process.
    async fn crash(&mut self) {
        self.world.writer.stop();
        self.pause().await;
        self.world = self.world.after_crash();
        self.world.start();
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..20 => self.create(),
            20..40 => self.change(),
            40..50 => self.remove(),
            50..65 => self.rename(),
            65..70 => self.exchange(),
            70..75 => self.chmod(),
            75..78 if self.kills => self.crash().await,
            78..80 => self.set_faults(),
            80..83 => {
                let name = self.name();
                let _ = timeout(Duration::from_secs(2), self.world.writer.sync(&name.into())).await;
            }
            _ => self.pause().await,
        }
    }

    async fn check(&mut self, seed: u64) {
        self.world.faults.clear();
        assert_eq!(self.world.writer.drain(Duration::from_secs(600)).await, 0, "seed {seed}: {:?}", self.world.writer.backlog());
        let keys: Vec<&str> = self.model.keys().copied().collect();
        assert_eq!(self.world.keys(), keys, "seed {seed}");
        for (name, content) in &self.model {
            assert!(self.world.object(name).unwrap() == *content, "seed {seed}: {name} differs");
        }
        assert!(self.world.journalled().is_empty(), "seed {seed}");
        assert_eq!(self.world.writer.backlog().conflicts, 0, "seed {seed}");
        assert_eq!(self.world.writer.shared.journal.uploads().unwrap(), [], "seed {seed}");
    }
}

async fn history(seed: u64) {
    let mut host = Host::new(seed);
    for _ in 0..3 {
        for _ in 0..60 {
            host.step().await;
        }
        host.check(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_the_bucket_ends_as_the_files_are() {
    let _one_thread = on_one_thread();
    let seeds = std::env::var("MEDIAFS_WRITER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let first = std::env::var("MEDIAFS_WRITER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        history(seed).await;
    }
}
