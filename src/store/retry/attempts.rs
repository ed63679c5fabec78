//! The attempts of one operation: counts failures, remembers doubt, sleeps in between.

use std::future::Future;

use tokio::time::{Instant, sleep};
use tracing::debug;

use super::RetryPolicy;
use crate::simulation;
use crate::store::{ErrorKind, Result, StoreError};

pub(super) struct Attempts {
    policy: RetryPolicy,
    begun: Instant,
    /// The kinds of the failures so far.
    failures: Vec<ErrorKind>,
    /// An attempt may have done the work although it failed.
    pub(super) outcome_unknown: bool,
}

impl Attempts {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self { policy, begun: Instant::now(), failures: Vec::new(), outcome_unknown: false }
    }

    /// After progress, the failures before it count no more.
    pub(super) fn progressed(&mut self) {
        self.begun = Instant::now();
        self.failures.clear();
    }

    /// Returns when the next attempt is due, or with the error (and the doubt so far) when there is to be none.
    pub(super) async fn failed(&mut self, mut error: StoreError) -> Result<()> {
        self.failures.push(error.kind);
        self.outcome_unknown |= error.outcome_unknown;
        let failures = self.failures.len() as u32;
        let alike = self.failures.iter().filter(|kind| **kind == error.kind).count() as u32;
        match self.policy.wait(&error, failures, alike, self.begun.elapsed(), simulation::chance()) {
            Some(wait) => {
                debug!(operation = error.operation, key = %error.key, failures, ?wait, kind = ?error.kind, "will try again");
                sleep(wait).await;
                Ok(())
            }
            None => {
                error.outcome_unknown = self.outcome_unknown;
                Err(error)
            }
        }
    }

    /// Repeats `attempt` until it succeeds or is given up.
    pub(super) async fn run<T, F: Future<Output = Result<T>>>(&mut self, mut attempt: impl FnMut() -> F) -> Result<T> {
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => self.failed(error).await?,
            }
        }
    }
}
