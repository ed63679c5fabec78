//! The journal can't be written: what can't be recorded has not happened, neither now nor after a kill.

use super::*;

/// A pinned, dirty file of 100 bytes of which nothing is here but 40..60, and whose journal refuses from now on.
fn broken() -> (World, Arc<LocalFile>, Pin) {
    let world = World::in_memory();
    let file = world.cache().of_version(&version("a", 100)).unwrap();
    let pin = file.pin();
    file.mark_dirty();
    file.write_at(40, &[7; 20]).unwrap();
    world.journal().refuse_commits(true);
    (world, file, pin)
}

fn check(file: &LocalFile) {
    assert_eq!((file.size(), file.missing(0..1000)), (100, vec![0..40, 60..100]));
    assert_eq!((read(file, 40..60), file.is_dirty()), (Some(vec![7; 20]), true));
}

#[test]
fn a_change_that_is_not_journalled_did_not_happen() {
    type Attempt = fn(&LocalFile) -> bool;
    let attempts: [(&str, Attempt); 7] = [
        ("write", |file| file.write_at(0, &[9; 30]).is_err()),
        ("append", |file| file.write_at(90, &[9; 30]).is_err()),
        ("write past the end", |file| file.write_at(150, &[9; 30]).is_err()),
        ("write everything", |file| file.write_at(60, &[9; 40]).is_err()),
        ("grow", |file| file.truncate(200).is_err()),
        ("shrink", |file| file.truncate(50).is_err()),
        ("zero", |file| file.zero(60..90, true).is_err()),
    ];
    for (what, attempt) in attempts {
        let (mut world, file, pin) = broken();
        let usage = world.cache().usage();
        assert!(attempt(&file), "{what}");
        check(&file);
        assert_eq!(world.cache().usage(), usage, "{what}");
        let id = file.id();
        drop((pin, file));
        world.kill(true);
        check_growing(&world.cache().get(id).unwrap(), what);

        let (world, file, _pin) = broken();
        assert!(attempt(&file), "{what}");
        world.journal().refuse_commits(false);
        check_growing(&file, what);
    }
}

fn check_growing(file: &Arc<LocalFile>, what: &str) {
    check(file);
    let _pin = file.pin();
    file.truncate(220).unwrap();
    assert_eq!(read(file, 100..220), Some(vec![0; 120]), "{what}: no left-over bytes appear");
}

#[test]
fn a_file_that_can_not_be_journalled_as_complete_stays_as_it_was() {
    let (mut world, file, pin) = broken();
    file.fill(&version("a", 100), 0, &[1; 100]).unwrap_err();
    assert_eq!(file.missing(0..1000), [60..100]);
    let id = file.id();
    drop((pin, file));
    world.kill(true);
    check(&world.cache().get(id).unwrap());
}

#[test]
fn a_sync_that_fails_is_made_up_for() {
    let (world, file, _pin) = broken();
    assert!(world.cache().sync().is_err());
    world.journal().refuse_commits(false);
    world.cache().sync().unwrap();
    assert_eq!(world.journal().files_as_synced().unwrap()[0].present, [40..60]);
    check(&file);
}
