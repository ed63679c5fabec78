//! What is on the disk before the bucket changes, and before somebody is told that it has.

use super::*;
use crate::simulation::Event as OnDisk;
use crate::simulation::tests::Witness;
use crate::store::fault::{Fault, Rule};

#[tokio::test(start_paused = true)]
async fn an_uploads_id_is_on_the_disk_before_its_first_part() {
    let world = World::new();
    world.faults.add(Rule::on(Operation::UploadPart).fault(Fault::Hang));
    let (witness, _installed) = Witness::install();
    world.save("big", &bytes(100 * KIB, 4));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.unfinished_uploads().await, 1);
    assert!(witness.syncs() > 0);
}

/// Thrown back behind it, the journal would have it done again, over the only copy of what came next.
#[tokio::test(start_paused = true)]
async fn the_journal_is_on_the_disk_before_something_is_overwritten_or_deleted() {
    for destroys in [Operation::CopyObject, Operation::DeleteObject] {
        let world = World::new();
        let version = world.put_elsewhere("a", b"x").await;
        world.faults.add(Rule::on(destroys).fault(Fault::Hang));
        let (witness, _installed) = Witness::install();
        let wanted = |content, was_there| Some(desired(content, Condition::Any, was_there));
        let changes = vec![("b".into(), wanted(copy_of(&version), false)), ("a".into(), wanted(Content::Absent, true))];
        world.writer.apply(changes, &[]).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(world.counts.of(destroys) > 0 && witness.all_is_on_the_disk(), "{destroys:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_synced_is_not_forgotten_and_a_new_name_costs_no_fsync() {
    let world = World::new();
    let (witness, _installed) = Witness::install();
    world.save("a", b"x");
    world.settled().await;
    assert_eq!(witness.syncs(), 0);
    world.save("b", b"x");
    world.writer.sync(&"b".into()).await.unwrap();
    assert!(witness.all_is_on_the_disk());
}

/// Of an exchange, one side's bytes are here alone as soon as the other side is copied over them.
#[tokio::test(start_paused = true)]
async fn what_is_about_to_be_replaced_is_on_the_disk_here() {
    let world = World::new();
    let (a, b) = (world.put_elsewhere("a", b"AAAA").await, world.put_elsewhere("b", b"BB").await);
    world.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Hang));
    let (witness, _installed) = Witness::install();
    let wanted = |version| Some(desired(copy_of(version), Condition::Any, true));
    world.writer.apply(vec![("a".into(), wanted(&b)), ("b".into(), wanted(&a))], &[]).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.counts.of(Operation::CopyObject), 1);
    assert!(witness.all_is_on_the_disk());
    let events = witness.take();
    assert!(events.iter().any(|event| matches!(event, OnDisk::FileSynced(_))), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, OnDisk::NamesSynced(_))), "{events:?}");
}
