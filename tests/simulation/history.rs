//! One seed, one history: lives of the mount, each ended by a crash but for the last, and what must hold after each.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mediafs::fs::WriteMode;
use mediafs::store::ObjectStore;
use mediafs::store::memory::MemoryStore;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::driver::{Checked, Driver};
use crate::machine::{Crash, Machine, Plan, Remains, directory, held};
use crate::mount::{Settings, TTL, mount, mount_in, sync};
use crate::past::Past;
use crate::platters::{Platters, data_files};
use crate::shared::DIRECTORY;
use crate::sight::{differences, losses, see};
use crate::trace::Trace;
use crate::watched::{DONE, TORN_FILES_STAY};

/// The first life begins here.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// Longest time in which all is in the bucket once that answers again: backoffs end after a minute, slow failures are
/// tried at once.
const DRAIN: Duration = Duration::from_secs(900);

/// What to make of a seed; fewer steps make a shorter story.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    pub seed: u64,
    /// Only so many steps in each life.
    pub steps: Option<usize>,
}

pub struct Failure {
    pub message: String,
    pub trace: Vec<String>,
}

/// Plays the history; the digest of all that happened.
pub fn play(script: Script) -> Result<u64, Failure> {
    let trace = Trace::default();
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lives(script, &trace)));
    Machine::stop();
    let message = match played {
        Ok(Ok(())) => return Ok(trace.digest()),
        Ok(Err(message)) => message,
        Err(panic) => format!("panicked: {}", panic.downcast_ref::<String>().map_or("?", String::as_str)),
    };
    Err(Failure { message, trace: trace.lines() })
}

fn settings(random: &mut StdRng, seed: u64) -> Settings {
    Settings {
        write_mode: if random.random_range(0..4) == 0 { WriteMode::Through } else { WriteMode::Back },
        r2: random.random_range(0..6) == 0,
        exclusive: random.random_range(0..6) == 0,
        cache_bytes: if random.random_range(0..4) == 0 { 400 << 10 } else { 1 << 30 },
        gzip: seed.is_multiple_of(3),
    }
}

fn plan(random: &mut StdRng, steps: usize) -> Plan {
    let crash = if random.random_range(0..3) == 0 { Crash::PowerCut } else { Crash::Kill };
    let local = ["written", "removed", "committed", "file synced", "journal synced", "step"];
    let (event, longest) = match random.random_range(0..10) {
        0..4 => (None, 12 * steps as u64),
        // In the middle of the start.
        4 => (None, 12),
        5..7 => (Some(local[random.random_range(0..local.len())]), steps as u64),
        _ => (Some(DONE[random.random_range(0..DONE.len())]), 1 + steps as u64 / 8),
    };
    Plan { crash, event, count: random.random_range(1..=longest) }
}

fn lives(script: Script, trace: &Trace) -> Checked {
    let mut random = StdRng::seed_from_u64(script.seed);
    let settings = settings(&mut random, script.seed);
    trace.add(Duration::ZERO, format!("{settings:?}"));
    let folder = directory();
    let bucket = MemoryStore::new().with_min_part_bytes(1);
    // Half the buckets are S3's, half MinIO's.
    let bucket = if script.seed.is_multiple_of(2) { bucket } else { bucket.with_files_that_hide_directories() };
    let mut remains = Remains {
        platters: Platters::default(),
        folder,
        bucket: Arc::new(bucket),
        past: Past::default(),
        crash: None,
        time: SystemTime::UNIX_EPOCH + EPOCH,
        boot: 1,
    };
    let count = random.random_range(1..5);
    for number in 0..=count {
        let steps = random.random_range(5..60);
        let plan = (number < count).then(|| plan(&mut random, steps));
        let life = Life { settings, plan, steps: script.steps.unwrap_or(steps).min(steps), seed: random.random(), trace: trace.clone() };
        trace.add(Duration::ZERO, format!("life {number} {plan:?}"));
        remains = life.live(remains)?;
    }
    Ok(())
}

struct Life {
    settings: Settings,
    plan: Option<Plan>,
    steps: usize,
    seed: u64,
    trace: Trace,
}

impl Life {
    fn live(self, remains: Remains) -> Checked<Remains> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (machine, lived) = runtime.block_on(async {
            let crash = remains.crash;
            let machine = Machine::start(remains, self.seed, self.plan);
            let _installed = mediafs::simulation::install(Rc::clone(&machine) as _);
            let lived = tokio::select! {
                biased;
                () = machine.fallen.notified() => Ok(()),
                lived = self.run(&machine, crash) => lived,
            };
            (machine, lived)
        });
        let fallen = machine.has_fallen();
        let _installed = mediafs::simulation::install(Rc::clone(&machine) as _);
        // With its tasks.
        drop(runtime);
        if !fallen {
            lived?;
        }
        Ok(machine.remains())
    }

    async fn run(&self, machine: &Rc<Machine>, crash: Option<Crash>) -> Checked {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mount = mount(machine, self.settings, random.random()).map_err(|error| format!("the mount does not start: {error}"))?;
        let mut driver = Driver::new(Rc::clone(machine), mount, self.settings, StdRng::seed_from_u64(random.random()), self.trace.clone());
        if std::env::var_os("MEDIAFS_SIM_STATE").is_some() {
            driver.note_state();
        }
        let lived = self.run_on(&mut driver, crash, &mut random).await;
        if lived.is_err() && !machine.has_fallen() {
            driver.note_state();
        }
        lived
    }

    async fn run_on(&self, driver: &mut Driver, crash: Option<Crash>, random: &mut StdRng) -> Checked {
        self.adopt(driver, crash, random).await?;
        let machine = Rc::clone(&driver.machine);
        for _ in 0..self.steps {
            driver.step().await?;
            if machine.has_fallen() {
                return Ok(());
            }
        }
        if self.plan.is_some() {
            machine.fall(self.plan.map_or(Crash::Kill, |plan| plan.crash));
            return Ok(());
        }
        self.finish(driver).await
    }

    /// Holds what the restart brought back against what was acknowledged.
    async fn adopt(&self, driver: &mut Driver, crash: Option<Crash>, random: &mut StdRng) -> Checked {
        let Some(crash) = crash else { return Ok(()) };
        if random.random() {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..5000))).await;
        }
        if driver.machine.past.borrow().is_in_doubt() {
            // A mount that forgot what it sent may find conflicts with itself: they come now, and not under the next steps.
            self.drain(driver).await?;
            tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        }
        let Some(seen) = driver.see().await? else { return Err("the tree can't be read after a restart".into()) };
        let accepted = driver.machine.past.borrow_mut().accept(&seen, TORN_FILES_STAY);
        accepted.map_err(|wrong| format!("after a {crash:?}: {wrong}"))
    }

    /// The last life ends in good order: everything is in the bucket, and nothing is left over.
    async fn finish(&self, driver: &mut Driver) -> Checked {
        driver.weather(true);
        driver.close_all().await?;
        self.drain(driver).await?;
        driver.is_calm();
        let seen = driver.see().await?.ok_or("the tree can't be read")?;
        let machine = &driver.machine;
        let wrong = differences(&machine.past.borrow().now, &seen);
        if !wrong.is_empty() {
            return Err(format!("in the end: {}", wrong.join("; ")));
        }
        self.check_strange_eyes(driver).await?;
        // What the look has fetched.
        tokio::time::sleep(Duration::from_secs(10)).await;
        sync(&driver.mount.world.cache).map_err(|error| error.to_string())?;
        self.check_bucket(machine).await?;
        driver.check_survivors()?;
        self.check_leftovers(driver)?;
        for (key, (bytes, info)) in machine.bucket.keys().into_iter().filter_map(|key| Some((key.clone(), machine.bucket.object(&key)?))) {
            self.trace.add(machine.elapsed(), format!("{key} {} {} {:?}", bytes.len(), info.etag.text(), info.headers.metadata));
        }
        match machine.violations.borrow().first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// What another host sees of it, which knows nothing but the bucket.
    async fn check_strange_eyes(&self, driver: &Driver) -> Checked {
        let stranger = mount_in(&directory(), &driver.machine, self.settings, self.seed).map_err(|error| error.to_string())?;
        let seen = see(&stranger.world).await.map_err(|error| format!("another host can't read the tree: {error}"))?;
        let wrong = losses(&driver.machine.past.borrow().now, &seen);
        if wrong.is_empty() { Ok(()) } else { Err(format!("to another host: {}", wrong.join("; "))) }
    }

    async fn drain(&self, driver: &Driver) -> Checked {
        let left = driver.mount.world.writer.drain(DRAIN).await;
        let backlog = || driver.mount.world.writer.backlog();
        if left > 0 && !driver.machine.has_fallen() { Err(format!("{left} keys do not go up: {:?}", backlog())) } else { Ok(()) }
    }

    async fn check_bucket(&self, machine: &Machine) -> Checked {
        let uploads = machine.bucket.list_uploads().await.unwrap();
        let past = machine.past.borrow();
        let names: Vec<String> = machine
            .bucket
            .keys()
            .iter()
            .map(|key| key.as_str().to_owned())
            .filter(|key| !key.ends_with('/') && !key.starts_with(DIRECTORY))
            .collect();
        let wanted: Vec<String> = past.now.files().map(|(path, _)| path.clone()).collect();
        // A mount that forgot a removal leaves what it was to remove.
        let left = |key: &String| past.is_left_over(key, held(&machine.bucket, &key.as_str().into()).as_deref());
        let names: Vec<String> = names.into_iter().filter(|key| wanted.contains(key) || !left(key)).collect();
        if names != wanted {
            return Err(format!("the bucket holds {names:?}, not {wanted:?}"));
        }
        for (path, node) in past.now.files() {
            let bytes = held(&machine.bucket, &path.as_str().into()).unwrap();
            if *bytes != *node.bytes() {
                return Err(format!("the bucket holds other bytes of {path}"));
            }
        }
        if uploads.is_empty() { Ok(()) } else { Err(format!("unfinished uploads are left: {uploads:?}")) }
    }

    /// Neither rows without a file nor files without a row.
    fn check_leftovers(&self, driver: &Driver) -> Checked {
        let (journal, cache) = (&driver.mount.journal, &driver.mount.world.cache);
        let show = |error: mediafs::error::Error| error.to_string();
        let desired = journal.desired().map_err(show)?;
        let (uploads, attempts) = (journal.uploads().map_err(show)?, journal.attempts().map_err(show)?);
        if !desired.is_empty() || !uploads.is_empty() || !attempts.is_empty() {
            return Err(format!("the journal still holds {desired:?} {uploads:?} {attempts:?}"));
        }
        let usage = cache.usage();
        if usage.dirty_bytes > 0 {
            return Err(format!("{} bytes are dirty for ever", usage.dirty_bytes));
        }
        let rows: Vec<String> = journal.files().map_err(show)?.iter().map(|row| row.id.to_string()).collect();
        for path in data_files(driver.machine.folder.path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if std::fs::metadata(&path).unwrap().len() > 0 && !rows.contains(&name) {
                return Err(format!("data file {name} has no row"));
            }
        }
        match rows.into_iter().find(|id| cache.get(mediafs::types::FileId(u64::from_str_radix(id, 16).unwrap())).is_none()) {
            Some(id) => Err(format!("row {id} has no file")),
            None => Ok(()),
        }
    }
}
