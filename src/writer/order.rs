//! What has to happen before a key may change in the bucket.
//!
//! Pure, over a few facts. Three rules keep every byte that something still needs, and a fourth what others see:
//! - a key stays as it is while another entry takes bytes from it, and nothing takes bytes from a key that is changing;
//! - the last child of a directory goes only when the directory's marker was seen to;
//! - one operation for a key at a time;
//! - below a name that was a file nothing is stored until that file is gone, unless something keeps it there: a bucket can
//!   hold both, and MinIO then lists nothing below the name.
//!
//! Entries that exchange names wait for each other; such a cycle is found by following the sources, and broken by taking
//! one side's bytes here. An entry has at most one source, so that the walk is a line.

use std::collections::BTreeSet;

use crate::types::Key;

/// What the rules look at.
pub trait Facts {
    /// The key that this entry takes bytes from, other than its own; None also where there is no such entry.
    fn source(&self, key: &Key) -> Option<Key>;
    /// Entries that take bytes from this key (at least those; the rules ask `source` again).
    fn readers(&self, key: &Key) -> Vec<Key>;
    fn is_absent(&self, key: &Key) -> bool;
    /// Wanted gone, and nothing has kept it from going so far.
    fn is_going(&self, key: &Key) -> bool;
    /// An entry that decides whether this directory needs a marker.
    fn is_kept_directory(&self, key: &Key) -> bool;
    /// Stopped, for a while or for good.
    fn has_failed(&self, key: &Key) -> bool;
    fn is_in_flight(&self, key: &Key) -> bool;
    /// An operation under way that takes bytes from this key.
    fn is_read_in_flight(&self, key: &Key) -> Option<Key>;
    fn is_held(&self, key: &Key) -> bool;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Go,
    /// Wait until something happens to this key.
    After(Key),
    /// These wait for each other.
    Cycle(Vec<Key>),
}

pub fn order(facts: &impl Facts, key: &Key) -> Order {
    if facts.is_in_flight(key) || facts.is_held(key) {
        return Order::After(key.clone());
    }
    if let Some(reader) = facts.is_read_in_flight(key) {
        return Order::After(reader);
    }
    let source = facts.source(key);
    if let Some(source) = source.filter(|source| facts.is_in_flight(source)) {
        return Order::After(source);
    }
    if let Some(reader) = facts.readers(key).into_iter().find(|reader| reader != key && facts.source(reader).as_ref() == Some(key)) {
        return match cycle(facts, key) {
            Some(members) => Order::Cycle(members),
            None => Order::After(reader),
        };
    }
    if let Some(file) = file_above(facts, key) {
        return Order::After(file);
    }
    match key.split() {
        Some((directory, _)) if facts.is_absent(key) && !directory.is_root() && facts.is_kept_directory(&directory) => {
            Order::After(directory)
        }
        _ => Order::Go,
    }
}

/// A file that is to give way to a directory above `key`, and waits neither for `key` nor for what has failed.
fn file_above(facts: &impl Facts, key: &Key) -> Option<Key> {
    if facts.is_absent(key) {
        return None;
    }
    going_above(facts, key).find(|file| !facts.is_held(file) && goes_before(facts, file, key))
}

/// The files above `key` that are to go.
fn going_above(facts: &impl Facts, key: &Key) -> impl Iterator<Item = Key> {
    let parent = |key: &Key| key.split().map(|(directory, _)| directory);
    let nearest = if key.is_marker() { Some(key.clone()) } else { parent(key) };
    let above = std::iter::successors(nearest, parent).map(|directory| directory.without_slash());
    above.filter(|file| !file.is_root() && facts.is_going(file))
}

/// Nothing that `file` waits for, at first or at tenth hand, is `key`, or has failed. Followed are all waits that these rules
/// could make, so that a wait which is made closes no circle.
fn goes_before(facts: &impl Facts, file: &Key, key: &Key) -> bool {
    let (mut left, mut seen) = (vec![file.clone()], BTreeSet::new());
    while let Some(at) = left.pop() {
        if at == *key || facts.has_failed(&at) {
            return false;
        }
        left.extend(facts.readers(&at));
        if facts.is_absent(&at) {
            left.extend(at.split().map(|(directory, _)| directory).filter(|directory| facts.is_kept_directory(directory)));
        } else {
            left.extend(going_above(facts, &at));
        }
        seen.insert(at);
        left.retain(|at| !seen.contains(at));
    }
    true
}

/// The keys from `key` along their sources, if they lead back to it.
fn cycle(facts: &impl Facts, key: &Key) -> Option<Vec<Key>> {
    let mut members = vec![key.clone()];
    let mut at = facts.source(key)?;
    while at != *key {
        // A walk into somebody else's cycle never comes back here.
        if members.contains(&at) {
            return None;
        }
        let next = facts.source(&at)?;
        members.push(at);
        at = next;
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Want {
        Data,
        Absent,
        KeptDirectory,
        From(&'static str),
    }
    use Want::*;

    #[derive(Default)]
    struct World {
        entries: BTreeMap<Key, Want>,
        flying: Vec<&'static str>,
        held: Vec<&'static str>,
        failed: Vec<&'static str>,
    }

    impl Facts for World {
        fn source(&self, key: &Key) -> Option<Key> {
            match self.entries.get(key)? {
                From(source) if *source != key.as_str() => Some(Key::from(*source)),
                _ => None,
            }
        }
        fn readers(&self, key: &Key) -> Vec<Key> {
            self.entries.iter().filter(|(_, want)| matches!(want, From(s) if *s == key.as_str())).map(|(k, _)| k.clone()).collect()
        }
        fn is_absent(&self, key: &Key) -> bool {
            self.entries.get(key) == Some(&Absent)
        }
        fn is_going(&self, key: &Key) -> bool {
            self.is_absent(key)
        }
        fn is_kept_directory(&self, key: &Key) -> bool {
            self.entries.get(key) == Some(&KeptDirectory)
        }
        fn has_failed(&self, key: &Key) -> bool {
            self.failed.contains(&key.as_str())
        }
        fn is_in_flight(&self, key: &Key) -> bool {
            self.flying.contains(&key.as_str())
        }
        fn is_read_in_flight(&self, key: &Key) -> Option<Key> {
            self.flying.iter().map(|k| Key::from(*k)).find(|k| self.source(k).as_ref() == Some(key))
        }
        fn is_held(&self, key: &Key) -> bool {
            self.held.contains(&key.as_str())
        }
    }

    fn world(entries: &[(&str, Want)]) -> World {
        World { entries: entries.iter().map(|(k, w)| (Key::from(*k), w.clone())).collect(), ..World::default() }
    }

    fn after(key: &str) -> Order {
        Order::After(Key::from(key))
    }

    #[test]
    fn a_source_changes_after_its_copies_are_there() {
        // a → b → c, renamed one after the other.
        let chain = world(&[("a", Absent), ("b", From("a")), ("c", From("b"))]);
        assert_eq!(order(&chain, &"c".into()), Order::Go);
        assert_eq!(order(&chain, &"b".into()), after("c"));
        assert_eq!(order(&chain, &"a".into()), after("b"));
        // Overwriting is no better than deleting.
        let overwritten = world(&[("a", Data), ("b", From("a"))]);
        assert_eq!(order(&overwritten, &"a".into()), after("b"));
        // A copy onto itself is in nobody's way.
        assert_eq!(order(&world(&[("a", From("a"))]), &"a".into()), Order::Go);
    }

    #[test]
    fn what_is_under_way_or_held_is_waited_for() {
        let mut flying = world(&[("a", Data), ("b", From("a"))]);
        flying.flying = vec!["a"];
        assert_eq!(order(&flying, &"a".into()), after("a"));
        assert_eq!(order(&flying, &"b".into()), after("a"));
        flying.flying = vec!["b"];
        assert_eq!(order(&flying, &"a".into()), after("b"));
        let mut held = world(&[("a", Absent)]);
        held.held = vec!["a"];
        assert_eq!(order(&held, &"a".into()), after("a"));
    }

    #[test]
    fn the_last_child_goes_after_the_marker() {
        let last = world(&[("d/", KeptDirectory), ("d/x", Absent), ("d/y", Data), ("d/e/z", Absent), ("x", Absent)]);
        assert_eq!(order(&last, &"d/x".into()), after("d/"));
        for free in ["d/", "d/y", "d/e/z", "x"] {
            assert_eq!(order(&last, &free.into()), Order::Go, "{free}");
        }
        let marker = world(&[("d/", Data), ("d/x", Absent)]);
        assert_eq!(order(&marker, &"d/x".into()), Order::Go, "a marker and the children are independent");
    }

    #[test]
    fn a_directory_fills_after_the_file_of_its_name_is_gone() {
        let wants = [("d/a", Absent), ("d/a/", Data), ("d/a/b/c", Data), ("d/a/b/gone", Absent), ("d/ab", Data)];
        let mut replaced = world(&wants);
        for waits in ["d/a/", "d/a/b/c"] {
            assert_eq!(order(&replaced, &waits.into()), after("d/a"), "{waits}");
        }
        for free in ["d/a", "d/a/b/gone", "d/ab"] {
            assert_eq!(order(&replaced, &free.into()), Order::Go, "{free}");
        }
        replaced.held = vec!["d/a"];
        assert_eq!(order(&replaced, &"d/a/b/c".into()), Order::Go, "the file stays for its readers");
        let moved = world(&[("a", Absent), ("a/", Data), ("a/x", Data), ("b", From("a"))]);
        assert_eq!(["a/", "a/x", "a", "b"].map(|key| order(&moved, &key.into())), [after("a"), after("a"), after("b"), Order::Go]);
        // The file moves into the directory that takes its name: what it doesn't wait for waits.
        let inward = world(&[("a", Absent), ("a/", Data), ("a/a", From("a")), ("a/x", Data)]);
        let orders = ["a/a", "a", "a/", "a/x"].map(|key| order(&inward, &key.into()));
        assert_eq!(orders, [Order::Go, after("a/a"), after("a"), after("a")]);
        // At second hand, through the file that another one gives way to.
        let through = world(&[("a", Absent), ("a/x", From("b")), ("b", Absent), ("b/y", From("a"))]);
        assert_eq!(["a/x", "b/y"].map(|key| order(&through, &key.into())), [Order::Go, Order::Go]);
        let mut stuck = world(&[("a", Absent), ("a/x", Data), ("b", From("a"))]);
        stuck.failed = vec!["b"];
        assert_eq!(order(&stuck, &"a/x".into()), Order::Go, "who knows when");
    }

    #[test]
    fn an_exchange_is_a_cycle() {
        let keys = |names: &[&str]| Order::Cycle(names.iter().map(|n| Key::from(*n)).collect());
        let swap = world(&[("a", From("b")), ("b", From("a"))]);
        assert_eq!(order(&swap, &"a".into()), keys(&["a", "b"]));
        let ring = world(&[("a", From("b")), ("b", From("c")), ("c", From("a"))]);
        assert_eq!(order(&ring, &"b".into()), keys(&["b", "c", "a"]));
        // d hangs on a cycle but is no part of it.
        let tail = world(&[("a", From("b")), ("b", From("a")), ("d", From("a")), ("e", From("d"))]);
        assert_eq!(order(&tail, &"d".into()), after("e"));
        assert_eq!(order(&tail, &"e".into()), Order::Go);
    }

    proptest! {
        /// Whatever the renames were: as long as entries are left, one of them may go or a cycle is named; and none goes
        /// while another needs its key.
        #[test]
        fn something_can_always_go(sources in proptest::collection::vec(0usize..12, 1..8)) {
            const NAMES: [&str; 8] = ["a", "b", "a/c", "a/c/d", "b/e", "f", "f/g", "a/c/h"];
            let mut world = World::default();
            for (index, source) in sources.iter().enumerate() {
                let want = NAMES.get(*source).map_or(Absent, |name| From(name));
                world.entries.insert(Key::from(NAMES[index]), want);
            }
            while !world.entries.is_empty() {
                let keys: Vec<Key> = world.entries.keys().cloned().collect();
                let mut moved = false;
                for key in keys {
                    match order(&world, &key) {
                        Order::Go => {
                            prop_assert!(!world.entries.keys().any(|k| *k != key && world.source(k).as_ref() == Some(&key)));
                            world.entries.remove(&key);
                            moved = true;
                        }
                        Order::Cycle(members) => {
                            prop_assert!(members.len() > 1);
                            world.entries.insert(members[0].clone(), Data);
                            moved = true;
                        }
                        Order::After(other) => prop_assert_ne!(other, key),
                    }
                }
                prop_assert!(moved);
            }
        }
    }
}
