//! `root`: who may sign what, and the keys that decide it.
//!
//! The key can be anywhere: `key`, `inspect` and `sign` need no coordinator and no network, so that
//! they can be run on a machine that has neither.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use certs::{root, signing, signing::SigningKey};
use clap::{Args, Subcommand};
use protocol::{
    dsse::Envelope, generation::RootNumber, key::VerifyingKey, name::TreeName, root::Root,
    statement::Claim as _,
};

use super::{error::Error, print::Print, session::Session};
use crate::app::roots::differences;

/// Longest file of a root, in bytes: the document, in base64, with its signatures.
const MAX_LEN: u64 = 256 << 10;

/// Show, sign and replace the root document: who may sign what.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl root key offline.key                     # on a machine without network; prints its public key\n  mirrorctl root draft --add-key ed25519:NEW --drop-key ed25519:OLD --out next.json\n  mirrorctl root sign next.json --key /var/lib/mirrornet/coordinator/root.key\n  mirrorctl root sign next.json --key offline.key    # on that machine\n  mirrorctl root publish next.json\n  shred -u /var/lib/mirrornet/coordinator/root.key   # and restart the coordinator"
)]
pub(super) struct RootVerbs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the current root document.
    #[command(after_help = "Example:\n  mirrorctl root show")]
    Show,
    /// Make a root key in a new file and print its public half. Needs no coordinator.
    #[command(after_help = "Example:\n  mirrorctl root key /media/safe/root.key")]
    Key {
        /// The new file, mode 0600.
        file: PathBuf,
    },
    /// Write what the next root should say, unsigned, to a new file.
    Draft(Draft),
    /// Print what a draft or a signed root says. Needs no coordinator.
    #[command(after_help = "Example:\n  mirrorctl root inspect next.json")]
    Inspect {
        /// The draft.
        file: PathBuf,
    },
    /// Add a signature to a draft. Needs no coordinator.
    #[command(after_help = "Example:\n  mirrorctl root sign next.json --key /media/safe/root.key")]
    Sign {
        /// The draft; it is replaced.
        file: PathBuf,
        /// The key that signs.
        #[arg(long)]
        key: PathBuf,
    },
    /// Make a signed root the current one.
    #[command(after_help = "Example:\n  mirrorctl root publish next.json")]
    Publish {
        /// The signed root.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  mirrorctl root draft --out next.json\n  mirrorctl root draft --epoch fedora --out next.json"
)]
struct Draft {
    /// The new file.
    #[arg(long)]
    out: PathBuf,
    /// Name another root key; may be given several times.
    #[arg(long = "add-key", value_name = "KEY")]
    add_keys: Vec<VerifyingKey>,
    /// Name a root key no longer; may be given several times.
    #[arg(long = "drop-key", value_name = "KEY")]
    drop_keys: Vec<VerifyingKey>,
    /// How many of the root keys have to sign.
    #[arg(long, value_name = "N")]
    threshold: Option<u32>,
    /// Name another key for heads, before the coordinator gets it; may be given several times.
    #[arg(long = "add-head-key", value_name = "KEY")]
    add_head_keys: Vec<VerifyingKey>,
    /// Name a key for heads no longer; may be given several times.
    #[arg(long = "drop-head-key", value_name = "KEY")]
    drop_head_keys: Vec<VerifyingKey>,
    /// Name a key for mandates: agents then carry out nothing that it has not signed; may be given
    /// several times.
    #[arg(long = "add-definition-key", value_name = "KEY")]
    add_definition_keys: Vec<VerifyingKey>,
    /// Name a key for mandates no longer; may be given several times.
    #[arg(long = "drop-definition-key", value_name = "KEY")]
    drop_definition_keys: Vec<VerifyingKey>,
    /// Let the generations of a tree start over; may be given several times.
    #[arg(long = "epoch", value_name = "TREE")]
    epochs: Vec<TreeName>,
}

impl RootVerbs {
    pub(super) async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        match self.verb {
            Verb::Show => {
                let draft = session.api(print).await?.root_draft().await?;
                let current = root::read_unverified(&draft.current).context("the current root")?;
                print.result(&current, describe)?;
                if !draft.changes.is_empty() && !print.is_json() {
                    print.note(&format!(
                        "It is behind: the next one {}.\nSign it with: mirrorctl root draft --out next.json",
                        draft.changes.join("; ")
                    ));
                }
                Ok(())
            }
            Verb::Key { file } => {
                let key = SigningKey::generate().context("no key")?;
                key.save(&file).with_context(|| format!("cannot write {}", file.display()))?;
                print.result(&key.verifying_key(), ToString::to_string)
            }
            Verb::Draft(draft) => draft.run(session, print).await,
            Verb::Inspect { file } => {
                let (_, root) = read(&file)?;
                print.result(&root, describe)
            }
            Verb::Sign { file, key } => sign(&file, &key, print),
            Verb::Publish { file } => {
                let (envelope, root) = read(&file)?;
                let roots = session.api(print).await?.publish_root(&envelope).await?;
                print.result(&roots, |_| format!("root {} is current", root.number))
            }
        }
    }
}

impl Draft {
    async fn run(self, session: &Session, print: &mut Print) -> Result<(), Error> {
        if self.out.symlink_metadata().is_ok() {
            let message = format!("{} is there already; name a new file", self.out.display());
            return Err(Error::Usage(message));
        }
        let draft = session.api(print).await?.root_draft().await?;
        let current = root::read_unverified(&draft.current).context("the current root")?;
        let mut next = draft.next;
        change(&mut next.keys, self.add_keys, &self.drop_keys);
        change(&mut next.head_keys, self.add_head_keys, &self.drop_head_keys);
        change(&mut next.definition_keys, self.add_definition_keys, &self.drop_definition_keys);
        next.threshold = self.threshold.unwrap_or(next.threshold);
        for tree in self.epochs {
            let epoch = current.epoch(&tree).next();
            next.epochs.insert(tree, epoch);
        }
        next.check().map_err(|error| Error::Usage(format!("the draft is no root: {error}")))?;
        let payload = serde_json::to_vec(&next).context("the draft cannot be written")?;
        write(&self.out, &signing::unsigned(Root::PAYLOAD_TYPE, payload))?;
        let changes = differences(&current, &next);
        print.result(&next, |_| match changes.is_empty() {
            true => "The draft says what the current root says.".into(),
            false => format!("Root {} {}.", next.number, changes.join(";\n  ")),
        })?;
        if !print.is_json() {
            print.note(&format!(
                "It needs {} of the signatures of the current root's keys, and {} of its own.",
                current.threshold, next.threshold
            ));
        }
        Ok(())
    }
}

fn change(keys: &mut Vec<VerifyingKey>, add: Vec<VerifyingKey>, drop: &[VerifyingKey]) {
    keys.retain(|key| !drop.contains(key));
    keys.extend(add);
    keys.sort_unstable();
    keys.dedup();
}

fn sign(file: &Path, key: &Path, print: &mut Print) -> Result<(), Error> {
    let (mut envelope, root) = read(file)?;
    let key = SigningKey::load(key).with_context(|| format!("{}", key.display()))?;
    let id = key.verifying_key().id();
    // Signing again with the same key changes nothing.
    envelope.signatures.retain(|signature| signature.keyid != id);
    signing::add_signature(&key, &mut envelope).context("not signed")?;
    write(file, &envelope)?;
    let signed = envelope.signatures.len();
    print.result(&root, |root| {
        format!("{}\nsigned with {}; {signed} signatures", describe(root), key.verifying_key())
    })
}

fn describe(root: &Root) -> String {
    let mut lines = vec![
        format!("root {} of network {}, made {}", root.number, root.network, root.created),
        format!("root keys ({} must sign):", root.threshold),
    ];
    lines.extend(root.keys.iter().map(|key| format!("  {key}")));
    lines.push("head keys:".into());
    lines.extend(root.head_keys.iter().map(|key| format!("  {key}")));
    if !root.definition_keys.is_empty() {
        lines.push("definitions keys (agents carry out only what they signed):".into());
        lines.extend(root.definition_keys.iter().map(|key| format!("  {key}")));
    }
    lines.push("publishers:".into());
    for entry in &root.publishers {
        let trees: Vec<String> = entry.trees.iter().map(ToString::to_string).collect();
        lines.push(format!("  {} for {} with {}", entry.publisher, trees.join(" "), entry.key));
    }
    if !root.epochs.is_empty() {
        lines.push("epochs:".into());
        lines.extend(root.epochs.iter().map(|(tree, epoch)| format!("  {tree} {epoch}")));
    }
    let authorities = root.authorities.matches("BEGIN CERTIFICATE").count();
    lines.push(format!("authorities: {authorities}"));
    lines.join("\n")
}

fn read(file: &Path) -> Result<(Envelope, Root), Error> {
    let shown = file.display();
    let length = fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
    if length > MAX_LEN {
        return Err(Error::Usage(format!("{shown} is too long to be a root document")));
    }
    let text = fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let envelope: Envelope =
        serde_json::from_slice(&text).with_context(|| format!("{shown} is no root document"))?;
    if envelope.payload_type != Root::PAYLOAD_TYPE {
        return Err(Error::Usage(format!("{shown} is no root document")));
    }
    let root =
        root::read_unverified(&envelope).with_context(|| format!("{shown} is no root document"))?;
    if root.number == RootNumber(0) {
        return Err(Error::Usage(format!("{shown} has no number")));
    }
    Ok((envelope, root))
}

fn write(file: &Path, envelope: &Envelope) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(envelope).context("the root cannot be written")?;
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}
