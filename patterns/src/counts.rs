//! What became of the calls of a layer: the counters of those patterns whose core keeps none of its own.

use crate::sync::{AtomicU64, Ordering};

/// Started and ended calls. Every started call ends exactly once, so `admitted = ok + failed + neutral + in flight`.
///
/// There is no counter of calls in flight, which would be a fifth word to keep in step: it is the difference. A reader
/// takes the ends first and the starts last. An end it sees has its start before it, so the difference is never negative;
/// a call that starts between the two reads counts as in flight, which it is.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    admitted: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    neutral: AtomicU64,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Ok,
    Failed,
    Neutral,
}

/// One consistent reading of [`Counts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) admitted: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) neutral: u64,
    pub(crate) in_flight: u64,
}

impl Counts {
    #[inline]
    pub(crate) fn start(&self) {
        // ORDERING: Relaxed, published by the Release of the same call's end.
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn end(&self, ended: Ended) {
        let counter = match ended {
            Ended::Ok => &self.ok,
            Ended::Failed => &self.failed,
            Ended::Neutral => &self.neutral,
        };
        // ORDERING: Release, pairs with the Acquire in `read`: who sees this end also sees the start before it.
        counter.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn read(&self) -> Tally {
        // ORDERING: Acquire, pairs with the Release in `end`; each keeps the load of `admitted` below it.
        let ok = self.ok.load(Ordering::Acquire);
        // ORDERING: as above.
        let failed = self.failed.load(Ordering::Acquire);
        // ORDERING: as above.
        let neutral = self.neutral.load(Ordering::Acquire);
        // ORDERING: Relaxed, the Acquires above have made the starts visible that belong to the ends they saw.
        let admitted = self.admitted.load(Ordering::Relaxed);
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
