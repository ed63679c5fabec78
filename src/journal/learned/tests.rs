use super::*;

fn headers(kind: &str) -> ObjectHeaders {
    ObjectHeaders { content_type: Some(kind.into()), ..Default::default() }
}

fn at(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}

#[test]
fn headers_changed_within_a_second_under_one_etag_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (key, etag) = (Key::from("a"), ETag::new("e"));
    let learned = Learned::open(directory.path()).unwrap();
    learned.add_own_now(&key, &etag, at(5_100), &headers("image/png")).unwrap();
    learned.add_own_now(&key, &etag, at(5_900), &headers("image/gif")).unwrap();
    // Nothing is written by an orderly end.
    std::mem::forget(learned);
    let found = Learned::open(directory.path()).unwrap().find(&key, &etag, at(5_000)).unwrap();
    assert_eq!(found, Some(headers("image/gif")));
}

#[test]
fn of_headers_changed_within_a_second_a_power_cut_leaves_neither() {
    let directory = tempfile::tempdir().unwrap();
    let (key, etag, old) = (Key::from("a"), ETag::new("e"), Key::from("old"));
    let learned = Learned::open(directory.path()).unwrap();
    learned.add(&old, &etag, at(5_000), &headers("text/css")).unwrap();
    learned.add(&key, &etag, at(5_000_100), &headers("image/png")).unwrap();
    learned.flush().unwrap();
    learned.add_own_now(&key, &etag, at(5_000_900), &headers("image/gif")).unwrap();
    // What was not synced is lost.
    let after = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join(FILE), after.path().join(FILE)).unwrap();
    let learned = Learned::open(after.path()).unwrap();
    assert_eq!(learned.find(&key, &etag, at(5_000_000)).unwrap(), Some(headers("image/png")), "the older row is there");
    learned.doubt().unwrap();
    assert_eq!(learned.find(&key, &etag, at(5_000_000)).unwrap(), None);
    assert_eq!(learned.find(&old, &etag, at(5_000)).unwrap(), Some(headers("text/css")), "nothing speaks against this one");
}

#[test]
fn a_version_is_its_etag_and_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::open(directory.path()).unwrap();
    let (key, etag) = (Key::from("a"), ETag::new("e"));
    learned.add(&key, &etag, at(5_000), &headers("image/png")).unwrap();
    for written in [false, true] {
        if written {
            learned.flush().unwrap();
        }
        for (etag, time, known) in [("e", 5_000, true), ("e", 5_123, true), ("e", 6_000, false), ("e", 4_999, false), ("f", 5_000, false)] {
            let found = learned.find(&key, &ETag::new(etag), at(time)).unwrap();
            assert_eq!(found, known.then(|| headers("image/png")), "{etag} {time} {written}");
        }
    }
    learned.add(&key, &etag, at(7_100), &headers("image/gif")).unwrap();
    // Being asked to the second takes nothing from what is known.
    assert_eq!(learned.find(&key, &etag, at(7_000)).unwrap(), Some(headers("image/gif")));
    assert_eq!(learned.find(&key, &etag, at(7_200)).unwrap(), None, "both know milliseconds and differ");
    assert_eq!(learned.find(&key, &etag, at(7_100)).unwrap(), Some(headers("image/gif")));
}

#[test]
fn a_version_of_ours_is_known_by_about_its_time_until_the_store_tells_it() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::open(directory.path()).unwrap();
    let (key, etag) = (Key::from("a"), ETag::new("e"));
    for written in [false, true] {
        learned.add_own(&key, &etag, at(100_400), &headers("image/png")).unwrap();
        for (etag, time, known) in [
            ("e", 95_399, false),
            ("e", 102_401, false),
            ("f", 100_400, false),
            ("e", 95_400, true),
            // That is when it was stored, then.
            ("e", 100_400, false),
            ("e", 95_400, true),
        ] {
            if written {
                learned.flush().unwrap();
            }
            let found = learned.find(&key, &ETag::new(etag), at(time)).unwrap();
            assert_eq!(found, known.then(|| headers("image/png")), "{etag} {time} {written}");
        }
    }
}

#[test]
fn what_is_forgotten_is_known_neither_now_nor_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (key, etag) = (Key::from("a"), ETag::new("e"));
    let learned = Learned::open(directory.path()).unwrap();
    for written in [false, true] {
        learned.add(&key, &etag, at(0), &headers("t")).unwrap();
        if written {
            learned.flush().unwrap();
        }
        learned.forget(&key).unwrap();
        assert_eq!(learned.find_last(&key, &etag), None, "{written}");
    }
    std::mem::forget(learned);
    assert_eq!(Learned::open(directory.path()).unwrap().find_last(&key, &etag), None);
}

#[test]
fn the_oldest_go_beyond_the_limit_and_the_rest_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::open_with_limit(directory.path(), 10).unwrap();
    let key = |n: usize| Key::new(format!("k{n}"));
    for n in 0..30 {
        learned.add(&key(n), &ETag::new("e"), at(0), &headers("t")).unwrap();
        learned.flush().unwrap();
    }
    drop(learned);
    let learned = Learned::open_with_limit(directory.path(), 10).unwrap();
    for n in 0..30 {
        assert_eq!(learned.find(&key(n), &ETag::new("e"), at(0)).unwrap().is_some(), n >= 20, "{n}");
    }
}

#[test]
fn a_batch_is_written_without_being_asked() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::open(directory.path()).unwrap();
    for n in 0..BATCH {
        learned.add(&Key::new(format!("k{n}")), &ETag::new("e"), at(0), &headers("t")).unwrap();
    }
    assert!(learned.waiting.lock().is_empty());
    assert!(learned.find(&Key::from("k7"), &ETag::new("e"), at(0)).unwrap().is_some());
}

#[test]
fn a_damaged_file_is_thrown_away() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(FILE), vec![7; 8192]).unwrap();
    let learned = Learned::open(directory.path()).unwrap();
    learned.add(&Key::from("a"), &ETag::new("e"), at(0), &headers("t")).unwrap();
    learned.flush().unwrap();
}

#[test]
fn damage_under_an_open_file_costs_what_was_learned_and_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::open(directory.path()).unwrap();
    let (key, etag) = (Key::from("a"), ETag::new("e"));
    learned.database.lock().execute_batch("DROP TABLE learned").unwrap();
    for known in [false, true] {
        learned.add(&key, &etag, at(0), &headers("t")).unwrap();
        learned.flush().unwrap();
        assert_eq!(learned.find(&key, &etag, at(0)).unwrap().is_some(), known);
    }
}

#[test]
fn a_row_whose_bytes_changed_is_not_known() {
    let directory = tempfile::tempdir().unwrap();
    let learned = Learned::open(directory.path()).unwrap();
    let (key, etag) = (Key::from("a"), ETag::new("e"));
    learned.add(&key, &etag, at(0), &headers("image/png")).unwrap();
    learned.flush().unwrap();
    learned.database.lock().execute_batch("UPDATE learned SET headers = replace(headers, 'png', 'gif')").unwrap();
    assert_eq!(learned.find(&key, &etag, at(0)).unwrap(), None);
    assert_eq!(learned.find_last(&key, &etag), None);
}
