//! The tree's invariants, and what answers of the bucket do to it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::cache::{Cache, Limits};
use crate::journal::Journal;
use crate::media::gzip;
use crate::types::{ETag, Key, ObjectHeaders, Version};

const OWNER: Owner = Owner { uid: 33, gid: 33, file_mode: 0o644, directory_mode: 0o755 };

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn namespace() -> Namespace {
    Namespace::new(OWNER, time(0))
}

fn object(key: &str, etag: &str, size: u64, modified: u64) -> Seen {
    let version = Version { key: Key::from(key), etag: ETag::new(etag), size };
    Seen::Object { version, modified: time(modified), headers: None }
}

fn with_metadata(seen: Seen, metadata: &[(&str, &str)]) -> Seen {
    let Seen::Object { version, modified, .. } = seen else { return seen };
    let metadata = metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Seen::Object { version, modified, headers: Some(Box::new(ObjectHeaders { metadata, ..ObjectHeaders::default() })) }
}

fn absorb(names: &mut Namespace, directory: Ino, name: &str, seen: Seen) -> Absorbed {
    names.absorb(directory, &Arc::from(name), seen, Instant::now(), time(0))
}

#[test]
fn keys_follow_the_tree() {
    let mut names = namespace();
    let d = absorb(&mut names, ROOT, "d", Seen::Directory).ino;
    let e = absorb(&mut names, d, "e", Seen::Directory).ino;
    let f = absorb(&mut names, e, "f.jpg", object("d/e/f.jpg", "1", 3, 5)).ino;
    assert_eq!(names.key(ROOT), Some(Key::root()));
    assert_eq!(names.key(e), Some(Key::from("d/e/")));
    assert_eq!(names.key(f), Some(Key::from("d/e/f.jpg")));
    assert_eq!(names.find(&Key::from("d/e/f.jpg")), Some(f));
    assert_eq!(names.find(&Key::from("d/e/")), Some(e));
    assert_eq!(names.find(&Key::from("d/e")), None, "a directory's key ends in a slash");
    assert!(names.is_within(f, d) && !names.is_within(d, e));
    names.unlink(d, &Arc::from("e"));
    assert_eq!(names.key(f), None, "what hangs below an unlinked directory has no key");
}

#[test]
fn the_same_version_keeps_its_inode_and_attributes() {
    let mut names = namespace();
    let seen = with_metadata(object("a", "1", 3, 5), &[("mode", "33152"), ("mtime", "7.5")]);
    let first = absorb(&mut names, ROOT, "a", seen);
    let inode = names.get(first.ino).unwrap();
    assert_eq!((inode.mode, inode.mtime, inode.known), (0o600, time(7) + Duration::from_millis(500), true));
    let again = absorb(&mut names, ROOT, "a", object("a", "1", 3, 5));
    assert_eq!((again.ino, again.changed, again.replaced), (first.ino, false, false));
    assert!(names.get(first.ino).unwrap().known);
    let rewritten = absorb(&mut names, ROOT, "a", object("a", "1", 3, 6));
    assert!(!names.get(rewritten.ino).unwrap().known, "a new date on the same bytes is new metadata");
    assert_eq!(rewritten.ino, first.ino);
}

#[test]
fn a_size_that_was_untrue_is_put_right_by_the_next_answer() {
    for (lie_in_head, truth_in_head) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut names = namespace();
        let told = |size, head| match head {
            true => with_metadata(object("a", "1", size, 5), &[("mode", "33152")]),
            false => object("a", "1", size, 5),
        };
        absorb(&mut names, ROOT, "a", told(5007, lie_in_head));
        let ino = absorb(&mut names, ROOT, "a", told(5000, truth_in_head)).ino;
        assert_eq!(names.get(ino).unwrap().size(), 5000, "{lie_in_head} {truth_in_head}");
    }
}

#[test]
fn of_what_is_stored_compressed_a_listing_does_not_tell_the_size() {
    let mut names = namespace();
    let Seen::Object { version, modified, .. } = object("a.css", "1", 300, 5) else { panic!("an object") };
    let mut headers = ObjectHeaders::default();
    gzip::mark(&mut headers, 9000);
    absorb(&mut names, ROOT, "a.css", Seen::Object { version, modified, headers: Some(Box::new(headers)) });
    let ino = absorb(&mut names, ROOT, "a.css", object("a.css", "1", 300, 5)).ino;
    assert_eq!(names.get(ino).unwrap().size(), 9000);
}

#[test]
fn a_new_version_takes_over_an_idle_inode_and_spares_an_open_one() {
    let mut names = namespace();
    let ino = absorb(&mut names, ROOT, "a", object("a", "1", 3, 5)).ino;
    let changed = absorb(&mut names, ROOT, "a", object("a", "2", 4, 6));
    assert_eq!((changed.ino, changed.changed), (ino, true));
    names.get_mut(ino).unwrap().opens = 1;
    let replaced = absorb(&mut names, ROOT, "a", object("a", "3", 5, 7));
    assert_ne!(replaced.ino, ino);
    assert!(replaced.replaced);
    assert_eq!(names.get(ino).unwrap().size(), 4, "the open inode stays on its version");
    assert_eq!(names.key(ino), None);
}

#[test]
fn our_own_upload_is_recognised_when_the_bucket_dates_it() {
    let mut names = namespace();
    let ino = absorb(&mut names, ROOT, "a", with_metadata(object("a", "1", 3, 1000), &[("mode", "33152")])).ino;
    let ours = Version { key: Key::from("a"), etag: ETag::new("2"), size: 9 };
    names.get_mut(ino).unwrap().set_version(ours, Modified::About(time(1000)));
    let listed = absorb(&mut names, ROOT, "a", object("a", "2", 9, 1001));
    assert!(!listed.changed);
    let inode = names.get(ino).unwrap();
    assert_eq!((inode.known, inode.modified()), (true, Some(Modified::At(time(1001)))));
}

/// An exchange whose end was heard of when nobody had asked for the file: its cached part still names the old key, where
/// something else is by now.
#[test]
fn the_same_bytes_under_another_key_are_read_from_there() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(directory.path(), "b").unwrap());
    let cache = Cache::open(directory.path(), journal, Limits { size_bytes: 1 << 20, free_floor_bytes: 0 }, true).unwrap();
    let mut names = namespace();
    let moved = |key: &str| Version { key: Key::from(key), etag: ETag::new("1"), size: 3 };
    let ino = absorb(&mut names, ROOT, "b", object("a", "1", 3, 5)).ino;
    let local = cache.of_version(&moved("a")).unwrap();
    if let Node::File(file) = &mut names.get_mut(ino).unwrap().node {
        file.local = Some(Arc::clone(&local));
    }
    assert!(!absorb(&mut names, ROOT, "b", object("b", "1", 3, 5)).replaced);
    let inode = names.get(ino).unwrap();
    assert_eq!((inode.held(), local.base()), (Some(moved("b")), Some(moved("b"))));
}

#[test]
fn kinds_that_differ_get_another_inode() {
    let mut names = namespace();
    let file = absorb(&mut names, ROOT, "a", object("a", "1", 3, 5)).ino;
    let directory = absorb(&mut names, ROOT, "a", Seen::Directory);
    assert!(directory.ino != file && directory.replaced);
    assert!(names.get(file).is_none(), "nobody used it");
    let link = with_metadata(object("a", "1", 3, 5), &[("mode", "41471")]);
    let link = absorb(&mut names, ROOT, "a", link).ino;
    assert!(matches!(names.get(link).unwrap().node, Node::Symlink(_)));
}

#[test]
fn a_listing_removes_what_it_lacks_but_not_what_changed_meanwhile() {
    let mut names = namespace();
    for name in ["gone", "stays", "wanted", "new"] {
        absorb(&mut names, ROOT, name, object(name, "1", 1, 1));
    }
    let wanted = names.child(ROOT, "wanted").unwrap();
    let watch = names.watch(ROOT);
    names.touch(ROOT, &Arc::from("new"));
    let listed: HashSet<Arc<str>> = [Arc::from("stays")].into();
    let vanished = names.absorb_listing(ROOT, &listed, watch, Instant::now(), |inode| inode.ino == wanted);
    assert_eq!(vanished.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["gone"]);
    let left: Vec<&str> = names.directory(ROOT).unwrap().children.keys().map(|name| &**name).collect();
    assert_eq!(left, ["new", "stays", "wanted"]);
    assert!(names.directory(ROOT).unwrap().listed.is_some());
}

#[test]
fn an_inode_lives_as_long_as_anybody_uses_it() {
    let mut names = namespace();
    let ino = absorb(&mut names, ROOT, "a", object("a", "1", 3, 5)).ino;
    let inode = names.get_mut(ino).unwrap();
    (inode.lookups, inode.opens) = (2, 1);
    names.unlink(ROOT, &Arc::from("a"));
    names.forget(ino, 2);
    assert_eq!(names.links(ino), 0);
    names.get_mut(ino).unwrap().opens = 0;
    assert!(names.remove_if_unused(ino));
    assert!(names.get(ino).is_none());
}

/// In stretches of seven names.
fn thin_out(names: &mut Namespace, directory: Ino, excess: usize, needed: Option<Ino>) -> Vec<Ino> {
    let (mut known_to_kernel, mut after, mut done) = (Vec::new(), None, 0);
    loop {
        let thinned = names.thin_out(
            directory,
            after.as_ref(),
            (7, excess - done),
            |known| matches!(known, Known::Inode(inode, _) if Some(inode.ino) == needed),
        );
        done += thinned.done;
        known_to_kernel.extend(thinned.known_to_kernel.iter().map(|(_, ino)| *ino));
        after = thinned.next;
        if after.is_none() || done == excess {
            return known_to_kernel;
        }
    }
}

#[test]
fn what_nobody_needs_leaves_memory() {
    let mut names = namespace();
    let now = Instant::now();
    for at in 0..50 {
        let name = format!("{at:02}");
        absorb(&mut names, ROOT, &name, object(&name, "1", 1, 1));
        names.set_missing(ROOT, &Arc::from(format!("{at:02} missing")), now);
    }
    assert_eq!(names.len(), 101);
    let [known, needed, open, elsewhere] = ["07", "08", "09", "10"].map(|name| names.child(ROOT, name).unwrap());
    names.get_mut(known).unwrap().lookups = 1;
    names.get_mut(open).unwrap().opens = 1;
    names
        .get_mut(elsewhere)
        .unwrap()
        .put_version(Version { key: Key::from("other"), etag: ETag::new("1"), size: 1 }, Modified::At(time(1)));
    names.directory_mut(ROOT).unwrap().made = Some(now);
    names.directory_mut(ROOT).unwrap().listed = Some(now);
    assert!(thin_out(&mut names, ROOT, 2, None).is_empty());
    assert_eq!((names.len(), names.child(ROOT, "00"), names.child(ROOT, "01").is_some()), (99, None, true), "no more than that");
    assert_eq!(names.directory(ROOT).unwrap().complete_at(), None, "what isn't there need not be missing");
    assert_eq!(thin_out(&mut names, ROOT, 1_000, Some(needed)), [known]);
    assert_eq!(names.len(), 5, "the root and four");
    // The kernel's word comes, and something else had it looked up meanwhile.
    names.get_mut(known).unwrap().lookups = 2;
    names.forget(known, 1);
    assert!(!names.may_leave(known));
    names.forget(known, 1);
    assert!(names.may_leave(known));
    names.leave(known, |_, _| true);
    assert!(names.get(known).is_some() && !names.may_leave(known), "needed by now");
    assert!(thin_out(&mut names, ROOT, 1_000, Some(needed)).is_empty());
    assert!(names.get(known).is_none());
}

#[test]
fn directories_leave_when_they_are_empty_and_those_unused_for_longest_come_first() {
    let mut names = namespace();
    let directories: Vec<Ino> = ["a", "b", "c"].iter().map(|name| absorb(&mut names, ROOT, name, Seen::Directory).ino).collect();
    absorb(&mut names, directories[1], "x", object("b/x", "1", 1, 1));
    names.set_missing(directories[2], &Arc::from("y"), Instant::now());
    names.use_directory(ROOT);
    names.use_directory(directories[0]);
    assert_eq!(names.directories_by_use(), [directories[1], directories[2], ROOT, directories[0]]);
    thin_out(&mut names, ROOT, 1_000, None);
    assert_eq!(names.directories_by_use(), [directories[1], ROOT]);
    assert_eq!(names.len(), 3);
    thin_out(&mut names, directories[1], 1_000, None);
    thin_out(&mut names, ROOT, 1_000, None);
    assert_eq!((names.len(), names.directory(ROOT).unwrap().subdirectories), (1, 0));
}

#[test]
fn a_forgotten_inode_comes_back_under_its_number_unless_its_name_was_free_meanwhile() {
    let mut names = namespace();
    let put = |names: &mut Namespace, name: &str| absorb(names, ROOT, name, object(name, "1", 1, 1)).ino;
    let before: Vec<Ino> = (0..4).map(|at| put(&mut names, &at.to_string())).collect();
    thin_out(&mut names, ROOT, 1_000, None);
    assert_eq!(names.len(), 1, "all but the root");
    assert_eq!(put(&mut names, "2"), before[2]);
    assert_eq!(put(&mut names, "2"), before[2]);
    names.set_missing(ROOT, &Arc::from("1"), Instant::now());
    assert!(put(&mut names, "1") > before[3], "another file has another number");
    let made = names.insert(Node::File(File::default()), time(0));
    names.link(ROOT, &Arc::from("3"), made);
    names.unlink(ROOT, &Arc::from("3"));
    assert!(put(&mut names, "3") > made);
    assert_eq!(put(&mut names, "0"), before[0]);
}

#[derive(Clone, Debug)]
enum Step {
    File(u8, u8),
    Directory(u8, u8),
    Unlink(u8, u8),
    Move(u8, u8, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let small = 0..4u8;
    prop_oneof![
        (small.clone(), small.clone()).prop_map(|(d, n)| Step::File(d, n)),
        (small.clone(), small.clone()).prop_map(|(d, n)| Step::Directory(d, n)),
        (small.clone(), small.clone()).prop_map(|(d, n)| Step::Unlink(d, n)),
        (small.clone(), small.clone(), small.clone(), small).prop_map(|(d, n, e, m)| Step::Move(d, n, e, m)),
    ]
}

proptest! {
    /// Whatever happens, each linked inode hangs under exactly the one name that it thinks it has.
    #[test]
    fn every_linked_inode_has_one_place(steps in proptest::collection::vec(step(), 1..60)) {
        let mut names = namespace();
        let mut directories = vec![ROOT];
        for step in steps {
            let pick = |at: u8| directories[at as usize % directories.len()];
            match step {
                Step::File(d, n) => {
                    let (directory, name) = (pick(d), n.to_string());
                    absorb(&mut names, directory, &name, object(&name, "1", 1, 1));
                }
                Step::Directory(d, n) => {
                    let ino = absorb(&mut names, pick(d), &n.to_string(), Seen::Directory).ino;
                    directories.push(ino);
                }
                Step::Unlink(d, n) => {
                    if let Some(ino) = names.unlink(pick(d), &Arc::from(n.to_string())) {
                        names.remove_if_unused(ino);
                    }
                }
                Step::Move(d, n, e, m) => {
                    let (from, to) = (pick(d), pick(e));
                    if let Some(ino) = names.child(from, &n.to_string()).filter(|ino| !names.is_within(to, *ino)) {
                        names.unlink(from, &Arc::from(n.to_string()));
                        if let Some(old) = names.link(to, &Arc::from(m.to_string()), ino) {
                            names.remove_if_unused(old);
                        }
                    }
                }
            }
            directories.retain(|ino| *ino == ROOT || names.key(*ino).is_some());
            for (key, ino) in names.below(ROOT) {
                prop_assert_eq!(names.key(ino), Some(key.clone()));
                prop_assert_eq!(names.find(&key), Some(ino));
            }
            prop_assert_eq!(names.below(ROOT).len() + 1, names.len(), "an inode nobody can reach is left over");
            for directory in &directories {
                let prefix = names.key(*directory).unwrap();
                let children = names.below(*directory).into_iter().filter(|(key, ino)| {
                    names.get(*ino).unwrap().is_directory() && !key.as_str()[prefix.as_str().len()..].trim_end_matches('/').contains('/')
                });
                prop_assert_eq!(names.directory(*directory).unwrap().subdirectories as usize, children.count());
            }
        }
    }
}

#[test]
fn a_name_takes_little_memory() {
    // Of 100,000 files in a directory most is this.
    let size = std::mem::size_of::<super::Inode>();
    assert!(size <= 260, "{size} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_tail_lacks_what_lies_between_its_ends_and_was_not_shown() {
    let tail = |last: Option<&str>| Tail {
        directory: "d/".into(),
        after: "m".into(),
        last: last.map(Key::from),
        unknown: [Arc::from("o")].into(),
        asked: Instant::now(),
    };
    for (last, directory, name, lacks) in [
        (None, "d/", "n", true),
        (None, "d/", "zz", true),
        (None, "d/", "m", false),
        (None, "d/", "a", false),
        (None, "d/", "o", false),
        (None, "e/", "n", false),
        (Some("d/p"), "d/", "n", true),
        (Some("d/p"), "d/", "q", false),
        // What lies below a directory `p` comes behind the key `d/p`, and before `d/p0`.
        (Some("d/p"), "d/", "p", false),
        (Some("d/p!"), "d/", "p", false),
        (Some("d/p/"), "d/", "p", true),
        (Some("d/p0"), "d/", "p", true),
    ] {
        assert_eq!(tail(last).lacks(&directory.into(), name), lacks, "{last:?} {directory} {name}");
    }
}
