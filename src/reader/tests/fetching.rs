use futures::FutureExt;

use super::*;

#[tokio::test]
async fn a_small_object_is_one_get_and_then_none() {
    let world = World::new();
    let (file, bytes) = world.file(300 * KIB);
    assert_eq!(world.read(&file, 100, 50).await.unwrap(), bytes[100..150]);
    assert_eq!(world.read(&file, 0, MIB).await.unwrap(), bytes);
    assert_eq!(world.read(&file, 300 * KIB - 5, 50).await.unwrap(), bytes[300 * KIB - 5..]);
    assert!(world.read(&file, 300 * KIB, 50).await.unwrap().is_empty());
    assert!(world.read(&file, usize::MAX, 50).await.unwrap().is_empty());
    assert_eq!(world.bucket.gets(), vec![0..u64::MAX], "one GET, of the whole object");
    assert!(file.is_complete());
}

#[tokio::test]
async fn present_bytes_are_read_without_waiting() {
    let world = World::new();
    let (file, bytes) = world.file(MIB);
    world.read(&file, 0, 1).await.unwrap();
    world.settle().await;
    let read = world.read(&file, 5, 5).now_or_never().expect("no await");
    assert_eq!(read.unwrap(), bytes[5..10]);
    let mut buffer = [0; 4];
    assert!(matches!(world.reader.read_now(&file, &world.pattern, MIB as u64 - 2, &mut buffer), Some(Ok(2))));
    assert_eq!(buffer[..2], bytes[MIB - 2..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_of_a_cold_file_fetch_each_byte_once() {
    let world = Arc::new(World::new());
    let (file, bytes) = world.file(6 * MIB + 777);
    let readers = (0..64).map(|number| {
        let (world, file, bytes) = (Arc::clone(&world), Arc::clone(&file), bytes.clone());
        tokio::spawn(async move {
            let pattern = Mutex::default();
            for at in 0..7 {
                let offset = (at + number) % 7 * MIB;
                let read = world.reader.read(&file, &pattern, offset as u64, MIB).await.unwrap();
                assert_eq!(read, bytes[offset..bytes.len().min(offset + MIB)]);
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    let mut gets = world.bucket.gets();
    gets.sort_by_key(|get| get.start);
    assert_eq!(total(&gets), bytes.len() as u64);
    assert!(gets.windows(2).all(|two| two[0].end == two[1].start), "{gets:?}");
}

#[tokio::test]
async fn a_sequential_read_takes_few_gets_of_growing_length() {
    let world = World::new();
    let (file, bytes) = world.file(64 * MIB);
    for offset in (0..64 * MIB).step_by(128 * KIB) {
        assert!(world.read(&file, offset, 128 * KIB).await.unwrap() == bytes[offset..offset + 128 * KIB], "at {offset}");
    }
    world.settle().await;
    let gets = world.bucket.gets();
    assert_eq!(gets[0], 0..MIB as u64);
    assert!(gets.len() <= 20, "{gets:?}");
    assert_eq!(total(&gets), bytes.len() as u64);
    assert!(world.bucket.most_under_way() <= PARALLEL);
}

#[tokio::test]
async fn random_reads_fetch_little() {
    let world = World::new();
    let (file, bytes) = world.file(64 * MIB);
    for at in 1..60 {
        let offset = (at * 37 % 60) * MIB + 4321;
        assert_eq!(world.read(&file, offset, 4 * KIB).await.unwrap(), bytes[offset..offset + 4 * KIB]);
    }
    world.settle().await;
    let gets = world.bucket.gets();
    assert!(total(&gets) <= 59 * 128 * KIB as u64 + 4 * MIB as u64, "{}", total(&gets));
}

#[tokio::test]
async fn a_reader_wakes_when_its_bytes_are_in() {
    let world = World::new();
    let (file, bytes) = world.file(900 * KIB);
    world.bucket.behave(Behaviour::StallAfter(256 * KIB));
    assert_eq!(world.read(&file, 0, 128 * KIB).await.unwrap(), bytes[..128 * KIB]);
    assert_eq!(world.reader.shared.flights.count(), 1, "the GET is still under way");
}

#[tokio::test]
async fn a_fetch_outlives_its_reader() {
    let world = World::new();
    let (file, _) = world.file(500 * KIB);
    assert!(world.read(&file, 0, 10).now_or_never().is_none());
    world.settle().await;
    assert!(file.is_complete());
    assert_eq!(world.bucket.gets().len(), 1);
}

#[test]
fn a_read_may_be_polled_first_outside_the_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let world = Arc::new(runtime.block_on(async { World::new() }));
    let (file, bytes) = world.file(3 * MIB);
    let mut read = {
        let world = Arc::clone(&world);
        Box::pin(async move { world.read(&file, MIB, MIB).await })
    };
    world.bucket.behave(Behaviour::Hold);
    assert!(read.as_mut().now_or_never().is_none());
    // Kept for the GET, should it not have been asked yet.
    world.bucket.release.notify_one();
    assert_eq!(runtime.block_on(runtime.spawn(read)).unwrap().unwrap(), bytes[MIB..2 * MIB]);
}

#[tokio::test]
async fn fetch_all_completes_a_file_within_the_limit() {
    let world = World::new();
    let (file, bytes) = world.file(40 * MIB + 1);
    world.read(&file, 20 * MIB, 10).await.unwrap();
    world.reader.fetch_all(&file).await.unwrap();
    assert!(file.is_complete());
    let gets = world.bucket.gets();
    assert_eq!(total(&gets), bytes.len() as u64);
    assert!(gets.len() <= 9 && world.bucket.most_under_way() <= PARALLEL, "{gets:?}");
    assert!(world.read(&file, 0, 41 * MIB).await.unwrap() == bytes);
    world.reader.fetch_all(&file).await.unwrap();
    assert!(world.bucket.gets().is_empty());
}

#[tokio::test]
async fn locally_changed_bytes_are_neither_fetched_over_nor_fetched() {
    let world = World::new();
    let (file, bytes) = world.file(4 * MIB);
    file.mark_dirty();
    file.write_at(MIB as u64, &[7; 1000]).expect("dirty, and there is room");
    world.reader.fetch_all(&file).await.unwrap();
    let read = world.read(&file, 0, 4 * MIB).await.unwrap();
    assert!(read[..MIB] == bytes[..MIB] && read[MIB..MIB + 1000] == [7; 1000] && read[MIB + 1000..] == bytes[MIB + 1000..]);
}
