//! The log and the state machine under openraft's own suite.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio_util::task::TaskTracker;

use crate::consensus::log_store::LogStore;
use crate::consensus::raft::TypeConfig;
use crate::consensus::state_machine::StateMachine;
use crate::storage::DataDir;

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, (DataDir, tempfile::TempDir)> for Stores {
    async fn build(&self) -> Result<((DataDir, tempfile::TempDir), LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path(), 1, None).unwrap();
        let tracker = TaskTracker::new();
        let log = LogStore::open(&data.log_dir(), 1024 * 1024, false, tracker.token()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let state_machine = StateMachine::open(data.snapshots().unwrap(), log.purged(), stop, tracker).unwrap();
        Ok(((data, dir), log, state_machine))
    }
}

#[tokio::test]
async fn the_suite_of_openraft_passes() {
    Suite::<TypeConfig, LogStore, StateMachine, Stores, _>::test_all(Stores).await.unwrap();
}
