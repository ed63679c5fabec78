//! The directory in which another host writes too: whatever the two do to one name, neither loses what it wrote.
//!
//! Each name sees one race and is left alone afterwards. What has to survive it is noted when it is acknowledged, and
//! looked for in the end, under the name or beside it.

use std::time::Duration;

use mediafs::error::Error;
use mediafs::fs::WriteMode;
use mediafs::store::{Body, Condition, ObjectStore};
use mediafs::types::{Key, ObjectHeaders};
use rand::RngExt;
use tokio::time::timeout;

use crate::driver::{Checked, Driver};
use crate::machine::held;
use crate::model::hash;
use crate::mount::{TIMEOUT, TTL};
use crate::sight::describe;

pub const DIRECTORY: &str = "shared/";

/// A content that has to be in the bucket in the end.
#[derive(Clone, Debug)]
pub struct Survivor {
    pub name: String,
    pub hash: u64,
    pub ours: bool,
    /// Of ours: a power cut can't take it any more.
    pub synced: bool,
}

impl Driver {
    /// One race for a name.
    pub async fn race(&mut self) -> Checked {
        if self.settings.exclusive {
            return Ok(());
        }
        match self.random.random_range(0..4) {
            0 => self.race_to_create().await,
            1 => self.race_to_change(false).await,
            2 => self.race_to_change(true).await,
            _ => self.read_while_replaced().await,
        }
    }

    fn fresh_name(&mut self) -> String {
        format!("{DIRECTORY}n{}.bin", self.random.random::<u32>())
    }

    /// Another host's PUT. It takes the place of whatever was there by then.
    async fn they_put(&mut self, name: &str) -> Vec<u8> {
        let bytes = self.data(12_000);
        let key = Key::from(name);
        let replaced = held(&self.machine.bucket, &key).map(|bytes| hash(&bytes));
        let (body, headers) = (Body::new(bytes.clone()), ObjectHeaders::default());
        let _receipt = self.machine.bucket.put(&key, body, &headers, &Condition::Any).await.unwrap();
        let mut past = self.machine.past.borrow_mut();
        past.survivors.retain(|survivor| survivor.name != name || Some(survivor.hash) != replaced);
        past.survivors.push(Survivor { name: name.to_owned(), hash: hash(&bytes), ours: false, synced: true });
        drop(past);
        self.note(format!("they put {name} {}", describe(Some(&bytes))));
        bytes
    }

    fn we_hold(&self, name: &str, bytes: &[u8]) {
        let survivor = Survivor { name: name.to_owned(), hash: hash(bytes), ours: true, synced: false };
        self.machine.past.borrow_mut().survivors.push(survivor);
    }

    async fn pause(&mut self, longest_millis: u64) {
        let millis = self.random.random_range(0..longest_millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    async fn race_to_create(&mut self) -> Checked {
        let name = self.fresh_name();
        let they_first = self.random.random();
        if they_first {
            self.they_put(&name).await;
            self.pause(300).await;
        }
        let bytes = self.data(12_000);
        self.we_create(&name, &bytes).await?;
        if !they_first {
            self.pause(400).await;
            self.they_put(&name).await;
        }
        Ok(())
    }

    async fn we_create(&mut self, name: &str, bytes: &[u8]) -> Checked {
        let world = &self.mount.world;
        match world.mkdir(DIRECTORY.trim_end_matches('/')).await {
            Ok(_) | Err(Error::Exists) => {}
            Err(error) if self.may_fail(&error) => return Ok(()),
            Err(error) => return Err(format!("mkdir {DIRECTORY}: {error}")),
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        let opened = world.open(name, flags).await;
        self.note(format!("we create {name} {}: {:?}", describe(Some(bytes)), opened.as_ref().map(drop).map_err(Error::to_string)));
        match opened {
            Ok(number) => self.we_write(name, number, 0, bytes, bytes).await,
            Err(Error::Exists) => Ok(()),
            Err(error) if self.may_fail(&error) => Ok(()),
            Err(error) => Err(format!("create {name}: {error}")),
        }
    }

    /// Writes and closes; `whole` is the file after it.
    async fn we_write(&mut self, name: &str, number: u64, at: u64, data: &[u8], whole: &[u8]) -> Checked {
        let world = &self.mount.world;
        let through = self.settings.write_mode == WriteMode::Through;
        let written = world.write(number, at, data).await;
        if self.machine.has_fallen() {
            return Err("fallen".into());
        }
        if written.is_ok() && !through {
            self.we_hold(name, whole);
        }
        let flushed = timeout(TIMEOUT, world.fs.flush(number)).await.unwrap_or(Err(Error::Timeout));
        world.fs.release(number);
        if self.machine.has_fallen() {
            return Err("fallen".into());
        }
        self.note(format!("we close {name}: {:?}", flushed.as_ref().map_err(Error::to_string)));
        match (written, flushed) {
            // What others put later takes its place.
            (Ok(()), Ok(())) if through => self.check_there(name, whole),
            (Ok(()), Ok(()) | Err(Error::Exists | Error::Stale)) => Ok(()),
            (Err(error), _) | (_, Err(error)) if self.may_fail(&error) => Ok(()),
            (written, flushed) => Err(format!("writing {name}: {written:?} {flushed:?}")),
        }
    }

    fn check_there(&self, name: &str, whole: &[u8]) -> Checked {
        let held = held(&self.machine.bucket, &Key::from(name));
        let is_there = held.as_deref() == Some(whole);
        is_there.then_some(()).ok_or_else(|| format!("{name} is not in the bucket after close: {}", describe(held.as_deref())))
    }

    /// They made it, we append to it, they replace or remove it, in any order.
    async fn race_to_change(&mut self, remove: bool) -> Checked {
        let name = self.fresh_name();
        let first = self.they_put(&name).await;
        self.pause(2 * TTL.as_millis() as u64).await;
        let they_first = self.random.random();
        let mut second = None;
        if they_first {
            second = self.they_change(&name, remove).await;
            self.pause(300).await;
        }
        let Ok(number) = self.mount.world.open(&name, libc::O_RDWR).await else { return Ok(()) };
        let base = self.mount.world.read_handle(number, 0, 1 << 20).await;
        if self.machine.has_fallen() {
            return Err("fallen".into());
        }
        let base = match base {
            Ok(base) if base == first || Some(&base) == second.as_ref() => base,
            Ok(other) => return Err(format!("{name} is {}, which nobody wrote", describe(Some(&other)))),
            Err(_) => {
                self.mount.world.fs.release(number);
                return Ok(());
            }
        };
        let data = self.data(9_000);
        let whole = [&base[..], &data[..]].concat();
        // It builds on what it saw, and takes its place.
        self.machine.past.borrow_mut().survivors.retain(|survivor| survivor.name != name || survivor.hash != hash(&base));
        self.we_write(&name, number, base.len() as u64, &data, &whole).await?;
        if !they_first {
            self.pause(400).await;
            self.they_change(&name, remove).await;
        }
        Ok(())
    }

    async fn they_change(&mut self, name: &str, remove: bool) -> Option<Vec<u8>> {
        if !remove {
            return Some(self.they_put(name).await);
        }
        let key = Key::from(name);
        let removed = held(&self.machine.bucket, &key).map(|bytes| hash(&bytes));
        self.machine.bucket.delete(&key).await.unwrap();
        self.machine.past.borrow_mut().survivors.retain(|survivor| survivor.name != name || Some(survivor.hash) != removed);
        self.note(format!("they remove {name}"));
        None
    }

    /// An open reader stays on its version or is told that it is gone; who opens later sees the new one.
    async fn read_while_replaced(&mut self) -> Checked {
        let name = self.fresh_name();
        let first = self.they_put(&name).await;
        let Ok(number) = self.mount.world.open(&name, libc::O_RDONLY).await else { return Ok(()) };
        let half = first.len() / 2;
        let head = self.mount.world.read_handle(number, 0, half).await;
        self.pause(100).await;
        let second = self.they_put(&name).await;
        let tail = self.mount.world.read_handle(number, half as u64, 1 << 20).await;
        self.mount.world.fs.release(number);
        if self.machine.has_fallen() {
            return Err("fallen".into());
        }
        self.note(format!("read {name} while it is replaced: {:?}", tail.as_ref().map(Vec::len).map_err(Error::to_string)));
        let is_old = |read: &mediafs::error::Result<Vec<u8>>, wanted: &[u8]| match read {
            Ok(bytes) => bytes == wanted,
            Err(error) => matches!(error, Error::Stale) || self.may_fail(error),
        };
        if !is_old(&head, &first[..half]) || !is_old(&tail, &first[half..]) {
            return Err(format!("{name} was read as a mix"));
        }
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        match self.mount.world.read(&name).await {
            Ok(bytes) if bytes == second => Ok(()),
            // In an outage what was known goes on.
            Ok(bytes) if bytes == first && self.stormy => Ok(()),
            Ok(bytes) => Err(format!("{name} is still {} after the TTL", describe(Some(&bytes)))),
            Err(error) if self.may_fail(&error) || self.machine.has_fallen() => Ok(()),
            Err(error) => Err(format!("{name} after it was replaced: {error}")),
        }
    }

    /// Both sides of every race are in the bucket.
    pub fn check_survivors(&self) -> Checked {
        let bucket = &self.machine.bucket;
        let held: Vec<(String, u64)> = bucket
            .keys()
            .iter()
            .filter(|key| key.as_str().starts_with(DIRECTORY))
            .filter_map(|key| Some((key.as_str().to_owned(), hash(&held(bucket, key)?))))
            .collect();
        for survivor in &self.machine.past.borrow().survivors {
            let stem = survivor.name.trim_end_matches(".bin");
            if !held.iter().any(|(key, hash)| key.starts_with(stem) && *hash == survivor.hash) {
                let whose = if survivor.ours { "ours" } else { "theirs" };
                return Err(format!("{whose} of {} (#{:x}) is nowhere", survivor.name, survivor.hash & 0xffff));
            }
        }
        Ok(())
    }
}
