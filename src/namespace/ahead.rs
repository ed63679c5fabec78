//! Recognises who asks for the attributes of one listed name after the other, and says how far ahead to ask.
//!
//! A listing has no metadata, so that `find -size` or `ls -l` over files that were never looked at is a HEAD for each, and
//! one after the other they take a round trip each. Names in a row are a habit: those that follow are asked for side by
//! side, at most a window ahead. The window doubles while the habit lasts; a name out of the row ends it. No name is asked
//! for that the program would not come to if it went on.
//!
//! Pure: no I/O and no clock. What is asked already, and what a listing has forgotten, is for the callers to know.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::inode::{Child, Ino};

/// Names in a row before anything is asked ahead: `rm` looks two up before it is recognised, and a page of thumbnails none.
const ROW: u32 = 3;
const WINDOW_FIRST: usize = 8;
/// As many round trips side by side as the bucket is asked at once.
const WINDOW_LIMIT: usize = 64;
/// Names that are known already, looked through for the next that isn't.
const LOOK_THROUGH: usize = 256;

#[derive(Debug, Default)]
pub struct LookAhead {
    /// The name that was come to last.
    last: Option<Arc<str>>,
    row: u32,
    window: usize,
    /// Up to here it was asked ahead.
    planned_to: Option<Arc<str>>,
}

impl LookAhead {
    /// A program comes to `name`, whose attributes were `unknown`. Returns the names to ask for now, in their order.
    pub fn reach(
        &mut self,
        children: &BTreeMap<Arc<str>, Child>,
        name: &Arc<str>,
        unknown: bool,
        is_unknown: impl Fn(Ino) -> bool,
    ) -> Vec<(Arc<str>, Ino)> {
        if !unknown && self.window == 0 {
            return Vec::new();
        }
        let planned = self.planned_to.as_ref().is_some_and(|to| name <= to) && self.last.as_ref().is_none_or(|last| name >= last);
        let follows = planned || self.follows(children, name, &is_unknown);
        if !follows {
            // What is known costs nothing, and is no sign.
            if unknown {
                *self = Self { last: Some(Arc::clone(name)), row: 1, ..Self::default() };
            }
            return Vec::new();
        }
        if self.last.as_ref() != Some(name) {
            self.row = self.row.saturating_add(1);
            self.last = Some(Arc::clone(name));
        }
        if self.row < ROW { Vec::new() } else { self.plan(children, name, &is_unknown) }
    }

    /// `name` is the next one after the last that isn't known.
    fn follows(&self, children: &BTreeMap<Arc<str>, Child>, name: &Arc<str>, is_unknown: &impl Fn(Ino) -> bool) -> bool {
        let Some(last) = &self.last else { return false };
        let mut after = children.range::<str, _>((Bound::Excluded(&**last), Bound::Unbounded)).take(LOOK_THROUGH);
        let next = after.find(|(next, child)| *next == name || matches!(child, Child::Inode(ino) if is_unknown(*ino)));
        next.is_some_and(|(next, _)| next == name)
    }

    fn plan(&mut self, children: &BTreeMap<Arc<str>, Child>, name: &Arc<str>, is_unknown: &impl Fn(Ino) -> bool) -> Vec<(Arc<str>, Ino)> {
        let ahead = self
            .planned_to
            .as_ref()
            .filter(|to| *to > name)
            .map_or(0, |to| children.range::<str, _>((Bound::Excluded(&**name), Bound::Included(&**to))).take(WINDOW_LIMIT).count());
        // Half of the window is the reserve that hides the next round trip.
        if ahead > self.window / 2 {
            return Vec::new();
        }
        self.window = (self.window * 2).clamp(WINDOW_FIRST, WINDOW_LIMIT);
        let from = self.planned_to.as_ref().filter(|to| *to > name).unwrap_or(name);
        let after = children.range::<str, _>((Bound::Excluded(&**from), Bound::Unbounded)).take(LOOK_THROUGH);
        let unknown = after.filter_map(|(name, child)| match child {
            Child::Inode(ino) if is_unknown(*ino) => Some((Arc::clone(name), *ino)),
            _ => None,
        });
        let planned: Vec<_> = unknown.take(self.window - ahead).collect();
        if let Some((to, _)) = planned.last() {
            self.planned_to = Some(Arc::clone(to));
        }
        planned
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn children(count: u64) -> BTreeMap<Arc<str>, Child> {
        (0..count).map(|at| (format!("{at:04}").into(), Child::Inode(at))).collect()
    }

    /// Comes to all of `names` one after the other; each is asked for unless it was before. Returns how many were asked for at
    /// the very moment, how many ahead.
    fn walk(names: impl Iterator<Item = u64>, of: u64) -> (usize, usize) {
        let (children, mut ahead) = (children(of), LookAhead::default());
        let (mut known, mut waited, mut early) = (BTreeSet::new(), 0, 0);
        for at in names {
            let unknown = known.insert(at);
            waited += usize::from(unknown);
            let planned = ahead.reach(&children, &format!("{at:04}").into(), unknown, |ino| !known.contains(&ino));
            assert!(planned.len() <= WINDOW_LIMIT);
            early += planned.len();
            planned.into_iter().for_each(|(_, ino)| assert!(known.insert(ino), "{ino} is asked for twice"));
        }
        (waited, early)
    }

    #[test]
    fn names_in_a_row_are_asked_for_ahead() {
        assert_eq!(walk(0..1000, 1000), (3, 997));
        assert_eq!(walk(500..1000, 1000), (3, 497));
    }

    #[test]
    fn two_names_or_a_jump_are_no_row() {
        assert_eq!(walk(0..2, 1000), (2, 0));
        assert_eq!(walk((0..1000).step_by(7), 1000), (143, 0));
        assert_eq!(walk((0..1000).rev(), 1000), (1000, 0));
    }

    #[test]
    fn who_stops_has_cost_no_more_than_a_window() {
        let (_, early) = walk(0..3, 1000);
        assert_eq!(early, WINDOW_FIRST);
        let (waited, early) = walk(0..100, 1000);
        assert!(waited + early <= 100 + WINDOW_LIMIT);
    }
}
