//! What happened so far, as far as it was acknowledged: what a restart has to bring back, and what the bucket may hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{Change, Model, Node, NodeId, hash};
use crate::shared::Survivor;
use crate::sight::{Seen, describe, differences};

/// In names of files that lost a conflict.
const CONFLICT: &str = ".conflict-here-";

#[derive(Clone, Default)]
pub struct Past {
    /// What is acknowledged.
    pub now: Model,
    /// The same after the step that is under way.
    maybe: Option<Model>,
    /// Every acknowledged tree since the disk had all of it, `now` left out.
    unsynced: Vec<Model>,
    /// A power cut happened, and nobody has looked at what it left yet.
    cut: bool,
    /// There was one at some time.
    forgetful: bool,
    /// Contents that fsync(2) has promised: nothing older may be seen of that file again.
    promised: BTreeMap<NodeId, u32>,
    /// Names of files whose last bytes a power cut may have torn.
    torn: BTreeSet<String>,
    /// Files that the kernel writes to by itself: none of them is proven before the sync after its last close (true: it was).
    pub loose: BTreeMap<NodeId, bool>,
    /// What races with another host must not have destroyed.
    pub survivors: Vec<Survivor>,
    /// Which files ever had this content (with its number), and this name.
    contents: HashMap<u64, BTreeMap<NodeId, u32>>,
    names: HashMap<String, BTreeSet<NodeId>>,
}

impl Past {
    /// A step is about to be tried. What it will make of the tree; None: it has to fail.
    pub fn begin(&mut self, change: &Change) -> bool {
        self.maybe = self.now.after(change);
        if let Some(after) = &self.maybe {
            for (path, node) in after.files() {
                self.names.entry(path.clone()).or_default().insert(node.id);
            }
            for node in after.tree.values().chain(after.nameless.values()) {
                if let Some(content) = &node.content {
                    self.contents.entry(content.hash).or_default().insert(node.id, node.number);
                }
            }
        }
        self.maybe.is_some()
    }

    /// The step has ended.
    pub fn end(&mut self, worked: bool) {
        if let Some(after) = self.maybe.take().filter(|_| worked) {
            self.unsynced.push(std::mem::replace(&mut self.now, after));
        }
    }

    /// Data and journal are on the disk as they are acknowledged now.
    pub fn synced(&mut self) {
        if !self.cut {
            self.unsynced.clear();
            self.loose.retain(|_, closed| !*closed);
            self.survivors.iter_mut().for_each(|survivor| survivor.synced = true);
        }
    }

    /// fsync(2) of this file came back with success.
    pub fn promise(&mut self, id: NodeId) {
        if let Some(node) = self.now.node(id) {
            self.promised.insert(id, node.number);
        }
    }

    /// Whether a file of this name ever had these bytes. `torn`: what a power cut tore goes up as it is.
    pub fn knows(&self, path: &str, bytes: &[u8], torn: bool) -> bool {
        let names = self.origins(path);
        if torn && names.iter().any(|name| self.torn.contains(name)) {
            return true;
        }
        let Some(had) = self.contents.get(&hash(bytes)) else { return false };
        names.iter().filter_map(|name| self.names.get(name)).flatten().any(|id| had.contains_key(id))
    }

    pub fn lose_power(&mut self) {
        self.cut = true;
        self.survivors.retain(|survivor| survivor.synced);
        let mut trees = self.unsynced.clone();
        trees.push(self.now.clone());
        trees.extend(self.maybe.clone());
        for (path, node) in trees.iter().flat_map(Model::files) {
            if self.is_unsure(&trees, node.id) {
                self.torn.insert(path.clone());
            }
        }
        self.forgetful = true;
    }

    pub fn is_in_doubt(&self) -> bool {
        self.cut
    }

    /// An object that is not wanted and may be there after a power cut.
    pub fn is_left_over(&self, key: &str, bytes: Option<&[u8]>) -> bool {
        self.forgetful && bytes.is_some_and(|bytes| self.knows(key, bytes, true))
    }

    /// The names under which a file may have been written that lies at `path`: this one, and that from which a conflict
    /// took it. A mount that forgot what it had sent takes its own object for another host's, and puts its file beside it;
    /// programs find it there, change it, and it may come to the same once more.
    fn origins(&self, path: &str) -> Vec<String> {
        let mut names = vec![path.to_owned()];
        let mut seen = 0;
        while let Some(name) = names.get(seen).filter(|_| self.forgetful).cloned() {
            names.extend(name.match_indices(CONFLICT).map(|(at, _)| {
                let rest = &name[at + 1..];
                let extension = rest.find('.').map_or("", |dot| &rest[dot..]);
                format!("{}{extension}", &name[..at])
            }));
            seen += 1;
        }
        names
    }

    /// Goes on with what a restart brought back, if that can be. `torn`: a file that was changed since the last sync may
    /// hold anything after a power cut.
    pub fn accept(&mut self, seen: &Seen, torn: bool) -> Result<(), String> {
        match std::mem::take(&mut self.cut) {
            false => self.accept_after_kill(seen),
            true => self.accept_after_cut(seen, torn),
        }
    }

    /// After a kill: all that was acknowledged, and the step under way done or not done.
    fn accept_after_kill(&mut self, seen: &Seen) -> Result<(), String> {
        let maybe = self.maybe.take();
        if let Some(after) = maybe.filter(|after| differences(after, seen).is_empty()) {
            self.unsynced.push(std::mem::replace(&mut self.now, after));
        }
        self.now.nameless.clear();
        // The next life seals what it finds.
        self.loose.values_mut().for_each(|closed| *closed = true);
        let differences = differences(&self.now, seen);
        if differences.is_empty() { Ok(()) } else { Err(differences.join("; ")) }
    }

    /// After a power cut: what was on the disk, and of the rest whatever chance left.
    fn accept_after_cut(&mut self, seen: &Seen, torn: bool) -> Result<(), String> {
        let mut trees = std::mem::take(&mut self.unsynced);
        trees.push(self.now.clone());
        trees.extend(self.maybe.take());
        let mut wrong = Vec::new();
        for (path, sight) in seen {
            let content = sight.content.as_deref();
            if !self.was_there(&trees, path, content, torn) {
                wrong.push(format!("{path} was never like this ({})", describe(content)));
            }
        }
        for (path, node) in &trees[0].tree {
            let stayed = trees.iter().all(|tree| tree.tree.get(path).is_some_and(|other| other.id == node.id));
            // Of a new file that was changed since, what is torn is given up, and nothing else is anywhere.
            let given_up = self.is_unsure(&trees, node.id) && !self.promised.contains_key(&node.id);
            if stayed && !given_up && !seen.contains_key(path) {
                wrong.push(format!("{path} is gone"));
            }
        }
        let mut adopted = self.now.emptied();
        for (path, sight) in seen {
            adopted.adopt(path, sight);
        }
        // Everything found counts as a state that the file had.
        self.now = adopted.clone();
        self.loose.clear();
        self.note(&adopted);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    /// A power cut may take what this file was last.
    fn is_unsure(&self, trees: &[Model], id: NodeId) -> bool {
        self.loose.contains_key(&id) || changed(trees, id)
    }

    fn was_there(&self, trees: &[Model], path: &str, content: Option<&[u8]>, torn: bool) -> bool {
        self.origins(path).iter().any(|name| self.was_at(trees, name, content, torn))
    }

    fn was_at(&self, trees: &[Model], path: &str, content: Option<&[u8]>, torn: bool) -> bool {
        let nodes: Vec<_> = trees.iter().filter_map(|tree| tree.tree.get(path)).collect();
        let Some(content) = content else { return nodes.iter().any(|node| node.is_directory()) };
        let hash = hash(content);
        // A name that was given up may show again what it held; where the file is, nothing older than was promised.
        let recent = |id: NodeId, number: u32| {
            let lives_here = self.now.path_of(id) == Some(path);
            !lives_here || self.promised.get(&id).is_none_or(|promised| number >= *promised)
        };
        let holds = |node: &Node| node.content.as_ref().is_some_and(|content| content.hash == hash);
        if nodes.iter().any(|node| recent(node.id, node.number) && holds(node)) {
            return true;
        }
        // A change that was not synced may be torn, or given up for what the bucket has.
        let had = |id: &NodeId| self.contents.get(&hash).and_then(|nodes| nodes.get(id)).is_some_and(|number| recent(*id, *number));
        let of_name = || self.names.get(path).into_iter().flatten();
        nodes.iter().any(|node| !node.is_directory() && self.is_unsure(trees, node.id)) && (torn || of_name().any(had))
    }

    fn note(&mut self, model: &Model) {
        for (path, node) in model.files() {
            self.names.entry(path.clone()).or_default().insert(node.id);
            if let Some(content) = &node.content {
                self.contents.entry(content.hash).or_default().insert(node.id, node.number);
            }
        }
    }
}

/// Whether the file's content is not the same in all of these trees.
fn changed(trees: &[Model], id: NodeId) -> bool {
    let mut numbers = trees.iter().map(|tree| tree.node(id).map(|node| node.number));
    let first = numbers.next().flatten();
    first.is_none() || numbers.any(|number| number != first)
}
