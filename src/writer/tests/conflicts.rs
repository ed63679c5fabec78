//! Another host was here: each policy, both modes.

use super::*;
use crate::error::Error;
use crate::store::fault::{Fault, Rule, When};

fn kept(world: &World) -> Vec<String> {
    world.keys().into_iter().filter(|key| key.contains(".conflict-web-")).collect()
}

#[tokio::test(start_paused = true)]
async fn keep_both_stores_ours_beside_theirs() {
    let world = World::new();
    world.put_elsewhere("d/a.jpg", b"theirs").await;
    let file = world.save("d/a.jpg", b"ours");
    world.settled().await;
    assert_eq!(world.object("d/a.jpg").unwrap(), b"theirs");
    let [name] = &kept(&world)[..] else { panic!("{:?}", world.keys()) };
    assert!(name.starts_with("d/a.conflict-web-") && name.ends_with(".jpg"), "{name}");
    assert_eq!(world.object(name).unwrap(), b"ours");
    let kept_as = Key::new(name.as_str());
    assert_eq!(world.events(), [Event::Conflict("d/a.jpg".into(), Some(kept_as.clone())), Event::Stored(kept_as, 4, true)]);
    assert_eq!(world.writer.backlog().conflicts, 1);
    assert!(!file.is_dirty());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_version_that_was_replaced_is_a_conflict() {
    let world = World::new();
    let file = world.save("a", b"one");
    world.settled().await;
    let version = world.version("a");
    world.put_elsewhere("a", b"theirs").await;
    world.staged("a", &file, if_match(&version), true);
    file.write_at(3, b" two").unwrap();
    let error = world.writer.sync(&"a".into()).await.unwrap_err();
    assert!(matches!(error, Error::Stale), "{error}");
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), b"theirs");
    assert_eq!(world.object(&kept(&world)[0]).unwrap(), b"one two");
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_elsewhere_and_changed_here_stays() {
    let world = World::new();
    let file = world.save("a", b"one");
    world.settled().await;
    let version = world.version("a");
    world.memory.delete(&"a".into()).await.unwrap();
    world.staged("a", &file, if_match(&version), true);
    file.write_at(0, b"two").unwrap();
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), b"two");
    assert_eq!(world.writer.backlog().conflicts, 0);
}

#[tokio::test(start_paused = true)]
async fn overwrite_takes_the_name() {
    let world = World::with(|config| config.on_conflict = OnConflict::Overwrite);
    world.put_elsewhere("a", b"theirs").await;
    world.save("a", b"ours");
    world.settled().await;
    assert_eq!((world.keys(), world.object("a").unwrap()), (vec!["a".to_owned()], b"ours".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn hold_keeps_ours_here_and_says_so() {
    let world = World::with(|config| config.on_conflict = OnConflict::Hold);
    world.put_elsewhere("a", b"theirs").await;
    let file = world.save("a", b"ours");
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), b"theirs");
    assert!(file.is_dirty());
    let backlog = world.writer.backlog();
    assert_eq!((backlog.dirty_files, backlog.conflicts, backlog.failed.len()), (1, 1, 1));
    assert!(matches!(world.writer.take_error(&"a".into()), Some(Error::Exists)));
    assert!(world.writer.take_error(&"a".into()).is_none(), "once");
    // Somebody clears the way.
    world.memory.delete(&"a".into()).await.unwrap();
    world.writer.sync(&"a".into()).await.unwrap();
    assert_eq!(world.object("a").unwrap(), b"ours");
    assert_eq!(world.writer.backlog().conflicts, 1);
}

#[tokio::test(start_paused = true)]
async fn through_mode_gives_the_name_to_who_was_first() {
    let world = World::with(|config| config.through = true);
    world.put_elsewhere("a", b"theirs").await;
    let file = world.save("a", b"ours");
    let id = file.id();
    drop(file);
    let error = world.writer.sync(&"a".into()).await.unwrap_err();
    assert!(matches!(error, Error::Exists), "{error}");
    assert_eq!(world.events(), [Event::Conflict("a".into(), None)]);
    assert!(world.cache.get(id).is_none() && world.journalled().is_empty());
    assert_eq!(world.keys(), ["a"]);
    assert!(world.writer.take_error(&"a".into()).is_none(), "the waiter was told");

    // Found while nobody waited: the next close is told.
    world.put_elsewhere("b", b"theirs").await;
    world.save("b", b"ours");
    world.settled().await;
    assert!(matches!(world.writer.take_error(&"b".into()), Some(Error::Exists)));
}

#[tokio::test(start_paused = true)]
async fn through_mode_reserves_a_name_even_for_equal_bytes() {
    let world = World::with(|config| config.through = true);
    world.put_elsewhere("a", b"same").await;
    world.save("a", b"same");
    assert!(matches!(world.writer.sync(&"a".into()).await, Err(Error::Exists)));
}

#[tokio::test(start_paused = true)]
async fn our_own_write_whose_answer_was_lost_is_no_conflict() {
    for through in [false, true] {
        let world = World::with(|config| config.through = through);
        world.faults.add(Rule::on(Operation::PutObject).when(When::Nth(1)).fault(Fault::ReplyLost));
        let file = world.save("a", b"ours");
        world.writer.sync(&"a".into()).await.unwrap();
        assert_eq!(world.keys(), ["a"]);
        assert_eq!(world.writer.backlog().conflicts, 0);
        assert!(!file.is_dirty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_our_own_write_outdated_is_no_conflict() {
    let world = World::new();
    let file = world.save("a", b"one");
    world.settled().await;
    // The file system had looked at the key before the upload landed.
    world.staged("a", &file, Condition::IfAbsent, false);
    file.write_at(0, b"two").unwrap();
    world.settled().await;
    assert_eq!((world.keys().len(), world.object("a").unwrap()), (1, b"two".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_replaced_comes_from_the_cache_or_as_it_is_now() {
    let world = World::new();
    world.save("a", b"ours");
    world.settled().await;
    let version = world.version("a");
    world.put_elsewhere("a", b"theirs").await;
    world.apply("b", copy_of(&version), Condition::Any, false);
    world.settled().await;
    assert_eq!(world.object("b").unwrap(), b"ours");

    let unknown = Version { etag: ETag::new("gone"), ..version };
    world.apply("c", copy_of(&unknown), Condition::Any, false);
    world.settled().await;
    assert_eq!(world.object("c").unwrap(), b"theirs");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_nowhere_is_given_up_and_counted() {
    let world = World::new();
    let version = Version { key: "a".into(), etag: ETag::new("gone"), size: 3 };
    world.apply("b", copy_of(&version), Condition::Any, false);
    world.apply("c", copy_of(&Version { key: "c".into(), ..version }), Condition::Any, true);
    let chmod = Desired { headers: Some(headers("x/y").into()), ..world.writer.pending(&"c".into()).unwrap() };
    world.writer.apply(vec![("c".into(), Some(chmod))], &[]).unwrap();
    world.settled().await;
    assert!(world.keys().is_empty() && world.journalled().is_empty());
    assert_eq!(world.writer.backlog().conflicts, 2);
    let mut events = world.events();
    events.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(events, [Event::Deleted("b".into()), Event::Deleted("c".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_rename_that_must_not_replace_does_not() {
    let world = World::new();
    let version = world.put_elsewhere("a", b"ours").await;
    world.put_elsewhere("b", b"theirs").await;
    world.apply("b", copy_of(&version), Condition::IfAbsent, false);
    world.settled().await;
    assert_eq!(world.object("b").unwrap(), b"theirs");
    assert_eq!(world.object(&kept(&world)[0]).unwrap(), b"ours");
}

#[tokio::test(start_paused = true)]
async fn two_hosts_may_make_the_same_directory() {
    let world = World::new();
    world.put_elsewhere("d/", b"").await;
    world.apply("d/", Content::Inline(Vec::new()), Condition::IfAbsent, false);
    world.settled().await;
    assert_eq!(world.keys(), ["d/"]);
    assert_eq!(world.writer.backlog().conflicts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_large_file_in_conflict_leaves_no_upload_behind() {
    let world = World::new();
    let content = bytes(100 * KIB, 4);
    world.put_elsewhere("big", b"theirs").await;
    world.save("big", &content);
    world.settled().await;
    assert_eq!(world.object(&kept(&world)[0]).unwrap(), content);
    assert_eq!(world.writer.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(world.unfinished_uploads().await, 0);
    assert!(world.writer.shared.journal.uploads().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_exchange_with_a_file_that_was_replaced_takes_what_is_there() {
    let world = World::new();
    let (a, b) = (world.put_elsewhere("a", b"AAAA").await, world.put_elsewhere("b", b"BB").await);
    world.put_elsewhere("b", b"theirs").await;
    let changes = vec![
        ("a".into(), Some(desired(copy_of(&b), Condition::Any, true))),
        ("b".into(), Some(desired(copy_of(&a), Condition::Any, true))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    world.settled().await;
    assert_eq!((world.object("a").unwrap(), world.object("b").unwrap()), (b"theirs".to_vec(), b"AAAA".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_under_older_headers_get_those_that_are_wanted() {
    let world = World::new();
    // An attempt that was not recorded, before a crash.
    world.put_elsewhere("a", b"bytes").await;
    let file = world.save("a", b"bytes");
    let wanted = ObjectHeaders { metadata: [("mode".to_owned(), "0100600".to_owned())].into(), ..ObjectHeaders::default() };
    let content = Content::Staged(file.id());
    let desired =
        Desired { content, headers: Some((&wanted).into()), condition: Condition::IfAbsent, was_there: false, since: clock::now() };
    world.writer.apply(vec![("a".into(), Some(desired))], &[]).unwrap();
    world.settled().await;
    assert_eq!(world.keys(), ["a"]);
    assert_eq!(world.memory.object(&"a".into()).unwrap().1.headers.metadata, wanted.metadata);
}
