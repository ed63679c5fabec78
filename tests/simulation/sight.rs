//! What a mount shows of its tree, and how that differs from what it should be.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mediafs::error::{Error, Result};
use mediafs::fs::{Attr, Kind};

use crate::model::{Model, Node, hash};
use crate::world::World;

/// The extended attribute that the program uses.
pub const NOTE: &str = "user.note";

/// What is under one path.
#[derive(Clone, Debug)]
pub struct Sight {
    /// None: a directory. Of a symlink its target.
    pub content: Option<Vec<u8>>,
    pub is_link: bool,
    pub mode: u32,
    pub note: Option<Vec<u8>>,
    pub mtime: SystemTime,
}

/// By path.
pub type Seen = BTreeMap<String, Sight>;

/// The whole tree, without what is shared with another host.
pub async fn see(world: &World) -> Result<Seen> {
    let mut seen = Seen::new();
    let mut stack = vec![String::new()];
    while let Some(directory) = stack.pop() {
        for name in world.names(&directory).await? {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if format!("{path}/") == crate::shared::DIRECTORY {
                continue;
            }
            let attr = world.stat(&path).await?;
            if attr.kind == Kind::Directory {
                stack.push(path.clone());
            }
            let sight = look_at(world, &path, attr).await?;
            seen.insert(path, sight);
        }
    }
    Ok(seen)
}

async fn look_at(world: &World, path: &str, attr: Attr) -> Result<Sight> {
    let content = match attr.kind {
        Kind::Directory => None,
        Kind::Symlink => Some(world.fs.readlink(attr.ino).await?),
        Kind::File => Some(read(world, path).await?),
    };
    let is_link = attr.kind == Kind::Symlink;
    let note = match world.fs.getxattr(world.stat(path).await?.ino, OsStr::new(NOTE)).await {
        Ok(note) => Some(note),
        Err(Error::NoAttribute) => None,
        Err(error) => return Err(error),
    };
    Ok(Sight { content, is_link, mode: attr.mode, note, mtime: attr.mtime })
}

/// A file whose desired state a power cut took is replaced by what the bucket has while it is looked at: the kernel, and a
/// program that reads it whole, ask again.
async fn read(world: &World, path: &str) -> Result<Vec<u8>> {
    for _ in 0..3 {
        match world.read(path).await {
            Err(Error::Stale) => tokio::time::sleep(Duration::from_secs(2)).await,
            done => return done,
        }
    }
    world.read(path).await
}

/// Where a tree isn't as it was acknowledged, in words.
pub fn differences(model: &Model, seen: &Seen) -> Vec<String> {
    let mut wrong = losses(model, seen);
    wrong.extend(seen.keys().filter(|path| !model.tree.contains_key(*path)).map(|path| format!("{path} should not be there")));
    wrong
}

/// The same of what should be there.
pub fn losses(model: &Model, seen: &Seen) -> Vec<String> {
    let compare = |(path, node): (&String, &Node)| match seen.get(path) {
        None => Some(format!("{path} is missing")),
        Some(sight) => differs(path, node, sight),
    };
    model.tree.iter().filter_map(compare).collect()
}

fn differs(path: &str, node: &Node, sight: &Sight) -> Option<String> {
    let wanted = node.content.as_ref().map(|content| &content.bytes[..]);
    let mtime = node.mtime.map(time);
    if sight.content.as_deref() != wanted {
        return Some(format!("{path} is {}, not {}", describe(sight.content.as_deref()), describe(wanted)));
    }
    if sight.is_link != node.is_link {
        return Some(format!("{path} is a symlink: {}", sight.is_link));
    }
    if sight.mode != node.mode {
        return Some(format!("{path} has mode {:o}, not {:o}", sight.mode, node.mode));
    }
    if sight.note != node.note {
        return Some(format!("{path} has the note {:?}, not {:?}", sight.note, node.note));
    }
    let is_other_time = mtime.is_some_and(|mtime| mtime != sight.mtime);
    is_other_time.then(|| format!("{path} is dated {:?}, not {mtime:?}", sight.mtime))
}

pub fn time(seconds: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

pub fn describe(content: Option<&[u8]>) -> String {
    match content {
        None => "a directory".into(),
        Some(bytes) => {
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            format!("{} bytes ({zeros} zeros) #{:x}", bytes.len(), hash(bytes) & 0xffff)
        }
    }
}
