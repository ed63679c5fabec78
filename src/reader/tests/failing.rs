use super::*;

fn is_cold(file: &LocalFile) -> bool {
    file.missing(0..file.size()).first() == Some(&(0..file.size()))
}

#[tokio::test]
async fn a_version_that_is_gone_is_stale_and_never_mixed() {
    let world = World::new();
    let (file, bytes) = world.file(8 * MIB);
    world.read(&file, 0, 4 * KIB).await.unwrap();
    world.settle().await;
    world.bucket.put("a", "v2", noise(8 * MIB));
    assert!(matches!(world.read(&file, 5 * MIB, 10).await, Err(Error::Stale)));
    world.bucket.remove("a");
    assert!(matches!(world.read(&file, 5 * MIB, 10).await, Err(Error::Stale)));
    assert_eq!(world.read(&file, 4 * KIB, 4 * KIB).await.unwrap(), bytes[4 * KIB..8 * KIB], "what is cached stays readable");
}

#[tokio::test]
async fn a_store_without_conditions_on_get_is_noticed() {
    let world = World::new();
    let (file, _) = world.file(8 * MIB);
    world.bucket.put("a", "v2", noise(8 * MIB));
    world.bucket.behave(Behaviour::Unconditional);
    assert!(matches!(world.read(&file, 0, 10).await, Err(Error::Stale)));
    assert!(is_cold(&file));
}

#[tokio::test]
async fn a_rename_meanwhile_is_followed() {
    let world = World::new();
    let (file, bytes) = world.file(3 * MIB);
    world.bucket.behave(Behaviour::Hold);
    let read = world.read(&file, 0, 4 * KIB);
    let rename = async {
        world.bucket.asked.notified().await;
        let moved = world.bucket.put("b", "v1", bytes.clone());
        file.rebase(&moved).expect("the same bytes");
        world.bucket.remove("a");
        world.bucket.behave(Behaviour::Answer);
        world.bucket.release.notify_waiters();
    };
    assert_eq!(tokio::join!(read, rename).0.unwrap(), bytes[..4 * KIB]);
    assert_eq!(world.bucket.gets().len(), 2);
}

#[tokio::test]
async fn all_that_wait_get_the_error_and_the_next_read_tries_anew() {
    let world = World::new();
    let (file, bytes) = world.file(500 * KIB);
    world.bucket.behave(Behaviour::Fail(ErrorKind::Unavailable));
    let (a, b) = tokio::join!(world.read(&file, 0, 10), world.read(&file, 400 * KIB, 10));
    assert!(a.unwrap_err().is_store(ErrorKind::Unavailable) && b.unwrap_err().is_store(ErrorKind::Unavailable));
    assert_eq!(world.bucket.gets().len(), 1);
    world.bucket.behave(Behaviour::Answer);
    assert_eq!(world.read(&file, 0, 10).await.unwrap(), bytes[..10]);
    assert_eq!(world.bucket.gets().len(), 1);
}

#[tokio::test]
async fn a_failed_prefetch_fails_nobody() {
    let world = World::new();
    let (file, bytes) = world.file(8 * MIB);
    world.read(&file, 0, 512 * KIB).await.unwrap();
    world.settle().await;
    world.bucket.behave(Behaviour::Fail(ErrorKind::Denied));
    assert!(world.read(&file, 512 * KIB, 512 * KIB).await.unwrap() == bytes[512 * KIB..MIB]);
    world.settle().await;
    assert!(!world.bucket.gets().is_empty(), "it was tried");
    world.bucket.behave(Behaviour::Answer);
    assert!(world.read(&file, MIB, MIB).await.unwrap() == bytes[MIB..2 * MIB]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_corrupt_and_not_kept() {
    for behaviour in [Behaviour::OtherSize, Behaviour::BodyShort, Behaviour::BodyLong] {
        let world = World::new();
        let (file, bytes) = world.file(10 * KIB);
        world.bucket.behave(behaviour);
        let error = world.read(&file, 0, 10 * KIB).await.unwrap_err();
        assert!(error.is_store(ErrorKind::Corrupt), "{behaviour:?}: {error}");
        assert!(!file.is_complete(), "{behaviour:?}");
        world.bucket.behave(Behaviour::Answer);
        assert_eq!(world.read(&file, 0, 10 * KIB).await.unwrap(), bytes, "{behaviour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_hangs_is_a_timeout_and_is_tried_again() {
    for behaviour in [Behaviour::Hang, Behaviour::StallAfter(16 * KIB)] {
        let world = World::new();
        let (file, bytes) = world.file(500 * KIB);
        world.bucket.behave(behaviour);
        let start = Instant::now();
        assert!(matches!(world.read(&file, 100 * KIB, 10).await, Err(Error::Timeout)));
        assert!((TIMEOUT..TIMEOUT + Duration::from_secs(1)).contains(&start.elapsed()));
        world.bucket.behave(Behaviour::Answer);
        assert_eq!(world.read(&file, 100 * KIB, 10).await.unwrap(), bytes[100 * KIB..100 * KIB + 10]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_no_longer_than_its_own_deadline() {
    let world = World::new();
    let (file, _) = world.file(500 * KIB);
    world.bucket.behave(Behaviour::Hang);
    // Every place is taken by GETs that hang: the ninth reader's is queued, which its deadline has to cover.
    for number in 0..PARALLEL {
        let version = world.bucket.put(&format!("b{number}"), "v1", noise(MIB));
        let (reader, file) = (Arc::clone(&world.reader), world.open(&version));
        tokio::spawn(async move { reader.read(&file, &Mutex::default(), 0, 10).await });
    }
    let start = Instant::now();
    assert!(matches!(world.read(&file, 0, 10).await, Err(Error::Timeout)));
    assert!(start.elapsed() < TIMEOUT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_a_get_runs_out_of_time_asks_anew() {
    for behaviour in [Behaviour::FailAfter(TIMEOUT, ErrorKind::Timeout), Behaviour::Hang] {
        let world = World::new();
        let (file, bytes) = world.file(500 * KIB);
        world.bucket.behave(behaviour);
        let first = world.read(&file, 0, 10);
        let second = async {
            tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
            world.bucket.behave(Behaviour::Answer);
            world.read(&file, 0, 10).await
        };
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err(), "{behaviour:?}");
        assert_eq!(second.expect("the bucket answers again"), bytes[..10], "{behaviour:?}");
        assert_eq!(world.bucket.gets().len(), 2, "{behaviour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_whole_does_not_fail_with_an_older_get_either() {
    let world = World::new();
    let (file, bytes) = world.file(500 * KIB);
    world.bucket.behave(Behaviour::FailAfter(TIMEOUT, ErrorKind::Timeout));
    let first = world.read(&file, 0, 10);
    let second = async {
        tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
        world.bucket.behave(Behaviour::Answer);
        world.reader.fetch_all(&file).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err());
    second.expect("the bucket answers again");
    assert_eq!(world.read(&file, 0, 500 * KIB).await.unwrap(), bytes);
}
