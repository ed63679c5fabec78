//! Whether the bucket answers, asked once before anything is built on it.

use std::time::Duration;

use super::{ErrorKind, ListRequest, Operation, Result, Store, StoreError};

/// A newcomer's mistake is told within five seconds, the rest of the program's start included.
const DEADLINE: Duration = Duration::from_millis(4500);

/// Lists one key: the smallest right that a mount needs, which also tokens for a single R2 bucket have. Give it the
/// store without retries around it, so that the first failure is the answer.
pub async fn check_bucket(store: &Store) -> Result<()> {
    let request = ListRequest { max_keys: Some(1), ..ListRequest::default() };
    let ask = async {
        match store.list(&request).await {
            // Now the store's time is known, and the next request is signed with it.
            Err(error) if error.is(ErrorKind::ClockSkew) => store.list(&request).await,
            answer => answer,
        }
    };
    match tokio::time::timeout(DEADLINE, ask).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Err(StoreError::new(ErrorKind::Timeout, Operation::ListObjectsV2.name(), "", "no answer within 4.5 seconds")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::fault::{Fault, FaultStore, Faults, Rule};
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn a_silent_store_is_not_waited_for() {
        let faults = Faults::new(1);
        let store: Store = Arc::new(FaultStore::new(Arc::new(MemoryStore::new()), faults.clone()));
        assert!(check_bucket(&store).await.is_ok());
        faults.add(Rule::any().fault(Fault::Hang));
        assert!(check_bucket(&store).await.unwrap_err().is(ErrorKind::Timeout));
    }
}
