use super::*;

#[tokio::test]
async fn a_full_cache_is_read_past_in_long_gets() {
    let world = World::with_cache_of(256 * KIB);
    let (file, bytes) = world.file(16 * MIB);
    for offset in (0..16 * MIB).step_by(128 * KIB) {
        assert!(world.read(&file, offset, 128 * KIB).await.unwrap() == bytes[offset..offset + 128 * KIB], "at {offset}");
        assert!(world.cache.usage().bytes <= 256 * KIB as u64);
    }
    let gets = world.bucket.gets();
    assert!(gets.len() <= 16, "{gets:?}");
    assert!(gets.iter().all(|get| get.end - get.start <= 8 * MIB as u64));
}

#[tokio::test]
async fn reads_at_one_time_share_the_buffer() {
    let world = World::with_cache_of(64 * KIB);
    let (file, bytes) = world.file(16 * MIB);
    world.read(&file, 8 * MIB, 10).await.unwrap();
    world.bucket.gets();
    let reads = (0..32).map(|at| world.read(&file, 8 * MIB + at * 128 * KIB, 128 * KIB));
    let read: Vec<u8> = futures::future::join_all(reads).await.into_iter().flat_map(|part| part.unwrap()).collect();
    assert!(read == bytes[8 * MIB..12 * MIB]);
    let gets = world.bucket.gets();
    assert!(total(&gets) <= 9 * MIB as u64 && gets.len() <= 10, "{gets:?}");
}

#[tokio::test]
async fn local_changes_win_over_the_bucket_past_the_cache_too() {
    let world = World::with_cache_of(64 * KIB);
    let (file, bytes) = world.file(4 * MIB);
    file.mark_dirty();
    file.write_at(1000, &[7; 500]).expect("room for this much");
    for _ in 0..2 {
        let read = world.read(&file, 0, 256 * KIB).await.unwrap();
        assert!(read[..1000] == bytes[..1000] && read[1000..1500] == [7; 500] && read[1500..] == bytes[1500..256 * KIB]);
    }
}

#[tokio::test]
async fn errors_past_the_cache_are_exact() {
    let world = World::with_cache_of(64 * KIB);
    let (file, bytes) = world.file(16 * MIB);
    assert_eq!(world.read(&file, 0, 10).await.unwrap(), bytes[..10]);
    world.bucket.behave(Behaviour::BodyShort);
    assert!(world.read(&file, 9 * MIB, 10).await.unwrap_err().is_store(ErrorKind::Corrupt));
    world.bucket.behave(Behaviour::Answer);
    assert_eq!(world.read(&file, 9 * MIB, 10).await.unwrap(), bytes[9 * MIB..9 * MIB + 10]);
    world.bucket.put("a", "v2", noise(16 * MIB));
    assert!(matches!(world.read(&file, 12 * MIB, 10).await, Err(Error::Stale)));
}

#[tokio::test(start_paused = true)]
async fn the_cache_is_tried_again_after_a_pause() {
    let world = World::new();
    let (file, _) = world.file(4 * MIB);
    world.reader.shared.note_full();
    world.read(&file, 0, 10).await.unwrap();
    assert_eq!(file.missing(0..100), vec![0..100], "nothing was stored");
    tokio::time::advance(FULL_PAUSE).await;
    world.read(&file, 0, 10).await.unwrap();
    assert!(file.missing(0..100).is_empty());
}

#[tokio::test]
async fn fetch_all_says_that_it_does_not_fit() {
    let world = World::with_cache_of(MIB);
    let (file, _) = world.file(16 * MIB);
    assert!(matches!(world.reader.fetch_all(&file).await, Err(Error::NoSpace)));
}
