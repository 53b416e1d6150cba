//! The suite every [`Store`] must pass, run on each implementation by [`contract_tests`].

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;

mod against_model;
mod leases;
mod transactions;
mod watches;

/// A store under test, with the clock its leases follow.
pub(super) struct Fixture {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<ManualClock>,
    /// Dropped after the store: a folder, a task.
    pub(super) _keep: Box<dyn Any>,
}

/// Waits for an answer that must come; ten seconds only end a test that would hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("an answer in time")
}

fn key(text: &str) -> Key {
    text.into()
}

/// A manual clock somewhere in time.
pub(super) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(jiff::Timestamp::UNIX_EPOCH))
}

/// Runs the whole suite on the stores that `$open` makes: `async fn() -> Fixture`.
macro_rules! contract_tests {
    ($open:path: $($room:ident: $($name:ident)*;)*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                $crate::store::contract::$room::$name($open().await).await;
            }
        )*)*
    };
    ($open:path) => {
        $crate::store::contract::contract_tests!($open:
            transactions:
                a_put_is_read_back_with_its_revisions
                versions_count_puts_since_creation
                all_writes_of_a_transaction_share_a_revision
                a_transaction_without_writes_leaves_the_revision
                the_else_branch_runs_when_a_compare_fails
                every_compare_holds_and_fails_as_named
                a_failed_compare_changes_nothing
                a_get_sees_the_operations_before_it
                delete_counts_what_it_deleted
                a_prefix_delete_spares_its_neighbours
                too_many_operations_are_refused
                the_largest_number_of_operations_is_accepted
                too_many_bytes_are_refused
                the_largest_value_is_accepted
                a_key_put_twice_is_refused
                a_key_put_and_deleted_is_refused
                an_empty_key_is_refused
                one_of_many_concurrent_swaps_wins
                concurrent_increments_are_never_lost
                pages_follow_the_key_order_without_gaps
                a_page_is_bounded_in_bytes
                a_prefix_of_highest_bytes_ends
                the_epoch_starts_at_one_and_only_grows;
            watches:
                a_watch_sees_later_changes_in_order
                a_watch_sees_only_its_prefix
                a_watch_from_the_past_replays_history
                a_watch_from_the_future_waits_for_its_revision
                reading_then_watching_misses_nothing
                a_compacted_revision_cannot_be_watched
                the_compaction_revision_itself_can_be_watched
                compacting_the_future_is_refused
                compacting_twice_does_nothing
                compaction_keeps_current_values
                a_slow_watcher_is_told_it_lagged
                a_slow_watcher_does_not_hold_up_writers;
            leases:
                a_key_goes_with_its_lapsed_lease
                a_key_without_lease_stays
                keeping_a_lease_alive_keeps_its_keys
                a_lapsed_lease_cannot_be_kept_alive
                revoking_deletes_the_keys_at_one_revision
                a_revoked_lease_is_gone
                a_put_with_a_dead_lease_changes_nothing
                a_put_without_the_lease_detaches_the_key
                lease_numbers_are_never_reused;
            against_model:
                any_history_means_the_same_as_in_the_model;
        );
    };
}
pub(super) use contract_tests;

mod memory {
    use super::*;

    async fn open() -> Fixture {
        let clock = clock();
        let store = Arc::new(crate::store::memory::Memory::new(clock.clone()));
        let expired = Arc::clone(&store);
        let expiry = tokio::spawn(async move { expired.expire_leases().await });
        Fixture { store, clock, _keep: Box::new(expiry) }
    }

    contract_tests!(open);
}

mod sqlite {
    use super::*;

    async fn open() -> Fixture {
        let clock = clock();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = crate::store::sqlite::Sqlite::open(&path, clock.clone()).unwrap();
        Fixture { store: Arc::new(store), clock, _keep: Box::new(folder) }
    }

    contract_tests!(open);
}
