//! Data files that are made ahead.

use super::*;

#[tokio::test]
async fn new_files_are_taken_from_those_made_ahead() {
    let mut world = World::new();
    world.cache().keep_spares();
    world.cache().shared.make_spares();
    let ahead = world.data_files();
    assert!(ahead > 100);
    let file = world.dirty(b"content");
    assert_eq!((world.data_files(), world.cache().usage().files), (ahead, 1), "nothing was made for it, and the others are nobody's");
    assert_eq!((all(&file), file.is_complete()), (b"content".to_vec(), true));
    // Somebody tidied up: whoever needs a file gets one all the same.
    let taken: Vec<FileId> =
        world.cache().shared.disk.scan().unwrap().into_iter().map(|(id, _)| id).filter(|id| *id != file.id()).collect();
    taken.iter().for_each(|id| world.cache().shared.disk.remove(*id).unwrap());
    assert_eq!(all(&world.dirty(b"other")), b"other");
    drop(file);
    world.kill(true);
    assert_eq!((world.data_files(), world.cache().usage().files), (2, 2), "the end takes those that are left");
}

#[tokio::test]
async fn more_are_made_before_they_run_out() {
    let world = World::new();
    let made = || world.data_files();
    let _first = world.dirty(b"1");
    assert_eq!(made(), 1, "nobody asked for any");
    world.cache().keep_spares();
    let _second = world.dirty(b"2");
    let filled = async {
        while made() < 100 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), filled).await.expect("the first that was needed has more made");
}

#[test]
fn those_of_a_killed_daemon_are_deleted() {
    let mut world = World::new();
    world.cache().keep_spares();
    world.cache().shared.make_spares();
    let ids: Vec<FileId> = world.cache().shared.disk.scan().unwrap().into_iter().map(|(id, _)| id).collect();
    world.stop();
    let disk = disk::Disk::open(world.directory.path()).unwrap();
    ids.iter().for_each(|id| drop(disk.open_file(*id, true).unwrap()));
    world.start(true).unwrap();
    assert_eq!((world.data_files(), world.cache().usage().files), (0, 0));
    let new = world.cache().create().unwrap();
    assert!(!ids.contains(&new.id()), "a number is used once");
}
