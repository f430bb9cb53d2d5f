//! Schema changes: applied in order, each once, all of a start in one transaction.

use jiff::Timestamp;

use super::{Error, Transaction, execute, on, rows};

const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_first", include_str!("migrations/0001_first.sql")),
    ("0002_receipt_bytes", include_str!("migrations/0002_receipt_bytes.sql")),
    ("0003_roots", include_str!("migrations/0003_roots.sql")),
    ("0004_confirmed", include_str!("migrations/0004_confirmed.sql")),
    ("0005_leases", include_str!("migrations/0005_leases.sql")),
    ("0006_holds", include_str!("migrations/0006_holds.sql")),
    ("0007_undeletes", include_str!("migrations/0007_undeletes.sql")),
    ("0010_enrollment_approval", include_str!("migrations/0010_enrollment_approval.sql")),
    ("0011_authorities", include_str!("migrations/0011_authorities.sql")),
    ("0030_run_logs", include_str!("migrations/0030_run_logs.sql")),
    ("0031_events", include_str!("migrations/0031_events.sql")),
    ("0050_tree_secrets", include_str!("migrations/0050_tree_secrets.sql")),
    ("0051_mandates", include_str!("migrations/0051_mandates.sql")),
    ("0065_imported", include_str!("migrations/0065_imported.sql")),
    ("0066_begun", include_str!("migrations/0066_begun.sql")),
    ("0067_restored", include_str!("migrations/0067_restored.sql")),
];

/// Any number; it only has to be the same in every replica.
const LOCK: i64 = 0x6d69_7272_6f72;

pub(super) async fn run(tx: &mut Transaction) -> Result<(), Error> {
    if tx.is_postgres() {
        // Replicas that start together must not migrate together.
        execute!(tx, "SELECT pg_advisory_xact_lock($1)", LOCK)?;
    }
    let create = "CREATE TABLE IF NOT EXISTS migrations (
        name TEXT NOT NULL PRIMARY KEY, applied BIGINT NOT NULL)";
    execute!(tx, create)?;
    let applied = rows!(tx, (String,), "SELECT name FROM migrations ORDER BY name")?;
    let known = |name: &str| MIGRATIONS.iter().any(|(known, _)| *known == name);
    if let Some((found,)) = applied.iter().find(|(name,)| !known(name)) {
        return Err(Error::Newer { found: found.clone() });
    }
    for &(name, sql) in MIGRATIONS {
        if applied.iter().any(|(applied,)| applied == name) {
            continue;
        }
        on!(tx, connection => sqlx::raw_sql(sql).execute(connection).await.map(drop))?;
        let insert = "INSERT INTO migrations (name, applied) VALUES ($1, $2)";
        execute!(tx, insert, name, super::to_micros(Timestamp::now()))?;
    }
    Ok(())
}
