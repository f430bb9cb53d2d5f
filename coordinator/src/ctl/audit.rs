//! `audit`: who did what, and whether the log is whole.

use clap::Args;
use protocol::v1::audit::{AuditEntry, verify};

use super::{
    error::Error,
    print::{Print, table},
    session::Session,
    text,
};

/// Show who did what, after checking that no entry was changed or taken out.
///
/// Each entry holds the digest of the one before. Note the last digest somewhere else from time to
/// time: with --known, also a log that was written anew as a whole is found out.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl audit\n  mirrorctl audit --what revoke --last 10\n  mirrorctl audit --verify --known 1204=b3:5f1c…"
)]
pub(super) struct Audit {
    /// Only check the log, and print how many entries it has and the digest of the last.
    #[arg(long)]
    verify: bool,
    /// A number and a digest that were noted earlier and must be in the log.
    #[arg(long, value_name = "NUMBER=DIGEST", value_parser = parse_known)]
    known: Option<(u64, String)>,
    /// Only what this one did, for example admin/ann.
    #[arg(long)]
    who: Option<String>,
    /// Only this kind, for example revoke.
    #[arg(long)]
    what: Option<String>,
    /// How many of the latest entries.
    #[arg(long, default_value_t = 50, value_name = "N")]
    last: usize,
}

impl Audit {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        let entries = session.api(print).await?.audit().await?;
        check(&entries, self.known.as_ref())?;
        if self.verify {
            return print.result(&entries.last(), |last| match last {
                None => "The log is empty.".into(),
                Some(last) => {
                    format!(
                        "{} entries, none changed. The last one: {}={}",
                        last.number, last.number, last.digest
                    )
                }
            });
        }
        let wanted = |entry: &&AuditEntry| {
            self.who.as_ref().is_none_or(|who| entry.who == *who)
                && self.what.as_ref().is_none_or(|what| entry.what == *what)
        };
        let found: Vec<&AuditEntry> = entries.iter().filter(wanted).collect();
        let latest = &found[found.len().saturating_sub(self.last)..];
        print.result(&latest, |latest| shown(latest))
    }
}

fn check(entries: &[AuditEntry], known: Option<&(u64, String)>) -> Result<(), Error> {
    verify(entries).map_err(|broken| {
        Error::Other(anyhow::anyhow!(
            "the audit log is not whole: {broken}. Somebody has changed the coordinator's database; compare with a backup"
        ))
    })?;
    if let Some((number, digest)) = known {
        let found = entries.iter().find(|entry| entry.number == *number);
        if found.is_none_or(|entry| entry.digest != *digest) {
            return Err(Error::Other(anyhow::anyhow!(
                "entry {number} of the audit log is not the one that was noted: the log was written anew since, or restored from an older backup"
            )));
        }
    }
    Ok(())
}

fn shown(entries: &[&AuditEntry]) -> String {
    let row = |entry: &&AuditEntry| {
        [
            entry.number.to_string(),
            text::time(entry.at),
            entry.who.clone(),
            entry.what.clone(),
            entry.target.clone(),
            entry.detail.clone(),
        ]
    };
    table(["NUMBER", "AT", "WHO", "WHAT", "TARGET", "DETAIL"], entries.iter().map(row))
}

fn parse_known(text: &str) -> Result<(u64, String), String> {
    let (number, digest) = text.split_once('=').ok_or("write NUMBER=DIGEST")?;
    let number = number.parse().map_err(|_| "write NUMBER=DIGEST")?;
    Ok((number, digest.to_owned()))
}
