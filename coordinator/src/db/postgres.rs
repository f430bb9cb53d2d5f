//! PostgreSQL, for several replicas.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::Error;

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn connect(url: &str) -> Result<PgPool, Error> {
    let options = PgConnectOptions::from_str(url).map_err(Error::Url)?.options([
        // A replica whose machine hangs must not keep the writer's place for ever.
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "30s"),
    ]);
    PgPoolOptions::new()
        .max_connections(8)
        .acquire_timeout(PATIENCE)
        .connect_with(options)
        .await
        .map_err(Error::Connect)
}
