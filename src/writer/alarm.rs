//! When the reconcile loop looks by itself, so that a change wakes it only where it would be late otherwise: waking a thread
//! costs as much as the rest of a small write. Pure.

use tokio::time::Instant;

/// Why a pass stopped looking at a class of entries, and so what makes it look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The first entry is due then.
    Due(Instant),
    /// All slots are taken: the end of an operation rings.
    Landing,
    /// A burst of changes is let finish, or has lasted long enough: there is a time for that.
    Lull,
    /// There are no more entries.
    Change,
}

/// Of both classes of entries.
#[derive(Clone, Copy, Debug)]
pub struct Alarm {
    pub urgent: Until,
    pub normal: Until,
}

/// Before the first pass.
impl Default for Alarm {
    fn default() -> Self {
        Self { urgent: Until::Change, normal: Until::Change }
    }
}

impl Alarm {
    /// The first entries of the classes are to be looked at then: has the loop to be woken for that?
    pub fn is_late_for(&self, urgent: Option<Instant>, normal: Option<Instant>) -> bool {
        is_late(self.urgent, urgent) || is_late(self.normal, normal)
    }

    /// Rung: the next pass looks at all.
    pub fn ring(&mut self, now: Instant) {
        (self.urgent, self.normal) = (Until::Due(now), Until::Due(now));
    }
}

fn is_late(until: Until, first: Option<Instant>) -> bool {
    match (until, first) {
        (_, None) | (Until::Landing | Until::Lull, _) => false,
        (Until::Change, Some(_)) => true,
        (Until::Due(alarm), Some(first)) => first < alarm,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_rings_where_the_loop_would_come_too_late() {
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        for (until, first, rings) in [
            (Until::Change, None, false),
            (Until::Change, Some(100), true),
            (Until::Due(at(50)), Some(100), false),
            (Until::Due(at(50)), Some(50), false),
            (Until::Due(at(50)), Some(49), true),
            (Until::Landing, Some(0), false),
            (Until::Lull, Some(0), false),
        ] {
            let first = first.map(at);
            let idle = Alarm { urgent: Until::Landing, normal: Until::Landing };
            assert_eq!(Alarm { urgent: until, ..idle }.is_late_for(first, Some(now)), rings, "{until:?} {first:?}");
            assert_eq!(Alarm { normal: until, ..idle }.is_late_for(Some(now), first), rings, "{until:?} {first:?}");
        }
    }

    #[test]
    fn it_rings_once() {
        let now = Instant::now();
        let mut alarm = Alarm::default();
        alarm.ring(now);
        assert!(!alarm.is_late_for(Some(now), Some(now + Duration::from_millis(1))));
    }
}
