//! The reference: a plain tree in memory, and what each step makes of it.
//!
//! Every content that a file ever had gets the next number of its file, so that "not older than" can be said.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use crate::sight::Sight;

pub type NodeId = u32;

#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub hash: u64,
}

pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Content {
    pub fn new(bytes: Vec<u8>) -> Rc<Self> {
        let hash = hash(&bytes);
        Rc::new(Self { bytes, hash })
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub id: NodeId,
    /// None: a directory. Of a symlink its target.
    pub content: Option<Rc<Content>>,
    pub is_link: bool,
    /// Counts the file's contents.
    pub number: u32,
    pub mode: u32,
    /// The value of its extended attribute.
    pub note: Option<Vec<u8>>,
    /// In seconds since 1970, where a program has set it since the file was changed last.
    pub mtime: Option<u32>,
}

impl Node {
    fn new(id: NodeId, content: Option<Rc<Content>>, mode: u32) -> Self {
        Self { id, content, is_link: false, number: 0, mode, note: None, mtime: None }
    }

    pub fn is_directory(&self) -> bool {
        self.content.is_none()
    }

    pub fn is_file(&self) -> bool {
        !self.is_directory() && !self.is_link
    }

    pub fn bytes(&self) -> &[u8] {
        self.content.as_ref().map_or(&[], |content| &content.bytes)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub tree: BTreeMap<String, Node>,
    /// Files without a name that are still open.
    pub nameless: BTreeMap<NodeId, Node>,
    next: NodeId,
}

/// What a step does to the tree. `None` from [`Model::after`]: an error, and no change.
#[derive(Clone, Debug)]
pub enum Change {
    /// O_EXCL fails where the name is taken; without it the name must be free too.
    Create(String, u32),
    Write(NodeId, u64, Vec<u8>),
    Truncate(NodeId, u64),
    Mkdir(String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String),
    Exchange(String, String),
    Chmod(String, u32),
    Symlink(String, Vec<u8>),
    /// So many bytes from one file to the same place in another.
    Copy(NodeId, NodeId, u64, u64),
    /// From here to there; true: a file that ends before stays as long as it is.
    Zero(NodeId, u64, u64, bool),
    /// The time of the last change.
    Touch(String, u32),
    /// The extended attribute; None: it goes.
    Note(String, Option<Vec<u8>>),
}

impl Model {
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nameless.get(&id).or_else(|| self.tree.values().find(|node| node.id == id))
    }

    pub fn path_of(&self, id: NodeId) -> Option<&str> {
        self.tree.iter().find(|(_, node)| node.id == id).map(|(path, _)| path.as_str())
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        match self.nameless.contains_key(&id) {
            true => self.nameless.get_mut(&id),
            false => self.tree.values_mut().find(|node| node.id == id),
        }
    }

    pub fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.tree.get(path).is_some_and(Node::is_directory)
    }

    fn parent_is_directory(&self, path: &str) -> bool {
        self.is_directory(path.rsplit_once('/').map_or("", |(parent, _)| parent))
    }

    pub fn is_empty(&self, path: &str) -> bool {
        self.below(path).is_empty()
    }

    /// The paths below a directory, without itself.
    fn below(&self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        self.tree.range(below.clone()..).take_while(|(other, _)| other.starts_with(&below)).map(|(path, _)| path.clone()).collect()
    }

    /// The names in a directory.
    pub fn names(&self, path: &str) -> Vec<String> {
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let inside = self.tree.keys().filter_map(|other| other.strip_prefix(&below)).filter(|rest| !rest.is_empty() && !rest.contains('/'));
        inside.map(str::to_owned).collect()
    }

    fn add(&mut self, path: &str, content: Option<Rc<Content>>, mode: u32) -> NodeId {
        self.next += 1;
        self.tree.insert(path.to_owned(), Node::new(self.next, content, mode));
        self.next
    }

    /// Without anything in it; new files get new ids.
    pub fn emptied(&self) -> Self {
        Self { next: self.next, ..Self::default() }
    }

    /// Takes a path in as it was found.
    pub fn adopt(&mut self, path: &str, sight: &Sight) {
        self.add(path, sight.content.clone().map(Content::new), sight.mode);
        if let Some(node) = self.tree.get_mut(path) {
            (node.is_link, node.note) = (sight.is_link, sight.note.clone());
        }
    }

    /// The tree after `change`; None: it has to fail.
    pub fn after(&self, change: &Change) -> Option<Model> {
        let mut after = self.clone();
        after.make(change).then_some(after)
    }

    fn make(&mut self, change: &Change) -> bool {
        match change {
            Change::Create(path, mode) => {
                let free = !self.tree.contains_key(path) && self.parent_is_directory(path);
                free && self.add(path, Some(Content::new(Vec::new())), *mode) > 0
            }
            Change::Mkdir(path) => {
                let free = !self.tree.contains_key(path) && self.parent_is_directory(path);
                free && self.add(path, None, 0o755) > 0
            }
            Change::Write(id, at, data) => self.rewrite(*id, |bytes| put(bytes, *at as usize, data)),
            Change::Truncate(id, size) => self.rewrite(*id, |bytes| bytes.resize(*size as usize, 0)),
            Change::Unlink(path) => self.tree.get(path).is_some_and(|node| !node.is_directory()) && self.remove(path),
            Change::Rmdir(path) => self.tree.contains_key(path) && self.is_directory(path) && self.is_empty(path) && self.remove(path),
            Change::Rename(from, to) => self.rename(from, to),
            Change::Exchange(one, two) => self.exchange(one, two),
            Change::Chmod(path, mode) => self.dress(path, |node| node.mode = *mode),
            Change::Touch(path, mtime) => self.dress(path, |node| node.mtime = Some(*mtime)),
            Change::Note(path, note) => self.dress(path, |node| node.note.clone_from(note)),
            Change::Symlink(path, target) => {
                let free = !self.tree.contains_key(path) && self.parent_is_directory(path);
                free && self.add(path, Some(Content::new(target.clone())), 0o777) > 0 && self.dress(path, |node| node.is_link = true)
            }
            Change::Copy(from, to, at, length) => {
                let source = self.node(*from).map(|node| node.bytes().to_vec()).unwrap_or_default();
                let span = copied(source.len(), *at, *length);
                span.is_empty() || self.rewrite(*to, |bytes| put(bytes, span.start, &source[span]))
            }
            Change::Zero(id, from, to, keep_size) => self.rewrite(*id, |bytes| {
                let end = if *keep_size { (*to as usize).min(bytes.len()) } else { *to as usize };
                if (*from as usize) < end {
                    put(bytes, *from as usize, &vec![0; end - *from as usize]);
                }
            }),
        }
    }

    /// Changes what is not its content.
    fn dress(&mut self, path: &str, change: impl FnOnce(&mut Node)) -> bool {
        self.tree.get_mut(path).map(change).is_some()
    }

    fn rewrite(&mut self, id: NodeId, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(node) = self.node_mut(id) else { return false };
        let mut bytes = node.bytes().to_vec();
        change(&mut bytes);
        node.mtime = None;
        if bytes != node.bytes() {
            node.content = Some(Content::new(bytes));
            node.number += 1;
        }
        true
    }

    fn remove(&mut self, path: &str) -> bool {
        let Some(node) = self.tree.remove(path) else { return false };
        if !node.is_directory() {
            self.nameless.insert(node.id, node);
        }
        true
    }

    fn take(&mut self, path: &str) -> Vec<(String, Node)> {
        let mut paths = self.below(path);
        paths.push(path.to_owned());
        paths.into_iter().filter_map(|other| Some((other[path.len()..].to_owned(), self.tree.remove(&other)?))).collect()
    }

    fn put(&mut self, path: &str, taken: Vec<(String, Node)>) {
        self.tree.extend(taken.into_iter().map(|(rest, node)| (format!("{path}{rest}"), node)));
    }

    fn rename(&mut self, from: &str, to: &str) -> bool {
        let Some(moving) = self.tree.get(from).cloned() else { return false };
        if !self.parent_is_directory(to) {
            return false;
        }
        if from == to {
            return true;
        }
        let fits = match self.tree.get(to) {
            None => true,
            Some(target) if target.is_directory() => moving.is_directory() && self.is_empty(to),
            Some(_) => !moving.is_directory(),
        };
        if !fits || to.starts_with(&format!("{from}/")) {
            return false;
        }
        self.remove(to);
        let taken = self.take(from);
        self.put(to, taken);
        true
    }

    fn exchange(&mut self, one: &str, two: &str) -> bool {
        if !self.tree.contains_key(one) || !self.tree.contains_key(two) {
            return false;
        }
        if one == two {
            return true;
        }
        if one.starts_with(&format!("{two}/")) || two.starts_with(&format!("{one}/")) {
            return false;
        }
        let (first, second) = (self.take(one), self.take(two));
        self.put(two, first);
        self.put(one, second);
        true
    }

    pub fn files(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.tree.iter().filter(|(_, node)| !node.is_directory())
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(data);
}

/// What a copy takes of a file of so many bytes.
pub fn copied(size: usize, at: u64, length: u64) -> std::ops::Range<usize> {
    let at = (at as usize).min(size);
    at..at.saturating_add(length as usize).min(size)
}
