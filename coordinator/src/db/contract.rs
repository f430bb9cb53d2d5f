//! What every database has to do, run on each of them.
//!
//! A forgotten bind is NULL on SQLite and an error on PostgreSQL; a text compares with a number on
//! one and not on the other. So nothing is believed that did not run on both.

mod concurrency;
mod content;
mod events;
mod imported;
mod leases;
mod mandates;
mod people;
mod runs;
mod tree_secrets;
mod undeletes;

use super::testing::TestDatabase;

/// Makes tests of functions: on SQLite one for each, on PostgreSQL one for all, because starting a
/// cluster takes longer than all of them. Each function gets an empty database.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    super::$name(&super::TestDatabase::sqlite().await).await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn the_same_on_postgresql() {
            let Some(cluster) = crate::db::testing::Cluster::start() else { return };
            $(
                eprintln!("{}", stringify!($name));
                $name(&TestDatabase::postgres(&cluster, stringify!($name)).await).await;
            )*
        }
    };
}

use on_both;
