//! How the bucket behaves: well, badly, or not at all.

use std::time::Duration;

use mediafs::store::ErrorKind;
use mediafs::store::fault::{Fault, Faults, Rule, When};
use rand::RngExt;
use rand::rngs::StdRng;

pub fn calm(faults: &Faults) -> &'static str {
    faults.clear();
    "calm"
}

pub fn change(faults: &Faults, random: &mut StdRng) -> &'static str {
    faults.clear();
    match random.random_range(0..4) {
        0 => {
            faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
            "outage"
        }
        1 => {
            let delay = Duration::from_millis(random.random_range(1..3000));
            faults.add(Rule::any().when(When::Probability(0.5)).fault(Fault::Latency(delay)));
            "slow"
        }
        _ => {
            let chance = random.random_range(0.02..0.25);
            for fault in [
                Fault::Error(ErrorKind::Unavailable),
                Fault::Throttled(Duration::from_millis(random.random_range(10..2000))),
                Fault::Error(ErrorKind::Unreachable),
                Fault::ReplyLost,
                Fault::RequestLost,
                Fault::BodyCut(random.random_range(0..6000)),
                Fault::BodyShort(random.random_range(0..6000)),
                Fault::Latency(Duration::from_millis(random.random_range(1..2000))),
            ] {
                faults.add(Rule::any().when(When::Probability(chance)).fault(fault));
            }
            "flaky"
        }
    }
}
