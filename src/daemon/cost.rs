//! What requests cost, by the prices of the store. Pure.

use serde::{Deserialize, Serialize};

use crate::store::trace::RequestCounts;
use crate::store::{Bill, Operation};

/// Dollars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prices {
    /// A million of what changes or lists.
    pub write: f64,
    /// A million GETs and HEADs.
    pub read: f64,
    /// A GB (2³⁰ bytes, as stores count) that leaves the bucket.
    pub sent: f64,
}

/// What a store counts for its bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billed {
    pub writes: u64,
    pub reads: u64,
    /// Deletes and aborted uploads.
    pub free: u64,
    /// Bytes that left the bucket.
    pub sent_bytes: u64,
}

const MILLION: f64 = 1e6;
const GB: f64 = (1u64 << 30) as f64;

impl Billed {
    pub fn of(counts: &RequestCounts) -> Self {
        let mut billed = Self { sent_bytes: counts.bytes_down(), ..Self::default() };
        for operation in Operation::ALL {
            let class = match operation.bill() {
                Bill::Write => &mut billed.writes,
                Bill::Read => &mut billed.reads,
                Bill::Free => &mut billed.free,
            };
            *class += counts.of(operation);
        }
        billed
    }

    pub fn dollars(&self, prices: &Prices) -> f64 {
        let requests = self.writes as f64 * prices.write + self.reads as f64 * prices.read;
        requests / MILLION + self.sent_bytes as f64 / GB * prices.sent
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            writes: self.writes.saturating_sub(earlier.writes),
            reads: self.reads.saturating_sub(earlier.reads),
            free: self.free.saturating_sub(earlier.free),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
        }
    }
}

/// Storage isn't in it: nobody here knows how much the bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub prices: Prices,
    /// Since the mount began.
    pub dollars: f64,
    /// At the rate of the last hour; None in the first minute.
    pub dollars_a_month: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_writes_reads_and_traffic() {
        let counts = RequestCounts::new();
        for (operation, times) in
            [(Operation::PutObject, 3), (Operation::HeadObject, 5), (Operation::DeleteObjects, 7), (Operation::ListObjectsV2, 1)]
        {
            (0..times).for_each(|_| counts.count(operation));
        }
        let billed = Billed::of(&counts);
        assert_eq!((billed.writes, billed.reads, billed.free), (4, 5, 7));
        let billed = Billed { sent_bytes: 1 << 30, ..billed };
        let dollars = billed.dollars(&Prices { write: 5.0, read: 0.4, sent: 0.09 });
        assert!((dollars - 0.090_022).abs() < 1e-9, "{dollars}");
        assert_eq!(billed.since(&Billed { writes: 1, reads: 9, ..Billed::default() }).writes, 3);
    }
}
