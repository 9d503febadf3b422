//! What became of the calls of a layer: the counters of those patterns whose core keeps none of its own.

use crate::striped::Striped;
use crate::sync::{Bug, bug};

/// Started and ended calls. Every started call ends exactly once, so `admitted = ok + failed + neutral + in flight`.
///
/// There is no counter of calls in flight, which would be a fifth word to keep in step: it is the difference. A reader
/// takes the ends first and the starts last. A call may end on another thread than it started on, and be counted there on
/// another stripe; but who sees the end sees all that happened before it, the start among that. So the difference is never
/// negative. A call that starts between the two readings counts as in flight, which it is.
#[derive(Debug, Default)]
pub struct Counts {
    counters: Striped<4>,
}

/// How a call ended: the counter of those that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Ended {
    /// It succeeded.
    Ok = OK,
    /// It failed.
    Failed = FAILED,
    /// It says nothing about the service: it was dropped, say.
    Neutral = NEUTRAL,
}

/// One consistent reading of [`Counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Calls that started.
    pub admitted: u64,
    /// Calls that succeeded.
    pub ok: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls that ended as neither.
    pub neutral: u64,
    /// Calls that have not ended.
    pub in_flight: u64,
}

const ADMITTED: usize = 0;
const OK: usize = 1;
const FAILED: usize = 2;
const NEUTRAL: usize = 3;

impl Counts {
    /// A call starts.
    #[inline]
    pub fn start(&self) {
        self.counters.add(ADMITTED);
    }

    /// A call that has started ends.
    #[inline]
    pub fn end(&self, ended: Ended) {
        self.counters.add(ended as usize);
    }

    /// What became of the calls so far.
    pub fn read(&self) -> Tally {
        let starts_first = bug(Bug::CountsStartsFirst).then(|| self.counters.sum(ADMITTED));
        let (ok, failed, neutral) = (self.counters.sum(OK), self.counters.sum(FAILED), self.counters.sum(NEUTRAL));
        let admitted = starts_first.unwrap_or_else(|| self.counters.sum(ADMITTED));
        Tally { admitted, ok, failed, neutral, in_flight: admitted - ok - failed - neutral }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_holds_at_every_reading() {
        let counts = Counts::default();
        std::thread::scope(|scope| {
            for ended in [Ended::Ok, Ended::Failed, Ended::Neutral] {
                let counts = &counts;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        counts.start();
                        counts.end(ended);
                    }
                });
            }
            for _ in 0..20_000 {
                // A subtraction below zero would panic in `read`. A reader may be off the processor between its loads, so
                // the calls in flight have no upper bound here.
                let tally = counts.read();
                assert_eq!(tally.admitted, tally.ok + tally.failed + tally.neutral + tally.in_flight);
            }
        });
        assert_eq!(
            counts.read(),
            Tally { admitted: 60_000, ok: 20_000, failed: 20_000, neutral: 20_000, in_flight: 0 }
        );
    }
}
