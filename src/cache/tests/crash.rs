//! What a start finds.

use std::os::unix::fs::FileExt;

use super::*;
use crate::error::Error;
use crate::journal::{Change, Content, Desired, FileRow};
use crate::store::Condition;

fn desired(content: Content) -> Desired {
    Desired { content, headers: None, condition: Condition::Any, was_there: false, since: std::time::UNIX_EPOCH }
}

fn write_past_the_daemon(world: &World, id: FileId, offset: u64, data: &[u8]) {
    let path = world.directory.path().join(format!("data/{:02x}/{id}", id.0 & 0xff));
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(data, offset).unwrap();
}

#[test]
fn a_dirty_file_comes_back_with_what_was_written_after_the_daemon_died() {
    let mut world = World::new();
    let file = world.dirty(b"hello");
    let id = file.id();
    drop(file);
    world.stop();
    write_past_the_daemon(&world, id, 5, b" world");
    for trusted in [true, false] {
        world.kill(trusted);
        let file = world.cache().get(id).unwrap();
        assert!(file.is_dirty() && file.is_complete());
        assert_eq!((all(&file), file.changed()), (b"hello world".to_vec(), vec![0..11]));
        assert_eq!(world.cache().usage().dirty_bytes, 11);
        assert_eq!(world.cache().unclaimed().len(), 1, "no desired state names it, and it is kept all the same");
    }
}

#[test]
fn clean_files_stay_only_if_the_machine_stayed_up() {
    for (trusted, expected) in [(true, 1), (false, 0)] {
        let mut world = World::new();
        world.clean("a", b"hello");
        world.cache().sync().unwrap();
        world.kill(trusted);
        assert_eq!((world.cache().usage().files, world.data_files()), (expected, expected as usize));
        if trusted {
            assert_eq!(all(&world.cache().find_version(&version("a", 5)).unwrap()), b"hello");
        }
    }
}

#[test]
fn a_half_fetched_file_goes_on_where_the_last_sync_left_it() {
    let mut world = World::new();
    let base = version("a", 100);
    let file = world.cache().of_version(&base).unwrap();
    file.fill(&base, 10, &[7; 20]).unwrap();
    world.cache().sync().unwrap();
    file.fill(&base, 50, &[7; 20]).unwrap();
    drop(file);
    world.kill(true);
    let file = world.cache().find_version(&base).unwrap();
    assert_eq!(file.missing(0..100), [0..10, 30..100]);
    assert_eq!(world.cache().usage().bytes, 20);
}

#[test]
fn a_clean_file_that_was_open_and_written_to_is_unsent_data() {
    let mut world = World::new();
    let file = world.clean("a", b"hello");
    file.add_writer();
    world.cache().sync().unwrap();
    let id = file.id();
    drop(file);
    world.stop();
    write_past_the_daemon(&world, id, 0, b"HELLO!");
    world.kill(true);
    for _ in 0..3 {
        let behind = world.cache().changed_behind();
        assert_eq!(behind.len(), 1, "until it is claimed, however often the daemon dies");
        assert_eq!((all(&behind[0]), behind[0].is_dirty(), behind[0].base()), (b"HELLO!".to_vec(), true, Some(version("a", 5))));
        assert!(world.cache().find_version(&version("a", 5)).is_none());
        assert_eq!(behind[0].changed(), [0..6]);
        drop(behind);
        world.kill(true);
    }
    let wanted = Change::SetDesired("a".into(), desired(Content::Staged(id)));
    world.cache().changed_behind()[0].claim_with(&[wanted]).unwrap();
    world.kill(true);
    assert!(world.cache().changed_behind().is_empty() && world.cache().unclaimed().is_empty());
    assert_eq!(all(&world.cache().get(id).unwrap()), b"HELLO!", "it is dirty in the journal too");
}

/// Its name was removed, the bucket has nothing of it any more, and a program has it open and writes on.
#[test]
fn a_file_that_departed_is_not_found_again_after_a_kill() {
    for loose in [false, true] {
        let mut world = World::new();
        let file = world.clean("a", b"hello");
        let pin = file.pin();
        file.add_writer();
        world.cache().sync().unwrap();
        world.cache().forget_key(&Key::from("a"));
        if loose {
            let _backing = file.back().unwrap().expect("it is whole");
            file.loosen().unwrap();
        }
        write_past_the_daemon(&world, file.id(), 0, b"HELLO!");
        file.news().unwrap();
        file.make_stale(&mut file.state.lock());
        world.cache().sync().unwrap();
        drop((file, pin));
        world.kill(true);
        assert!(world.cache().changed_behind().is_empty() && world.journal().files().unwrap().is_empty(), "loose {loose}");
    }
}

#[test]
fn files_without_a_row_go_and_rows_without_a_file_too() {
    let mut world = World::new();
    world.cache().create().unwrap();
    let clean = world.clean("a", b"hello").id();
    let dirty = world.dirty(b"unsent").id();
    world.cache().sync().unwrap();
    for id in [clean, dirty] {
        std::fs::remove_file(world.cache().shared.disk.path(id)).unwrap();
    }
    world.kill(true);
    assert_eq!((world.data_files(), world.cache().usage().files), (0, 0));
    let rows = world.journal().files().unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [dirty], "the loss of unsent data is not hidden");
}

#[test]
fn what_a_desired_state_names_is_dirty_whatever_its_row_says() {
    for trusted in [true, false] {
        let mut world = World::new();
        let file = world.dirty(b"hello");
        let id = file.id();
        world.journal().apply(&[Change::SetDesired("a".into(), desired(Content::Staged(id)))]).unwrap();
        let stamp = file.stamp().unwrap();
        assert!(file.settle(&stamp, &version("a", 5)).unwrap());
        drop(file);
        world.kill(trusted);
        let file = world.cache().get(id).unwrap();
        assert!(file.is_dirty() && world.cache().unclaimed().is_empty());
        // The bucket has it, and after a crash of the machine the disk may not.
        assert_eq!(file.missing(0..5), if trusted { vec![] } else { vec![0..5] });
        assert_eq!(file.base(), Some(version("a", 5)));
    }
}

#[test]
fn writes_into_a_half_fetched_file_survive_a_kill() {
    let mut world = World::new();
    let base = version("a", 100);
    let file = world.cache().of_version(&base).unwrap();
    let pin = file.pin();
    file.fill(&base, 0, &[1; 30]).unwrap();
    world.journal().apply(&[Change::PutFile(file.row(true).unwrap())]).unwrap();
    file.mark_dirty();
    file.write_at(20, &[2; 20]).unwrap();
    file.write_at(110, &[3; 10]).unwrap();
    let id = file.id();
    drop((pin, file));
    world.kill(true);
    let file = world.cache().get(id).unwrap();
    assert_eq!((file.size(), file.missing(0..200)), (120, vec![0..20, 40..100]));
    assert_eq!((read(&file, 20..40), read(&file, 100..120)), (Some(vec![2; 20]), Some([[0; 10], [3; 10]].concat())));
    assert_eq!(file.changed(), [20..40, 100..120]);
    world.kill(false);
    let file = world.cache().get(id).unwrap();
    assert_eq!((file.size(), file.missing(0..200)), (100, vec![0..100]), "what was not synced is not believed after a crash");
    drop(file);
    world.kill(true);
    assert_eq!(world.cache().get(id).unwrap().missing(0..200), [0..100]);
}

/// What is present was fetched before or while the file was dirty; the journal doesn't know it until the next sync.
#[test]
fn writes_over_fetched_bytes_survive_a_kill() {
    for dirty_first in [true, false] {
        let mut world = World::new();
        let base = version("a", 100);
        let file = world.cache().of_version(&base).unwrap();
        let pin = file.pin();
        let dirty = || {
            world.journal().apply(&[Change::PutFile(file.row(true).unwrap())]).unwrap();
            file.mark_dirty();
        };
        if dirty_first {
            dirty();
        }
        file.fill(&base, 0, &[1; 50]).unwrap();
        if !dirty_first {
            dirty();
        }
        file.write_at(10, &[2; 10]).unwrap();
        file.zero(30..35, true).unwrap();
        let id = file.id();
        drop((pin, file));
        world.kill(true);
        let file = world.cache().get(id).unwrap();
        assert_eq!(file.missing(0..100), [0..10, 20..30, 35..100]);
        assert_eq!((read(&file, 10..20), read(&file, 30..35)), (Some(vec![2; 10]), Some(vec![0; 5])));
    }
}

#[test]
fn after_a_crash_of_the_machine_only_what_was_synced_counts() {
    let mut world = World::new();
    let base = version("a", 100);
    let file = world.cache().of_version(&base).unwrap();
    let pin = file.pin();
    file.mark_dirty();
    file.fill(&base, 0, &[1; 20]).unwrap();
    world.cache().sync().unwrap();
    file.fill(&base, 40, &[1; 20]).unwrap();
    // This journals the whole row.
    file.truncate(90).unwrap();
    let id = file.id();
    drop((pin, file));
    world.kill(false);
    assert_eq!(world.cache().get(id).unwrap().missing(0..100), [20..90]);
}

#[test]
fn what_was_cut_while_it_was_synced_is_not_durable() {
    let world = World::new();
    let file = world.cache().of_version(&version("a", 100)).unwrap();
    let _pin = file.pin();
    file.mark_dirty();
    file.write_at(50, &[1; 50]).unwrap();
    let written = {
        let mut state = file.state.lock();
        file.written(&mut state, false).unwrap()
    };
    file.truncate(60).unwrap();
    file.write_at(60, &[2; 40]).unwrap();
    file.record_durable(written).unwrap();
    assert!(world.journal().files_as_synced().unwrap()[0].present.is_empty());
    world.cache().sync().unwrap();
    assert_eq!(world.journal().files_as_synced().unwrap()[0].present, [50..100]);
}

/// A file that a sync finds half written, and that is closed before the sync has ended.
#[test]
fn a_sync_that_ends_after_the_close_takes_nothing_from_the_journal() {
    for (before, cut) in [(20_000, false), (0, true)] {
        let mut world = World::new();
        let file = world.dirty(&[7; 20_000]);
        world.journal().apply(&[Change::SetDesired("a".into(), desired(Content::Staged(file.id())))]).unwrap();
        let pin = file.pin();
        if cut {
            file.truncate(0).unwrap();
        }
        let written = |file: &LocalFile| file.written(&mut file.state.lock(), true).unwrap();
        let early = written(&file);
        file.write_at(before, &[8; 30_000]).unwrap();
        let late = written(&file);
        file.seal().unwrap();
        drop(pin);
        // Two syncs, and the one that began first ends last.
        file.record_durable(late).unwrap();
        file.record_durable(early).unwrap();
        let mut content = vec![7; before as usize];
        content.resize(before as usize + 30_000, 8);
        assert!(all(&file) == content, "cut {cut}");
        let id = file.id();
        drop(file);
        world.kill(false);
        assert!(all(&world.cache().get(id).unwrap()) == content, "cut {cut}: it was synced and is proven");
    }
}

#[test]
fn a_sync_that_is_overtaken_by_a_row_still_seals_what_it_synced() {
    let mut world = World::new();
    let file = world.dirty(&[7; 20_000]);
    world.journal().apply(&[Change::SetDesired("a".into(), desired(Content::Staged(file.id())))]).unwrap();
    let pin = file.pin();
    let written = file.written(&mut file.state.lock(), true).unwrap();
    file.journal_row(&mut file.state.lock(), &[]).unwrap();
    file.record_durable(written).unwrap();
    let id = file.id();
    drop((file, pin));
    world.kill(false);
    assert!(all(&world.cache().get(id).unwrap()) == [7; 20_000]);
}

/// A change was synced, and what was fetched beside it since was not.
#[test]
fn fetched_bytes_that_a_power_cut_took_do_not_take_a_synced_change_with_them() {
    for (whole, closed, synced_again) in [(true, false, false), (false, true, false), (true, true, true)] {
        let mut world = World::new();
        let base = version("a", 60_000);
        let file = world.cache().of_version(&base).unwrap();
        let pin = file.pin();
        world.journal().apply(&[Change::PutFile(file.row(true).unwrap())]).unwrap();
        world.journal().apply(&[Change::SetDesired("a".into(), desired(Content::Staged(file.id())))]).unwrap();
        file.mark_dirty();
        file.write_at(10_000, &[7; 5_000]).unwrap();
        world.cache().persist().unwrap();
        let path = world.cache().shared.disk.path(file.id());
        let on_the_disk = std::fs::read(&path).unwrap();
        let end = if whole { base.size } else { 40_000 };
        assert!(file.fill(&base, 0, &vec![1; end as usize]).unwrap());
        assert_eq!(file.is_complete(), whole);
        if closed {
            file.seal().unwrap();
        }
        if synced_again {
            world.cache().persist().unwrap();
        }
        let id = file.id();
        drop((file, pin));
        world.stop();
        if !synced_again {
            std::fs::write(&path, on_the_disk).unwrap();
        }
        world.start(false).unwrap();
        let file = world.cache().get(id).expect("the change was on the disk");
        assert_eq!(read(&file, 10_000..15_000), Some(vec![7; 5_000]));
        let missing = if synced_again { vec![] } else { vec![0..10_000, 15_000..60_000] };
        assert_eq!(file.missing(0..60_000), missing, "{whole} {closed}");
    }
}

#[test]
fn bytes_past_the_end_of_a_half_fetched_file_were_never_acknowledged() {
    let mut world = World::new();
    let base = version("a", 100);
    let file = world.cache().of_version(&base).unwrap();
    let pin = file.pin();
    file.mark_dirty();
    file.write_at(90, &[1; 20]).unwrap();
    let id = file.id();
    drop((pin, file));
    world.stop();
    write_past_the_daemon(&world, id, 110, &[9; 50]);
    world.kill(true);
    let file = world.cache().get(id).unwrap();
    let _pin = file.pin();
    file.truncate(150).unwrap();
    assert_eq!(read(&file, 90..200), Some([vec![1; 20], vec![0; 40]].concat()));
}

#[test]
fn data_files_beside_a_new_journal_are_refused_and_kept() {
    let mut world = World::new();
    world.dirty(b"unsent");
    world.stop();
    for name in ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"] {
        let _ = std::fs::remove_file(world.directory.path().join(name));
    }
    let error = world.start(true).unwrap_err();
    assert!(matches!(&error, Error::Corrupt(text) if text.contains("journal.sqlite")), "{error}");
    let path = world.directory.path().join("data");
    assert!(walk(&path) == 1);
}

fn walk(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn a_dirty_row_is_never_undone_by_one_that_was_taken_before() {
    [true, false].into_iter().for_each(a_late_row);
}

fn a_late_row(synced: bool) {
    let mut world = World::new();
    let base = version("a", 100);
    let file = world.cache().of_version(&base).unwrap();
    let pin = file.pin();
    file.fill(&base, 0, &[1; 60]).unwrap();
    // The writer took the row; meanwhile the file becomes complete, and a sync journals it as clean.
    let early: FileRow = file.row(true).unwrap();
    file.fill(&base, 60, &[1; 40]).unwrap();
    if synced {
        world.cache().sync().unwrap();
    }
    world.journal().apply(&[Change::PutFile(early.clone())]).unwrap();
    file.mark_dirty();
    file.write_at(50, &[2; 100]).unwrap();
    world.journal().apply(&[Change::PutFile(early)]).unwrap();
    let id = file.id();
    drop((pin, file));
    world.kill(true);
    assert_eq!(all(&world.cache().get(id).unwrap()), [vec![1; 50], vec![2; 100]].concat());
}

#[test]
fn the_order_of_use_outlives_a_restart() {
    let mut world = World::with_limit(30);
    for key in ["a", "b", "c"] {
        world.clean(key, &[1; 10]);
    }
    world.cache().find_version(&version("a", 10)).unwrap();
    world.cache().sync().unwrap();
    world.kill(true);
    world.clean("d", &[1; 20]);
    let there =
        ["a", "b", "c", "d"].map(|key| world.cache().shared.index.lock().has_version(&version(key, if key == "d" { 20 } else { 10 })));
    assert_eq!(there, [true, false, false, true]);
}

#[test]
fn a_lower_limit_evicts_at_the_start() {
    let mut world = World::new();
    let dirty = world.dirty(&[1; 40]).id();
    for key in ["a", "b", "c"] {
        world.clean(key, &[1; 30]);
    }
    world.cache().sync().unwrap();
    world.limits.size_bytes = 75;
    world.kill(true);
    let usage = world.cache().usage();
    assert_eq!((usage.bytes, usage.dirty_bytes, usage.files), (70, 40, 2));
    assert!(world.cache().find_version(&version("c", 30)).is_some() && world.cache().get(dirty).is_some());
}

/// Remembers which directories were synced.
#[derive(Default)]
struct Names(std::cell::RefCell<Vec<std::path::PathBuf>>);

impl crate::simulation::World for Names {
    fn saw(&self, event: crate::simulation::Event) {
        if let crate::simulation::Event::NamesSynced(directory) = event {
            self.0.borrow_mut().push(directory);
        }
    }

    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH
    }

    fn boot(&self) -> String {
        "one".into()
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

#[test]
fn the_names_that_a_killed_daemon_left_unsynced_are_synced_by_the_next() {
    let mut world = World::new();
    let (dirty, clean) = (world.dirty(b"unsent").id(), world.clean("a", b"hello").id());
    world.cache().find_version(&version("a", 5)).unwrap();
    world.cache().sync().unwrap();
    let names = std::rc::Rc::new(Names::default());
    let _installed = crate::simulation::install(names.clone());
    world.kill(true);
    world.cache().get(clean).unwrap().mark_dirty();
    world.cache().sync().unwrap();
    for id in [dirty, clean] {
        let shard = world.directory.path().join(format!("data/{:02x}", id.0 & 0xff));
        assert!(names.0.borrow().contains(&shard), "{id}");
    }
}
