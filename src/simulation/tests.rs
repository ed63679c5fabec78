//! A world that only watches: what reached the disk, and in which order.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use super::{Event, Installed, World};

#[derive(Default)]
pub struct Witness(RefCell<Vec<Event>>);

impl World for Witness {
    fn saw(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn boot(&self) -> String {
        "one".into()
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

impl Witness {
    pub fn install() -> (Rc<Self>, Installed) {
        let this = Rc::new(Self::default());
        (Rc::clone(&this), super::install(this))
    }

    /// What happened since the last call.
    pub fn take(&self) -> Vec<Event> {
        self.0.take()
    }

    pub fn syncs(&self) -> usize {
        self.0.borrow().iter().filter(|event| **event == Event::JournalSynced).count()
    }

    /// Nothing was committed since the journal went to the disk.
    pub fn all_is_on_the_disk(&self) -> bool {
        is_on_the_disk(&self.0.borrow())
    }
}

/// The journal is, by the end of this.
pub fn is_on_the_disk(events: &[Event]) -> bool {
    let last = events.iter().rev().find(|event| matches!(event, Event::Committed | Event::JournalSynced));
    last == Some(&Event::JournalSynced)
}

#[test]
fn a_world_is_left_when_it_is_dropped() {
    let (witness, installed) = Witness::install();
    super::saw(|| Event::Written);
    assert_eq!((super::is_on(), super::chance(), super::now()), (true, 0.5, Some(SystemTime::UNIX_EPOCH)));
    drop(installed);
    super::saw(|| Event::Removed);
    assert_eq!((super::is_on(), witness.take()), (false, vec![Event::Written]));
}
