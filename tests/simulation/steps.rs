//! The rarer steps: symlinks, copies between files, holes, and what a file has beside its bytes.

use std::ffi::OsStr;
use std::sync::Arc;

use mediafs::error::Error;
use mediafs::fs::{SetAttr, SetTime};
use rand::RngExt;

use crate::driver::{Checked, Driver};
use crate::model::{Change, Node, copied};
use crate::sight::{NOTE, time};
use crate::world::ME;

impl Driver {
    pub async fn rare(&mut self) -> Checked {
        match self.random.random_range(0..7) {
            6 => {
                // As where there are far more names than may be in memory.
                let names = self.random.random_range(0..40);
                self.mount.world.fs.thin_out(names).await;
                Ok(())
            }
            0 => self.symlink().await,
            1 => self.copy().await,
            2 => self.zero().await,
            3 => self.touch().await,
            _ => self.note_down().await,
        }
    }

    async fn symlink(&mut self) -> Checked {
        let path = self.path();
        let target = format!("t{}", self.random.random::<u32>());
        let change = Change::Symlink(path.clone(), target.clone().into_bytes());
        let make = async |mount: &crate::mount::Mount| {
            let (parent, name) = mount.world.walk(&path).await?;
            mount.world.fs.symlink(parent, OsStr::new(name), OsStr::new(&target), ME).await
        };
        self.change(change, make).await.map(drop)
    }

    /// As cp(1) does it, from one open file to another. What the bucket can't do is left to the kernel.
    async fn copy(&mut self) -> Checked {
        let (Some(from), Some(to)) = (self.some_handle(|handle| handle.readable), self.some_handle(|handle| handle.writable)) else {
            return Ok(());
        };
        if from.1 == to.1 {
            return Ok(());
        }
        let size = self.machine.past.borrow().now.node(from.1).map_or(0, |node| node.bytes().len());
        let at = if self.random.random() { 0 } else { self.random.random_range(0..=size) };
        let length = if self.random.random() { 1 << 20 } else { self.random.random_range(1..20_000) };
        let change = Change::Copy(from.1, to.1, at as u64, length);
        let expected = copied(size, at as u64, length).len();
        let fs = Arc::clone(&self.mount.world.fs);
        let done = self.change(change, async |_| fs.copy_file_range((from.0, at as u64), (to.0, at as u64), length).await).await?;
        match done {
            Some(done) if done as usize != expected => Err(format!("a copy of {expected} bytes took {done}")),
            _ => Ok(()),
        }
    }

    async fn zero(&mut self) -> Checked {
        let Some((number, node)) = self.some_handle(|handle| handle.writable) else { return Ok(()) };
        let size = self.machine.past.borrow().now.node(node).map_or(0, |node| node.bytes().len()) as u64;
        let (from, length) = (self.random.random_range(0..=size), self.random.random_range(1..9_000));
        let (change, mode) = match self.random.random_range(0..4) {
            0 => (Change::Zero(node, from, from + length, true), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
            1 => (Change::Zero(node, from, from + length, true), libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE),
            2 => (Change::Zero(node, from, from + length, false), libc::FALLOC_FL_ZERO_RANGE),
            _ => (Change::Truncate(node, size.max(from + length)), 0),
        };
        self.change(change, async |mount| mount.world.fs.fallocate(number, from, length, mode).await).await.map(drop)
    }

    async fn touch(&mut self) -> Checked {
        let Some(path) = self.existing(Node::is_file) else { return Ok(()) };
        let seconds = self.random.random_range(1_000_000_000..2_000_000_000);
        let set = SetAttr { mtime: Some(SetTime::To(time(seconds))), ..SetAttr::default() };
        let touch = async |mount: &crate::mount::Mount| {
            let ino = mount.world.stat(&path).await?.ino;
            mount.world.fs.setattr(ino, set).await
        };
        self.change(Change::Touch(path.clone(), seconds), touch).await.map(drop)
    }

    async fn note_down(&mut self) -> Checked {
        let Some(path) = self.existing(|node| !node.is_link) else { return Ok(()) };
        let value = (self.random.random_range(0..4) > 0).then(|| self.data(60));
        let name = OsStr::new(NOTE);
        let write = async |mount: &crate::mount::Mount| {
            let ino = mount.world.stat(&path).await?.ino;
            match &value {
                Some(value) => mount.world.fs.setxattr(ino, name, value, 0).await,
                None => match mount.world.fs.removexattr(ino, name).await {
                    Err(Error::NoAttribute) => Ok(()),
                    done => done,
                },
            }
        };
        self.change(Change::Note(path.clone(), value.clone()), write).await.map(drop)
    }
}
