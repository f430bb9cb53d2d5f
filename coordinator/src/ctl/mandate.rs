//! `mandate`: signs assignments, for networks whose agents carry out nothing else.
//!
//! What is signed is worked out here, from the files alone: not from what the coordinator says that it
//! would make of them. `sign` needs no coordinator and no network, so that the key can be where
//! neither is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use certs::signing::{self, SigningKey};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use protocol::{
    name::NetworkName,
    spec::AssignmentName,
    statement::Claim as _,
    v1::{
        definitions::ApplyRequest,
        mandates::{Mandate, NewMandates},
    },
};

use super::{apply, error::Error, print::Print, session::Session};
use crate::app::{
    definition::{self, Context, Definitions},
    effective,
};

/// Longest file of mandates, in bytes.
const MAX_LEN: u64 = 64 << 20;

/// Sign assignments with a definitions key, for networks whose agents carry out nothing else.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl root key definitions.key                 # prints its public key\n  mirrorctl root draft --add-definition-key ed25519:NEW --out next.json\n  mirrorctl mandate sign -f network.toml --network NAME --key definitions.key --out mandates.json\n  mirrorctl apply -f network.toml\n  mirrorctl mandate publish mandates.json"
)]
pub(super) struct MandateVerbs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Sign every assignment of the files. Needs no coordinator.
    Sign(Sign),
    /// Hand signed mandates to the coordinator, which hands them to agents.
    #[command(after_help = "Example:\n  mirrorctl mandate publish mandates.json")]
    Publish {
        /// What `sign` wrote.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl mandate sign -f network.toml --network mirrors --key /media/safe/definitions.key --out mandates.json"
)]
struct Sign {
    /// Definition files, all of them: what they refer to has to be there; `-` is standard input.
    #[arg(short, long = "file", required = true, num_args = 1.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The network's name.
    #[arg(long)]
    network: NetworkName,
    /// The key that signs.
    #[arg(long)]
    key: PathBuf,
    /// The new file.
    #[arg(long)]
    out: PathBuf,
    /// Sign that this assignment of the files has ended; may be given several times.
    #[arg(long = "end", value_name = "TREE@SITE")]
    ends: Vec<AssignmentName>,
}

impl MandateVerbs {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        match self.verb {
            Verb::Sign(sign) => sign.run(print),
            Verb::Publish { file } => {
                let new = read(&file)?;
                session.api(print).await?.put_mandates(&new).await?;
                print.result(&new.mandates.len(), |count| format!("{count} mandates are kept"))
            }
        }
    }
}

impl Sign {
    fn run(self, print: &mut Print) -> Result<(), Error> {
        if self.out.symlink_metadata().is_ok() {
            let message = format!("{} is there already; name a new file", self.out.display());
            return Err(Error::Usage(message));
        }
        let key = SigningKey::load(&self.key).with_context(|| self.key.display().to_string())?;
        let (files, rule_files) = apply::read(&self.files)?;
        let request = ApplyRequest {
            files,
            rule_files,
            dry_run: true,
            prune: true,
            if_revision: None,
            imported: None,
        };
        let now = Timestamp::now();
        let context = Context { agents: Vec::new(), now };
        let planned = definition::plan_apply(&Definitions::default(), &request, &context);
        let definitions = planned.map_err(|findings| {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Error::Other(anyhow::anyhow!("nothing was signed:\n{}", lines.join("\n")))
        })?;
        let definitions = definitions.next;
        let mut mandates = Vec::new();
        let mut names: Vec<&AssignmentName> = definitions.assignments.keys().collect();
        names.sort();
        if let Some(end) = self.ends.iter().find(|end| !names.contains(end)) {
            let message = format!("--end {end}: the files have no such assignment");
            return Err(Error::Usage(message));
        }
        for name in &names {
            let merged = effective::assignment(&definitions, name, &[], now)
                .with_context(|| format!("{name} does not hold together"))?;
            let mandate = Mandate {
                network: self.network.clone(),
                number: u64::try_from(now.as_microsecond()).unwrap_or(0),
                agent: definitions.assignments.get(*name).and_then(|spec| spec.agent.clone()),
                ended: self.ends.contains(name),
                order: merged.order,
            };
            let signed = signing::sign_json(&key, Mandate::PAYLOAD_TYPE, &mandate);
            mandates.push(signed.with_context(|| format!("{name} is not signed"))?);
        }
        let text = serde_json::to_vec(&NewMandates { mandates }).context("no JSON")?;
        fs::write(&self.out, text)
            .with_context(|| format!("cannot write {}", self.out.display()))?;
        print.result(&names, |names| {
            let key = key.verifying_key();
            format!("{} assignments are signed with {key}", names.len())
        })
    }
}

fn read(file: &Path) -> Result<NewMandates, Error> {
    let shown = file.display();
    let length = fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
    if length > MAX_LEN {
        return Err(Error::Usage(format!("{shown} is too long to be mandates")));
    }
    let text = fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let new =
        serde_json::from_slice(&text).with_context(|| format!("{shown} holds no mandates"))?;
    Ok(new)
}
