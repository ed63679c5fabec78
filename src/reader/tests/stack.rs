//! The reader on the store's own layers, over a line that breaks all the time.

use super::*;
use crate::store::fault::{Fault, FaultStore, Faults, Rule, When};
use crate::store::memory::MemoryStore;
use crate::store::retry::{RetryPolicy, RetryStore};
use crate::store::{Body, Condition, ObjectStore, Operation};
use crate::types::{Key, ObjectHeaders};

#[tokio::test(start_paused = true)]
async fn a_bad_line_brings_the_right_bytes() {
    let world = World::new();
    let (memory, bytes) = (Arc::new(MemoryStore::new()), noise(20 * MIB));
    let key = Key::from("a");
    let receipt = memory.put(&key, Body::new(bytes.clone()), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
    let version = Version { key, etag: receipt.etag().clone(), size: receipt.size() };

    let faults = Faults::new(7);
    let rule = |fault, chance| Rule::on(Operation::GetObject).when(When::Probability(chance)).fault(fault);
    faults.add(rule(Fault::BodyCut(700_000), 0.3));
    faults.add(rule(Fault::BodyShort(50_000), 0.2));
    faults.add(rule(Fault::Error(ErrorKind::Unavailable), 0.2));
    faults.add(rule(Fault::Throttled(Duration::from_millis(300)), 0.1));
    faults.add(rule(Fault::Latency(Duration::from_millis(50)), 0.5));
    let store = RetryStore::new(Arc::new(FaultStore::new(memory, faults)), RetryPolicy::default());
    let reader = Reader::new(Arc::new(store), ReaderConfig { timeout: TIMEOUT, parallel: PARALLEL });

    let file = world.open(&version);
    let pattern = Mutex::default();
    for at in (0..40).map(|number| number * 17 % 40).chain(0..40) {
        let offset = at * 512 * KIB;
        let read = reader.read(&file, &pattern, offset as u64, 512 * KIB).await.unwrap();
        assert!(read == bytes[offset..offset + 512 * KIB], "at {offset}");
    }
    assert!(file.is_complete());
}
