//! What reaches the disk, and before what.

use super::*;
use crate::simulation::Event;
use crate::simulation::tests::{Witness, is_on_the_disk};

/// Where the first event of this kind is.
fn first(events: &[Event], wanted: impl Fn(&Event) -> bool) -> usize {
    events.iter().position(wanted).unwrap_or_else(|| panic!("never in {events:?}"))
}

/// What a file's row says only once its bytes are on the disk is worth nothing in a log that a power cut takes.
#[test]
fn what_is_said_of_synced_data_is_synced_too() {
    let world = World::new();
    let base = version("a", 100);
    let file = world.cache().of_version(&base).unwrap();
    file.mark_dirty();
    file.write_at(10, &[7; 20]).unwrap();
    let (witness, _installed) = Witness::install();
    world.cache().persist().unwrap();
    let events = witness.take();
    assert!(first(&events, |event| matches!(event, Event::FileSynced(_))) < first(&events, |event| *event == Event::Committed));
    assert!(first(&events, |event| matches!(event, Event::NamesSynced(_))) < events.len());
    assert!(is_on_the_disk(&events), "{events:?}");
}

/// A row from before says that the bytes are here: with it, a power cut would find a hole where the file was whole.
#[test]
fn before_a_hole_is_made_the_disk_knows_of_it() {
    let (world, file) = freed::unfreed();
    let (witness, _installed) = Witness::install();
    assert!(freed::free(&file, 16 << 10..32 << 10));
    let events = witness.take();
    let hole = first(&events, |event| *event == Event::Written);
    assert!(is_on_the_disk(&events[..hole]), "{events:?}");
    // From here on what is left is known by the parts, no longer by the file's length.
    assert!(first(&events, |event| matches!(event, Event::FileSynced(_))) < first(&events, |event| *event == Event::Committed));
    drop(world);
}

/// Removed, and the removal is only in the log: after a power cut the file is wanted again.
#[test]
fn before_unsent_bytes_go_the_disk_knows_that_they_are_not_wanted() {
    let world = World::new();
    let file = world.cache().create().unwrap();
    file.mark_dirty();
    file.write_at(0, b"unsent").unwrap();
    world.cache().persist().unwrap();
    let (witness, _installed) = Witness::install();
    world.cache().discard(file.id());
    let events = witness.take();
    let gone = first(&events, |event| matches!(event, Event::Removed));
    assert!(is_on_the_disk(&events[..gone]), "{events:?}");
}
