use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

fn object(key: &str, seconds: u64) -> ListedObject {
    ListedObject {
        storage_class: None,
        key: Key::from(key),
        size: seconds,
        etag: ETag::new(&format!("e{seconds}")),
        last_modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
    }
}

fn page(objects: &[&str], prefixes: &[&str]) -> ListPage {
    ListPage {
        objects: objects.iter().map(|key| object(key, 1)).collect(),
        prefixes: prefixes.iter().map(|key| Key::from(*key)).collect(),
        next: None,
    }
}

fn names(listing: &Listing) -> Vec<(&str, bool)> {
    listing.entries.iter().map(|(name, kind)| (name.as_str(), *kind == ListedKind::Directory)).collect()
}

#[test]
fn a_kernel_name_is_checked() {
    for good in ["a", "a b", "...", ".a", "ä", "a+b%2F", "x\u{202e}y", &"n".repeat(255)] {
        assert_eq!(component(OsStr::new(good)).ok(), Some(good));
    }
    for bad in ["", ".", "..", "a/b", "a\0b"] {
        assert!(matches!(component(OsStr::new(bad)), Err(Error::Invalid)), "{bad:?}");
    }
    assert!(matches!(component(OsStr::new(&"n".repeat(256))), Err(Error::NameTooLong)));
    assert!(matches!(component(OsStr::new(&"ä".repeat(128))), Err(Error::NameTooLong)));
    assert!(matches!(component(OsStr::from_bytes(b"\xff")), Err(Error::NotUtf8)));
}

#[test]
fn a_key_is_limited_with_its_prefix() {
    let key = Key::new("k".repeat(1000));
    assert!(check_key(&key, 24).is_ok());
    assert!(matches!(check_key(&key, 25), Err(Error::NameTooLong)));
}

#[test]
fn white_space_alone_is_no_key() {
    for (text, blank) in
        [(" ", true), ("\n", true), (" /", true), ("\u{3000}", true), ("", false), (" a", false), ("d/ ", false), (" /a", false)]
    {
        let key = Key::from(text);
        assert_eq!(is_blank(&key), blank, "{text:?}");
        assert_eq!(matches!(check_key(&key, 0), Err(Error::Invalid)), blank, "{text:?}");
        assert_eq!(shown_key(&key) == Err(Reason::Blank), blank, "{text:?}");
    }
}

#[test]
fn a_whole_key_is_shown_only_by_shown_components() {
    for good in ["", "a", "a/", "a/b.jpg", "a/.b/"] {
        assert_eq!(shown_key(&Key::from(good)), Ok(()), "{good}");
    }
    let cases = [("/a", Reason::Empty), ("a//b", Reason::Empty), ("a//", Reason::Empty), ("../x", Reason::Dots), ("a/./b", Reason::Dots)];
    for (bad, reason) in cases {
        assert_eq!(shown_key(&Key::from(bad)), Err(reason), "{bad}");
    }
}

#[test]
fn r2_folds_the_spellings_of_one_name() {
    assert!(same_on_r2("caf\u{e9}", "cafe\u{301}"));
    assert!(same_on_r2("a", "a"));
    assert!(!same_on_r2("a", "A"));
    assert!(!same_on_r2("\u{fb01}", "fi"), "NFC, not NFKC");
    assert_eq!(r2_spelling("cafe\u{301}"), "caf\u{e9}");
}

#[test]
fn a_page_becomes_entries() {
    let mut listing = Listing::default();
    listing.add(&Key::from("d/"), &page(&["d/", "d/a.jpg", "d/b_$folder$"], &["d/sub/"]));
    assert_eq!(names(&listing), [("a.jpg", false), ("b", true), ("sub", true)]);
    assert_eq!(listing.marker, Some(object("d/", 1)));
    assert_eq!(listing.hadoop_markers.get("b"), Some(&Key::from("d/b_$folder$")));
    assert_eq!(hadoop_marker(&Key::from("d/b/")), Some(Key::from("d/b_$folder$")));
    assert_eq!(marked_by_hadoop(&Key::from("d/b_$folder$")), Some(Key::from("d/b/")));
    for other in ["_$folder$", "d/_$folder$", "d/b", "d/b_$folder$/", "d/.._$folder$", "d/../b_$folder$", "/b_$folder$", "a//b_$folder$"] {
        assert_eq!(marked_by_hadoop(&Key::from(other)), None, "{other}");
    }
    assert!(listing.hidden.is_empty());
}

#[test]
fn keys_without_a_path_are_hidden_with_their_reason() {
    let long = "n".repeat(256);
    let mut listing = Listing::default();
    let objects = ["/", "a\0b", "..", long.as_str(), "ok", "_$folder$"];
    listing.add(&Key::root(), &page(&objects, &["/", "./", "../", &format!("{long}/")]));
    assert_eq!(names(&listing), [("_$folder$", false), ("ok", false)]);
    let reason = |key: &str| listing.hidden.get(&Key::from(key)).copied();
    assert_eq!(reason("/"), Some(Reason::Empty));
    assert_eq!(reason("../"), Some(Reason::Dots));
    assert_eq!(reason("./"), Some(Reason::Dots));
    assert_eq!(reason(".."), Some(Reason::Dots));
    assert_eq!(reason("a\0b"), Some(Reason::Nul));
    assert_eq!(reason(&long), Some(Reason::TooLong));
    assert_eq!(reason(&format!("{long}/")), Some(Reason::TooLong));
    assert_eq!(listing.hidden.len(), 7);
}

#[test]
fn a_file_with_the_name_of_a_directory_is_in_its_shadow() {
    let keys: Vec<Key> = ["a", "a/b", "ab", "c", "c_$folder$", "d", "d-e/f", "g/", "g", "h/i", "h/i/"].map(Key::from).into();
    let found: Vec<Key> = shadowed(keys.iter()).into_iter().collect();
    assert_eq!(found, ["a", "c", "g", "h/i"].map(Key::from));
}

#[test]
fn an_answer_from_elsewhere_is_not_shown() {
    let mut listing = Listing::default();
    listing.add(&Key::from("d/"), &page(&["e/x", "dx"], &["e/"]));
    assert!(listing.entries.is_empty());
    assert!(listing.hidden.values().all(|reason| *reason == Reason::Foreign));
    assert_eq!(listing.hidden.len(), 3);
}

#[test]
fn the_directory_wins_over_the_file_across_pages() {
    let file = page(&["a"], &[]);
    let directory = page(&[], &["a/"]);
    for pages in [[&file, &directory], [&directory, &file]] {
        let mut listing = Listing::default();
        pages.iter().for_each(|page| listing.add(&Key::root(), page));
        assert_eq!(names(&listing), [("a", true)]);
        assert_eq!(listing.hidden.get(&Key::from("a")), Some(&Reason::Shadowed));
    }
}

#[test]
fn a_subdirectory_given_as_an_object_is_a_directory() {
    assert_eq!(
        fold_listing(&Key::from("d/"), &page(&["d/sub/", "d/deep/er"], &[])),
        ["deep", "sub"].map(|name| Listed { name: name.into(), kind: ListedKind::Directory })
    );
}

#[test]
fn of_two_states_of_a_file_the_newer_is_listed() {
    for order in [[1, 2], [2, 1]] {
        let mut listing = Listing::default();
        for seconds in order {
            listing.add(&Key::root(), &ListPage { objects: vec![object("a", seconds)], ..Default::default() });
        }
        let ListedKind::File { size, .. } = listing.entries["a"] else { panic!("a is a file") };
        assert_eq!(size, 2);
    }
}

proptest! {
    #[test]
    fn folding_does_not_depend_on_order(
        entries in prop::collection::vec(("d?/?[ab./]{0,4}(_\\$folder\\$)?", 0u64..3, any::<bool>()), 0..12),
        seed in any::<prop::sample::Index>(),
    ) {
        let directory = Key::from("d/");
        let fold = |entries: &[(String, u64, bool)]| {
            let mut listing = Listing::default();
            for (key, seconds, is_prefix) in entries {
                let mut page = ListPage::default();
                if *is_prefix { page.prefixes.push(Key::new(format!("{key}/"))) } else { page.objects.push(object(key, *seconds)) }
                listing.add(&directory, &page);
                listing.add(&directory, &page);
            }
            listing
        };
        let mut turned = entries.clone();
        if !turned.is_empty() {
            let at = seed.index(turned.len());
            turned.rotate_left(at);
            turned.reverse();
        }
        prop_assert_eq!(fold(&entries), fold(&turned));
    }

    #[test]
    fn whatever_is_listed_makes_a_valid_name_below_the_directory(keys in prop::collection::vec("d/\\PC{0,6}", 0..8)) {
        let page = ListPage { objects: keys.iter().map(|key| object(key, 1)).collect(), ..Default::default() };
        for entry in fold_listing(&Key::from("d/"), &page) {
            prop_assert!(component(OsStr::new(&entry.name)).is_ok());
        }
    }

    #[test]
    fn a_name_from_the_kernel_is_checked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(name) = component(OsStr::from_bytes(&bytes)) {
            prop_assert!(shown_component(name).is_ok() && !name.contains('/'));
        }
    }
}
